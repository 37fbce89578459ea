"""The dashboards keep Grafana's published schema, as its Python SDK has it: no unknown field, no value of another type."""

from __future__ import annotations

import copy
import json
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.test_monitoring import boards

register_default_plugins()


def problems(board: dict[str, Any]) -> list[str]:
    """Where a dashboard departs from the schema."""
    try:
        read = Dashboard.from_json(copy.deepcopy(board))
    except (KeyError, TypeError, ValueError) as error:
        return [f"it cannot be read: {error!r}"]
    understood = json.loads(json.dumps(read, cls=JSONEncoder))
    return [*lost(board, understood, "dashboard"), *wrong_types(read, "dashboard")]


def lost(given: Any, understood: Any, place: str) -> Iterator[str]:
    """What is given and not understood: the SDK leaves out what its schema does not have."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for name, value in given.items():
            if name in understood:
                yield from lost(value, understood[name], f"{place}.{name}")
            elif value is not None:
                yield f"{place} has no field {name!r}"
    elif isinstance(given, list) and isinstance(understood, list):
        for number, (one, other) in enumerate(zip(given, understood, strict=True)):
            yield from lost(one, other, f"{place}[{number}]")
    elif given != understood:
        yield f"{place} is {given!r}, understood as {understood!r}"


def wrong_types(read: Any, place: str) -> Iterator[str]:
    """Fields whose value is not of the type that the schema declares."""
    for name, hint in typing.get_type_hints(type(read)).items():
        value = getattr(read, name, None)
        if not fits(value, hint):
            yield f"{place}.{name} is {value!r}, not {hint}"
        for number, one in enumerate(value if isinstance(value, list) else [value]):
            if type(one).__module__.startswith("grafana_foundation_sdk") and not isinstance(one, Enum):
                yield from wrong_types(one, f"{place}.{name}[{number}]")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; an enumeration's values may be plain text."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(fits(one, arguments[0]) for one in value)
    return not isinstance(origin or hint, type) or is_of(value, origin or hint)


def is_of(value: Any, kind: type) -> bool:
    """As `isinstance`, but 1 is a float too, True no number, and an enumeration's value one of its members."""
    if issubclass(kind, Enum):
        return value in {one.value for one in kind}
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


@pytest.mark.parametrize("name", sorted(boards()))
def test_a_dashboard_keeps_the_schema_of_grafana(name: str) -> None:
    assert problems(boards()[name]) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("panels", 0, "titel"), "a field that there is not"),
        (("panels", 0, "targets", 0, "expression"), "up"),
        (("panels", 0, "gridPos", "h"), "seven"),
        (("panels", 0, "fieldConfig", "defaults", "thresholds", "mode"), "relative"),
        (("panels", 0, "title"), 7),
        (("schemaVersion",), "39"),
    ],
)
def test_what_is_not_of_the_schema_is_found(path: tuple[str | int, ...], value: Any) -> None:
    (board, *_) = boards().values()
    *way, last = path
    place: Any = board
    for step in way:
        place = place[step]
    place[last] = value
    assert problems(board)
