"""Monitoring ticks: queries that record and read them (`monitoring_metrics`)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.dialects.postgresql import insert

from selfheal.adapters.postgres import season_memories
from selfheal.domain.records import DriftReport, PerformanceReport, ProxyMetrics, Triage
from selfheal.kit.serialization import to_dict

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store


def record_tick(
    store: Store, proxy: ProxyMetrics, drift: DriftReport, performance: PerformanceReport, triage: Triage, now: datetime
) -> bool:
    """Record a tick; return False if there already is a tick of the same traffic and labels.

    Ticks are ordered by `created_at`: if the clock was set back, the new tick's time is just after the newest one's.
    """
    values = tick_values(proxy, drift, performance, triage, now)
    with store.engine.begin() as connection:
        table = store.tables.monitoring_metrics
        newest = select(func.max(table.c.created_at)).where(table.c.model_name == triage.window.model_name)
        before = connection.execute(newest).scalar()
        if before is not None:
            values["created_at"] = max(now, before + timedelta(microseconds=1))
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(table.c.tick_id)
        is_new = connection.execute(statement).first() is not None
        if is_new and drift.seasons is not None:  # in one transaction, so that a tick is learned from exactly once
            season_memories.record_on(store, connection, triage.window, drift.seasons, now)
    return is_new


def tick_values(
    proxy: ProxyMetrics, drift: DriftReport, performance: PerformanceReport, triage: Triage, now: datetime
) -> dict[str, Any]:
    """Return a tick's row of `monitoring_metrics`, by column."""
    window = triage.window
    performance_fields = to_dict(performance)
    return {
        "tick_id": window.tick_id,
        "created_at": now,
        "model_name": window.model_name,
        "model_version": window.model_version,
        "window_start": window.start,
        "window_end": window.end,
        "n_predictions": window.n_predictions,
        "n_labels": window.n_labels,
        "positive_rate": proxy.positive_rate,
        "probability_mean": proxy.probability_mean,
        "probability_std": proxy.probability_std,
        "entropy": proxy.entropy,
        "feature_drift_ratio": drift.feature_drift_ratio,
        "num_drifted_features": len(drift.drifted_features),
        "drifted_features": list(drift.drifted_features),
        "dataset_drift_detected": drift.dataset_drift_detected,
        "verdict": triage.verdict.value,
        "reasons": list(triage.reasons),
        "estimated": {
            k.removeprefix("estimated_"): performance_fields[k] for k in performance_fields if "estimated_" in k
        },
        "realised": performance_fields["realised"],
        "label_coverage_pct": performance.label_coverage_pct,
        "reference_version": drift.reference_version,
        "report_ref": drift.report_ref,
        "episode_id": triage.episode_id,
    }


def latest_tick(store: Store, model_version: int | None = None, min_predictions: int = 0) -> Row[Any] | None:
    """Return the newest row of `monitoring_metrics` (of one version, with at least `min_predictions`), or None."""
    ticks = recent_ticks(store, 1, model_version, min_predictions)
    return ticks[0] if ticks else None


def recent_ticks(
    store: Store, limit: int, model_version: int | None = None, min_predictions: int = 0
) -> list[Row[Any]]:
    """Return the newest rows, newest first."""
    table = store.tables.monitoring_metrics
    query = select(table).where(table.c.model_name == store.contract.name, table.c.n_predictions >= min_predictions)
    if model_version is not None:
        query = query.where(table.c.model_version == model_version)
    with store.engine.connect() as connection:
        return list(connection.execute(query.order_by(table.c.created_at.desc()).limit(limit)))


def ticks_since(store: Store, since: datetime, limit: int) -> list[Row[Any]]:
    """Return the rows since `since`, of all versions, newest first."""
    table = store.tables.monitoring_metrics
    query = select(table).where(table.c.model_name == store.contract.name, table.c.created_at >= since)
    with store.engine.connect() as connection:
        return list(connection.execute(query.order_by(table.c.created_at.desc()).limit(limit)))


def unseen_since(store: Store, model_version: int) -> datetime | None:
    """Return when the version's oldest prediction not yet covered by a tick was made; None if there is none.

    A tick covers predictions up to the end of its window. A version without a tick has waited since its first prediction.
    The query is one statement that reads two indexes.
    """
    query = """
        SELECT created_at FROM prediction_logs
        WHERE model_version = :version AND created_at > coalesce(
            (SELECT window_end FROM monitoring_metrics WHERE model_name = :name AND model_version = :version
             ORDER BY created_at DESC LIMIT 1),
            '-infinity')
        ORDER BY created_at LIMIT 1
    """
    with store.engine.connect() as connection:
        return connection.execute(text(query), {"name": store.contract.name, "version": model_version}).scalar()


def reports_of_open_episodes(store: Store) -> list[str]:
    """Return the first and the latest report (`report_ref`) of the newest tick's episode and of each open alert's."""
    query = """
        WITH open_episodes AS (
            (SELECT episode_id FROM monitoring_metrics WHERE model_name = :name ORDER BY created_at DESC LIMIT 1)
            UNION SELECT episode_id FROM monitoring_alerts WHERE model_name = :name AND resolved_at IS NULL
        ), of_episode AS (
            SELECT report_ref, rank() OVER (PARTITION BY episode_id ORDER BY created_at) AS from_first,
                   rank() OVER (PARTITION BY episode_id ORDER BY created_at DESC) AS from_latest
            FROM monitoring_metrics JOIN open_episodes USING (episode_id)
            WHERE model_name = :name AND report_ref IS NOT NULL
        )
        SELECT DISTINCT report_ref FROM of_episode WHERE from_first = 1 OR from_latest = 1
    """
    with store.engine.connect() as connection:
        return list(connection.execute(text(query), {"name": store.contract.name}).scalars())
