"""Open Inference Protocol v2: what a request may be, what is refused, and what a response has."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from serving.protocols.open_inference import (
    OUTPUTS,
    Inference,
    check_version,
    model_metadata,
    read_inference,
    write_inference,
)
from serving.schemas.problems import ProblemError
from tests import toy_use_case
from tests.serving.protocols.encoding import binary_tensors, with_parts

contract, keyed = toy_use_case.contract, toy_use_case.keyed


def tensor(name: str, data: Any, datatype: str = "FP64", shape: list[int] | None = None, **parameters: Any) -> Any:
    found = {"name": name, "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": data}
    return found | ({"parameters": parameters} if parameters else {})


ROWS = [tensor("load_ratio", [0.5, 0.7]), tensor("restarts", [1, 2], "INT64")]


def read(request: Any, **options: Any) -> Inference:
    return read_inference(json.dumps(request).encode(), None, options.get("contract", contract))


def refusal(request: Any) -> str:
    with pytest.raises(ProblemError) as caught:
        read(request)
    assert caught.value.status == 422
    return caught.value.detail


def test_columns_may_have_any_spelling_of_the_contract_and_a_second_dimension_of_one() -> None:
    request = {"inputs": [tensor("Temp-C", [[1.0], [None]], shape=[2, 1]), *ROWS]}
    assert read(request).rows == [
        {"temperature_c": 1.0, "load_ratio": 0.5, "restarts": 1},
        {"temperature_c": None, "load_ratio": 0.7, "restarts": 2},
    ]


def test_the_entitys_key_may_be_spelled_as_predict_accepts_it() -> None:
    of_two_words = replace(toy_use_case.contract, entity="machine_key")
    found = read({"inputs": [*ROWS, tensor("machine-key", ["A-1", "A-2"], "BYTES")]}, contract=of_two_words)
    assert [row["machine_key"] for row in found.rows] == ["A-1", "A-2"]


def test_a_matrix_without_names_has_all_inputs_in_their_order() -> None:
    request = {"inputs": [tensor("input-0", [[60.0, 0.5, 1], [61.0, 0.7, 2]], "FP32", [2, 3])]}
    assert [list(row.items()) for row in read(request).rows] == [
        [("temperature_c", 60.0), ("load_ratio", 0.5), ("restarts", 1)],
        [("temperature_c", 61.0), ("load_ratio", 0.7), ("restarts", 2)],
    ]


@pytest.mark.parametrize("columns", [["restarts", "load_ratio"], "restarts, load_ratio"])
def test_a_matrix_names_its_columns_in_a_parameter(columns: Any) -> None:
    (row,) = read({"inputs": [tensor("x", [[1, 0.5]], shape=[1, 2], columns=columns)]}).rows
    assert row == {"restarts": 1, "load_ratio": 0.5}


def test_an_id_is_echoed_and_is_no_idempotency_key() -> None:
    """KServe's client makes a new one for each try, others send `1` with every request."""
    inference = read({"id": "1", "inputs": ROWS})
    assert inference.id == "1"
    assert "prediction_id" not in inference.rows[0]


def test_hints_of_clients_change_nothing() -> None:
    parameters = {"priority": 1, "timeout": 5, "content_type": "pd", "headers": None, "binary_data_output": False}
    inputs = [ROWS[0] | {"parameters": {"content_type": "np", "headers": None}}, ROWS[1] | {"parameters": None}]
    kserve = {"id": None, "model_name": "another", "outputs": None}
    assert read({"inputs": inputs, "parameters": parameters, **kserve}) == read({"inputs": ROWS})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        ({"inputs": "x"}, "inputs: Input should be a valid list"),
        ({"input": ROWS}, "input: Extra inputs are not permitted"),
        ({"inputs": [ROWS[0] | {"shape": [-1]}]}, "inputs.0.shape.0: Input should be greater than or equal to 0"),
        ({"inputs": [ROWS[0] | {"shape": []}]}, "inputs.0.shape: List should have at least 1 item"),
        ({"inputs": [ROWS[0] | {"datatype": "BF16"}]}, "inputs.0.datatype: Input should be 'BOOL'"),
        ({"inputs": [ROWS[0] | {"shape": [3]}, ROWS[1]]}, "inputs.load_ratio: data has 2 elements, and the shape 3"),
        (
            {"inputs": [ROWS[0], tensor("restarts", [1], "INT64")]},
            "inputs.restarts: has 1 values, and the request has 2",
        ),
        ({"inputs": [ROWS[0] | {"shape": [1, 2]}]}, "inputs.load_ratio.shape: is [1, 2], and an input has one value"),
        (
            {"inputs": [ROWS[0], tensor("restarts", [1.5, 2], "INT64")]},
            "inputs.restarts: data has 1.5, which is no INT64",
        ),
        ({"inputs": [ROWS[0]]}, "restarts: missing; send this input"),
        ({"inputs": [*ROWS, ROWS[0]]}, "inputs.load_ratio: load_ratio is given more than once"),
        (
            {"inputs": [*ROWS, tensor("load", [1.0, 2.0])]},
            "inputs.load: is no input, and its shape is [2]; name an input, or send a matrix of shape [n, 3]; the inputs are",
        ),
        (
            {"inputs": [tensor("x", [1.0, 2.0], shape=[1, 2], columns=["load_ratio", "colour"])]},
            "inputs.x[1] (colour): unknown input",
        ),
        (
            {"inputs": [tensor("x", [1.0, 2.0], shape=[1, 2], columns=["load_ratio"])]},
            "inputs.x.columns: has 1 names, and the shape is [1, 2]",
        ),
        ({"inputs": [tensor("x", [1.0], columns=7)]}, "inputs.x.columns: Input should be a list of names"),
        ({"inputs": [tensor("x", [], shape=[1, 0])]}, "inputs.x.shape: is [1, 0]; a tensor has at least one column"),
        ({"inputs": [tensor("load_ratio", [])]}, "body: has 0 rows"),
        ({"inputs": [{"name": "load_ratio", "shape": [1], "datatype": "FP64"}]}, "inputs.load_ratio: has no values"),
        (
            {"inputs": [tensor("load_ratio", [1.0], shared_memory_region="r")]},
            "inputs.load_ratio.shared_memory_region: there is no shared memory with a client; send the values",
        ),
        ({"inputs": [tensor("load_ratio", [1.0], content_type="base64")]}, "'base64' is not read; send plain values"),
        ({"inputs": [tensor("load_ratio", [1.0], content_type={"a": 1})]}, "{'a': 1} is not read; send plain values"),
        ({"inputs": [tensor("load_ratio", [1.0], scale=2)]}, "inputs.load_ratio.scale: unknown parameter"),
        ({"parameters": {"predicton_id": "a"}}, "parameters.predicton_id: unknown parameter; known are prediction_id"),
        ({"parameters": {"sequence_id": 3}}, "parameters.sequence_id: rows do not depend on earlier ones"),
        ({"parameters": {"binary_data_output": 1}}, "parameters.binary_data_output: Input should be true or false"),
        ({"outputs": [{"name": "predict"}]}, "outputs.predict: there is no such output; there are probability, "),
        ({"outputs": [{"name": "prediction"}] * 2}, "outputs: an output is requested more than once"),
        (
            {"outputs": [{"name": "prediction", "parameters": {"classification": 2}}]},
            "outputs.prediction.classification: there are two classes; request the outputs probability and prediction",
        ),
        (
            {"outputs": [{"name": "prediction", "parameters": {"scale": 2}}]},
            "outputs.prediction.scale: unknown parameter",
        ),
    ],
)
def test_a_wrong_request_is_refused_naming_the_thing_and_the_remedy(change: dict[str, Any], message: str) -> None:
    assert message in refusal({"inputs": ROWS} | change)


@pytest.mark.parametrize(
    ("length", "cut", "message"),
    [
        (10**6, 0, "Inference-Header-Content-Length: is 1,000,000, and the body has "),
        (None, 1, "binary_data_size: ends 1 bytes behind the body"),
        (None, -1, "body: 1 bytes behind the JSON belong to no tensor"),
    ],
)
def test_binary_parts_fill_the_body_to_the_byte(length: int | None, cut: int, message: str) -> None:
    encoded = binary_tensors([{"load_ratio": 0.5, "restarts": 1}])
    body = encoded.body[:-cut] if cut > 0 else encoded.body + b"x" * -cut
    with pytest.raises(ProblemError) as caught:
        read_inference(body, length or encoded.json_bytes, contract)
    assert message in caught.value.detail


@pytest.mark.parametrize("size", [-1, "8", True])
def test_a_binary_size_is_a_number_of_bytes(size: Any) -> None:
    encoded = with_parts(
        {"inputs": [{"name": "load_ratio", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": size}}]}
    )
    with pytest.raises(ProblemError, match="binary_data_size: Input should be a number of bytes"):
        read_inference(encoded.body, encoded.json_bytes, contract)


ANSWERS = [
    {"prediction_id": f"id-{i}", "prediction": i, "probability": 0.25 + i / 2, "threshold": 0.5, "model_version": 7 + i}
    for i in range(2)
]


def test_a_response_has_every_output_with_a_value_for_each_row() -> None:
    body, length = write_inference(read({"inputs": ROWS, "id": "42"}), "machine_failure", 8, ANSWERS)
    assert length == len(body)
    response = json.loads(body)
    assert (response["model_name"], response["model_version"], response["id"]) == ("machine_failure", "8", "42")
    assert {one["name"]: (one["datatype"], one["shape"], one["data"]) for one in response["outputs"]} == {
        "probability": ("FP64", [2], [0.25, 0.75]),
        "prediction": ("INT64", [2], [0, 1]),
        "threshold": ("FP64", [2], [0.5, 0.5]),
        "prediction_id": ("BYTES", [2], ["id-0", "id-1"]),
        "model_version": ("INT64", [2], [7, 8]),
    }


def test_requested_outputs_come_alone_in_their_order_and_each_in_json_or_binary() -> None:
    outputs = [{"name": "prediction_id", "parameters": {"binary_data": False}}, {"name": "probability"}]
    inference = read({"inputs": ROWS, "outputs": outputs, "parameters": {"binary_data_output": True}})
    body, length = write_inference(inference, "machine_failure", 8, ANSWERS)
    first, second = json.loads(body[:length])["outputs"]
    assert (first["name"], first["data"]) == ("prediction_id", ["id-0", "id-1"])
    assert second["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(body[length:], "<f8").tolist() == [0.25, 0.75]


def test_an_explanation_is_computed_on_request_only_and_sent_as_json_text() -> None:
    assert not read({"inputs": ROWS}).is_explained
    inference = read({"inputs": ROWS, "outputs": [{"name": "explanation"}]})
    assert inference.is_explained
    answers = [
        ANSWERS[0] | {"explanation": {"log_odds": 1.0}, "explanation_unavailable": None},
        ANSWERS[1] | {"explanation": None, "explanation_unavailable": "not linear"},
    ]
    (output,) = json.loads(write_inference(inference, "machine_failure", 8, answers)[0])["outputs"]
    assert list(map(json.loads, output["data"])) == [{"log_odds": 1.0}, {"explanation_unavailable": "not linear"}]


def test_metadata_names_inputs_in_the_order_of_a_matrix_and_all_outputs() -> None:
    metadata = model_metadata(contract, 3)
    assert [(one.name, one.datatype, one.shape) for one in metadata.inputs] == [
        ("temperature_c", "FP64", [-1]),
        ("load_ratio", "FP64", [-1]),
        ("restarts", "INT64", [-1]),
    ]
    assert {one.name: one.datatype for one in metadata.outputs} == OUTPUTS
    assert metadata.versions == ["3"]


def test_an_answer_of_another_version_than_the_one_in_the_path_is_a_conflict() -> None:
    check_version(None, ANSWERS, "machine_failure")
    check_version("7", ANSWERS[:1], "machine_failure")
    with pytest.raises(ProblemError, match="prediction id-1 is of version 8, not of version 7; leave the version out"):
        check_version("7", ANSWERS, "machine_failure")
