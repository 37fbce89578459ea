"""Spoiled periods, in which the feed was broken: never deleted, so that nothing sent in them is ever trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from selfheal.domain.records import SpoiledPeriod

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

IS_SOUND = """
    NOT EXISTS (
        SELECT 1 FROM spoiled_periods s
        WHERE s.model_version = {row}.model_version AND {row}.{time} BETWEEN s.started_at AND s.ended_at
    )
"""
"""SQL: whether a prediction was made while the feed was sound, as far as ticks have checked."""

COUNT_SPOILED = text("""
    WITH periods AS (
        SELECT model_version, unnest(range_agg(tstzrange(started_at, ended_at, '[]'))) AS period
        FROM spoiled_periods WHERE ended_at > :since GROUP BY model_version
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
    }
    with store.engine.begin() as connection:
        connection.execute(insert(store.tables.spoiled_periods).values(**values).on_conflict_do_nothing())


def spoiled_periods(store: Store, model_version: int) -> list[SpoiledPeriod]:
    """Return the spoiled periods of a version's traffic, oldest first."""
    table = store.tables.spoiled_periods
    query = select(table).where(table.c.model_version == model_version).order_by(table.c.started_at, table.c.tick_id)
    with store.engine.connect() as connection:
        return [
            SpoiledPeriod(row.model_version, row.started_at, row.ended_at, tuple(row.reasons))
            for row in connection.execute(query)
        ]
