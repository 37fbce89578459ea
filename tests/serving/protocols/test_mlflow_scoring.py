"""MLflow's scoring protocol: the forms that its server takes, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from serving.protocols.mlflow_scoring import CSV, JSON, PARQUET, ScoringRequest, read_invocation
from serving.schemas.problems import ProblemError
from tests import toy_use_case

contract = toy_use_case.contract
ROW = {"temperature_c": 61.5, "load_ratio": 0.7, "restarts": 1}


def read(request: Any, content_type: str = JSON) -> ScoringRequest:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return read_invocation(body, content_type, contract)


def refusal(request: Any, content_type: str = JSON) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        read(request, content_type)
    return caught.value


@pytest.mark.parametrize(
    "request_",
    [
        {"dataframe_split": {"columns": list(ROW), "index": [0], "data": [list(ROW.values())]}},
        {"dataframe_split": {"data": [list(ROW.values())]}},
        {"dataframe_records": [ROW]},
        {"inputs": {name: [value] for name, value in ROW.items()}},
        {"inputs": {name: [[value]] for name, value in ROW.items()}},
        {"inputs": [list(ROW.values())]},
        {"inputs": [ROW]},
        {"instances": [ROW]},
        {"instances": [list(ROW.values())], "params": None},
    ],
    ids=json.dumps,
)
def test_each_form_of_mlflows_server_is_read(request_: Any) -> None:
    assert read(request_) == ScoringRequest([ROW])


def test_a_contract_with_one_input_takes_a_list_of_its_values() -> None:
    alone = replace(contract, inputs=contract.inputs[1:2], derived=(), derive=lambda _: {}, segments=())
    assert read_invocation(b'{"inputs": [0.5, 0.7]}', JSON, alone).rows == [{"load_ratio": 0.5}, {"load_ratio": 0.7}]


def test_a_csv_file_is_read_as_every_labelled_file_is() -> None:
    file = b"\xef\xbb\xbfTemp-C,load_ratio,restarts\r\n61.5,7e-1,1\r\nNA,0.7,1.0\r\n\r\n"
    assert [row["load_ratio"] for row in read(file, f"{CSV}; charset=UTF-8").rows] == [0.7, 0.7]


def test_params_are_of_all_rows_and_may_ask_for_explanations() -> None:
    request = read({"dataframe_records": [ROW, ROW], "params": {"request_source": "desk", "explain": True}})
    assert request == ScoringRequest([ROW | {"request_source": "desk"}] * 2, is_explained=True)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "body: Input should be an object with one of dataframe_split, dataframe_records, inputs, instances"),
        ({}, "body: has no field; send exactly one of"),
        ({"columns": [], "data": []}, "body: has columns, data; send exactly one of"),
        ({"inputs": [ROW], "instances": [ROW]}, "body: has inputs, instances; send exactly one of"),
        ({"inputs": [ROW], "parmas": {}}, "body: has inputs, parmas; send exactly one of"),
        ({"dataframe_split": {"columns": ["a"]}}, "dataframe_split.data: Field required"),
        ({"dataframe_split": []}, "dataframe_split: Input should be an object"),
        (
            {"dataframe_split": {"columns": list(ROW), "data": [[1.0, 2.0]]}},
            "dataframe_split: row 0 has 2 values, and there are 3 columns; send as many values as names",
        ),
        (
            {"inputs": [[1.0]]},
            "inputs: row 0 has 1 values, and there are 3 columns; name the columns, or send as many values as the model has "
            "inputs: temperature_c, load_ratio, restarts",
        ),
        (
            {"dataframe_split": {"columns": ["load_ratio"] * 2, "data": [[1.0, 2.0]]}},
            "load_ratio is given more than once",
        ),
        ({"dataframe_records": {}}, "dataframe_records: Input should be a list of objects, one for each row"),
        ({"dataframe_records": [[1]]}, "dataframe_records: Input should be a list of objects, one for each row"),
        ({"inputs": {"load_ratio": 0.5}}, "inputs.load_ratio: Input should be a list with a value for each row"),
        ({"inputs": {}}, "body: has 0 rows"),
        (
            {"inputs": [1.0, 2.0]},
            "inputs: Input should be columns by name, or a list of rows; a row is an object, or a list",
        ),
        ({"inputs": [[1.0], ROW]}, "inputs: Input should be columns by name, or a list of rows"),
        ({"inputs": "x"}, "inputs: Input should be columns by name, or a list of rows"),
        ({"inputs": [ROW], "params": []}, "params: Input should be an object"),
        ({"inputs": [ROW], "params": {"explain": 1}}, "params.explain: Input should be true or false"),
        ({"inputs": [ROW], "params": {"temperature": 1}}, "params.temperature: unknown parameter; known are"),
    ],
)
def test_a_wrong_request_is_refused_naming_the_thing_and_the_remedy(request_: Any, message: str) -> None:
    problem = refusal(request_)
    assert problem.status == 422
    assert message in problem.detail


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "has no rows; send a line with the columns' names, then a line for each row"),
        (b"load_ratio,restarts\n", "has no rows"),
        (b",load_ratio,restarts\n0,0.5,1\n", "the first column has no name; write the frame with to_csv(index=False)"),
        (b"load_ratio,restarts\n0.5\n", "row 0 has 1 values, and there are 2 columns"),
        (b'load_ratio,restarts\n0.5,"1"2\n', "Input should be CSV with commas"),
        (b"load_ratio\n\xff\n", "Input should be CSV in UTF-8"),
        (b"load_ratio\n" + b"1" * 10_001, "line 2 has a field of more than 10,000 characters"),
        (b"load_ratio;restarts\n0.5;1\n", "unknown input"),
    ],
)
def test_a_wrong_csv_file_is_refused(file: bytes, message: str) -> None:
    assert message in refusal(file, CSV).detail


def test_a_text_in_a_csv_file_is_left_to_the_contract() -> None:
    assert read(b"load_ratio,restarts\nmuch,1\n", CSV).rows == [{"load_ratio": "much", "restarts": 1.0}]


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        (PARQUET, "a Parquet file may unpack to any size; send the rows as application/json or text/csv"),
        ("", "Content-Type is ''; send the rows as application/json or text/csv"),
        ("text/plain", "Content-Type is 'text/plain'"),
        (
            "application/json; charset=latin-1",
            "Content-Type has 'charset=latin-1'; the only parameter is charset=utf-8",
        ),
        ("application/json; format=pandas-split", "Content-Type has 'format=pandas-split'"),
    ],
)
def test_another_content_type_is_refused_with_those_that_are_read(content_type: str, message: str) -> None:
    problem = refusal({"inputs": [ROW]}, content_type)
    assert problem.status == 415
    assert message in problem.detail


def test_a_content_type_names_its_charset_in_any_spelling() -> None:
    for content_type in ("application/json;charset=UTF-8", 'Application/JSON; charset="utf-8"'):
        assert read({"inputs": [ROW]}, content_type).rows == [ROW]
