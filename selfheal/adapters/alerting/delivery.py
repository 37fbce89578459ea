"""Telling people of alerts, through `selfheal.adapters.alerting.channels`, without ever waiting long for a channel or losing an alert.

The table of alerts is the queue: a row says which channel has been told what, and from when on somebody should look whether
there is more to tell. `tell` is called by whoever is awake (each tick, the monitoring sensor, the API's watch); a channel
that fails is tried again by a later call, up to `MAX_FAILURES` times.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from selfheal.adapters.alerting.channels import Message, Routes, routes_of, send
from selfheal.domain.records import Alert, Severity
from selfheal.kit.notify_urls import Channel

if TYPE_CHECKING:
    from sqlalchemy import Row

    from selfheal.adapters.postgres.store import Store
    from selfheal.settings import Settings

logger = logging.getLogger(__name__)

KINDS = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "failure"}
RANKS = {severity.value: rank for rank, severity in enumerate(Severity, 1)}
RESOLVED = "resolved"
"""What a channel was last told of an alert is a severity or this."""

TIMEOUT_SECONDS = 10.0
"""For one call of `tell` or `notify`, however many channels hang. Most of apprise's services give up after 4 s."""

LEASE = timedelta(seconds=60)
"""For so long nobody else sends what one process is sending; one that is killed half-way leaves it to the next."""

INITIAL_BACKOFF, MAX_BACKOFF = timedelta(minutes=1), timedelta(hours=2)
MAX_FAILURES = 16
"""Tries in a row that left a channel untold: about a day with pauses that double. The alert stays in the table."""

MAX_ALERTS_AT_ONCE = 20
"""Per call; the others wait for the next one."""

_hanging: set[str] = set()
"""Keys of channels whose last message has neither gone nor failed: they get no second thread."""

_hanging_lock = threading.Lock()


@dataclass(frozen=True)
class DueMessage:
    """A message about one alert, and what its channel then has been told."""

    channel: Channel
    message: Message
    says: str


Delivered = dict[str, dict[str, str]]
"""What channels (by their key) were told, alert by alert."""


def deliver_due_alerts(settings: Settings, store: Store, now: datetime) -> int:
    """Sends what is due and keeps who has been told; returns how many messages went. Takes `TIMEOUT_SECONDS` at most.

    At least once: a process that dies between sending and keeping lets a message be sent again.
    """
    from selfheal.adapters.postgres import alert_outbox as queue

    rows = queue.claim_due(store, now, LEASE, MAX_ALERTS_AT_ONCE)
    if not rows:
        return 0
    routes = routes_of(settings)
    due = {str(row.alert_id): due_messages(row, routes) for row in rows}
    delivered = _send_all(due)
    for row in rows:
        wanted, delivered_to = due[str(row.alert_id)], delivered.get(str(row.alert_id), {})
        is_done = len(delivered_to) == len(wanted)
        has_given_up = not is_done and row.notify_failures >= MAX_FAILURES
        if not is_done:
            _log_failure(row.kind, wanted, delivered_to, has_given_up=has_given_up)
        retry_at = None if is_done or has_given_up else now + _pause(row.notify_failures)
        queue.record_delivered(store, row, delivered_to, is_done=is_done, retry_at=retry_at, now=now)
    return sum(len(delivered_to) for delivered_to in delivered.values())


def deliver_in_background(settings: Settings, store: Store) -> None:
    """`tell` in a thread of its own, for those who must not wait. What fails is left to a later `tell`."""

    def work() -> None:
        from sqlalchemy.exc import SQLAlchemyError

        with contextlib.suppress(SQLAlchemyError):
            deliver_due_alerts(settings, store, datetime.now(UTC))

    threading.Thread(target=work, name="tell", daemon=True).start()


def notify(settings: Settings, alerts: Iterable[Alert]) -> dict[str, str]:
    """Sends alerts past the table, for those that cannot be kept there. Returns who was told what of the last one.

    A channel that fails is logged and not tried again. Takes `TIMEOUT_SECONDS` at most.
    """
    routes = routes_of(settings)
    last: dict[str, str] = {}
    for alert in alerts:
        messages = [
            DueMessage(channel, opening(alert.kind, alert.severity, alert.message), alert.severity.value)
            for channel in routes.by_severity[alert.severity]
        ]
        last = _send_all({alert.kind: messages}).get(alert.kind, {})
        if len(last) < len(messages):
            _log_failure(alert.kind, messages, last, has_given_up=True)
    return last


def due_messages(alert: Row[Any], routes: Routes) -> list[DueMessage]:
    """Who has to hear what of an alert as it is now.

    Open: each channel of its severity that has not been notified of it so far, or only of a lower one. Acknowledged: only if it has
    become more severe since then. Resolved: each channel that was told it was open.
    """
    if alert.resolved_at is not None:
        message = closing(alert.kind, alert.message, alert.resolved_at - alert.created_at)
        return [
            DueMessage(channel, message, RESOLVED)
            for channel in routes.channels
            if alert.told.get(channel.key, RESOLVED) != RESOLVED
        ]
    rank = RANKS[alert.severity]
    if alert.acknowledged_at is not None and rank <= RANKS.get(alert.acknowledged_severity, rank):
        return []
    severity = Severity(alert.severity)
    message = opening(alert.kind, severity, alert.message)
    return [
        DueMessage(channel, message, severity.value)
        for channel in routes.by_severity[severity]
        if RANKS.get(alert.told.get(channel.key), 0) < rank
    ]


def opening(kind: str, severity: Severity, message: str) -> Message:
    return Message(f"selfheal: {kind.replace('_', ' ')}", message, KINDS[severity])


def closing(kind: str, message: str, lasted: timedelta) -> Message:
    minutes = round(lasted.total_seconds() / 60)
    duration = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return Message(
        f"selfheal: {kind.replace('_', ' ')} resolved", f"Over after {duration}. It was: {message}", "success"
    )


def _pause(n_failures: int) -> timedelta:
    """Doubles with each failure in a row."""
    return min(INITIAL_BACKOFF * float(2 ** min(n_failures - 1, 20)), MAX_BACKOFF)


def _log_failure(
    kind: str, wanted: Sequence[DueMessage], delivered_to: Mapping[str, str], *, has_given_up: bool
) -> None:
    missed = [due.channel.scheme for due in wanted if due.channel.key not in delivered_to]
    logger.warning(
        "alert %s could not be delivered to %d of %d channels (%s); %s",
        kind,
        len(missed),
        len(wanted),
        ", ".join(f"{scheme}://..." for scheme in missed),
        "it is not tried again" if has_given_up else "it is tried again",
    )


def _send_all(messages: Mapping[str, Sequence[DueMessage]]) -> Delivered:
    """Each channel in a thread of its own, all within `TIMEOUT_SECONDS`; what a channel takes later counts as not taken."""
    by_channel: dict[Channel, list[tuple[str, DueMessage]]] = {}
    for alert_id, several in messages.items():
        for due in several:
            by_channel.setdefault(due.channel, []).append((alert_id, due))
    delivery = _Delivery()
    threads = [
        threading.Thread(target=delivery.work, args=(channel, work), name="notify", daemon=True)
        for channel, work in by_channel.items()
        if _take(channel)
    ]
    for thread in threads:
        thread.start()
    return delivery.wait(len(threads), TIMEOUT_SECONDS)


def _take(channel: Channel) -> bool:
    with _hanging_lock:
        if channel.key in _hanging:
            return False
        _hanging.add(channel.key)
        return True


class _Delivery:
    """What has been taken so far, written by the channels' threads until nobody waits any more."""

    def __init__(self) -> None:
        self._delivered: Delivered = {}
        self._n_ended = 0
        self._is_over = False
        self._changed = threading.Condition()

    def work(self, channel: Channel, work: Sequence[tuple[str, DueMessage]]) -> None:
        try:
            for alert_id, due in work:
                if self._is_over:
                    return
                try:
                    is_taken = send(channel, due.message)
                except Exception as error:  # of somebody's plugin
                    logger.warning("%s://... failed with %s", channel.scheme, type(error).__name__)
                    is_taken = False
                with self._changed:
                    if is_taken and not self._is_over:
                        self._delivered.setdefault(alert_id, {})[channel.key] = due.says
                if not is_taken:
                    return  # the others would fail likewise, and take their time
        finally:
            with _hanging_lock:
                _hanging.discard(channel.key)
            with self._changed:
                self._n_ended += 1
                self._changed.notify_all()

    def wait(self, n_threads: int, timeout_seconds: float) -> Delivered:
        with self._changed:
            self._changed.wait_for(lambda: self._n_ended == n_threads, timeout_seconds)
            self._is_over = True
            return self._delivered
