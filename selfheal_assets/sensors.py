"""Sensors that turn what the store says into runs. Each reads, asks a pure rule of `selfheal`, and yields or explains.

`run_key` dedupes for ever, a failed run included: each key holds what must have changed for another run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from selfheal.records import Alert, Severity, Trigger
from selfheal_assets.jobs import monitoring_job, probation_job, retraining_job
from selfheal_assets.resources import PlatformResource

if TYPE_CHECKING:
    from selfheal.platform import Platform

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
        from selfheal.notify import tell
        from selfheal.stages.monitoring import watch_traffic
        from selfheal.store.models import production_version
        from selfheal.store.predictions import latest_activity

        opened = platform.open()
        watch_traffic(opened, awake_since, datetime.now(UTC))
        tell(opened.settings, opened.store, datetime.now(UTC))
        champion = production_version(opened.store)
        if champion is None:
            return dg.SkipReason("No version is in production yet: run `selfheal bootstrap`.")
        newest_prediction, newest_label = latest_activity(opened.store, datetime.now(UTC))
        if newest_prediction is None:
            return dg.SkipReason("No prediction has been logged yet.")
        state = f"v{champion.version} predictions:{newest_prediction.isoformat()} labels:{newest_label}"
        if state == context.cursor:
            return dg.SkipReason(f"Nothing new since the last tick (last prediction {newest_prediction:%H:%M:%S} UTC).")
        if _is_busy(context, monitoring_job.name):
            return dg.SkipReason("The tick before is still running.")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=state)], cursor=state)

    @dg.sensor(
        job=retraining_job,
        minimum_interval_seconds=follow_up_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a retraining when a shift of the inputs does harm.",
    )
    def drift_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.RunRequest | dg.SkipReason:
        return _retraining_request(context, platform.open(), Trigger.DRIFT)

    @dg.sensor(
        job=retraining_job,
        minimum_interval_seconds=follow_up_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a retraining when the model loses although its inputs look as ever.",
    )
    def performance_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.RunRequest | dg.SkipReason:
        return _retraining_request(context, platform.open(), Trigger.PERFORMANCE)

    @dg.sensor(
        job=probation_job,
        minimum_interval_seconds=follow_up_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches a newly promoted version while labels come in.",
    )
    def probation_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        from selfheal.store.models import production_version
        from selfheal.store.predictions import window_of

        opened = platform.open()
        champion = production_version(opened.store)
        if champion is None or champion.probation_until is None or champion.promoted_at is None:
            return dg.SkipReason("No version is on probation.")
        window = window_of(opened.store, champion.version, champion.promoted_at)
        n_labels = 0 if window is None else window.n_labels
        wanted = opened.settings.min_probation_labels
        if n_labels < wanted:
            return dg.SkipReason(
                f"Version {champion.version} has {n_labels} labels of the {wanted} that probation wants."
            )
        state = f"v{champion.version} labels:{n_labels}"
        if state == context.cursor:
            return dg.SkipReason(f"No new label for version {champion.version}.")
        if _is_busy(context, probation_job.name):
            return dg.SkipReason("The look before is still running.")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=state)], cursor=state)

    @dg.run_failure_sensor(
        name="run_failure_alert",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends an alert to NOTIFY_URLS when a run fails.",
    )
    def run_failure_alert(context: dg.RunFailureSensorContext, platform: PlatformResource) -> None:
        from selfheal.notify import notify

        job, message = context.dagster_run.job_name, context.failure_event.message
        notify(platform.settings(), [Alert("run_failed", Severity.CRITICAL, f"{job} failed: {message}")])

    return (monitoring_sensor, drift_sensor, performance_sensor, probation_sensor, run_failure_alert)


def _retraining_request(
    context: dg.SensorEvaluationContext, platform: "Platform", trigger: Trigger
) -> dg.RunRequest | dg.SkipReason:
    """A run if the latest tick calls for this trigger and the conditions hold; else the reasons."""
    from datetime import UTC, datetime

    from selfheal.retraining.conditions import evaluate_conditions, is_allowed, unmet
    from selfheal.retraining.requests import wish_for_retraining
    from selfheal.stages.monitoring import latest_tick
    from selfheal.stages.retraining import retraining_limits, retraining_signals

    tick = latest_tick(platform)
    wish = wish_for_retraining(tick)
    if wish.trigger is not trigger or tick is None:
        return dg.SkipReason(f"No call for a retraining here: {wish.reason}.")
    if _is_busy(context, retraining_job.name):
        return dg.SkipReason("A retraining is running.")
    signals = retraining_signals(platform, trigger, tick.episode_id)
    conditions = evaluate_conditions(signals, retraining_limits(platform.settings), datetime.now(UTC))
    if not is_allowed(conditions):
        return dg.SkipReason(f"{wish.reason}, but: {unmet(conditions)}.")
    config = {
        "trigger": trigger.value,
        "reason": wish.reason,
        "actor": context.sensor_name,
        "episode_id": tick.episode_id,
    }
    return dg.RunRequest(
        run_key=f"{tick.episode_id} attempt {len(signals.attempts) + 1} labels {signals.n_labels}",
        run_config={"ops": {"retraining_decision": {"config": config}}},
        tags={"selfheal/episode": tick.episode_id or "", "selfheal/trigger": trigger.value},
    )


def _is_busy(context: dg.SensorEvaluationContext, job_name: str) -> bool:
    return bool(context.instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=list(BUSY)), limit=1))
