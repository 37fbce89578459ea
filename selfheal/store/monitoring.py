"""Queries over monitoring ticks and alerts."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert

from selfheal.records import Alert, DriftReport, PerformanceReport, ProxyMetrics, Triage, to_dict
from selfheal.time_ordered import new_id

if TYPE_CHECKING:
    from selfheal.store import Store


def record_tick(
    store: Store, proxy: ProxyMetrics, drift: DriftReport, performance: PerformanceReport, triage: Triage, now: datetime
) -> bool:
    """Writes the tick's row; False if the same traffic and labels have been looked at before."""
    window = triage.window
    performance_fields = to_dict(performance)
    values = {
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
    with store.engine.begin() as connection:
        table = store.tables.monitoring_metrics
        statement = insert(table).values(**values).on_conflict_do_nothing().returning(table.c.tick_id)
        return connection.execute(statement).first() is not None


def latest_tick(store: Store, model_version: int | None = None) -> Row[Any] | None:
    """The newest row of `monitoring_metrics` (of one version), or None."""
    ticks = recent_ticks(store, 1, model_version)
    return ticks[0] if ticks else None


def recent_ticks(store: Store, limit: int, model_version: int | None = None) -> list[Row[Any]]:
    """The newest rows first."""
    table = store.tables.monitoring_metrics
    query = select(table).where(table.c.model_name == store.contract.name)
    if model_version is not None:
        query = query.where(table.c.model_version == model_version)
    with store.engine.connect() as connection:
        return list(connection.execute(query.order_by(table.c.created_at.desc()).limit(limit)))


def sync_alerts(store: Store, triage: Triage, now: datetime) -> list[Alert]:
    """Opens what is new, updates what goes on, resolves what is over, for one version. Returns the newly opened."""
    table = store.tables.monitoring_alerts
    window = triage.window
    holding = {alert.kind: alert for alert in triage.alerts}
    opened: list[Alert] = []
    with store.engine.begin() as connection:
        is_open = (table.c.model_name == window.model_name) & table.c.resolved_at.is_(None)
        rows = connection.execute(select(table).where(is_open).with_for_update()).all()
        for row in rows:
            alert = holding.get(row.kind) if row.model_version == window.model_version else None
            if alert is None:
                change: dict[str, Any] = {"resolved_at": now, "resolved_by": "monitoring"}
            elif alert.message != row.message or alert.severity.value != row.severity:
                change = {
                    "message": alert.message,
                    "severity": alert.severity.value,
                    "metrics": alert.metrics,
                    "updated_at": now,
                }
            else:
                continue
            connection.execute(update(table).where(table.c.alert_id == row.alert_id).values(**change))
        already = {row.kind for row in rows if row.model_version == window.model_version}
        for kind, alert in holding.items():
            if kind in already:
                continue
            statement = insert(table).values(
                alert_id=new_id(),
                model_name=window.model_name,
                model_version=window.model_version,
                kind=kind,
                severity=alert.severity.value,
                message=alert.message,
                metrics=alert.metrics,
                episode_id=triage.episode_id,
                created_at=now,
                updated_at=now,
            )
            is_new = connection.execute(statement.on_conflict_do_nothing().returning(table.c.alert_id)).first()
            if is_new is not None:
                opened.append(alert)
    return opened


def list_alerts(store: Store, *, only_open: bool = False, limit: int = 100) -> list[Row[Any]]:
    """The newest alerts first."""
    table = store.tables.monitoring_alerts
    query = select(table).where(table.c.model_name == store.contract.name)
    if only_open:
        query = query.where(table.c.resolved_at.is_(None))
    with store.engine.connect() as connection:
        return list(connection.execute(query.order_by(table.c.created_at.desc()).limit(limit)))


def acknowledge_alert(store: Store, alert_id: UUID, actor: str, now: datetime) -> bool:
    """Marks an alert as seen; False if there is no such alert or it was acknowledged before."""
    table = store.tables.monitoring_alerts
    statement = (
        update(table)
        .where(table.c.alert_id == alert_id, table.c.acknowledged_at.is_(None))
        .values(acknowledged_at=now, acknowledged_by=actor)
    )
    with store.engine.begin() as connection:
        return connection.execute(statement).rowcount > 0
