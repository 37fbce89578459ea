"""Rows are equal however they came: to the bit, with their idempotency keys, senders and entities."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal.domain.contract import ModelContract
from serving.protocols.mlflow_scoring import read_invocation
from serving.protocols.open_inference import read_inference
from serving.protocols.rows import Column, batch_body, of_rows, refused_rows, rows_of_columns, with_shared_fields
from serving.schemas.problems import ProblemError
from serving.schemas.requests import MAX_BATCH_ROWS
from serving.scoring.request_parser import RequestParser
from tests import toy_use_case
from tests.serving.protocols.encoding import INFER, WAYS, Encoded

contract, keyed = toy_use_case.contract, toy_use_case.keyed
parser = RequestParser(keyed, lambda: b"a secret of 32 bytes for a test.")
GOOD = {"temperature_c": 61.5, "load_ratio": 0.7, "restarts": 1}

full_rows = st.lists(
    st.fixed_dictionaries(
        {
            "temperature_c": st.none() | st.floats(-50.0, 300.0),
            "load_ratio": st.floats(0.0, 5.0),
            "restarts": st.integers(0, 1_000),
            "machine": st.text("abcABC-_", min_size=1, max_size=64),
            "prediction_id": st.uuids().map(str),
            "request_source": st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True),
        }
    ),
    min_size=1,
    max_size=5,
)


def instances_of(encoded: Encoded, contract: ModelContract = keyed) -> bytes:
    """The body of `/predict/batch` that a request becomes."""
    if encoded.path == INFER:
        return batch_body(read_inference(encoded.body, encoded.json_bytes, contract).rows)
    return batch_body(read_invocation(encoded.body, encoded.headers["content-type"], contract).rows)


@pytest.mark.parametrize("encode", WAYS.values(), ids=WAYS)
@settings(max_examples=15, deadline=None)
@given(rows=full_rows)
def test_equal_rows_are_the_same_rows_by_every_protocol(
    encode: Callable[[Sequence[Any]], Encoded], rows: list[dict[str, Any]]
) -> None:
    expected = [row for piece in parser.batch(json.dumps({"instances": rows}).encode()) for row in piece]
    found = [row for piece in parser.batch(instances_of(encode(rows))) for row in piece]
    assert found == expected
    signs = [math.copysign(1.0, value) for row in found for value in row.values if value is not None]  # -0.0 == 0.0
    assert signs == [math.copysign(1.0, value) for row in expected for value in row.values if value is not None]


def refusal(columns: dict[str, Any], n_rows: int = 2, contract: ModelContract = contract) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        rows_of_columns([Column(name, values, f"inputs.{name}") for name, values in columns.items()], n_rows, contract)
    return caught.value


def test_what_is_wrong_with_a_column_is_said_once_with_the_remedy() -> None:
    columns = {"load_ratoi": [1.0, 2.0], "temperature_c": [1.0], "Temp-C": [1.0, 2.0], "restarts": [1]}
    assert refusal(columns).extra["errors"] == [
        {
            "field": "inputs.load_ratoi",
            "message": "unknown input; the inputs are temperature_c, load_ratio, restarts",
        },
        {"field": "inputs.temperature_c", "message": "temperature_c is given more than once"},
        {"field": "inputs.Temp-C", "message": "temperature_c is given more than once"},
        {"field": "inputs.restarts", "message": "has 1 values, and the request has 2 rows"},
        {"field": "load_ratio", "message": "missing; send this input, which has no missing values"},
    ]


def test_of_far_too_many_columns_none_is_looked_at() -> None:
    problem = refusal({f"x{which}": [1.0] for which in range(100_000)}, 1)
    assert problem.detail == "body: has 100,000 columns; the inputs are temperature_c, load_ratio, restarts"


@pytest.mark.parametrize("n_rows", [0, MAX_BATCH_ROWS + 1])
def test_a_request_has_as_many_rows_as_a_batch_may_have(n_rows: int) -> None:
    columns = {"load_ratio": [1.0] * n_rows, "restarts": [1] * n_rows}
    assert f"has {n_rows:,} rows; a request has at least 1 and at most 10,000" in refusal(columns, n_rows).detail
    with pytest.raises(ProblemError, match="at most 10,000"):
        batch_body([GOOD] * n_rows)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_value_is_refused_and_not_taken_for_a_missing_one(value: float) -> None:
    with pytest.raises(ProblemError, match="row 1, temperature_c: Input should be a finite number") as caught:
        batch_body([GOOD, GOOD | {"temperature_c": value}])
    assert "(1 of 2 rows; none was scored)" in caught.value.detail


@pytest.mark.parametrize("value", [10**25, 10**400, [10**25], {"load_ratio": 10**400}], ids=str)
def test_a_whole_number_beyond_64_bits_is_judged_as_predict_judges_it(value: Any) -> None:
    rows = [GOOD | {"load_ratio": value, "temperature_c": math.nan}]
    found, expected = (
        [row for piece in parser.batch(body) for row in piece]
        for body in (batch_body(rows), json.dumps({"instances": rows}).replace("NaN", "null").encode())
    )
    assert found == expected
    assert refused_rows(found) is not None


def test_a_field_beside_the_rows_is_of_all_rows_or_a_list_with_one_for_each() -> None:
    rows = with_shared_fields([GOOD, GOOD], {"machine": ["a", "b"], "request_source": "desk"}, "parameters", keyed)
    assert rows == [GOOD | {"machine": machine, "request_source": "desk"} for machine in "ab"]


@pytest.mark.parametrize(
    ("rows", "shared", "message"),
    [
        ([GOOD], {"machien": "a"}, "unknown parameter; known are prediction_id, request_source, machine"),
        ([GOOD], {"load_ratio": 0.5}, "unknown parameter"),
        ([GOOD, GOOD], {"machine": ["a"]}, "has 1 values, and the request has 2 rows"),
        ([GOOD | {"machine": "a"}], {"machine": "b"}, "the rows have it too; send it once"),
        ([GOOD, GOOD], {"prediction_id": "x"}, "one id for 2 rows; send a list with an id for each row"),
    ],
)
def test_a_field_beside_the_rows_that_fits_no_row_is_refused(
    rows: list[Any], shared: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        with_shared_fields(rows, shared, "parameters", keyed)
    assert message in caught.value.detail
    assert caught.value.detail.startswith(f"parameters.{next(iter(shared))}: ")


def test_of_many_refused_rows_the_first_are_named_and_all_counted() -> None:
    problems = [{"row": row, "field": "restarts", "message": "Input should be smaller"} for row in range(900)]
    problem = of_rows(problems, 900, 1_000)
    assert problem.detail.count("restarts") == 5
    assert problem.detail.endswith("(900 of 1,000 rows; none was scored)")
    assert len(problem.extra["errors"]) == 50
