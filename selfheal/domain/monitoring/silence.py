"""Silence rules of both watchdogs: traffic that no tick monitors, and traffic that no longer comes.

Each watchdog notices what the other cannot: the API notices that ticks are missing, the sensor beside the monitor that
requests are missing. Neither raises an alert after a planned shutdown: each measures silence only while it runs itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from selfheal.domain.records import Alert, Severity

MONITOR_SILENT, TRAFFIC_SILENT = "monitor_silent", "traffic_silent"
"""Kinds of alerts."""

OVERDUE_AFTER_INTERVALS = 3
"""Traffic is monitored within one interval and the run's few seconds; three intervals allow for one run that failed."""

SHORTEST_SILENCE = timedelta(minutes=2)
"""With an interval of seconds, the start of a run on a busy machine is longer than three of them."""

LONGEST_GRACE = timedelta(hours=1)
"""After a start: clients that stood still with the platform, or waited for it, need a moment to come back."""


class Pulse(Enum):
    """What is known of the monitor, or of the traffic. UNKNOWN is neither a reason for an alert nor for the end of one."""

    BEATING = "beating"
    UNKNOWN = "unknown"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Sight:
    """What a watcher found: the newest tick (None: there is none) and since when traffic waits for the next (None: none does)."""

    tick_id: str | None
    unseen_since: datetime | None


@dataclass(frozen=True, slots=True)
class Watched:
    """The watcher's memory: the tick that was the newest since `since`, with traffic waiting."""

    tick_id: str | None
    since: datetime


def overdue_after(interval: timedelta) -> timedelta:
    """How long traffic may wait for the monitor before that is a sign."""
    return max(OVERDUE_AFTER_INTERVALS * interval, SHORTEST_SILENCE)


def pulse(before: Watched | None, sight: Sight, interval: timedelta, now: datetime) -> tuple[Pulse, Watched | None]:
    """Return whether the monitor works, and what to remember for the next call.

    It is silent if the same tick has been the newest for longer than `overdue_after` while traffic waited, all of it seen by this
    watcher: one that starts (or gets Postgres back) gives the monitor, which may start with it, the same time. It beats if
    nothing waits or a tick has come since the last call.
    """
    if sight.unseen_since is None:
        return Pulse.BEATING, None
    if before is None:
        return Pulse.UNKNOWN, Watched(sight.tick_id, now)
    if before.tick_id != sight.tick_id:
        return Pulse.BEATING, Watched(sight.tick_id, now)
    since = min(before.since, now)  # a clock that was set back
    is_silent = now - since > overdue_after(interval)
    return (Pulse.SILENT if is_silent else Pulse.UNKNOWN), Watched(sight.tick_id, since)


def traffic_pulse(
    newest_prediction_at: datetime | None, awake_since: datetime, limit: timedelta, now: datetime
) -> Pulse:
    """Decide whether traffic arrives: silent if none has for longer than `limit`; unknown if there never was any.

    Args:
        awake_since: when this watcher started. It knows nothing of silence before the end of a grace (an hour, or `limit` if
            that is shorter).
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
    """No traffic has come since then."""
    message = (
        f"No prediction has been requested since {newest_prediction_at:%Y-%m-%d %H:%M} UTC, for more than "
        f"{limit / timedelta(hours=1):g} h. Check that the clients can reach the service."
    )
    silent_hours = int((now - newest_prediction_at) / timedelta(hours=1))
    return Alert(TRAFFIC_SILENT, Severity.WARNING, message, {"silent_hours": silent_hours})
