"""Spoiled periods, in which the feed was broken: never deleted, so that nothing sent in them is trained on.

A decision by which a person declares sound what was found broken accepts a period; its rows count again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert

from selfheal.domain.records import SpoiledPeriod

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfheal.adapters.postgres.store import Store

IS_SOUND = """
    NOT EXISTS (
        SELECT 1 FROM spoiled_periods s
        WHERE s.model_version = {row}.model_version AND {row}.{time} BETWEEN s.started_at AND s.ended_at
          AND s.accepted_by IS NULL
    )
"""
"""SQL: whether a prediction was made while the feed was sound, as far as ticks have checked, or is declared to have been."""

COUNT_SPOILED = text("""
    WITH periods AS (
        SELECT model_version, unnest(range_agg(tstzrange(started_at, ended_at, '[]'))) AS period
        FROM spoiled_periods WHERE ended_at > :since AND accepted_by IS NULL GROUP BY model_version
    )
    SELECT count(*), count(l.prediction_id)
    FROM periods s
    JOIN prediction_logs p ON p.model_version = s.model_version AND p.created_at > :since
                              AND p.created_at BETWEEN lower(s.period) AND upper(s.period)
    LEFT JOIN label_store l USING (prediction_id)
""")
"""SQL: predictions of all versions after `since` that were made while the feed was broken, and how many are labelled.

Ticks overlap, and so do their periods, which are merged first, so that each row is counted once.
"""


def record_spoiled_period(store: Store, tick_id: str, period: SpoiledPeriod) -> None:
    """Record the period that a tick found, once, however often the tick is repeated."""
    values = {
        "tick_id": tick_id,
        "model_name": store.contract.name,
        "model_version": period.model_version,
        "started_at": period.started_at,
        "ended_at": period.ended_at,
        "reasons": list(period.reasons),
        "columns": list(period.columns),
    }
    with store.engine.begin() as connection:
        connection.execute(insert(store.tables.spoiled_periods).values(**values).on_conflict_do_nothing())


def spoiled_periods(store: Store, model_version: int | None = None) -> dict[str, SpoiledPeriod]:
    """Return the spoiled periods of a version's traffic, or of all, by the tick that found them, oldest first."""
    table = store.tables.spoiled_periods
    query = select(table).where(table.c.model_name == store.contract.name)
    if model_version is not None:
        query = query.where(table.c.model_version == model_version)
    with store.engine.connect() as connection:
        return {
            row.tick_id: SpoiledPeriod(
                row.model_version,
                row.started_at,
                row.ended_at,
                tuple(row.reasons),
                tuple(row.columns),
                row.accepted_by,
            )
            for row in connection.execute(query.order_by(table.c.started_at, table.c.tick_id))
        }


def accept_spoiled_periods(store: Store, accepted: Mapping[str, str | None]) -> None:
    """Store by which decision each of these periods is accepted now; None: by none any more."""
    table = store.tables.spoiled_periods
    with store.engine.begin() as connection:
        for decision_id in set(accepted.values()):
            ticks = [tick_id for tick_id, by in accepted.items() if by == decision_id]
            connection.execute(update(table).where(table.c.tick_id.in_(ticks)).values(accepted_by=decision_id))
