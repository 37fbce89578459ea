"""Reads JSON objects, one or many in a list, into models: in bounded time and memory, whatever a client sends.

What takes long, and much memory, is to describe what is wrong: an object of 100,000 unknown fields has 100,000 errors.
So objects are read by a copy of their model that passes over unknown fields, and counted: the objects of our contracts
are flat and few values have a comma, so an object has one comma less than fields, and any unknown or repeated
field shows as a comma too many. Only then, and for as long as there are few, are fields named.

A long list is read in pieces of `PIECE_BYTES`, cut where an object ends, so that whoever reads it can let others have
their turn in between, and an object that is refused costs no more than its own piece.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, TypeAdapter, ValidationError
from pydantic_core import from_json

from serving.schemas.problems import ProblemError, invalid_request, unreadable_body, validation_problems

PIECE_BYTES = 65_536
"""Read in about 2 ms. A body of this size needs no pieces."""

MAX_ITEM_BYTES = 65_536
"""An object of a list is looked at so far: a hundred times what a row of the shipped use case has."""

MAX_ITEMS_ONE_BY_ONE = 256
"""Before others have their turn."""

MAX_SURPLUS_FIELDS = 20
"""Beyond so many more fields than there are, only the first ones are read."""

MAX_ERRORS_PER_ITEM = 20
MAX_ERRORS_PER_LIST = 1_000
"""Wrong fields that are described; the other refused objects of a list are only counted."""

BLANKS = b" \t\n\r"
WHITESPACE = rb"[%b]*" % BLANKS
SEPARATOR = re.compile(rb"%b,%b" % (WHITESPACE, WHITESPACE))
END = re.compile(rb"%b\}%b" % (WHITESPACE, WHITESPACE))

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Refused:
    """An object of a list that is not what it should be: `field` and `message` of what is wrong, unless too many are."""

    problems: Sequence[dict[str, str]] = ()


class ObjectReader(Generic[ModelT]):
    """Reads JSON objects of one model, which forbids unknown fields.

    Args:
        model: of an object.
        n_commas_in_texts: number of commas that the values of an object may have; one that has any is read twice.
    """

    def __init__(self, model: type[ModelT], n_commas_in_texts: int = 0) -> None:
        ignoring = _ignoring_unknown_fields(model)
        self._documented = model.__pydantic_validator__.validate_json
        self._read: Callable[[bytes], ModelT] = ignoring.__pydantic_validator__.validate_json
        listed: Any = Annotated[list[ignoring], FailFast()]  # type: ignore[valid-type]
        self._read_list: Callable[[bytes], list[ModelT]] = TypeAdapter(listed).validator.validate_json
        self._max_commas = len(model.model_fields) + MAX_SURPLUS_FIELDS + n_commas_in_texts

    # One object

    def one(self, body: bytes) -> ModelT:
        """Return the object that a body is.

        Raises:
            ProblemError: 422, naming each wrong field, or the first ones.
        """
        n_commas = body.count(b",") if len(body) <= PIECE_BYTES else self._count_commas(body)
        if n_commas > self._max_commas:
            raise invalid_request(self._first_problems(body))
        try:
            found = self._read(body)
        except ValidationError:
            pass
        else:
            if len(found.__pydantic_fields_set__) == n_commas + 1:
                return found
        try:
            return self._read_closely(body)
        except ValidationError as error:
            raise problem_of(error) from None

    def _count_commas(self, body: bytes) -> int:
        """Count the commas of a large body, until there are too many."""
        n_commas = 0
        for start in range(0, len(body), PIECE_BYTES):
            n_commas += body.count(b",", start, start + PIECE_BYTES)
            if n_commas > self._max_commas:
                break
        return n_commas

    def _read_closely(self, body: bytes) -> ModelT:
        """Return the object; there are few fields.

        Raises:
            ValidationError: with every wrong field.
            ProblemError: 422, if a field is there twice.
        """
        found: ModelT = self._documented(body)
        repeated = _repeated_names(body)
        if repeated:
            raise invalid_request([_given_twice(name) for name in repeated])
        return found

    def _problems(self, body: bytes) -> list[dict[str, str]]:
        """Return what is wrong with an object of few fields; nothing if it is as it should be."""
        try:
            self._read_closely(body)
        except ValidationError as error:
            return validation_problems(error.errors(include_url=False, include_input=False))
        except ProblemError as error:
            repeated: list[dict[str, str]] = error.extra["errors"]
            return repeated
        return []

    def _first_problems(self, body: bytes) -> list[dict[str, str]]:
        """Return what is wrong with the first fields of an object that has too many."""
        end = -1
        for _ in range(self._max_commas):
            end = body.index(b",", end + 1)
        too_many = {"field": "body", "message": f"more than {self._max_commas} fields; those after them were not read"}
        try:
            self._documented(body[:end] + b"}")
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            named = [one for one in found if one["type"] not in ("missing", "json_invalid")]
            return [*validation_problems(named[:MAX_ERRORS_PER_ITEM]), too_many]
        return [too_many]

    # Many objects

    def many(self, name: str, body: bytes, max_items: int) -> Iterator[Sequence[ModelT | Refused]]:
        """Yield the objects of the list that is the one field of a body, piece by piece.

        Raises:
            ProblemError: 422 if the body is no such list, or has more than `max_items`.
        """
        head = re.match(rb'%b\{%b"%b"%b:%b\[%b' % (*[WHITESPACE] * 2, name.encode(), *[WHITESPACE] * 3), body)
        end = body.rfind(b"]")
        if head is None or end < head.end() or END.fullmatch(body, end + 1) is None:
            raise _not_a_list(name, body)
        n_bytes = len(body[head.end() : end].rstrip(BLANKS))
        yield from _ListReading(self, name, body, max_items).pieces(head.end(), head.end() + n_bytes)


def _ignoring_unknown_fields(model: type[ModelT]) -> type[ModelT]:
    """Return a copy of a model that passes over unknown fields."""
    base: Any = model

    class Ignoring(base):  # type: ignore[misc]
        model_config = ConfigDict(extra="ignore")

    return Ignoring


class _ListReading(Generic[ModelT]):
    """The reading of one list: where it is, and what it has found."""

    def __init__(self, reader: ObjectReader[ModelT], name: str, body: bytes, max_items: int) -> None:
        self._reader = reader
        self._name = name
        self._body = body
        self._max_items = max_items
        self._n_items = 0
        self._n_errors = 0

    def pieces(self, position: int, end: int) -> Iterator[Sequence[ModelT | Refused]]:
        """Yield the objects between two positions, piece by piece."""
        if position >= end:
            raise invalid_request([{"field": self._name, "message": "List should have at least 1 item"}])
        while True:
            stop = self._body.find(b"}", position + PIECE_BYTES, end) + 1 or end
            items: Sequence[ModelT | Refused] | None
            items = self._at_once(position, stop) if self._is_boundary(stop, end) else None
            if items is None:
                items, stop = self._one_by_one(position, stop, end)
            self._n_items += len(items)
            if self._n_items > self._max_items:
                message = f"List should have at most {self._max_items} items"
                raise invalid_request([{"field": self._name, "message": message}])
            yield items
            if stop == end:
                return
            position = self._after_separator(stop)

    def _is_boundary(self, stop: int, end: int) -> bool:
        return stop == end or SEPARATOR.match(self._body, stop) is not None

    def _after_separator(self, position: int) -> int:
        separator = SEPARATOR.match(self._body, position)
        if separator is None:
            raise self._malformed()
        return separator.end()

    def _at_once(self, start: int, stop: int) -> Sequence[ModelT] | None:
        """Return the objects of a piece; None if it has to be looked at closely."""
        if stop - start > PIECE_BYTES + MAX_ITEM_BYTES:
            return None
        piece = self._body[start:stop]
        try:
            items = self._reader._read_list(b"[%b]" % piece)
        except ValidationError:
            return None
        n_fields = sum([len(item.__pydantic_fields_set__) for item in items])
        return items if n_fields == piece.count(b",") + 1 else None

    def _one_by_one(self, position: int, stop: int, end: int) -> tuple[list[ModelT | Refused], int]:
        """Return the values up to `stop`, each by itself, and where the last of them ends."""
        items: list[ModelT | Refused] = []
        while True:
            item, value_end = self._next(position, end)
            items.append(item)
            if value_end >= stop or len(items) == MAX_ITEMS_ONE_BY_ONE:
                return items, value_end
            position = self._after_separator(value_end)

    def _next(self, position: int, end: int) -> tuple[ModelT | Refused, int]:
        """Return the value at a position, and where it ends: an object of our contracts at the next brace."""
        limit = min(position + MAX_ITEM_BYTES, end)
        brace = self._body.find(b"}", position, limit) + 1
        if brace and self._body.count(b",", position, brace) <= self._reader._max_commas:
            item = self._item(self._body[position:brace])
            if item is not None:  # else it is a brace within a text, or of an object within
                return item, brace
        value_end = self._value_end(position, limit, end)
        item = self._item(self._body[position:value_end])
        if item is None:
            raise self._malformed()
        return item, value_end

    def _value_end(self, position: int, limit: int, end: int) -> int:
        """Return where any value ends. It is made of bytes, not characters, so that places are those of the body."""
        text = self._body[position:limit].decode("latin-1")
        try:
            _, n_bytes = DECODER.raw_decode(text)
        except RecursionError:
            raise unreadable_body() from None
        except ValueError:
            raise (self._too_large(position, limit) if limit < end else self._malformed()) from None
        return position + int(n_bytes)

    def _item(self, piece: bytes) -> ModelT | Refused | None:
        """Return the object, or what is wrong with it; None if the piece is not JSON."""
        reader = self._reader
        n_commas = piece.count(b",")
        if n_commas > reader._max_commas:
            return self._refused(lambda: reader._first_problems(piece))
        try:
            found = reader._read(piece)
        except ValidationError as error:
            return None if _is_no_json(error) else self._refused(lambda: reader._problems(piece))
        if len(found.__pydantic_fields_set__) == n_commas + 1:
            return found
        problems = reader._problems(piece)
        return self._refused(lambda: problems) if problems else found

    def _refused(self, describe: Callable[[], list[dict[str, str]]]) -> Refused:
        if self._n_errors >= MAX_ERRORS_PER_LIST:
            return Refused()
        problems = describe()[:MAX_ERRORS_PER_ITEM]
        self._n_errors += len(problems)
        return Refused(problems)

    def _too_large(self, start: int, end: int) -> ProblemError:
        beginning = self._body[start:end]
        where = f"{self._name}, from {self._n_items} on"
        problems = [{"field": where, "message": f"an object of it may have {MAX_ITEM_BYTES:,} bytes"}]
        if beginning.count(b",") > self._reader._max_commas:
            problems = [*self._reader._first_problems(beginning), *problems]
        return invalid_request(problems)

    def _malformed(self) -> ProblemError:
        """Return what is wrong with a body that has something else where a value or a comma should be."""
        if len(self._body) <= PIECE_BYTES:
            return _not_a_list(self._name, self._body)
        return unreadable_body(f"see {self._name} from {self._n_items} on")


DECODER = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)
"""Finds the end of a value; what the value is does not matter."""


def problem_of(error: ValidationError) -> ProblemError:
    """Return the problem (422) of a body that its model refuses."""
    errors = error.errors(include_url=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return unreadable_body(errors[0]["ctx"]["error"])
    return invalid_request(validation_problems(errors))


def refuse_repeated_names(body: bytes) -> None:
    """Check that no object of a JSON text, however deep, has a name twice. A text that is not JSON passes.

    Raises:
        ProblemError: 422, with the names.
    """
    repeated = _repeated_names(body)
    if repeated:
        raise invalid_request([_given_twice(name) for name in repeated])


def _repeated_names(body: bytes) -> list[str]:
    repeated: dict[str, None] = {}

    def note(pairs: list[tuple[str, Any]]) -> None:
        repeated.update((name, None) for name, n in Counter(name for name, _ in pairs).items() if n > 1)

    try:
        json.loads(body, object_pairs_hook=note, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return []
    return list(repeated)[:MAX_ERRORS_PER_ITEM]


def _not_a_list(name: str, body: bytes) -> ProblemError:
    """Return what is wrong with a body that is not an object with a list as its one field."""
    if len(body) > PIECE_BYTES:
        return invalid_request(
            [_wrong("body", f"Input should be an object with the one field {name}, a list of objects")]
        )
    try:
        found = from_json(body)
    except ValueError as error:
        return unreadable_body(str(error))
    if not isinstance(found, dict):
        return invalid_request([_wrong("body", "Input should be an object")])
    unknown = islice((other for other in found if other != name), MAX_ERRORS_PER_ITEM)
    problems = [_wrong(other, "Extra inputs are not permitted") for other in unknown]
    if name not in found:
        problems.insert(0, _wrong(name, "Field required"))
    elif not isinstance(found[name], list):
        problems.insert(0, _wrong(name, "Input should be a valid list"))
    problems += [_given_twice(repeated) for repeated in _repeated_names(body)]
    return invalid_request(problems or [_wrong(name, "Input should be a list of objects")])


def _wrong(field: str, message: str) -> dict[str, str]:
    return validation_problems([{"type": "", "loc": (field,), "msg": message}])[0]


def _given_twice(name: str) -> dict[str, str]:
    return _wrong(name, "given more than once")


def _is_no_json(error: ValidationError) -> bool:
    return (
        error.error_count() == 1 and error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"
    )
