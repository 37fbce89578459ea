"""A declaration that is made wrongly remembers what was wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from selfheal.domain.declarations import Forgiving, forgiving, problems_of


@forgiving
@dataclass(frozen=True, slots=True)
class Box(Forgiving):
    name: str
    size: float
    colour: str = "red"


make = cast(Any, Box)


@pytest.mark.parametrize(
    ("box", "problems"),
    [
        (make("a", 1), []),
        (make(size=1, name="a", colour="blue"), []),
        (make("a"), ["size missing"]),
        (make(), ["name, size missing"]),
        (make("a", True), ["size is True, use a number"]),
        (make("a", 1, weight=2), ["unknown argument 'weight' (known are name, size, colour)"]),
        (make("a", 1, size=2), ["size is given twice"]),
        (make("a", 1, "b", "c"), ["4 arguments, but only 3 are known (name, size, colour)"]),
        (make(1, "x" * 100), ["name is 1, use a text in quotes", f"size is {('x' * 100)!r:.60}..., use a number"]),
    ],
)
def test_each_wrong_argument_is_remembered(box: Box, problems: list[str]) -> None:
    assert list(problems_of(box)) == problems


def test_a_default_applies_where_nothing_is_given() -> None:
    assert make("a", 1) == make("a", size=1, colour="red")
