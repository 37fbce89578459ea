"""Periods of a broken feed that a declaration accepts: what was found broken there is declared sound, so that their rows count again.

Belongs here: which periods that are. The periods are found by `selfheal.domain.monitoring.feed`, and stored with the decision that
accepts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfheal.domain.monitoring.declarations import Declaration
from selfheal.domain.records import SpoiledPeriod


def newly_accepted(
    periods: Mapping[str, SpoiledPeriod], sound: Mapping[str, Declaration], model_version: int
) -> dict[str, str | None]:
    """Return the periods whose acceptance changes, each with the decision that accepts it now; None: none does any more.

    A period is accepted if every column that was found broken in it is declared sound. One between a broken check and a sound one
    is accepted with those that end where it begins. A new declaration accepts periods of the version in production only, since it
    is about the traffic that its author has seen; a withdrawal ends the acceptance of any.

    Args:
        periods: by the tick that found them.
        sound: declarations in force, by column.
        model_version: the version in production.
    """
    eligible = {
        tick_id: one
        for tick_id, one in periods.items()
        if one.accepted_by is not None or one.model_version == model_version
    }
    by = {tick_id: _accepting(one.columns, sound) for tick_id, one in eligible.items() if one.columns}
    for tick_id, one in eligible.items():
        if not one.columns:
            before = [
                by.get(other)
                for other, period in periods.items()
                if period.columns and period.model_version == one.model_version and period.ended_at == one.started_at
            ]
            by[tick_id] = before[0] if before and None not in before else None
    return {tick_id: by[tick_id] for tick_id, one in eligible.items() if by[tick_id] != one.accepted_by}


def _accepting(columns: Sequence[str], sound: Mapping[str, Declaration]) -> str | None:
    """Return the newest decision by which all columns are sound; None if one of them is not."""
    found = [sound[name] for name in columns if name in sound]
    return max(found, key=lambda one: one.declared_at).decision_id if len(found) == len(columns) else None
