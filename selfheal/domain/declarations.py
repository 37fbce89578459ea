"""Wrong arguments of a declaration, reported in sentences and all at once.

A dataclass that is called with a missing or unknown argument raises at once, in Python's words, and hides all mistakes that
follow; a value of another type is found wherever it is first used. A `forgiving` dataclass is made all the same and remembers
what was wrong; whoever puts the declarations together asks `problems_of` for each and refuses them together. What a value may
be follows from the annotation of its field.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache, wraps
from numbers import Real
from typing import Any, TypeVar

import numpy as np

Declaration = TypeVar("Declaration")

MAX_CHARACTERS = 60
"""Largest number of characters of a wrong value in a message."""


class Forgiving:
    """Base of declarations: `misgiven` says which arguments could not be taken."""

    __slots__ = ("misgiven",)
    misgiven: tuple[str, ...]


class _NotGiven:
    """The value of a required argument that was not given."""

    def __repr__(self) -> str:
        return "nothing"


NOT_GIVEN = _NotGiven()


def forgiving(declaration: type[Declaration]) -> type[Declaration]:
    """Let a dataclass (a `Forgiving` one) be made with wrong arguments: `NOT_GIVEN` stands where one is missing."""
    make = declaration.__init__
    known = [field for field in fields(declaration) if field.init]  # type: ignore[arg-type]
    names = [field.name for field in known]
    required = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]

    @wraps(make)
    def init(self: Any, *given: Any, **named: Any) -> None:
        by_position = dict(zip(names, given, strict=False))
        by_name = {name: value for name, value in named.items() if name in names}
        wrong = [f"unknown argument {name!r} (known are {', '.join(names)})" for name in named if name not in names]
        wrong += [f"{name} is given twice" for name in by_name if name in by_position]
        if len(given) > len(names):
            wrong.append(f"{len(given)} arguments, but only {len(names)} are known ({', '.join(names)})")
        object.__setattr__(self, "misgiven", tuple(wrong))
        make(self, **{**dict.fromkeys(required, NOT_GIVEN), **by_name, **by_position})

    setattr(declaration, "__init__", init)  # noqa: B010 (mypy refuses the assignment)
    return declaration


def problems_of(declaration: object) -> Iterator[str]:
    """Yield each argument of a `forgiving` declaration that is wrong, with what is allowed."""
    declared = fields(declaration)  # type: ignore[arg-type]
    absent = [field.name for field in declared if getattr(declaration, field.name) is NOT_GIVEN]
    if absent:
        yield f"{', '.join(absent)} missing"
    yield from getattr(declaration, "misgiven", ())
    for field in declared:
        value, rule = getattr(declaration, field.name), _rule_of(str(field.type))
        if value is not NOT_GIVEN and not rule.is_kept(value):
            yield f"{field.name} is {shown(value)}, use {rule.allowed}"


def shown(value: object) -> str:
    """Return a value as text of one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


# What an annotation allows


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a value may be: in words that complete "use ...", and as a test."""

    allowed: str
    is_kept: Callable[[Any], bool]


def _is_grid(value: object) -> bool:
    """Return whether a value maps names to lists of values."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(values, Sequence | np.ndarray) and not isinstance(values, str)
        for name, values in value.items()
    )


_PLAIN = {
    "str": _Rule("a text in quotes", lambda value: isinstance(value, str)),
    "float": _Rule("a number", lambda value: isinstance(value, Real) and not isinstance(value, bool)),
    "bool": _Rule("True or False", lambda value: isinstance(value, bool)),
    "Example": _Rule(
        "a value of its kind", lambda _: True
    ),  # which depends on the kind: the declaration says so itself
    "Mapping[str, Sequence[Any]]": _Rule("a mapping of names to lists of values", _is_grid),
}

_OPTIONAL, _TUPLE = re.compile(r"(.+) \| None"), re.compile(r"tuple\[(.+), \.\.\.\]")


@cache
def _rule_of(annotation: str) -> _Rule:
    """Return what a field may hold, from the text of its annotation; a class is known by its name."""
    if match := _OPTIONAL.fullmatch(annotation):
        inner = _rule_of(match[1])
        return _Rule(f"{inner.allowed}, or None", lambda value: value is None or inner.is_kept(value))
    if match := _TUPLE.fullmatch(annotation):
        item = _rule_of(match[1])
        return _Rule(
            f"several in brackets, each followed by a comma: ({item.allowed},)",
            lambda value: isinstance(value, tuple | list) and all(map(item.is_kept, value)),
        )
    if annotation.startswith("Literal["):
        allowed = ast.literal_eval(f"({annotation.removeprefix('Literal').strip('[]')},)")
        return _Rule(" or ".join(map(repr, allowed)), lambda value: isinstance(value, str) and value in allowed)
    if annotation.startswith("Callable["):
        return _Rule("a function", callable)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    return _Rule(f"{annotation}(...)", lambda value: annotation in {kind.__name__ for kind in type(value).__mro__})
