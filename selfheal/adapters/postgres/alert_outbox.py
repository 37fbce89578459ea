"""Alert outbox: the alerts' rows as a queue of messages to people, written in the transaction that changes the alert.

`notify_after` is when a row's messages are due. A process claims a row by moving its `notify_after` into the future (a
lease), so that no two processes send the same message.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, case, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB

from selfheal.domain.records import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfheal.adapters.postgres.store import Store


LONGEST_WAIT = timedelta(hours=2, minutes=10)
"""No lease and no back-off is longer. What is due later than that was postponed before a clock was set back."""


def claim_due(store: Store, now: datetime, lease: timedelta, limit: int) -> list[Row[Any]]:
    """Claim due alerts, most severe and oldest first; `notify_failures` counts this attempt until its result is recorded."""
    table = store.tables.monitoring_alerts
    with store.engine.connect() as connection:
        is_time = (table.c.notify_after <= now) | (table.c.notify_after > now + LONGEST_WAIT)
        is_due = (table.c.model_name == store.contract.name) & is_time
        if connection.execute(select(table.c.alert_id).where(is_due).limit(1)).first() is None:
            return []
    rank = case({severity.value: severity.rank for severity in Severity}, value=table.c.severity)
    first = select(table.c.alert_id).where(is_due).order_by(rank.desc(), table.c.created_at).limit(limit)
    chosen = first.with_for_update(skip_locked=True).cte("chosen")
    statement = (
        update(table)
        .where(table.c.alert_id.in_(select(chosen.c.alert_id)))
        .values(notify_after=now + lease, notify_failures=table.c.notify_failures + 1)
        .returning(table)
    )
    with store.engine.begin() as connection:
        return list(connection.execute(statement))


def record_delivered(
    store: Store,
    claimed: Row[Any],
    delivered_to: Mapping[str, str],
    *,
    is_done: bool,
    retry_at: datetime | None,
    now: datetime,
) -> None:
    """Record what each channel was sent of a claimed alert.

    An alert that has changed since it was claimed remains due. If a channel was sent the earlier state, the alert is due at
    once, because another process may have examined the change before this delivery was recorded.

    Args:
        delivered_to: what each channel (by its key) was sent.
        is_done: whether every message was delivered.
        retry_at: when to try again; None: never.
    """
    table = store.tables.monitoring_alerts
    is_unchanged = table.c.notify_after == claimed.notify_after
    values: dict[str, Any] = {
        "notify_after": case((is_unchanged, retry_at), else_=now if delivered_to else table.c.notify_after),
        "notify_failures": case(
            (is_unchanged, 0 if is_done else claimed.notify_failures), else_=table.c.notify_failures
        ),
    }
    if delivered_to:
        values["told"] = table.c.told.op("||")(literal(dict(delivered_to), JSONB))
        values["notified_at"] = func.greatest(table.c.notified_at, now)
    with store.engine.begin() as connection:
        connection.execute(update(table).where(table.c.alert_id == claimed.alert_id).values(**values))
