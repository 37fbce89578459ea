"""Parsing of scoring requests into rows, by models derived from the contract (`serving.schemas.requests`)."""

from __future__ import annotations

from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, GetJsonSchemaHandler, create_model

from selfheal.domain.entity_key import pseudonym
from selfheal.domain.levels import MAX_LEVEL_CHARACTERS
from serving.schemas.problems import NOT_WHOLE, invalid_request
from serving.schemas.reading import ObjectReader, Refused
from serving.schemas.requests import (
    ENTITY_ATTRIBUTE,
    MAX_BATCH_ROWS,
    BatchBase,
    RowBase,
    attribute_of,
    example_request,
    row_model,
)
from serving.scoring.micro_batcher import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selfheal.domain.contract import ModelContract


class RequestParser:
    """Parses and validates requests of one contract.

    Args:
        secret: returns the secret of entities' pseudonyms; it is asked for once a row has a key.
    """

    def __init__(self, contract: ModelContract, secret: Callable[[], bytes] | None = None) -> None:
        assert secret is not None or not contract.has_entity_key, "a key is stored as a pseudonym"
        self._secret = None if secret is None else cache(secret)
        self.row_model = row_model(contract)
        self.batch_model = batch_model(contract, self.row_model)
        self._reader = ObjectReader(self.row_model, len(contract.category_names) * MAX_LEVEL_CHARACTERS)
        names = contract.input_names
        attributes = [attribute_of(name) for name in names]
        self._values = itemgetter(*attributes) if len(names) > 1 else lambda fields: (fields[attributes[0]],)
        self._names = names
        self._whole = [i for i, feature in enumerate(contract.inputs) if feature.kind == "int"]

    def row(self, body: bytes) -> Row:
        """Return the row of a body.

        Raises:
            ProblemError: 422 if a field is wrong; the problem names each of them.
        """
        row = self._row(self._reader.one(body))
        if isinstance(row, Refused):
            raise invalid_request(row.problems)
        return row

    def batch(self, body: bytes) -> Iterator[list[Row | Refused]]:
        """Yield the rows of a body with many, piece by piece; a wrong row is refused without the others.

        Raises:
            ProblemError: 422 if the body is not a batch.
        """
        for piece in self._reader.many("instances", body, MAX_BATCH_ROWS):
            yield [row if isinstance(row, Refused) else self._row(row) for row in piece]

    def _row(self, checked: RowBase) -> Row | Refused:
        fields = checked.__dict__
        values = self._values(fields)
        for i in self._whole:
            if values[i] is not None and values[i] % 1:
                return Refused([{"field": self._names[i], "message": NOT_WHOLE}])
        prediction_id = fields["prediction_id"]
        return Row(
            values,
            fields["request_source"],
            None if prediction_id is None else str(prediction_id),
            fields["explain"],
            self._entity(fields.get(ENTITY_ATTRIBUTE)),
        )

    def _entity(self, key: str | int | None) -> str | None:
        return None if key is None or self._secret is None else pseudonym(key, self._secret())


def batch_model(contract: ModelContract, row: Any) -> type[BatchBase]:
    """Return the request model of many rows, as `instances`."""
    instances: Any = (list[Annotated[row, _OrAnythingElse()]], Field(min_length=1, max_length=MAX_BATCH_ROWS))
    model: type[BatchBase] = create_model("BatchRequest", __base__=BatchBase, instances=instances)
    model.model_config["json_schema_extra"] = {"examples": [dict[str, Any](instances=[example_request(contract)] * 2)]}
    model.model_rebuild(force=True)
    return model


class _OrAnythingElse:
    """Declares in the schema that a row which violates the contract does not make the request invalid."""

    def __get_pydantic_json_schema__(self, row: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        anything = {
            "title": "RefusedRow",
            "description": "a row that breaks the contract is refused without the others: see `errors`",
        }
        return {"anyOf": [handler(row), anything]}
