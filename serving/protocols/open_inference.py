"""Open Inference Protocol v2: from a request's body to rows, and from answers to a response's body. Pure.

An input is a tensor of its name with a value for each row, or all inputs are the columns of one matrix. What `/predict`
takes beside the inputs (`prediction_id`, `request_source`, the entity's key) is a BYTES tensor of that name, or a request's
parameter. All tensors have the same number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from serving.protocols.json_body import read_json
from serving.protocols.rows import (
    Column,
    JsonRow,
    check_n_rows,
    columns_of_matrix,
    field_of,
    rows_of_columns,
    with_flags,
    with_shared_fields,
    wrong,
)
from serving.protocols.tensors import (
    DATATYPE_OF_KIND,
    TensorError,
    bytes_of_values,
    values_of_bytes,
    values_of_json,
)
from serving.schemas.open_inference import InferenceRequest, ModelMetadata, RequestTensor, TensorInfo
from serving.schemas.problems import ProblemError
from serving.schemas.reading import problem_of

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract

Answer = Mapping[str, Any]

PLATFORM = "selfheal_contract"
EXTENSIONS = ("binary_tensor_data",)
EXPLANATION = "explanation"

OUTPUTS = {
    "probability": "FP64",
    "prediction": "INT64",
    "threshold": "FP64",
    "prediction_id": "BYTES",
    "model_version": "INT64",
    EXPLANATION: "BYTES",
}
"""Datatype of each output; all have one value for each row. An explanation is JSON as text."""

HINTS = frozenset({"priority", "timeout", "content_type", "headers"})
"""Parameters that clients send of themselves and that change no answer here: accepted and ignored."""

DECODERS = frozenset({"np", "str", "pd"})
"""Values of MLServer's `content_type` that mean what is read here anyway."""


@dataclass(frozen=True, slots=True)
class Inference:
    """A request that has been read.

    Args:
        outputs: names of the outputs, in the order of the response.
        binary: names of those whose values go behind the JSON.
    """

    rows: list[JsonRow]
    id: str | None
    outputs: tuple[str, ...]
    binary: frozenset[str]

    @property
    def is_explained(self) -> bool:
        """Return whether explanations are requested."""
        return EXPLANATION in self.outputs


def read_inference(body: bytes, json_bytes: int | None, contract: ModelContract) -> Inference:
    """Return what a request's body asks for.

    Args:
        json_bytes: length of the JSON at the beginning (`Inference-Header-Content-Length`); None: all of the body.

    Raises:
        ProblemError: 413 or 422, naming each tensor, parameter or field that is wrong.
    """
    length = len(body) if json_bytes is None else json_bytes
    if length > len(body):
        message = f"is {length:,}, and the body has {len(body):,} bytes; send the length of the JSON"
        raise wrong("Inference-Header-Content-Length", message)
    try:
        request = InferenceRequest.model_validate(read_json(body[:length]))
    except ValidationError as error:
        raise problem_of(error) from None
    shared, is_binary = _split_parameters(request.parameters or {})
    rows = rows_of_columns(*_columns(request.inputs, memoryview(body)[length:], contract), contract)
    outputs, binary = _outputs(request, is_binary=is_binary)
    return Inference(with_shared_fields(rows, shared, "parameters", contract), request.id, outputs, binary)


def write_inference(inference: Inference, name: str, version: int, answers: Sequence[Answer]) -> tuple[bytes, int]:
    """Return the body of a response, and the length of its JSON at the beginning.

    Args:
        version: the one that scores now.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for output in inference.outputs:
        values = [_text(answer) if output == EXPLANATION else answer[output] for answer in answers]
        tensor: dict[str, Any] = {"name": output, "shape": [len(answers)], "datatype": OUTPUTS[output]}
        if output in inference.binary:
            parts.append(bytes_of_values(values, OUTPUTS[output]))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            tensor["data"] = values
        outputs.append(tensor)
    response = {"model_name": name, "model_version": str(version), "outputs": outputs}
    if inference.id is not None:
        response["id"] = inference.id
    head = orjson.dumps(response)
    return b"".join([head, *parts]), len(head)


def model_metadata(contract: ModelContract, version: int) -> ModelMetadata:
    """Return what the protocol says of a model: its inputs, outputs, and the version that scores."""
    return ModelMetadata(
        name=contract.name,
        versions=[str(version)],
        platform=PLATFORM,
        inputs=[_info(feature.name, DATATYPE_OF_KIND.get(feature.kind, "BYTES")) for feature in contract.inputs],
        outputs=[_info(name, datatype) for name, datatype in OUTPUTS.items()],
    )


def _info(name: str, datatype: Any) -> TensorInfo:
    return TensorInfo(name=name, datatype=datatype, shape=[-1])


def _text(answer: Answer) -> str:
    """Return the explanation of an answer as text, or why there is none."""
    found = answer[EXPLANATION]
    return orjson.dumps(found or {"explanation_unavailable": answer["explanation_unavailable"]}).decode()


# Tensors


def _columns(tensors: Sequence[RequestTensor], binary: memoryview, contract: ModelContract) -> tuple[list[Column], int]:
    """Return the columns of all tensors, and the number of rows: that of the first."""
    columns: list[Column] = []
    position = 0
    for tensor in tensors:
        n_bytes = _binary_size(tensor)
        end = position + (n_bytes or 0)
        if end > len(binary):
            raise wrong(_place(tensor, "binary_data_size"), f"ends {end - len(binary):,} bytes behind the body")
        columns += _columns_of(tensor, None if n_bytes is None else binary[position:end], contract)
        position = end
    if position != len(binary):
        remedy = "give each binary tensor its binary_data_size, and the length of the JSON in Inference-Header-Content-Length"
        raise wrong("body", f"{len(binary) - position:,} bytes behind the JSON belong to no tensor; {remedy}")
    return with_flags(columns, contract), tensors[0].shape[0]


def _columns_of(tensor: RequestTensor, binary: memoryview | None, contract: ModelContract) -> list[Column]:
    n_rows, n_columns, names = _layout(tensor, contract)
    check_n_rows(n_rows)
    if (tensor.data is None) == (binary is None):
        remedy = "send data, or binary_data_size and the bytes behind the JSON"
        raise wrong(_place(tensor), f"has {'no values' if binary is None else 'its values twice'}; {remedy}")
    n_elements = prod(tensor.shape)
    try:
        if binary is not None:
            values = values_of_bytes(binary, tensor.datatype, n_elements)
        else:
            values = values_of_json(tensor.data or (), tensor.datatype, n_elements)
    except TensorError as error:
        raise wrong(_place(tensor), str(error)) from None
    if names is None and n_columns == 1 and field_of(tensor.name, contract) is not None:
        return [Column(tensor.name, values, _place(tensor))]
    table = [values[start : start + n_columns] for start in range(0, n_elements, n_columns)]
    return columns_of_matrix(table, names, _place(tensor), contract)


def _layout(tensor: RequestTensor, contract: ModelContract) -> tuple[int, int, list[str] | None]:
    """Return the numbers of rows and columns of a tensor, and the names of its columns if it has some."""
    n_rows, n_columns = tensor.shape[0], tensor.shape[1] if len(tensor.shape) == 2 else 1
    is_field = field_of(tensor.name, contract) is not None
    names = _names((tensor.parameters or {}).get("columns"), tensor)
    if n_columns == 0:
        raise wrong(_place(tensor, "shape"), f"is {tensor.shape}; a tensor has at least one column")
    if names is None and n_columns > 1 and is_field:
        message = f"is {tensor.shape}, and an input has one value for each row: send [{n_rows}]"
        raise wrong(_place(tensor, "shape"), message)
    if names is None and not is_field and n_columns != len(contract.inputs):
        known = f"the inputs are {', '.join(contract.input_names)}"
        remedy = f"name an input, or send a matrix of shape [n, {len(contract.inputs)}]"
        raise wrong(_place(tensor), f"is no input, and its shape is {tensor.shape}; {remedy}; {known}")
    if names is not None and n_columns != len(names):
        raise wrong(_place(tensor, "columns"), f"has {len(names)} names, and the shape is {tensor.shape}")
    return n_rows, n_columns, names


def _names(columns: Any, tensor: RequestTensor) -> list[str] | None:
    if columns is None:
        return None
    names = columns.split(",") if isinstance(columns, str) else columns
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise wrong(_place(tensor, "columns"), "Input should be a list of names, or names with commas between them")
    return [name.strip() for name in names]


def _binary_size(tensor: RequestTensor) -> int | None:
    """Return the bytes of a tensor behind the JSON; None if its values are in the JSON. Other parameters are checked."""
    parameters = tensor.parameters or {}
    for name, value in parameters.items():
        if name.startswith("shared_memory"):
            raise wrong(_place(tensor, name), "there is no shared memory with a client; send the values")
        if name == "content_type" and value is not None and not (isinstance(value, str) and value in DECODERS):
            raise wrong(
                _place(tensor, name), f"{value!r} is not read; send plain values: {', '.join(sorted(DECODERS))}"
            )
        if name not in {"binary_data_size", "columns", *HINTS}:
            raise wrong(_place(tensor, name), "unknown parameter; known are binary_data_size and columns")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise wrong(_place(tensor, "binary_data_size"), "Input should be a number of bytes")
    return size


def _place(tensor: RequestTensor, parameter: str | None = None) -> str:
    return f"inputs.{tensor.name}" if parameter is None else f"inputs.{tensor.name}.{parameter}"


# Parameters and outputs


def _split_parameters(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the request's parameters that belong to rows, and whether outputs go behind the JSON unless said otherwise."""
    if parameters.get("sequence_id"):
        raise wrong("parameters.sequence_id", "rows do not depend on earlier ones; leave it out")
    is_binary = parameters.get("binary_data_output", False)
    if not isinstance(is_binary, bool):
        raise wrong("parameters.binary_data_output", "Input should be true or false")
    ignored = {*HINTS, "binary_data_output", "sequence_id", "sequence_start", "sequence_end"}
    return {name: value for name, value in parameters.items() if name not in ignored}, is_binary


def _outputs(request: InferenceRequest, *, is_binary: bool) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of the outputs, and of those in binary."""
    requested = request.outputs or []
    names = [output.name for output in requested] or [name for name in OUTPUTS if name != EXPLANATION]
    unknown = next((name for name in names if name not in OUTPUTS), None)
    if unknown is not None:
        raise wrong(f"outputs.{unknown}", f"there is no such output; there are {', '.join(OUTPUTS)}")
    if len(set(names)) < len(names):
        raise wrong("outputs", "an output is requested more than once; name each once")
    binary = set(names) if is_binary else set()
    for output in requested:
        wanted = _is_binary(output.name, output.parameters or {})
        if wanted is not None:
            (binary.add if wanted else binary.discard)(output.name)
    return tuple(names), frozenset(binary)


def _is_binary(output: str, parameters: Mapping[str, Any]) -> bool | None:
    for name, value in parameters.items():
        place = f"outputs.{output}.{name}"
        if name == "classification" and value:
            raise wrong(place, "there are two classes; request the outputs probability and prediction")
        if name.startswith("shared_memory"):
            raise wrong(place, "there is no shared memory with a client; leave it out")
        if name not in {"binary_data", "classification", *HINTS}:
            raise wrong(place, "unknown parameter; known is binary_data")
        if name == "binary_data" and not isinstance(value, bool):
            raise wrong(place, "Input should be true or false")
    wanted: bool | None = parameters.get("binary_data")
    return wanted


def check_version(version: str | None, answers: Iterable[Answer], name: str) -> None:
    """Check that the version named in the path gave all answers; an earlier answer to a retry is that of its version.

    Raises:
        ProblemError: 409 if another version gave one.
    """
    if version is None:
        return
    other = next((answer for answer in answers if str(answer["model_version"]) != version), None)
    if other is not None:
        detail = (
            f"prediction {other['prediction_id']} is of version {other['model_version']}, not of version {version}; leave the version "
            f"out of the path: POST /v2/models/{name}/infer"
        )
        raise ProblemError(409, "model_version_conflict", detail)
