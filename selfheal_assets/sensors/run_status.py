"""Run status sensors: open an alert when a job has finally failed, and resolve it when the job succeeds again."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from selfheal.kit.durations import span
from selfheal_assets.interruptions import MAX_RUNTIME_TAG, OUT_OF_TIME_TAG, is_interrupted
from selfheal_assets.job_names import TRAINING_JOBS
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.sensors.interruptions import fail_in_mlflow
from selfheal_assets.sensors.retraining import ATTEMPT_TAG, EPISODE_TAG
from selfheal_assets.sensors.run_alerts import RUNS, alert_kind, open_run_alert

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


@dg.run_failure_sensor(
    name="run_failure_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Opens an alert when a run fails that is not tried again, and notifies people. Ends what a killed training left "
    "running in MLflow.",
)
def run_failure_alert(context: dg.RunFailureSensorContext, platform: PlatformResource) -> dg.SkipReason | None:
    from selfheal.services.retraining import record_out_of_time

    run, opened = context.dagster_run, platform.open()
    if run.job_name in TRAINING_JOBS:
        fail_in_mlflow(opened, run.run_id)
    if is_interrupted(run):
        return dg.SkipReason(f"{run.job_name} is repeated.")
    if OUT_OF_TIME_TAG in run.tags and ATTEMPT_TAG in run.tags:
        attempt = int(run.tags[ATTEMPT_TAG])
        record_out_of_time(opened, run.tags[EPISODE_TAG], attempt, _cause(context), datetime.now(UTC))
    newest = context.instance.get_runs(dg.RunsFilter(job_name=run.job_name, statuses=ENDED), limit=1)
    if newest and newest[0].status is dg.DagsterRunStatus.SUCCESS:
        return dg.SkipReason(f"{run.job_name} has succeeded since.")
    open_run_alert(opened, run.job_name, f"{run.job_name} failed (run {run.run_id[:8]}): {_cause(context)}")
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


def _cause(context: dg.RunFailureSensorContext) -> str:
    """Return the step that failed and its error; of a run that ran out of time, what to do; else what Dagster says of the run."""
    if OUT_OF_TIME_TAG in context.dagster_run.tags:
        return _out_of_time(context.dagster_run)
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        if error is not None:
            raised = error.cause or error  # Dagster's own error is around it
            return f"{event.step_key}: {' '.join(raised.message.split())}"
    return context.failure_event.message or "Dagster does not say why."


def _out_of_time(run: dg.DagsterRun) -> str:
    if run.job_name not in TRAINING_JOBS or MAX_RUNTIME_TAG not in run.tags:
        return "its time was up (`max_runtime_seconds` in dagster.yaml); it is not repeated. Its page says where it was"
    limit_seconds = run.tags[MAX_RUNTIME_TAG]
    return (
        f"it was ended after {span(timedelta(seconds=float(limit_seconds)))}, since TRAINING_TIMEOUT_SECONDS={limit_seconds} "
        "had passed; it is not repeated. Raise the limit, train on fewer rows (TRAINING_MAX_ROWS), or run more fits at once "
        "(TRAINING_JOBS)"
    )


RUN_ALERTS: Sequence[dg.SensorDefinition] = (run_failure_alert, run_success)
