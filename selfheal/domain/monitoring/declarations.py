"""Declarations by people: a column is seasonal, or what the feed check finds in it is no fault.

A declaration is a decision in the chain, with reason and name. The newest one of a kind about a column counts, and a withdrawal
ends it; so their number is bounded by that of the columns. It silences the finding about that column alone: harm that labels show,
and faults of other columns, are heard as ever.

Belongs here: what is declared, as decisions record it. Recording is `selfheal.services.declarations`'.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from selfheal.domain.records import Action, Decision

ROWS = "_rows"
"""Stands for a column where whole rows are declared sound, although they are copies of others; no feature's name begins with `_`."""


class Declared(StrEnum):
    """What a person can declare about a column."""

    SEASONAL = "seasonal"
    SOUND = "sound"
    NOT_SEASONAL = "not_seasonal"
    NOT_SOUND = "not_sound"

    @property
    def is_withdrawal(self) -> bool:
        """Return whether this ends an earlier declaration."""
        return self in {Declared.NOT_SEASONAL, Declared.NOT_SOUND}

    @property
    def subject(self) -> Declared:
        """Return the declaration that this one makes or ends."""
        return {Declared.NOT_SEASONAL: Declared.SEASONAL, Declared.NOT_SOUND: Declared.SOUND}.get(self, self)


@dataclass(frozen=True, slots=True)
class Declaration:
    """The newest declaration of a kind about a column, or its withdrawal: who, when, and why."""

    subject: Declared
    column: str
    is_in_force: bool
    actor: str
    declared_at: datetime
    reason: str
    decision_id: str

    def __str__(self) -> str:
        """Return a sentence on who declared it, when, and why."""
        return f"declared {self.subject} by {self.actor} on {self.declared_at:%Y-%m-%d}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Declarations:
    """Declarations in force, by column: what is `seasonal`, with a sentence, and what is `sound`."""

    all: tuple[Declaration, ...] = ()

    @property
    def seasonal(self) -> dict[str, str]:
        """Return the columns that are declared seasonal, each with who declared it, when, and why."""
        return {name: str(one) for name, one in self.of(Declared.SEASONAL).items()}

    @property
    def sound(self) -> dict[str, str]:
        """Return the columns that are declared sound, likewise."""
        return {name: str(one) for name, one in self.of(Declared.SOUND).items()}

    def of(self, subject: Declared) -> dict[str, Declaration]:
        """Return the declarations of a kind that are in force."""
        return {one.column: one for one in self.all if one.subject is subject and one.is_in_force}


def stored(what: Declared, column: str) -> str:
    """Return a declaration as a decision stores it.

    >>> stored(Declared.SEASONAL, "age")
    'seasonal:age'
    """
    return f"{what}:{column}"


def newest_of_each(decisions: Iterable[Decision]) -> Declarations:
    """Return the newest declaration of each kind about each column.

    Args:
        decisions: newest first; those that declare nothing are passed over.
    """
    newest: dict[tuple[Declared, str], Declaration] = {}
    for decision in decisions:
        if decision.action is not Action.DECLARE or decision.declared is None:
            continue
        kind, _, column = decision.declared.partition(":")
        what = Declared(kind)
        found = Declaration(
            what.subject,
            column,
            not what.is_withdrawal,
            decision.actor,
            decision.created_at,
            decision.reason,
            decision.decision_id,
        )
        newest.setdefault((what.subject, column), found)
    return Declarations(tuple(newest.values()))
