"""Failed runs are alerts: opened when a job has failed for good, resolved when the job has succeeded again."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from selfheal.domain.records import Alert, Severity
from selfheal_assets.job_names import TRAINING_JOBS
from selfheal_assets.resources.platform import PlatformResource

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

logger = logging.getLogger(__name__)

RUNS = "runs"
"""The source of these alerts, as in `selfheal.adapters.postgres.ticks`."""

MAX_MESSAGE_CHARACTERS = 1_000
WILL_RETRY_TAG = "dagster/will_retry"
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


@dg.run_failure_sensor(
    name="run_failure_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Opens an alert when a run fails that is not tried again, and notifies people. Ends what a killed training left "
    "running in MLflow.",
)
def run_failure_alert(context: dg.RunFailureSensorContext, platform: PlatformResource) -> dg.SkipReason | None:
    from selfheal.adapters.alerting.delivery import deliver_due_alerts
    from selfheal.adapters.postgres.alerts import open_or_update_alert

    run, opened = context.dagster_run, platform.open()
    if run.job_name in TRAINING_JOBS:
        _fail_in_mlflow(opened, run.run_id)
    if run.tags.get(WILL_RETRY_TAG) == "true":
        return dg.SkipReason(f"{run.job_name} is tried again.")
    newest = context.instance.get_runs(dg.RunsFilter(job_name=run.job_name, statuses=ENDED), limit=1)
    if newest and newest[0].status is dg.DagsterRunStatus.SUCCESS:
        return dg.SkipReason(f"{run.job_name} has succeeded since.")
    now = datetime.now(UTC)
    message = f"{run.job_name} failed (run {run.run_id[:8]}): {context.failure_event.message}"
    alert = Alert(alert_kind(run.job_name), Severity.CRITICAL, message[:MAX_MESSAGE_CHARACTERS])
    open_or_update_alert(opened.store, RUNS, None, alert, now)
    deliver_due_alerts(opened.settings, opened.store, now)
    return None


@dg.run_status_sensor(
    name="run_success",
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Resolves the alert of a job that had failed and has succeeded again.",
)
def run_success(context: dg.RunStatusSensorContext, platform: PlatformResource) -> dg.SkipReason | None:
    from selfheal.adapters.alerting.delivery import deliver_due_alerts
    from selfheal.adapters.postgres.alerts import resolve_alert

    job, opened, now = context.dagster_run.job_name, platform.open(), datetime.now(UTC)
    if not resolve_alert(opened.store, RUNS, alert_kind(job), now):
        return dg.SkipReason(f"No alert is open for {job}.")
    deliver_due_alerts(opened.settings, opened.store, now)
    return None


def alert_kind(job_name: str) -> str:
    """Return the kind of a job's alert: one is open at a time, however often the job fails."""
    return f"{job_name}_failed"


def _fail_in_mlflow(platform: "Platform", run_id: str) -> None:
    """End the run of a killed training as FAILED. The alert matters more: MLflow may be the reason for the failure."""
    try:
        platform.registry.fail_runs_of(run_id)
    except Exception:
        logger.warning("the training run of %s could not be ended in MLflow", run_id, exc_info=True)


RUN_ALERTS: Sequence[dg.SensorDefinition] = (run_failure_alert, run_success)
