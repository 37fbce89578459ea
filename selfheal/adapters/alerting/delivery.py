"""Delivery of alerts from the outbox to people: waits for channels are bounded, and failed messages are sent again.

The table of alerts is the outbox: a row records what each channel was last sent, and when its messages are due.
`deliver_due_alerts` is called by every tick, the monitoring sensor and the API's watchdog. If a channel fails, a later call
tries again, up to `MAX_FAILURES` times.
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
from selfheal.kit.backoff import Backoff
from selfheal.kit.durations import span
from selfheal.kit.notify_urls import Channel

if TYPE_CHECKING:
    from sqlalchemy import Row

    from selfheal.adapters.postgres.store import Store
    from selfheal.settings import Settings

logger = logging.getLogger(__name__)

KINDS = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "failure"}
RESOLVED = "resolved"
"""Recorded for a channel that was sent the alert's resolution; otherwise the severity it was last sent is recorded."""

TIMEOUT_SECONDS = 10.0
"""Time limit for one call of `deliver_due_alerts` or `notify`, however many channels hang. Most of apprise's services
give up after 4 s."""

LEASE = timedelta(seconds=60)
"""Time in which only the process that claimed a message may send it; afterwards another process may, after a crash."""

RETRY_BACKOFF = Backoff(initial_seconds=60.0, max_seconds=7_200.0)
MAX_FAILURES = 16
"""Consecutive failures after which an alert's messages are abandoned: about a day, with pauses that double. The row
remains."""

MAX_ALERTS_AT_ONCE = 20
"""Largest number of alerts per call; the others wait for the next call."""

_hanging: set[str] = set()
"""Keys of channels with a message still in progress; they get no second thread."""

_hanging_lock = threading.Lock()


@dataclass(frozen=True)
class DueMessage:
    """A message about one alert for one channel. `says` is recorded for the channel once the message is delivered."""

    channel: Channel
    message: Message
    says: str


Delivered = dict[str, dict[str, str]]
"""The state that each channel (by its key) was sent, for each alert (by its id)."""


def deliver_due_alerts(settings: Settings, store: Store, now: datetime) -> int:
    """Send due messages and record deliveries; return the number delivered. Takes at most `TIMEOUT_SECONDS`.

    Delivery is at least once: if the process dies between sending and recording, a message is sent again.
    """
    from selfheal.adapters.postgres import alert_outbox

    rows = alert_outbox.claim_due(store, now, LEASE, MAX_ALERTS_AT_ONCE)
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
        retry_at = (
            None if is_done or has_given_up else now + timedelta(seconds=RETRY_BACKOFF.seconds(row.notify_failures))
        )
        alert_outbox.record_delivered(store, row, delivered_to, is_done=is_done, retry_at=retry_at, now=now)
    return sum(len(delivered_to) for delivered_to in delivered.values())


def deliver_in_background(settings: Settings, store: Store) -> None:
    """Call `deliver_due_alerts` in a thread of its own and return at once. Failures are left to a later call."""

    def work() -> None:
        from sqlalchemy.exc import SQLAlchemyError

        with contextlib.suppress(SQLAlchemyError):
            deliver_due_alerts(settings, store, datetime.now(UTC))

    threading.Thread(target=work, name="deliver", daemon=True).start()


def notify(settings: Settings, alerts: Iterable[Alert]) -> dict[str, str]:
    """Send alerts that cannot be recorded in the outbox; return what each channel (by its key) was sent of the last one.

    A failing channel is logged and not tried again. Takes at most `TIMEOUT_SECONDS` per alert.
    """
    routes = routes_of(settings)
    last: dict[str, str] = {}
    for alert in alerts:
        messages = [
            DueMessage(channel, opening_message(alert.kind, alert.severity, alert.message), alert.severity.value)
            for channel in routes.by_severity[alert.severity]
        ]
        last = _send_all({alert.kind: messages}).get(alert.kind, {})
        if len(last) < len(messages):
            _log_failure(alert.kind, messages, last, has_given_up=True)
    return last


def due_messages(alert: Row[Any], routes: Routes) -> list[DueMessage]:
    """Return the messages that are still to be sent about an alert in its current state.

    An open alert goes to each channel of its severity that was sent nothing about it, or only a lower severity. An
    acknowledged alert is sent only if its severity has risen since. A resolution goes to each channel that was notified of
    the open alert.
    """
    if alert.resolved_at is not None:
        message = resolved_message(alert.kind, alert.message, alert.resolved_at - alert.created_at)
        return [
            DueMessage(channel, message, RESOLVED)
            for channel in routes.channels
            if alert.told.get(channel.key, RESOLVED) != RESOLVED
        ]
    severity = Severity(alert.severity)
    if alert.acknowledged_at is not None and severity.rank <= Severity(alert.acknowledged_severity or severity).rank:
        return []
    message = opening_message(alert.kind, severity, alert.message)
    return [
        DueMessage(channel, message, severity.value)
        for channel in routes.by_severity[severity]
        if _rank_delivered(alert.told.get(channel.key)) < severity.rank
    ]


def _rank_delivered(last: str | None) -> int:
    """Return the rank of the severity that a channel was last sent; 0 if none, or if it was sent the resolution."""
    return next((severity.rank for severity in Severity if severity == last), 0)


def opening_message(kind: str, severity: Severity, message: str) -> Message:
    """Return the message about an open alert."""
    return Message(f"selfheal: {kind.replace('_', ' ')}", message, KINDS[severity])


def resolved_message(kind: str, message: str, lasted: timedelta) -> Message:
    """Return the message about a resolved alert: how long it was open, and its last text."""
    return Message(
        f"selfheal: {kind.replace('_', ' ')} resolved", f"Resolved after {span(lasted)}: {message}", "success"
    )


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
        "delivery is given up" if has_given_up else "delivery will be retried",
    )


def _send_all(messages: Mapping[str, Sequence[DueMessage]]) -> Delivered:
    """Send to each channel in a thread of its own; a message accepted after `TIMEOUT_SECONDS` counts as not delivered."""
    by_channel: dict[Channel, list[tuple[str, DueMessage]]] = {}
    for alert_id, several in messages.items():
        for due in several:
            by_channel.setdefault(due.channel, []).append((alert_id, due))
    delivery = _Delivery()
    threads = [
        threading.Thread(target=delivery.work, args=(channel, work), name="notify", daemon=True)
        for channel, work in by_channel.items()
        if _is_first_thread_of(channel)
    ]
    for thread in threads:
        thread.start()
    return delivery.wait(len(threads), TIMEOUT_SECONDS)


def _is_first_thread_of(channel: Channel) -> bool:
    """Mark a channel as in use; return False if an earlier message to it still hangs."""
    with _hanging_lock:
        if channel.key in _hanging:
            return False
        _hanging.add(channel.key)
        return True


class _Delivery:
    """The messages that the channels have accepted, recorded by their threads until the caller stops waiting."""

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
                    is_accepted = send(channel, due.message)
                except Exception as error:  # a plugin may raise anything
                    logger.warning("%s://... failed with %s", channel.scheme, type(error).__name__)
                    is_accepted = False
                with self._changed:
                    if is_accepted and not self._is_over:
                        self._delivered.setdefault(alert_id, {})[channel.key] = due.says
                if not is_accepted:
                    return  # the channel's other messages would fail too, each after its own time-out
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
