"""From what a protocol's client sends to the rows of `POST /predict/batch`. Pure.

Rows leave here as the body of such a batch, so that `serving.scoring.request_parser` validates all of them alike: equal
rows are equal however they came. What is wrong with a whole column is found here, once, instead of once in each row.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from selfheal.domain.names import fold_name
from serving.schemas.problems import MAX_ERRORS, MAX_FIELD_CHARACTERS, ProblemError, invalid_request
from serving.schemas.reading import MAX_SURPLUS_FIELDS, Refused
from serving.schemas.requests import MAX_BATCH_ROWS

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract
    from selfheal.domain.features import Kind

JsonRow = dict[str, Any]
"""One row: values as JSON has them, by the names of `/predict`'s fields."""

SENDERS_FIELDS = ("prediction_id", "request_source")
"""Fields of a row that say who sends it and under which idempotency key."""

INFINITE = "Input should be a finite number; leave a missing value out, or send null"

FLAGS = {0: False, 1: True}
"""What numbers mean for a `bool`, where a client has no other way: a matrix has numbers alone."""


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one column, and where the client has them (`inputs.age`)."""

    name: str
    values: Sequence[Any]
    where: str


def wrong(field: str, message: str) -> ProblemError:
    """Return the problem (422) of one wrong field."""
    return invalid_request([{"field": _shown(field), "message": message}])


def rows_of_columns(columns: Sequence[Column], n_rows: int, contract: ModelContract) -> list[JsonRow]:
    """Return the rows that columns of `n_rows` values make, by the contract's names.

    Raises:
        ProblemError: 422 if a column is unknown, there twice, missing or of another length.
    """
    check_n_rows(n_rows)
    _check_n_columns(len(columns), "body", contract)
    fields = [field_of(column.name, contract) for column in columns]
    times = Counter(fields)
    problems: list[dict[str, str]] = []
    for column, field in zip(columns, fields, strict=True):
        if field is None:
            problems.append({"field": _shown(column.where), "message": f"unknown input; {_known(contract)}"})
        elif times[field] > 1:
            problems.append({"field": _shown(column.where), "message": f"{field} is given more than once"})
        elif len(column.values) != n_rows:
            message = f"has {len(column.values):,} values, and the request has {n_rows:,} rows"
            problems.append({"field": _shown(column.where), "message": message})
    problems += _missing(set(fields), contract)
    if problems:
        raise invalid_request(problems)
    return [dict(zip(map(str, fields), each, strict=True)) for each in zip(*(c.values for c in columns), strict=True)]


def columns_of_matrix(
    rows: Sequence[Sequence[Any]], names: Sequence[str] | None, where: str, contract: ModelContract
) -> list[Column]:
    """Return the columns of rows of equal length.

    Args:
        names: of the columns; None: they are all inputs in the contract's order.

    Raises:
        ProblemError: 422 if a row has more or fewer values than there are names.
    """
    named = contract.input_names if names is None else names
    _check_n_columns(len(named), where, contract)
    unequal = next((which for which, row in enumerate(rows) if len(row) != len(named)), None)
    if unequal is not None:
        remedy = "name the columns, or " if names is None else ""
        message = (
            f"row {unequal} has {len(rows[unequal])} values, and there are {len(named)} columns; {remedy}"
            f"send as many values as {'the model has inputs: ' + ', '.join(named) if names is None else 'names'}"
        )
        raise wrong(where, message)
    transposed = list(zip(*rows, strict=True)) or [()] * len(named)
    return [
        Column(name, values, f"{where}[{which}] ({name})")
        for which, (name, values) in enumerate(zip(named, transposed, strict=True))
    ]


def with_flags(columns: Sequence[Column], contract: ModelContract) -> list[Column]:
    """Return the columns of tensors: in one of a `bool`, 1 and 0 are true and false. Other numbers are left to the contract."""
    return [
        replace(column, values=flags_of(column.values)) if is_kind(column.name, "bool", contract) else column
        for column in columns
    ]


def flags_of(values: Sequence[Any]) -> list[Any]:
    """Return the values with true for 1 and false for 0.

    >>> flags_of([1.0, 0, None, 2, "1"])
    [True, False, None, 2, '1']
    """
    return [FLAGS.get(value, value) if type(value) in {int, float} else value for value in values]


def is_kind(name: str, kind: Kind, contract: ModelContract) -> bool:
    """Return whether a name stands for an input of this kind."""
    canonical = contract.canonical_name(name)
    return canonical is not None and contract.kinds[canonical] == kind


def with_shared_fields(
    rows: list[JsonRow], shared: Mapping[str, Any], where: str, contract: ModelContract
) -> list[JsonRow]:
    """Return the rows with fields that are sent beside them: one value for all, or a list with one for each.

    Raises:
        ProblemError: 422 if a field is unknown, has another number of values, is in the rows already, or if one
            `prediction_id` is given to several rows.
    """
    known = (*SENDERS_FIELDS, *([contract.entity] if contract.has_entity_key else []))
    for name, value in shared.items():
        field = field_of(name, contract)
        if field not in known:
            raise wrong(f"{where}.{name}", f"unknown parameter; known are {', '.join(known)}")
        if any(field in row for row in rows):
            raise wrong(f"{where}.{name}", "the rows have it too; send it once")
        values = value if isinstance(value, list) else [value] * len(rows)
        if len(values) != len(rows):
            raise wrong(f"{where}.{name}", f"has {len(values):,} values, and the request has {len(rows):,} rows")
        if field == "prediction_id" and len(rows) > 1 and not isinstance(value, list):
            raise wrong(f"{where}.{name}", f"one id for {len(rows):,} rows; send a list with an id for each row")
        rows = [row | {field: each} for row, each in zip(rows, values, strict=True)]
    return rows


def batch_body(rows: list[JsonRow]) -> bytes:
    """Return the rows as the body of `POST /predict/batch`. A float that is not a number is a missing value (null).

    Raises:
        ProblemError: 422 if there are too many rows or none, or a value is infinite.
    """
    check_n_rows(len(rows))
    infinite = [
        {"row": which, "field": _shown(name), "message": INFINITE}
        for which, row in enumerate(rows)
        if math.inf in row.values() or -math.inf in row.values()
        for name, value in row.items()
        if value in (math.inf, -math.inf)
    ]
    if infinite:
        raise of_rows(infinite, len({problem["row"] for problem in infinite}), len(rows))
    try:
        return orjson.dumps({"instances": rows})
    except orjson.JSONEncodeError:  # an integer beyond 64 bits: it is for the contract to say what it is worth
        known = [{name: None if value != value else value for name, value in row.items()} for row in rows]  # noqa: PLR0124
        return json.dumps({"instances": known}).encode()


def refused_rows(rows: Sequence[object]) -> ProblemError | None:
    """Return the problem (422) of a request some of whose rows are `Refused`; None if none is."""
    refused = [(which, row) for which, row in enumerate(rows) if isinstance(row, Refused)]
    if not refused:
        return None
    problems = [{"row": which, **problem} for which, row in refused for problem in row.problems]
    return of_rows(problems, len(refused), len(rows))


def of_rows(problems: Sequence[Mapping[str, Any]], n_refused: int, n_rows: int) -> ProblemError:
    """Return the problem (422) of a request some of whose rows break the contract; none of them is scored.

    Args:
        problems: `row`, `field` and `message` of what is wrong.
    """
    named = "; ".join(f"row {p['row']}, {p['field']}: {p['message']}" for p in problems[:5])
    together = f" ({n_refused:,} of {n_rows:,} rows; none was scored)" if n_rows > 1 else ""
    return ProblemError(422, "invalid_request", f"{named}{together}", errors=list(problems[:MAX_ERRORS]))


def field_of(name: str, contract: ModelContract) -> str | None:
    """Return the field of `/predict` that a name stands for; None if there is none."""
    if contract.has_entity_key and fold_name(name) == contract.entity:
        return contract.entity
    return name if name in SENDERS_FIELDS else contract.canonical_name(name)


def check_n_rows(n_rows: int) -> None:
    """Check that there is a row, and not more than a batch may have.

    Raises:
        ProblemError: 422.
    """
    if not 1 <= n_rows <= MAX_BATCH_ROWS:
        raise wrong("body", f"has {n_rows:,} rows; a request has at least 1 and at most {MAX_BATCH_ROWS:,}")


def _check_n_columns(n_columns: int, where: str, contract: ModelContract) -> None:
    """Check that there are not so many columns that most of them are unknown: then none is looked at."""
    if n_columns > 2 * len(contract.inputs) + MAX_SURPLUS_FIELDS:
        raise wrong(where, f"has {n_columns:,} columns; {_known(contract)}")


def _missing(given: set[str | None], contract: ModelContract) -> Iterator[dict[str, str]]:
    for feature in contract.inputs:
        if feature.name not in given and not feature.is_nullable:
            yield {"field": feature.name, "message": "missing; send this input, which has no missing values"}


def _known(contract: ModelContract) -> str:
    return f"the inputs are {', '.join(contract.input_names)}"


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:MAX_FIELD_CHARACTERS]
