"""Silence rules of both watchdogs: traffic that no tick monitors, and traffic that has stopped.

Each watchdog covers what the other cannot: the API notices missing ticks; the sensor beside the monitor notices missing
requests. Neither raises an alert after a planned shutdown: each measures silence only while it runs itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from selfheal.domain.records import Alert, Severity

MONITOR_SILENT, TRAFFIC_SILENT = "monitor_silent", "traffic_silent"
"""Kinds of alerts."""

OVERDUE_AFTER_INTERVALS = 3
"""Intervals until a tick is overdue. One and a few seconds of running time are normal; three allow for one failed run."""

SHORTEST_SILENCE = timedelta(minutes=2)
"""Shortest silence that counts: starting a run on a busy machine may exceed three intervals of a few seconds."""

LONGEST_GRACE = timedelta(hours=1)
"""Longest grace period after a start, in which clients that stopped with the platform come back."""


class Pulse(Enum):
    """State of the monitor, or of the traffic. UNKNOWN neither opens nor resolves an alert."""

    BEATING = "beating"
    UNKNOWN = "unknown"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Sight:
    """What a watchdog found: the newest tick (None if there is none) and since when traffic waits for the next (or None)."""

    tick_id: str | None
    unseen_since: datetime | None


@dataclass(frozen=True, slots=True)
class Watched:
    """The watchdog's memory: the tick that has been the newest since `since` while traffic waited."""

    tick_id: str | None
    since: datetime


def overdue_after(interval: timedelta) -> timedelta:
    """Return how long traffic may wait for the monitor before the monitor counts as silent."""
    return max(OVERDUE_AFTER_INTERVALS * interval, SHORTEST_SILENCE)


def pulse(before: Watched | None, sight: Sight, interval: timedelta, now: datetime) -> tuple[Pulse, Watched | None]:
    """Return whether the monitor works, and what to remember for the next call.

    The monitor is silent if the same tick has been the newest for longer than `overdue_after` while traffic waited. Only time
    that this watchdog observed counts: after its own start, or an outage of Postgres, the monitor gets the full time again. The
    monitor works if nothing waits or a tick has been recorded since the last call.
    """
    if sight.unseen_since is None:
        return Pulse.BEATING, None
    if before is None:
        return Pulse.UNKNOWN, Watched(sight.tick_id, now)
    if before.tick_id != sight.tick_id:
        return Pulse.BEATING, Watched(sight.tick_id, now)
    since = min(before.since, now)  # the clock may have been set back
    is_silent = now - since > overdue_after(interval)
    return (Pulse.SILENT if is_silent else Pulse.UNKNOWN), Watched(sight.tick_id, since)


def traffic_pulse(
    newest_prediction_at: datetime | None, awake_since: datetime, limit: timedelta, now: datetime
) -> Pulse:
    """Decide whether traffic arrives: silent if none has for longer than `limit`; unknown if there never was any.

    Args:
        awake_since: when this watchdog started. The state is unknown until a grace period of one hour (or `limit`, if that is
            shorter) has passed since then.
    """
    if newest_prediction_at is None:
        return Pulse.UNKNOWN
    if now - newest_prediction_at <= limit:
        return Pulse.BEATING
    return Pulse.SILENT if now - awake_since > min(limit, LONGEST_GRACE) else Pulse.UNKNOWN


def monitor_alert(unseen_since: datetime, now: datetime) -> Alert:
    """Return the alert that the monitor is silent; traffic has waited since `unseen_since`."""
    message = (
        f"Predictions since {unseen_since:%Y-%m-%d %H:%M} UTC have not been monitored: drift and harm go undetected. Check "
        "that Dagster is running and that its monitoring_job succeeds."
    )
    waiting_seconds = max(0, round((now - unseen_since).total_seconds()))
    return Alert(MONITOR_SILENT, Severity.CRITICAL, message, {"waiting_seconds": waiting_seconds})


def traffic_alert(newest_prediction_at: datetime, limit: timedelta, now: datetime) -> Alert:
    """Return the alert that no traffic has arrived since `newest_prediction_at`."""
    message = (
        f"No prediction has been requested since {newest_prediction_at:%Y-%m-%d %H:%M} UTC, for more than "
        f"{limit / timedelta(hours=1):g} h. Check that the clients can reach the service."
    )
    silent_hours = int((now - newest_prediction_at) / timedelta(hours=1))
    return Alert(TRAFFIC_SILENT, Severity.WARNING, message, {"silent_hours": silent_hours})
