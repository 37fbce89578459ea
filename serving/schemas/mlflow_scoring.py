"""Requests and responses of MLflow's scoring server and of its deployments client, as OpenAPI shows them.

The forms are those of `mlflow.pyfunc.scoring_server`; `serving.protocols.mlflow_scoring` reads them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.schemas.requests import Prediction

PARAMS = Field(
    None,
    description="`request_source`, `prediction_id` and the entity's key: one value for all rows, or a list with one for each; "
    "`explain`: adds `explanation` to each prediction",
)


class _Invocation(BaseModel):
    """Unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid")

    params: dict[str, Any] | None = PARAMS


class SplitFrame(BaseModel):
    """A frame as `DataFrame.to_dict(orient="split")` gives it."""

    model_config = ConfigDict(extra="forbid")

    columns: list[str] | None = Field(None, description="absent: all inputs, in their order")
    index: list[Any] | None = Field(None, description="ignored")
    data: list[list[Any]] = Field(min_length=1, description="rows; null or NaN where a value is missing")


class SplitInvocation(_Invocation):
    """Rows as a frame in parts."""

    dataframe_split: SplitFrame


class RecordsInvocation(_Invocation):
    """Rows as objects."""

    dataframe_records: list[dict[str, Any]] = Field(min_length=1)


class InputsInvocation(_Invocation):
    """Columns by name, rows as objects, or rows of all inputs in their order."""

    inputs: dict[str, list[Any]] | list[Any] = Field(min_length=1)


class InstancesInvocation(_Invocation):
    """The same, as TensorFlow Serving calls it."""

    instances: dict[str, list[Any]] | list[Any] = Field(min_length=1)


Invocation = SplitInvocation | RecordsInvocation | InputsInvocation | InstancesInvocation


class Predictions(BaseModel):
    """A prediction for each row, in their order. They are on disk when this is sent."""

    predictions: list[Prediction]


class ScoringError(BaseModel):
    """An error as MLflow's server has it (`error_code`, `message`), with the fields of our problem documents."""

    error_code: str
    message: str = Field(description="what is wrong and what to do")
    type: str = Field(description="stable and for programs, as in problem documents")
    errors: list[dict[str, Any]] = Field(
        [], description="`field` and `message` of what is wrong, with its `row` if it is one"
    )


class EndpointModel(BaseModel):
    """The model behind an endpoint."""

    name: str
    provider: Literal["selfheal"] = "selfheal"


class DeploymentEndpoint(BaseModel):
    """The served model as an endpoint of MLflow's deployments client."""

    name: str
    endpoint_type: Literal["selfheal/v1/score"] = "selfheal/v1/score"
    model: EndpointModel
    endpoint_url: str
    limit: None = None


class DeploymentEndpoints(BaseModel):
    """All endpoints; there is one."""

    endpoints: list[DeploymentEndpoint]
