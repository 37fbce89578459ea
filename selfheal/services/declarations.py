"""Declarations by people about columns, recorded in the chain of decisions and read by each tick."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from selfheal.domain.monitoring.accepted_periods import newly_accepted
from selfheal.domain.monitoring.declarations import (
    ROWS,
    Declarations,
    Declared,
    newest_of_each,
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

    What is declared sound gives back the rows of periods in which nothing else was found broken (`accept_periods`).

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
    if what.is_withdrawal and column not in present.of(what.subject):
        raise PermanentError(f"{column} is not declared {what.subject}, so that there is nothing to withdraw")
    champion = platform.versions.champion()
    recorded = platform.decisions.record(
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
    if what.subject is Declared.SOUND:
        accept_periods(platform, champion.version, declarations(platform))
    return recorded


def accept_periods(platform: LoopPlatform, model_version: int, declared: Declarations) -> None:
    """Let the rows of periods count again in which only what is declared sound was found broken, and of no others.

    Args:
        model_version: the version in production.
    """
    periods = platform.traffic.spoiled_periods()
    accepted = newly_accepted(periods, declared.of(Declared.SOUND), model_version)
    if accepted:
        platform.traffic.accept_spoiled_periods(accepted)


def declarations(platform: LoopPlatform) -> Declarations:
    """Return the newest declaration of each kind about each column."""
    return newest_of_each(platform.decisions.newest_declarations())
