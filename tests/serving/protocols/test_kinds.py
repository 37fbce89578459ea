"""Inputs that are no numbers, by every protocol: what a client can say of a bool and of a category, and how."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from serving.protocols.mlflow_scoring import CSV, JSON, read_invocation
from serving.protocols.open_inference import read_inference
from serving.protocols.rows import JsonRow, batch_body, refused_rows
from serving.scoring.request_parser import RequestParser
from tests.kinds_use_case import contract
from tests.serving.protocols.encoding import with_parts

parser = RequestParser(contract, lambda: b"a secret of 32 bytes for a test.")
NAMES = contract.input_names
ODD = '\u202e["x], ]\\ \U0001f600'
ROW = dict(zip(NAMES, (3, 54.9, True, None, "one year", ODD), strict=True))


def values_of(rows: list[JsonRow]) -> list[tuple[Any, ...]]:
    """The rows as they are scored."""
    read = [row for piece in parser.batch(batch_body(rows)) for row in piece]
    problem = refused_rows(read)
    if problem is not None:
        raise problem
    return [row.values for row in read]  # type: ignore[union-attr]


EXPECTED = values_of([ROW])


def tensor(name: str, datatype: str, *data: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": list(data)}


TEXTS = [tensor("plan", "BYTES", "one year"), tensor("region", "BYTES", ODD)]
NUMBERS = [tensor("tenure_months", "INT64", 3), tensor("monthly_charge", "FP64", 54.9)]


@pytest.mark.parametrize(
    "flags",
    [
        [tensor("is_paperless", "BOOL", True), tensor("has_partner", "BOOL", None)],
        [tensor("PaperlessBilling", "UINT8", 1)],
        [tensor("is_paperless", "FP32", 1.0), tensor("has_partner", "FP64", float("nan"))],
    ],
)
def test_a_flag_is_a_tensor_of_bool_or_of_ones_and_zeros(flags: list[Any]) -> None:
    request = {"inputs": [*TEXTS, *NUMBERS, *flags]}
    assert values_of(read_inference(json.dumps(request).encode(), None, contract).rows) == EXPECTED


def test_a_matrix_of_numbers_may_have_flags_as_ones_and_zeros() -> None:
    named = {"columns": ",".join(NAMES[:4]), "binary_data_size": 32}
    matrix = {"name": "x", "shape": [1, 4], "datatype": "FP64", "parameters": named}
    encoded = with_parts({"inputs": [*TEXTS, matrix]}, struct.pack("<4d", 3, 54.9, 1, float("nan")))
    assert values_of(read_inference(encoded.body, encoded.json_bytes, contract).rows) == EXPECTED


@pytest.mark.parametrize(
    "request_",
    [
        {"inputs": [[3, 54.9, 1, None, "one year", ODD]]},
        {"instances": {name: [value] for name, value in (ROW | {"is_paperless": 1.0}).items()}},
        {"dataframe_split": {"columns": list(NAMES), "data": [list(ROW.values())], "index": ["a"]}},
        {"dataframe_records": [ROW]},
    ],
    ids=lambda request: next(iter(request)),
)
def test_mlflows_forms_have_flags_and_texts_beside_numbers(request_: Any) -> None:
    assert values_of(read_invocation(json.dumps(request_).encode(), JSON, contract).rows) == EXPECTED


@pytest.mark.parametrize("flag", ["True", "true", "TRUE", "1", "1.0"])
def test_a_csv_file_has_flags_as_every_labelled_file_has_them(flag: str) -> None:
    quoted = ODD.replace('"', '""')
    file = f'{",".join(NAMES)}\n3,54.9,{flag},NA,one year,"{quoted}"\n'
    assert values_of(read_invocation(file.encode(), CSV, contract).rows) == EXPECTED


def test_a_word_for_missing_is_no_level_in_a_csv_file() -> None:
    file = f"{','.join(NAMES)}\n3,54.9,1,,one year,NA\n"
    assert values_of(read_invocation(file.encode(), CSV, contract).rows) == values_of([ROW | {"region": None}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_paperless": 2}, "is_paperless: Input should be true or false"),
        ({"is_paperless": "yes"}, "is_paperless: Input should be true or false"),
        ({"plan": 3}, "plan: Input should be a text"),
        ({"plan": None}, "plan: Input should be a text"),
        ({"region": "a\nb"}, "region: Input should be a text that is not blank and has no control characters"),
        ({"region": "\U0001f600" * 129}, "region: String should have at most 128 characters"),
        ({"tenure_months": True}, "tenure_months: Input should be a valid number"),
    ],
)
def test_what_is_of_no_kind_is_refused_with_the_remedy(change: JsonRow, message: str) -> None:
    row = ROW | change
    for request in ({"inputs": [list(row.values())]}, {"dataframe_records": [row]}):
        with pytest.raises(Exception, match=message):
            values_of(read_invocation(json.dumps(request).encode(), JSON, contract).rows)


def test_a_record_says_true_for_one_as_a_row_of_predict_does() -> None:
    with pytest.raises(Exception, match="is_paperless: Input should be true or false"):
        values_of(
            read_invocation(
                json.dumps({"dataframe_records": [ROW | {"is_paperless": 1}]}).encode(), JSON, contract
            ).rows
        )
