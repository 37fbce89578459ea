"""The alert of a job that does not get done: one kind per job, opened and resolved by what becomes of its runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from selfheal.domain.records import Alert, Severity

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

RUNS = "runs"
"""The source of these alerts, as in `selfheal.adapters.postgres.ticks`."""

MAX_MESSAGE_CHARACTERS = 1_000


def alert_kind(job_name: str) -> str:
    """Return the kind of a job's alert, of which one is open at a time, however often the job fails."""
    return f"{job_name}_failed"


def open_run_alert(platform: Platform, job_name: str, message: str) -> None:
    """Open the job's alert, or update it, and deliver it."""
    from selfheal.adapters.alerting.delivery import deliver_due_alerts
    from selfheal.adapters.postgres.alerts import open_or_update_alert

    now = datetime.now(UTC)
    alert = Alert(alert_kind(job_name), Severity.CRITICAL, message[:MAX_MESSAGE_CHARACTERS])
    open_or_update_alert(platform.store, RUNS, None, alert, now)
    deliver_due_alerts(platform.settings, platform.store, now)
