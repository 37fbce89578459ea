"""Requests and responses of the Open Inference Protocol v2 (REST), as OpenAPI shows them and as requests are checked.

Specification: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`; the parts in binary are Triton's
binary tensor data extension. Tensors within these limits are read by `serving.protocols.open_inference`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_NAME_CHARACTERS = 200
MAX_TENSORS = 2_000

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Size = Annotated[int, Field(ge=0, le=2**31 - 1)]
Parameters = Annotated[dict[str, Any], Field(max_length=100)]


class _Message(BaseModel):
    """Unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RequestTensor(_Message):
    """One tensor: the values of one input (`[n]` or `[n, 1]`), or rows of all inputs (`[n, inputs]`)."""

    name: Name = Field(description="name of an input; any other name, if the tensor has a column for each input")
    shape: list[Size] = Field(min_length=1, max_length=2)
    datatype: Datatype
    parameters: Parameters | None = Field(
        None,
        description="`columns`: names of a matrix' columns, as a list or with commas between them; absent: all inputs, in their "
        "order. `binary_data_size`: bytes of this tensor behind the JSON",
    )
    data: list[Any] | None = Field(
        None, description="values in row-major order, flat or nested; null or NaN where missing"
    )


class RequestedOutput(_Message):
    """An output that the response is to have."""

    name: Name
    parameters: Parameters | None = Field(None, description="`binary_data`: whether to send it behind the JSON")


class InferenceRequest(_Message):
    """Rows to score, column by column or as a matrix."""

    id: Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)] | None = Field(
        None, description="returned with the response; no idempotency key, which is `prediction_id`"
    )
    model_name: Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)] | None = Field(
        None, description="as KServe's client sends it; the path counts"
    )
    model_version: Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)] | None = Field(
        None, description="the path counts"
    )
    parameters: Parameters | None = Field(
        None,
        description="`request_source`, `prediction_id` and the entity's key: one value for all rows, or a list with one for each; "
        "`binary_data_output`: whether all outputs are sent behind the JSON",
    )
    inputs: list[RequestTensor] = Field(min_length=1, max_length=MAX_TENSORS)
    outputs: list[RequestedOutput] | None = Field(
        None, max_length=20, description="absent: all but `explanation`, which is computed on request only"
    )


class ResponseTensor(BaseModel):
    """One output: a value for each row."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: dict[str, Any] | None = Field(
        None, description="`binary_data_size`: bytes of this tensor behind the JSON"
    )
    data: list[Any] | None = Field(None, description="absent if the values are behind the JSON")


class InferenceResponse(BaseModel):
    """Predictions, which are on disk when this is sent."""

    model_name: str
    model_version: str = Field(description="the version that scores now; output `model_version` has that of each row")
    id: str | None = Field(None, description="as in the request")
    outputs: list[ResponseTensor]


class TensorInfo(BaseModel):
    """Name, type and shape of a tensor; -1 stands for the number of rows."""

    name: str
    datatype: Datatype
    shape: list[int]


class ServerMetadata(BaseModel):
    """What serves."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """The model that scores now."""

    name: str
    versions: list[str] = Field(description="the version that may be named in a path")
    platform: str
    inputs: list[TensorInfo] = Field(description="in the order of a matrix' columns")
    outputs: list[TensorInfo]


class ServerLive(BaseModel):
    """The process responds."""

    live: Literal[True] = True


class ServerReady(BaseModel):
    """Whether rows can be scored. The protocol's text calls the field `live`, its clients read `ready`: it has both."""

    ready: bool
    live: Literal[True] = True


class ModelReady(BaseModel):
    """Whether this model can score."""

    name: str
    ready: bool


class InferenceError(BaseModel):
    """An error as the protocol has it (`error`), with the fields of our problem documents."""

    error: str = Field(description="what is wrong and what to do")
    type: str = Field(description="stable and for programs, as in problem documents")
    errors: list[dict[str, Any]] = Field(
        [], description="`field` and `message` of what is wrong, with its `row` if it is one"
    )
