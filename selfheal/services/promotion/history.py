"""History of production: which version served when, by which decision, as plain values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from selfheal.adapters.postgres import decisions, probations
from selfheal.adapters.postgres.promotions import list_promotions, production_at
from selfheal.kit.errors import PermanentError

if TYPE_CHECKING:
    from selfheal.domain.records import Promotion
    from selfheal.services.platform import Platform


def history(platform: Platform, limit: int) -> list[dict[str, Any]]:
    """Return what was live, newest first: version, decision, probation, `since` and `until` (None: still live)."""
    promotions = list_promotions(platform.store, limit)
    until = [None, *(promotion.promoted_at for promotion in promotions)]
    outcomes = {(row.version, row.promoted_at): row.outcome for row in probations.outcomes(platform.store, limit)}
    return [
        _entry(platform, promotion)
        | {"until": ended_at, "probation": outcomes.get((promotion.version, promotion.promoted_at))}
        for promotion, ended_at in zip(promotions, until, strict=False)
    ]


def live_at(platform: Platform, moment: datetime) -> dict[str, Any] | None:
    """Return what was live at that time, as `history` but without end and probation; None before the first promotion."""
    promotion = production_at(platform.store, moment)
    return None if promotion is None else _entry(platform, promotion)


def parse_moment(text: str) -> datetime:
    """Parse an ISO 8601 date or time; one without an offset is UTC.

    >>> parse_moment("2026-03-02T13:00+01:00").isoformat()
    '2026-03-02T12:00:00+00:00'

    Raises:
        PermanentError: if it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PermanentError(
            f"{text!r} is not a time; write it as 2026-03-02T12:00 (UTC) or 2026-03-02T13:00+01:00"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _entry(platform: Platform, promotion: Promotion) -> dict[str, Any]:
    decision = decisions.find(platform.store, promotion.decision_id)
    return {
        "version": promotion.version,
        "since": promotion.promoted_at,
        "replaced_version": promotion.replaced_version,
        "action": None if decision is None else decision.action.value,
        "actor": None if decision is None else decision.actor,
        "reason": None if decision is None else decision.reason,
        "decision_id": promotion.decision_id,
    }
