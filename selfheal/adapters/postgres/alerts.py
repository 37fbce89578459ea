"""Alerts: queries that open, update, resolve, acknowledge and list them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, select, update
from sqlalchemy.dialects.postgresql import insert

from selfheal.domain.records import Alert, Severity, Triage, Verdict
from selfheal.kit.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from selfheal.adapters.postgres.store import Store


MONITORING, SERVING, TRAFFIC = "monitoring", "serving", "traffic"
"""Sources of alerts: a tick, the API, and the sensor that notices missing traffic. Each opens and resolves its own."""

PROMOTION, REGISTRY, VALUES = "promotion", "registry", "values"
"""Further sources: a refused promotion or rollback, MLflow being out of sync, and rows that a tick leaves out."""


def sync_alerts(store: Store, triage: Triage, now: datetime) -> list[Alert]:
    """Open, update and resolve monitoring's alerts to match a tick; return the newly opened ones.

    There is one alert per kind and episode: the same cause in another episode is another alert. Alerts of other sources are
    unchanged, because a tick cannot know whether their cause is gone. A tick with too few rows resolves nothing.
    """
    table = store.tables.monitoring_alerts
    window = triage.window
    current = {alert.kind: alert for alert in triage.alerts}
    with store.engine.begin() as connection:
        rows = connection.execute(select(table).where(_is_open(store, MONITORING)).with_for_update()).all()
        going_on: set[str] = set()
        for row in rows:
            is_about_this = row.model_version == window.model_version and _is_same_episode(row, triage)
            alert = current.get(row.kind) if is_about_this else None
            if alert is not None:
                _update(store, connection, row, alert, now, episode_id=row.episode_id or triage.episode_id)
                going_on.add(row.kind)
            elif not is_about_this or triage.verdict is not Verdict.INSUFFICIENT:
                _resolve(store, connection, table.c.alert_id == row.alert_id, MONITORING, now)
        return [
            alert
            for kind, alert in current.items()
            if kind not in going_on
            and _open(store, connection, MONITORING, window.model_version, alert, triage.episode_id, now)
        ]


def _is_same_episode(row: Row[Any], triage: Triage) -> bool:
    """Return whether an open alert continues with this tick.

    A broken feed belongs to no episode, so alerts continue through it.
    """
    return row.episode_id is None or triage.episode_id is None or row.episode_id == triage.episode_id


def open_or_update_alert(
    store: Store,
    source: str,
    model_version: int | None,
    alert: Alert,
    now: datetime,
    delivered_to: Mapping[str, str] | None = None,
) -> bool:
    """Open an alert of a source, or update the open one of this kind and version; return whether it was newly opened.

    The source must call `resolve_alert` later. If several processes raise the same alert, one of them opens it.

    Args:
        model_version: None if the alert concerns no version.
        delivered_to: channels that were notified of it already (`selfheal.adapters.alerting.delivery.notify`).
    """
    table = store.tables.monitoring_alerts
    is_this = (table.c.kind == alert.kind) & table.c.model_version.is_not_distinct_from(model_version)
    with store.engine.begin() as connection:
        query = select(table).where(_is_open(store, source), is_this).with_for_update()
        row = connection.execute(query).first()
        if row is None:
            return _open(store, connection, source, model_version, alert, None, now, delivered_to)
        _update(store, connection, row, alert, now, episode_id=None)
        return False


def resolve_alert(store: Store, source: str, kind: str, now: datetime) -> bool:
    """Resolve the open alerts of this kind and source, for all versions; return whether there was one."""
    is_this = _is_open(store, source) & (store.tables.monitoring_alerts.c.kind == kind)
    with store.engine.begin() as connection:
        return _resolve(store, connection, is_this, source, now)


def _is_open(store: Store, source: str) -> ColumnElement[bool]:
    table = store.tables.monitoring_alerts
    return and_(table.c.model_name == store.contract.name, table.c.source == source, table.c.resolved_at.is_(None))


def _open(
    store: Store,
    connection: Connection,
    source: str,
    model_version: int | None,
    alert: Alert,
    episode_id: str | None,
    now: datetime,
    delivered_to: Mapping[str, str] | None = None,
) -> bool:
    """Insert an alert; return False if another process opened it first."""
    table = store.tables.monitoring_alerts
    statement = insert(table).values(
        alert_id=new_id(),
        model_name=store.contract.name,
        model_version=model_version,
        source=source,
        kind=alert.kind,
        severity=alert.severity.value,
        message=alert.message,
        metrics=alert.metrics,
        episode_id=episode_id,
        created_at=now,
        updated_at=now,
        told=dict(delivered_to or {}),
        notified_at=now if delivered_to else None,
        notify_after=now,
    )
    is_new = connection.execute(statement.on_conflict_do_nothing().returning(table.c.alert_id)).first()
    return is_new is not None


def _update(
    store: Store, connection: Connection, row: Row[Any], alert: Alert, now: datetime, *, episode_id: str | None
) -> None:
    """Update an open alert to the current state. If its severity has risen, it is due for delivery."""
    table = store.tables.monitoring_alerts
    fields: dict[str, Any] = {
        "message": alert.message,
        "severity": alert.severity.value,
        "metrics": alert.metrics,
        "episode_id": episode_id,
    }
    if all(getattr(row, name) == value for name, value in fields.items()):
        return
    if alert.severity.rank > Severity(row.severity).rank:
        fields |= {"notify_after": now, "notify_failures": 0}
    connection.execute(update(table).where(table.c.alert_id == row.alert_id).values(**fields, updated_at=now))


def _resolve(store: Store, connection: Connection, which: ColumnElement[bool], by: str, now: datetime) -> bool:
    """Resolve alerts and make them due for delivery to the channels that were notified."""
    statement = update(store.tables.monitoring_alerts).where(which)
    values = {"resolved_at": now, "resolved_by": by, "notify_after": now, "notify_failures": 0}
    return connection.execute(statement.values(**values)).rowcount > 0


def list_alerts(store: Store, *, only_open: bool = False, limit: int = 100) -> list[Row[Any]]:
    """Return alerts, newest first."""
    table = store.tables.monitoring_alerts
    query = select(table).where(table.c.model_name == store.contract.name)
    if only_open:
        query = query.where(table.c.resolved_at.is_(None))
    with store.engine.connect() as connection:
        return list(connection.execute(query.order_by(table.c.created_at.desc()).limit(limit)))


def acknowledge_alert(store: Store, alert_id: UUID, actor: str, now: datetime, note: str | None = None) -> bool:
    """Record who acknowledged an alert; return False if there is no such alert or it was already acknowledged."""
    table = store.tables.monitoring_alerts
    statement = (
        update(table)
        .where(
            table.c.model_name == store.contract.name,
            table.c.alert_id == alert_id,
            table.c.acknowledged_at.is_(None),
        )
        .values(
            acknowledged_at=now, acknowledged_by=actor, acknowledged_note=note, acknowledged_severity=table.c.severity
        )
    )
    with store.engine.begin() as connection:
        return connection.execute(statement).rowcount > 0


def alerts_open_first(store: Store, limit: int, *, only_open: bool = False) -> list[Row[Any]]:
    """Return the open alerts, then the resolved ones, each newest first."""
    table = store.tables.monitoring_alerts
    query = select(table).where(table.c.model_name == store.contract.name)
    if only_open:
        query = query.where(table.c.resolved_at.is_(None))
    order = table.c.resolved_at.is_not(None), table.c.created_at.desc(), table.c.alert_id
    with store.engine.connect() as connection:
        return list(connection.execute(query.order_by(*order).limit(limit)))


def alerts_open_or_among(store: Store, alert_ids: Collection[UUID], limit: int) -> list[Row[Any]]:
    """Return the open alerts and those with one of these ids, newest first."""
    table = store.tables.monitoring_alerts
    query = (
        select(table)
        .where(
            table.c.model_name == store.contract.name,
            table.c.resolved_at.is_(None) | table.c.alert_id.in_(alert_ids),
        )
        .order_by(table.c.created_at.desc(), table.c.alert_id)
        .limit(limit)
    )
    with store.engine.connect() as connection:
        return list(connection.execute(query))


def find_alert(store: Store, alert_id: UUID) -> Row[Any] | None:
    """Return an alert's row; None if there is none."""
    table = store.tables.monitoring_alerts
    query = select(table).where(table.c.model_name == store.contract.name, table.c.alert_id == alert_id)
    with store.engine.connect() as connection:
        return connection.execute(query).first()
