"""What a contract says of one column that the model sees: an input as a client sends it, or a feature computed from inputs.

Belongs here: kinds, and what a declaration of each kind must say. Does not belong here: what the features of a contract have to be
together (`selfheal.domain.contract`).

Kinds: a `float` or an `int` has limits and a unit. A `bool` is true or false at the door, in the journal and in Postgres; in
matrices and frames, and for `derive`, it is 1 or 0. A `category` is a text everywhere but in matrices (`selfheal.domain.levels`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np

from selfheal.domain.declarations import NOT_GIVEN, Forgiving, forgiving, shown
from selfheal.domain.derived_values import MAX_FLOAT, MAX_INT
from selfheal.domain.levels import MAX_DECLARED_LEVELS, level_problem, normal

Kind: TypeAlias = Literal["float", "int", "bool", "category"]

Example: TypeAlias = float | bool | str
"""A value of a feature, as a client sends it."""

FLAG_UNIT = "true or false"
LEVEL_UNIT = "text"

FLAG_WORDS = ("false", "true")
"""A bool in words: of 0 and of 1."""

NO_LIMIT = float("inf")
"""A category's limits, below 0 and above."""

ABSENT: Any = NOT_GIVEN
"""Default of what some kinds need and others do not."""


@forgiving
@dataclass(frozen=True, slots=True)
class AdverseReason(Forgiving):
    """Reason given to a person when a feature counted against them: a stable `code` for programs, a `text` for the person.

    Related features share one reason; their contributions are added. The text must be true whichever way the feature
    counted ("Level of monthly income", not "Income too low"): the direction is the model's finding, not the contract's.
    """

    code: str
    text: str


@forgiving
@dataclass(frozen=True, slots=True)
class Feature(Forgiving):
    """One raw input, as a client sends it.

    `lower` and `upper` are inclusive limits; a value beyond them is refused on every input path. They bound what is
    *possible*, not what is usual. A `bool` and a `category` have neither limits nor a unit of their own. `aliases` are further
    accepted names; `-` and `_` are equivalent. `levels` are those that a category is known to have, for the documentation and the
    checks of the feed; others are accepted all the same, as they came. Without any, a training learns them.
    """

    name: str
    kind: Literal["float", "int", "bool", "category"]
    lower: float = ABSENT
    upper: float = ABSENT
    unit: str = ABSENT
    description: str = ABSENT
    example: Example = ABSENT
    is_nullable: bool = False
    aliases: tuple[str, ...] = ()
    adverse_reason: AdverseReason | None = None
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "bool":
            self._complete(lower=0.0, upper=1.0, unit=FLAG_UNIT)
        if self.kind == "category":
            self._complete(lower=-NO_LIMIT, upper=NO_LIMIT, unit=LEVEL_UNIT)
        problem = _problem_of_example(self)
        if problem is not None:
            object.__setattr__(self, "misgiven", (*self.misgiven, problem))

    def _complete(self, **usual: object) -> None:
        """Fill in what a kind has of itself and nothing was said about."""
        for name, value in usual.items():
            if getattr(self, name) is NOT_GIVEN:
                object.__setattr__(self, name, value)


@forgiving
@dataclass(frozen=True, slots=True)
class DerivedFeature(Forgiving):
    """One feature computed from the raw inputs. `formula` is for people, `reason` says why the model needs it.

    A `bool` is 1 or 0, or an array of numpy's own type; a `category` is an array of texts, None where missing.
    """

    name: str
    kind: Literal["float", "int", "bool", "category"]
    unit: str
    formula: str
    reason: str
    is_nullable: bool = False
    adverse_reason: AdverseReason | None = None


def _problem_of_example(feature: Feature) -> str | None:
    """Return why the example is none of its kind; None if it is one, or if it is not there, which is said anyway."""
    example: object = feature.example
    if example is NOT_GIVEN:
        return None
    if feature.kind == "bool":
        return None if isinstance(example, bool) else f"example is {shown(example)}, use True or False"
    if feature.kind == "category":
        return None if isinstance(example, str) else f"example is {shown(example)}, use a text in quotes"
    is_number = isinstance(example, Real) and not isinstance(example, bool)
    return None if is_number else f"example is {shown(example)}, use a number"


def problems_of_inputs(inputs: Sequence[Feature]) -> Iterator[str]:
    """Yield each contradiction in the inputs' declarations as a sentence with the remedy."""
    if not inputs:
        yield "it has no inputs; declare at least one Feature"
    for feature in inputs:
        yield from PROBLEMS[feature.kind](feature)


def _problems_of_flag(feature: Feature) -> Iterator[str]:
    if (feature.lower, feature.upper) != (0, 1):
        yield f"{feature.name!r} is a bool, which is true or false: leave out lower and upper"
    yield from _problems_of_levels(feature)


def _problems_of_category(feature: Feature) -> Iterator[str]:
    if (feature.lower, feature.upper) != (-NO_LIMIT, NO_LIMIT):
        yield f"{feature.name!r} is a category, which has no limits: leave out lower and upper"
    for level in (str(feature.example), *feature.levels):
        problem = level_problem(level)
        if problem is not None:
            yield f"the level {shown(level)} of {feature.name!r} {problem}"
    if len(feature.levels) > MAX_DECLARED_LEVELS:
        yield f"{feature.name!r} declares {len(feature.levels):,} levels; leave them out, and a training learns them"
    names = [normal(level) for level in feature.levels]
    for double in sorted({name for name in names if names.count(name) > 1}):
        yield f"{feature.name!r} declares the level {double!r} more than once"


def _problems_of_levels(feature: Feature) -> Iterator[str]:
    if feature.levels:
        yield f"{feature.name!r} has levels, but is of kind {feature.kind!r}; declare it as a 'category', or leave them out"


def _problems_of_number(feature: Feature) -> Iterator[str]:
    yield from _problems_of_levels(feature)
    if isinstance(feature.example, str):
        return  # which has been said
    if not (np.isfinite(feature.lower) and np.isfinite(feature.upper) and feature.lower < feature.upper):
        yield f"{feature.name!r} has the limits {feature.lower:g} to {feature.upper:g}; two finite, rising numbers are needed"
    elif max(abs(feature.lower), abs(feature.upper)) > MAX_FLOAT:
        yield f"{feature.name!r} has limits beyond ±{MAX_FLOAT:.1e}, which no tree can compare; use another unit"
    elif not feature.lower <= feature.example <= feature.upper:
        yield f"the example {feature.example:g} of {feature.name!r} is not within {feature.lower:g} to {feature.upper:g}"
    if feature.kind == "int" and max(abs(feature.lower), abs(feature.upper)) > MAX_INT:
        yield f"{feature.name!r} is an int beyond {MAX_INT:,}; declare it as a float"
    if feature.kind == "int" and any(value % 1 for value in (feature.lower, feature.upper, feature.example)):
        yield f"{feature.name!r} is an int, but its limits or its example are not whole numbers"


PROBLEMS: dict[Kind, Callable[[Feature], Iterator[str]]] = {
    "float": _problems_of_number,
    "int": _problems_of_number,
    "bool": _problems_of_flag,
    "category": _problems_of_category,
}
