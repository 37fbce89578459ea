"""Probations: how each one ended, recorded once and never changed. The rule is in `selfheal.domain.probation`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert

from selfheal.domain.records import ModelVersion, ProbationOutcome, ProbationReport

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

ALERT_SOURCE = "probation"


def record_outcome(store: Store, report: ProbationReport, promoted_at: datetime, now: datetime) -> None:
    """Record how the probation of a version that went live at `promoted_at` ended; keep an earlier record."""
    assert report.outcome is not None, "the probation goes on"
    values = {
        "model_name": report.model_name,
        "version": report.version,
        "promoted_at": promoted_at,
        "ended_at": now,
        "outcome": report.outcome.value,
        "reason": report.reason,
        "n_labels": report.n_labels,
        "brier_change": report.brier_change,
        "brier_change_low": report.brier_change_low,
    }
    with store.engine.begin() as connection:
        connection.execute(insert(store.tables.probations).values(**values).on_conflict_do_nothing())


def outcome_of(store: Store, version: ModelVersion) -> ProbationReport | None:
    """Return how the probation since the version's latest promotion ended; None if it continues, or there is none."""
    table = store.tables.probations
    query = select(table).where(
        table.c.model_name == store.contract.name,
        table.c.version == version.version,
        table.c.promoted_at == version.promoted_at,
    )
    with store.engine.connect() as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    return ProbationReport(
        model_name=row.model_name,
        version=row.version,
        previous_version=version.previous_version,
        n_labels=row.n_labels,
        brier_change=row.brier_change,
        brier_change_low=row.brier_change_low,
        is_on_probation=False,
        reason=row.reason,
        outcome=ProbationOutcome(row.outcome),
    )


def outcomes(store: Store, limit: int = 100) -> list[Row[Any]]:
    """Return how probations ended, newest first."""
    table = store.tables.probations
    query = select(table).where(table.c.model_name == store.contract.name).order_by(table.c.ended_at.desc())
    with store.engine.connect() as connection:
        return list(connection.execute(query.limit(limit)))
