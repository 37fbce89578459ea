"""Sensors that turn what the store says into runs. Each reads, asks a pure rule of `selfheal`, and yields or explains.

`run_key` dedupes for ever, a failed run included: each key holds what must have changed for another run. A skip says in a
sentence what is waited for, with its number, and when the sensor looks again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from selfheal.domain.records import Action, Trigger
from selfheal.kit.durations import span
from selfheal_assets.jobs import monitoring_job, probation_job, retraining_job
from selfheal_assets.resources import PlatformResource
from selfheal_assets.sensors.run_status import RUN_ALERTS

if TYPE_CHECKING:
    from selfheal.adapters.postgres.retraining_requests import RetrainingRequest
    from selfheal.services.platform import Platform

REQUEST_TAG = "selfheal/request"

CALLS = {
    Trigger.DRIFT: "Waits for a harmful shift with at least 1 drifted feature.",
    Trigger.PERFORMANCE: "Waits for a harmful shift with 0 drifted features: the relation has changed.",
}

BUSY = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)


def build_sensors(monitoring_interval_seconds: int) -> Sequence[dg.SensorDefinition]:
    """All sensors; the monitoring sensor fires at most every `monitoring_interval_seconds`."""
    follow_up_seconds = min(30, monitoring_interval_seconds)
    awake_since = datetime.now(UTC)

    @dg.sensor(
        job=monitoring_job,
        minimum_interval_seconds=monitoring_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at the traffic every MONITORING_INTERVAL, if there is a new prediction or label. Tells people of "
        "alerts that could not be delivered before, and raises one if no traffic comes any more.",
    )
    def monitoring_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        from selfheal.adapters.alerting.delivery import deliver_due_alerts
        from selfheal.adapters.postgres.model_versions import production_version
        from selfheal.adapters.postgres.predictions import latest_activity
        from selfheal.services.tick import check_traffic

        opened = platform.open()
        check_traffic(opened, awake_since, datetime.now(UTC))
        deliver_due_alerts(opened.settings, opened.store, datetime.now(UTC))
        champion = production_version(opened.store)
        if champion is None:
            return _waits("No version is in production yet: run `selfheal bootstrap`.", monitoring_interval_seconds)
        newest_prediction, newest_label = latest_activity(opened.store, datetime.now(UTC))
        if newest_prediction is None:
            return _waits("No prediction has been logged yet: waits for the first one.", monitoring_interval_seconds)
        state = f"v{champion.version} predictions:{newest_prediction.isoformat()} labels:{newest_label}"
        if state == context.cursor:
            return _waits(
                f"Nothing new since the last tick (last prediction {newest_prediction:%Y-%m-%d %H:%M:%S} UTC): waits for one "
                "new prediction or label.",
                monitoring_interval_seconds,
            )
        if _is_busy(context, monitoring_job.name):
            return _waits("The tick before is still running.", monitoring_interval_seconds)
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=state)], cursor=state)

    @dg.sensor(
        job=retraining_job,
        minimum_interval_seconds=follow_up_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a retraining when a shift of the inputs does harm: verdict `harmful_shift` with drifted features, and "
        "every condition met. Its skips say which is not, and how many labels are missing.",
    )
    def drift_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.RunRequest | dg.SkipReason:
        return _retraining_request(context, platform.open(), Trigger.DRIFT, follow_up_seconds)

    @dg.sensor(
        job=retraining_job,
        minimum_interval_seconds=follow_up_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a retraining when the model loses although its inputs look as ever: verdict `harmful_shift` without "
        "drifted features. Its skips say which condition is not met.",
    )
    def performance_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.RunRequest | dg.SkipReason:
        return _retraining_request(context, platform.open(), Trigger.PERFORMANCE, follow_up_seconds)

    @dg.sensor(
        job=probation_job,
        minimum_interval_seconds=follow_up_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches a newly promoted version while labels come in: a look for every tenth more of them, and at the end.",
    )
    def probation_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        from selfheal.services.probation import due_evaluation, resolve_finished_alerts

        opened, now = platform.open(), datetime.now(UTC)
        resolve_finished_alerts(opened, now)
        evaluation, sentence = due_evaluation(opened, now)
        if evaluation is None or evaluation == context.cursor:
            return _waits(f"{sentence} No look is due.", follow_up_seconds)
        if _is_busy(context, probation_job.name):
            return _waits("The look before is still running.", follow_up_seconds)
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=evaluation)], cursor=evaluation)

    @dg.sensor(
        job=retraining_job,
        minimum_interval_seconds=follow_up_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes up the retrainings that people asked the API for, a run each.",
    )
    def retraining_request_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        from selfheal.adapters.postgres.retraining_requests import open_requests, take_request

        store = platform.open().store
        waiting = open_requests(store)
        launched = {r.request_id for r in waiting if _has_run(context, {REQUEST_TAG: str(r.request_id)})}
        for request_id in launched:  # only now: a request whose run was never launched is asked for again
            take_request(store, request_id, datetime.now(UTC))
        runs = [_run_of_request(request) for request in waiting if request.request_id not in launched]
        if not runs:
            return _waits(
                "Nobody has asked for a retraining (`selfheal retrain`, `POST /retrainings`).", follow_up_seconds
            )
        return dg.SensorResult(run_requests=runs)

    return (
        monitoring_sensor,
        drift_sensor,
        performance_sensor,
        probation_sensor,
        retraining_request_sensor,
        *RUN_ALERTS,
    )


def _retraining_request(
    context: dg.SensorEvaluationContext, platform: "Platform", trigger: Trigger, every_seconds: int
) -> dg.RunRequest | dg.SkipReason:
    """A run if the latest tick calls for this trigger and the conditions hold; else the reasons, kept as a decision."""
    from selfheal.domain.retraining.requests import retraining_need
    from selfheal.services.retraining import consider_retraining, record_considered
    from selfheal.services.tick import latest_tick

    tick = latest_tick(platform)
    need = retraining_need(tick)
    if need.trigger is not trigger or tick is None:
        return _waits(f"No call for a retraining here: {need.reason}. {CALLS[trigger]}", every_seconds)
    if _is_busy(context, retraining_job.name):
        return _waits("A retraining is running.", every_seconds)
    decision = consider_retraining(
        platform,
        trigger,
        episode_id=tick.episode_id,
        actor=context.sensor_name,
        reason=need.reason,
        now=datetime.now(UTC),
    )
    if decision.action is Action.SKIP:
        record_considered(platform, decision)
        return _waits(f"{need.reason[:1].upper()}{need.reason[1:]}, but: {decision.reason}.", every_seconds)
    config = {
        "trigger": trigger.value,
        "reason": need.reason,
        "actor": context.sensor_name,
        "episode_id": tick.episode_id,
    }
    return dg.RunRequest(
        run_key=f"{tick.episode_id} attempt {decision.attempt} labels {decision.n_labels}",
        run_config={"ops": {"retraining_decision": {"config": config}}},
        tags={"selfheal/episode": tick.episode_id or "", "selfheal/trigger": trigger.value},
    )


def _waits(sentence: str, every_seconds: int) -> dg.SkipReason:
    return dg.SkipReason(f"{sentence} Looks again in {span(timedelta(seconds=every_seconds))}.")


def _run_of_request(request: "RetrainingRequest") -> dg.RunRequest:
    request_id = str(request.request_id)
    config = {
        "trigger": Trigger.MANUAL.value,
        "reason": request.reason,
        "actor": request.actor,
        "request_id": request_id,
    }
    return dg.RunRequest(
        run_key=f"request {request_id}",
        run_config={"ops": {"retraining_decision": {"config": config}}},
        tags={REQUEST_TAG: request_id, "selfheal/trigger": Trigger.MANUAL.value},
    )


def _has_run(context: dg.SensorEvaluationContext, tags: dict[str, str]) -> bool:
    return bool(context.instance.get_runs(dg.RunsFilter(tags=tags), limit=1))


def _is_busy(context: dg.SensorEvaluationContext, job_name: str) -> bool:
    return bool(context.instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=list(BUSY)), limit=1))
