"""Declarations by people: a column is seasonal, or what the feed check finds in it is no fault.

A declaration is a decision in the chain, with reason and name. The newest one of a kind about a column counts, and a withdrawal
ends it. It silences the finding about that column alone: harm that labels show, and faults of other columns, are heard as ever.

Belongs here: what is declared, as decisions record it. Recording is `selfheal.services.declarations`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from selfheal.domain.records import Action, Decision

ROWS = "_rows"
"""Stands for a column where whole rows are declared sound, although they are copies of others; no feature's name begins with `_`."""

MAX_DECLARATIONS = 1_000
"""Number of newest declarations that are read."""


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
class Declarations:
    """Declarations in force: by column, a sentence with who declared it, when, and why."""

    seasonal: Mapping[str, str] = field(default_factory=dict)
    sound: Mapping[str, str] = field(default_factory=dict)


def stored(what: Declared, column: str) -> str:
    """Return a declaration as a decision stores it.

    >>> stored(Declared.SEASONAL, "age")
    'seasonal:age'
    """
    return f"{what}:{column}"


def in_force(decisions: Iterable[Decision]) -> Declarations:
    """Return the declarations in force.

    Args:
        decisions: newest first; those that declare nothing are passed over.
    """
    newest: dict[tuple[Declared, str], str | None] = {}
    for decision in decisions:
        if decision.action is not Action.DECLARE or decision.declared is None:
            continue
        kind, _, column = decision.declared.partition(":")
        what = Declared(kind)
        by = f"declared {what} by {decision.actor} on {decision.created_at:%Y-%m-%d}: {decision.reason}"
        newest.setdefault((what.subject, column), None if what.is_withdrawal else by)
    seasonal, sound = (
        {column: by for (what, column), by in newest.items() if by is not None and what is kind}
        for kind in (Declared.SEASONAL, Declared.SOUND)
    )
    return Declarations(seasonal, sound)
