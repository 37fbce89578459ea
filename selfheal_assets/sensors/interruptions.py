"""Acts on runs whose process is gone: ends those that Dagster still calls under way, and requests what was cut short again.

It rests on stored runs alone, not on events that somebody has to see in time: whatever was down meanwhile, the code server
included, an interrupted run is found at the next evaluation.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from selfheal_assets.interruptions import REPEATED_JOBS, REPEATS_TAG, SET_ASIDE_TAG, is_interrupted, repetition_of
from selfheal_assets.job_names import TRAINING_JOBS
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.run_launcher import ProcessRunLauncher
from selfheal_assets.run_owners import RunOwners
from selfheal_assets.sensors.launchable import Candidate, alert_set_aside, divide
from selfheal_assets.sensors.skipping import skip

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from selfheal_assets.jobs import Job

logger = logging.getLogger(__name__)

EVERY_SECONDS = 10
"""How soon a run that nobody executes stops being in the way of the next one."""

LAUNCH_GRACE = timedelta(seconds=10)
"""Between Dagster's word that it starts a run and the lock of its process, a moment passes."""

MAX_AGE = timedelta(days=1)
"""How long ago an interrupted run may have been ended and still be repeated: the code server may have been down since."""

MAX_RUNS = 50
"""Examined at once, the newest: many more than run or end in the time between two evaluations."""

IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
ENDED_SENTENCE = "The process of the run has ended without a word: it was killed, or the machine lost power."


def build_interrupted_run_sensor(jobs: "Sequence[Job]") -> dg.SensorDefinition:
    """Return the sensor; `jobs` are those that it may request."""

    @dg.sensor(
        jobs=[job for job in jobs if job.name in REPEATED_JOBS],
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs that are called under way although their process is gone, and requests again what was cut short: "
        "killed at most twice, or stopped with the platform. One that this release cannot repeat is set aside, with an alert.",
    )
    def interrupted_run_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        n_ended = end_abandoned_runs(context.instance, platform, now)
        requests, set_aside = divide(context, [_candidate(run) for run in _to_repeat(context.instance, now)])
        alert_set_aside(platform, set_aside)
        for one in set_aside:
            context.instance.add_run_tags(one.candidate.request.tags[REPEATS_TAG], {SET_ASIDE_TAG: one.cause})
        if not requests:
            return skip(f"No run was cut short. Ended, since their process was gone: {n_ended}.", EVERY_SECONDS)
        return dg.SensorResult(run_requests=requests)

    return interrupted_run_sensor


def end_abandoned_runs(instance: dg.DagsterInstance, platform: PlatformResource, now: datetime) -> int:
    """End the runs that are called under way and that no process executes; return how many."""
    owners = RunOwners.of(instance)
    known = owners.known()  # before the runs are listed: a file made since has a run that is not
    records = instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS), limit=MAX_RUNS)
    abandoned = [r.dagster_run for r in records if _is_abandoned(owners, r, now, instance.run_launcher)]
    ended = [run.run_id for run in abandoned if _end(instance, platform, run.run_id)]
    for run_id in known - {record.dagster_run.run_id for record in records} | set(ended):
        if not owners.has_owner(run_id):
            owners.forget(run_id)
    return len(ended)


def _is_abandoned(owners: RunOwners, record: dg.RunRecord, now: datetime, launcher: object) -> bool:
    """Return whether no process executes the run.

    A run that never had a lock is believed if somebody else executes it: a command of Dagster's, another launcher, or a pod.
    """
    run = record.dagster_run
    if owners.is_known(run.run_id):
        return not owners.has_owner(run.run_id)
    has_lock = isinstance(launcher, ProcessRunLauncher) and launcher.starts_process_of(run)
    is_ours = has_lock and run.remote_job_origin is not None
    return is_ours and now - record.update_timestamp > LAUNCH_GRACE


def _end(instance: dg.DagsterInstance, platform: PlatformResource, run_id: str) -> bool:
    """End a run; return False if it had ended after all, with its process."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    if run.status is dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, ENDED_SENTENCE)
    else:
        instance.report_run_failed(run, ENDED_SENTENCE)
    if run.job_name in TRAINING_JOBS:
        fail_in_mlflow(platform.open(), run_id)
    return True


def fail_in_mlflow(platform: "Platform", run_id: str) -> None:
    """End the MLflow run of a killed training as FAILED. The rest matters more: MLflow may be the reason for the failure."""
    try:
        platform.registry.fail_runs_of(run_id)
    except Exception:
        logger.warning("the training run of %s could not be ended in MLflow", run_id, exc_info=True)


def _candidate(run: dg.DagsterRun) -> Candidate:
    return Candidate(run.job_name, f"run {run.run_id[:8]}, which was cut short", repetition_of(run))


def _to_repeat(instance: dg.DagsterInstance, now: datetime) -> list[dg.DagsterRun]:
    recent = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - MAX_AGE)
    runs = instance.get_runs(recent, limit=MAX_RUNS)
    return [run for run in runs if is_interrupted(run) and not _is_repeated(instance, run.run_id)]


def _is_repeated(instance: dg.DagsterInstance, run_id: str) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(tags={REPEATS_TAG: run_id}), limit=1))
