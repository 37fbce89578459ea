"""Requests and responses of scoring and labels; the other responses are in `serving.schemas.responses`.

The fields of a request are derived from the contract: names, aliases, types, limits, examples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    GetJsonSchemaHandler,
    StrictBool,
    create_model,
)

from selfheal.domain.entity_key import MAX_KEY_CHARACTERS, MAX_KEY_NUMBER
from selfheal.domain.levels import MAX_LEVEL_CHARACTERS
from serving.schemas.explanations import Explanation

if TYPE_CHECKING:
    from selfheal.domain.contract import Feature, ModelContract
    from selfheal.domain.features import Example

ENTITY_ATTRIBUTE = "entity_key"
"""The model's attribute for the entity's key."""

MAX_BATCH_ROWS = 10_000
MAX_LABELS = 10_000
SOURCE_PATTERN = r"^[A-Za-z0-9_.:-]{1,64}$"
"""Pattern of senders' names: only characters that need no quotes in the CSV journal."""

CONTROL = r"\x00-\x1f\x7f-\x9f"
BLANK = r"\x20\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
LEVEL_PATTERN = rf"^[^{CONTROL}]*[^{CONTROL}{BLANK}][^{CONTROL}]*$"
"""Pattern of a category's level: no control character, and not only blanks (`selfheal.domain.levels.level_problem`)."""

SourceName = Annotated[str, Field(pattern=SOURCE_PATTERN)]


class RowBase(BaseModel):
    """The fields that every request model of a contract has besides the features."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    request_source: SourceName = Field(
        "api", description="name of the caller's application; recorded with the prediction"
    )
    prediction_id: UUID | None = Field(
        None,
        description="idempotency key: an id that you choose. A second request with the same id and row gets the first response "
        "and is logged once; with another row it is a conflict (409). Absent: the service chooses one.",
    )
    explain: bool = Field(
        False, description="adds `explanation` to the prediction; `?explain=true` does so for all rows"
    )


def row_model(contract: ModelContract) -> type[RowBase]:
    """Return the request model of one row, derived from the contract. It refuses unknown fields by name."""
    fields: dict[str, Any] = {attribute_of(feature.name): _field(feature) for feature in contract.inputs}
    if contract.has_entity_key:
        fields[ENTITY_ATTRIBUTE] = _entity_field(contract)
    model: type[RowBase] = create_model("PredictRequest", __base__=RowBase, __doc__=contract.description, **fields)
    model.model_config["json_schema_extra"] = {"examples": [example_request(contract)]}
    model.model_rebuild(force=True)
    return model


def attribute_of(input_name: str) -> str:
    """Return the model's attribute for an input. Requests never have it: a field goes by its aliases.

    It has a prefix, so that an input may be called as an attribute of Pydantic's models is (`copy`, `json`).
    """
    return f"input_{input_name}"


def example_row(contract: ModelContract) -> dict[str, Example]:
    """Return the contract's example of each input."""
    return {f.name: int(f.example) if f.kind == "int" else f.example for f in contract.inputs}


def example_request(contract: ModelContract) -> dict[str, Any]:
    """Return the contract's example of each input, and of its key."""
    key: dict[str, Any] = {contract.entity: "A-1"} if contract.has_entity_key else {}
    return example_row(contract) | key


def _entity_field(contract: ModelContract) -> tuple[Any, Any]:
    text: Any = Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARACTERS)]
    number: Any = Annotated[int, Field(ge=-MAX_KEY_NUMBER, le=MAX_KEY_NUMBER)]
    spellings = dict.fromkeys((contract.entity, contract.entity.replace("_", "-")))
    is_required = contract.entity_is_required
    return text | number if is_required else text | number | None, Field(
        default=... if is_required else None,
        description="key of whom or what the row is about: rows of one are one unit of evidence; stored as a pseudonym, and no input",
        validation_alias=AliasChoices(*spellings),
        serialization_alias=contract.entity,
    )


def _field(feature: Feature) -> tuple[Any, Any]:
    value = _value_of(feature)
    names = dict.fromkeys(
        spelling
        for name in (feature.name, *feature.aliases)
        for spelling in (name, name.replace("-", "_"), name.replace("_", "-"))
    )
    return (value | None) if feature.is_nullable else value, Field(
        default=None if feature.is_nullable else ...,
        description=f"{feature.description} ({feature.unit})" + _also_known_as(feature),
        validation_alias=AliasChoices(*names),
        serialization_alias=feature.name,
    )


def _value_of(feature: Feature) -> Any:
    """Return the type of an input's value, without null."""
    if feature.kind == "bool":
        return StrictBool
    if feature.kind == "category":
        fits = Field(min_length=1, max_length=MAX_LEVEL_CHARACTERS, pattern=LEVEL_PATTERN)
        return Annotated[str, fits, _KnownLevels(feature.levels)]
    # Many clients write 45.0 for 45. The check for whole numbers lets 45.00000001 pass; `serving.scoring.request_parser` does not.
    multiple_of = 1 if feature.kind == "int" else None
    return Annotated[FiniteFloat, Field(ge=feature.lower, le=feature.upper, multiple_of=multiple_of)]


@dataclass(frozen=True)
class _KnownLevels:
    """Declares in the schema which levels a category is known to have; any other is accepted, too."""

    levels: tuple[str, ...]

    def __get_pydantic_json_schema__(self, level: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        any_level = handler(level)
        return {"anyOf": [{"enum": list(self.levels)}, any_level]} if self.levels else any_level


def _also_known_as(feature: Feature) -> str:
    return f"; also accepted as {' or '.join(f'`{alias}`' for alias in feature.aliases)}" if feature.aliases else ""


class Prediction(BaseModel):
    """One acknowledged prediction. It is on disk when this is sent."""

    prediction_id: UUID = Field(description="send the true label with this id")
    prediction: Literal[0, 1] = Field(description="1 if the probability reaches the threshold")
    probability: float = Field(description="probability of class 1", ge=0, le=1)
    threshold: float
    model_name: str
    model_version: int
    explanation: Explanation | None = Field(None, description="if it was requested and there is an exact one")
    explanation_unavailable: str | None = Field(None, description="why there is no explanation, if one was requested")


class RowError(BaseModel):
    """Why one row of a batch was refused."""

    row: int = Field(description="position in `instances`, from 0")
    field: str
    message: str


class BatchBase(BaseModel):
    """Many rows in one call; each is validated separately."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instances: list[Any]


class BatchResponse(BaseModel):
    """One entry of `predictions` per instance; it is null where the row was refused."""

    predictions: list[Prediction | None]
    errors: list[RowError] = Field(description="what is wrong with the refused rows; at most 1,000 entries")
    n_refused: int = Field(description="number of refused rows, whether or not `errors` describes them")


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("Input should be 0 or 1, not true or false")
    return value


DATE_FIRST = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def _only_text(value: Any) -> Any:
    """Refuse numbers and numeric text, which Pydantic would read as seconds or milliseconds since 1970."""
    if isinstance(value, int | float) or (isinstance(value, str) and not DATE_FIRST.match(value)):
        raise ValueError("Input should be a time with its time zone as text, such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("Input should be a time that exists in UTC too") from None


class Label(BaseModel):
    """The true label of one prediction."""

    model_config = ConfigDict(extra="forbid")

    prediction_id: UUID
    true_label: Annotated[Literal[0, 1], BeforeValidator(_no_bool)]
    labelled_at: Annotated[AwareDatetime, BeforeValidator(_only_text), AfterValidator(_in_utc)] | None = Field(
        None, description="when the label became known; absent: now"
    )
    label_source: SourceName = "api"
    is_correction: StrictBool = Field(
        False,
        description="replaces an earlier label of another value, if there is one; without it, another label is a conflict (409)",
    )


class LabelBatch(BaseModel):
    """Many labels in one call, accepted all or none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"labels": [{"prediction_id": "0198f0f0-5c1e-7000-8000-000000000000", "true_label": 1}]},
            ]
        },
    )

    labels: list[Label] = Field(min_length=1, max_length=MAX_LABELS)


LabelBody = LabelBatch | Label
"""Which form is meant is decided by whether there are `labels` (`serving.schemas.label_reading`)."""


class LabelsResponse(BaseModel):
    """How many labels were accepted."""

    accepted: int = Field(description="labels that were new or corrections; they are on disk")
    duplicates: int = Field(description="labels that were known already, with the same value")
    replaced: int | None = Field(
        description="of the accepted ones, those that took the place of another value; all others are first labels, also if "
        "sent with is_correction=true. When a replaced label came says nothing about how long labels take, so these are "
        "left out there. null: unknown, since Postgres does not answer"
    )


class ProblemDocument(BaseModel):
    """An error (RFC 9457). `type` is stable and for programs, `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = Field(
        [], description="`field` and `message` of each wrong field, for the type `invalid_request`"
    )
