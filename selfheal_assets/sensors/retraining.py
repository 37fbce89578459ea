"""Retraining sensors: request a retraining after harm with drifted inputs, after harm without, and for requests over the API.

Dagster uses a `run_key` only once, also if the run fails, so each key contains what must change for another run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import dagster as dg

from selfheal.domain.records import Action, Trigger
from selfheal_assets.assets.retraining import RequestTrigger, RetrainingRequest
from selfheal_assets.job_names import RETRAINING_JOB
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.sensors.launchable import Candidate, alert_set_aside, divide
from selfheal_assets.sensors.skipping import skip, unless_running

if TYPE_CHECKING:
    from selfheal.adapters.postgres.retraining_requests import RetrainingRequest as StoredRequest
    from selfheal.services.platform import Platform

REQUEST_TAG, TRIGGER_TAG, EPISODE_TAG = "selfheal/request", "selfheal/trigger", "selfheal/episode"
ATTEMPT_TAG = "selfheal/attempt"

CALLS = {
    Trigger.DRIFT: "Waits for a harmful shift with at least 1 drifted feature.",
    Trigger.PERFORMANCE: "Waits for a harmful shift with 0 drifted features (the relation has changed), or for as many labels since "
    "a change as the last verdict wanted.",
}


def build_retraining_sensors(every_seconds: int) -> Sequence[dg.SensorDefinition]:
    """Return the sensors that request retrainings, each evaluated every `every_seconds`."""
    unless_retraining = unless_running(RETRAINING_JOB, "A retraining is running.", every_seconds)

    @dg.sensor(
        job_name=RETRAINING_JOB,
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a retraining when a shift of the inputs does harm: verdict `harmful_shift` with drifted features, and "
        "every condition met. Its skips say which is not, and how many labels are missing.",
    )
    @unless_retraining
    def drift_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.RunRequest | dg.SkipReason:
        return _request_if_called_for(context, platform.open(), Trigger.DRIFT, every_seconds)

    @dg.sensor(
        job_name=RETRAINING_JOB,
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a retraining when the model loses although its inputs are as ever: verdict `harmful_shift` without "
        "drifted features. Its skips say which condition is not met.",
    )
    @unless_retraining
    def performance_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.RunRequest | dg.SkipReason:
        return _request_if_called_for(context, platform.open(), Trigger.PERFORMANCE, every_seconds)

    @dg.sensor(
        job_name=RETRAINING_JOB,
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches the retrainings that people asked the API for, one run each. One that this release cannot launch is "
        "set aside, with an alert.",
    )
    def retraining_request_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        from selfheal.adapters.postgres.retraining_requests import open_requests, take_request

        store = platform.open().store
        waiting = open_requests(store)
        launched = {r.request_id for r in waiting if _has_run(context.instance, {REQUEST_TAG: str(r.request_id)})}
        for request_id in launched:  # only now, so that a request whose run was never launched is repeated
            take_request(store, request_id, datetime.now(UTC))
        asked = [request for request in waiting if request.request_id not in launched]
        runs, set_aside = divide(context, [_candidate(request) for request in asked])
        alert_set_aside(platform, set_aside)
        for one in set_aside:
            take_request(store, UUID(one.candidate.request.tags[REQUEST_TAG]), datetime.now(UTC))
        if not runs:
            return skip("Nobody has asked for a retraining (`selfheal retrain`, `POST /retrainings`).", every_seconds)
        return dg.SensorResult(run_requests=runs)

    return drift_sensor, performance_sensor, retraining_request_sensor


def _request_if_called_for(
    context: dg.SensorEvaluationContext, platform: "Platform", trigger: Trigger, every_seconds: int
) -> dg.RunRequest | dg.SkipReason:
    """Return a run if one is called for by this trigger and the conditions are met; else why not, recorded as a decision."""
    from selfheal.domain.retraining.requests import next_try_at
    from selfheal.services.retraining import consider_retraining, record_considered
    from selfheal.services.retraining_signals import current_need

    now, need = datetime.now(UTC), current_need(platform)
    if need.trigger is not trigger:
        return skip(f"No call for a retraining here: {need.reason}. {CALLS[trigger]}", every_seconds)
    decision = consider_retraining(
        platform,
        trigger,
        episode_id=need.episode_id,
        actor=context.sensor_name,
        reason=need.reason,
        now=now,
    )
    if decision.action is Action.SKIP:
        record_considered(platform, decision)
        return skip(f"{need.reason[:1].upper()}{need.reason[1:]}, but: {decision.reason}.", every_seconds)
    of_attempt = {EPISODE_TAG: need.episode_id or "", ATTEMPT_TAG: str(decision.attempt)}
    n_failures, last = _failures(context.instance, of_attempt)
    waits_until = next_try_at(n_failures, _ended_at(last), now)
    if waits_until is not None:
        return skip(
            f"{need.reason[:1].upper()}{need.reason[1:]}, but: the retraining failed {n_failures} times outside of the model (see "
            f"the alert retraining_job_failed), which spends no attempt; it is tried again after {waits_until:%H:%M:%S} UTC.",
            every_seconds,
        )
    asked = RetrainingRequest(
        trigger=RequestTrigger(trigger), reason=need.reason, actor=context.sensor_name, episode_id=need.episode_id
    )
    again = "" if last is None else f" after {last.dagster_run.run_id}"
    return dg.RunRequest(
        run_key=f"{need.episode_id or f'version {decision.champion_version}'} attempt {decision.attempt} labels {decision.n_labels}{again}",
        run_config=asked.run_config(),
        tags=of_attempt | {TRIGGER_TAG: trigger.value},
    )


def _failures(instance: dg.DagsterInstance, tags: dict[str, str]) -> tuple[int, dg.RunRecord | None]:
    """Return how many runs with these tags failed, and the last of them.

    A failure that is the model's own ends its attempt, so none of an attempt that is still to be made is that.
    """
    failed = dg.RunsFilter(job_name=RETRAINING_JOB, tags=tags, statuses=[dg.DagsterRunStatus.FAILURE])
    newest = instance.get_run_records(failed, limit=1)
    return instance.get_runs_count(failed), newest[0] if newest else None


def _ended_at(record: dg.RunRecord | None) -> datetime | None:
    return None if record is None or record.end_time is None else datetime.fromtimestamp(record.end_time, UTC)


def _candidate(request: "StoredRequest") -> Candidate:
    name = f"the retraining that {request.actor} requested ({request.request_id}: {request.reason})"
    return Candidate(RETRAINING_JOB, name, _run_of(request))


def _run_of(request: "StoredRequest") -> dg.RunRequest:
    request_id = str(request.request_id)
    asked = RetrainingRequest(
        trigger=RequestTrigger.manual, reason=request.reason, actor=request.actor, request_id=request_id
    )
    return dg.RunRequest(
        run_key=f"request {request_id}",
        run_config=asked.run_config(),
        tags={REQUEST_TAG: request_id, TRIGGER_TAG: Trigger.MANUAL.value},
    )


def _has_run(instance: dg.DagsterInstance, tags: dict[str, str]) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(tags=tags), limit=1))
