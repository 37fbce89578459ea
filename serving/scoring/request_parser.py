"""Parses scoring requests into rows, by models derived from the contract (`serving.schemas.requests`)."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
)

from serving.schemas.problems import NOT_WHOLE, invalid_request, unreadable_body, validation_problems
from serving.schemas.requests import MAX_BATCH_ROWS, BatchBase, RowBase, example_row, row_model
from serving.scoring.micro_batcher import Row

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract
    from serving.schemas.problems import ProblemError


MAX_ERRORS_PER_ROW = 20
"""Wrong fields of one row that the response to a batch lists at most."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """What is wrong with one row of a batch: `field` and `message` of each."""

    problems: list[dict[str, str]]


class RequestParser:
    """Parses and validates requests of one contract."""

    def __init__(self, contract: ModelContract) -> None:
        self.row_model = row_model(contract)
        self.batch_model = batch_model(contract, self.row_model)
        self._tolerant_batch_model = batch_model(contract, Annotated[self.row_model, WrapValidator(_or_refused)])
        names = contract.input_names
        self._values = itemgetter(*names) if len(names) > 1 else lambda fields: (fields[names[0]],)
        self._names = names
        self._whole = [i for i, feature in enumerate(contract.inputs) if feature.kind == "int"]

    def row(self, body: bytes) -> Row:
        """Return the row of a body.

        Raises:
            ProblemError: 422, naming each wrong field.
        """
        try:
            row = self._row(self.row_model.__pydantic_validator__.validate_json(body))
        except ValidationError as error:
            raise _problem(error) from None
        if isinstance(row, RefusedRow):
            raise invalid_request(row.problems)
        return row

    def batch(self, body: bytes) -> list[Row | RefusedRow]:
        """Return the rows of a body with many; a row that breaks the contract is refused without the others.

        Raises:
            ProblemError: 422 if the body is not a batch.
        """
        try:
            checked = self.batch_model.__pydantic_validator__.validate_json(body)
        except ValidationError:  # most batches have no wrong row, and validating each row separately takes longer
            try:
                checked = self._tolerant_batch_model.__pydantic_validator__.validate_json(body)
            except ValidationError as error:
                raise _problem(error) from None
        return [row if isinstance(row, RefusedRow) else self._row(row) for row in checked.instances]

    def _row(self, checked: RowBase) -> Row | RefusedRow:
        fields = checked.__dict__
        values = self._values(fields)
        for i in self._whole:
            if values[i] is not None and values[i] % 1:
                return RefusedRow([{"field": self._names[i], "message": NOT_WHOLE}])
        prediction_id = fields["prediction_id"]
        return Row(
            values,
            fields["request_source"],
            None if prediction_id is None else str(prediction_id),
            fields["explain"],
        )


def batch_model(contract: ModelContract, row: Any) -> type[BatchBase]:
    """Return the request model of many rows, as `instances`."""
    instances: Any = (list[Annotated[row, _OrAnythingElse()]], Field(min_length=1, max_length=MAX_BATCH_ROWS))
    model: type[BatchBase] = create_model("BatchRequest", __base__=BatchBase, instances=instances)
    model.model_config["json_schema_extra"] = {"examples": [dict[str, Any](instances=[example_row(contract)] * 2)]}
    model.model_rebuild(force=True)
    return model


class _OrAnythingElse:
    """Declares in the schema that a row which breaks the contract does not make the request invalid."""

    def __get_pydantic_json_schema__(self, row: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        anything = {
            "title": "RefusedRow",
            "description": "a row that breaks the contract is refused without the others: see `errors`",
        }
        return {"anyOf": [handler(row), anything]}


def _or_refused(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        return RefusedRow(validation_problems(errors[:MAX_ERRORS_PER_ROW]))


def _problem(error: ValidationError) -> ProblemError:
    errors = error.errors(include_url=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return unreadable_body(errors[0]["ctx"]["error"])
    return invalid_request(validation_problems(errors))
