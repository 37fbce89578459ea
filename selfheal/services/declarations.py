"""Declarations by people about columns, recorded in the chain of decisions and read by each tick."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from selfheal.domain.monitoring.declarations import (
    MAX_DECLARATIONS,
    ROWS,
    Declarations,
    Declared,
    in_force,
    stored,
)
from selfheal.domain.records import Action, Decision, Trigger
from selfheal.domain.records.decisions import MAX_REASON_CHARACTERS
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import PermanentError
from selfheal.kit.serialization import digest_of

if TYPE_CHECKING:
    from selfheal.services.repositories import LoopPlatform


def declare(platform: LoopPlatform, what: Declared, column: str, *, reason: str, actor: str, now: datetime) -> Decision:
    """Record that a person declares a column seasonal, or what the feed check finds in it no fault, or withdraws that.

    Raises:
        PermanentError: if there is no such column, no reason is given, or nothing is there to withdraw.
        NoProductionModelError: if nothing is in production.
    """
    if not reason.strip() or len(reason) > MAX_REASON_CHARACTERS:
        raise PermanentError(
            f"a reason of at most {MAX_REASON_CHARACTERS:,} characters is required: it is recorded with the declaration"
        )
    contract = platform.contract
    known = contract.feature_names if what.subject is Declared.SEASONAL else (*contract.input_names, ROWS)
    if column not in known and not what.is_withdrawal:  # what was declared of a column that is gone can be withdrawn
        raise PermanentError(f"there is no column {column!r} to declare {what.subject}; name one of {', '.join(known)}")
    present = declarations(platform)
    of_kind = present.seasonal if what.subject is Declared.SEASONAL else present.sound
    if what.is_withdrawal and column not in of_kind:
        raise PermanentError(f"{column} is not declared {what.subject}, so that there is nothing to withdraw")
    champion = platform.versions.champion()
    return platform.decisions.record(
        Decision(
            decision_id=digest_of(Action.DECLARE, what, column, actor, reason, now)[:16],
            created_at=now,
            model_name=contract.name,
            trigger_reason=Trigger.MANUAL.value,
            action=Action.DECLARE,
            reason=reason,
            actor=actor,
            champion_version=champion.version,
            code_version=code_version(),
            declared=stored(what, column),
        )
    )


def declarations(platform: LoopPlatform) -> Declarations:
    """Return the declarations in force."""
    return in_force(platform.decisions.newest(MAX_DECLARATIONS, (Action.DECLARE,)))
