"""Monitoring sensor: request a tick when there is new traffic."""

from datetime import UTC, datetime

import dagster as dg

from selfheal_assets.job_names import MONITORING_JOB
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.sensors.skipping import skip, unless_running


def build_monitoring_sensor(every_seconds: int) -> dg.SensorDefinition:
    """Return the sensor of monitoring ticks, evaluated every `every_seconds`.

    Its cursor and run key are the state of the traffic: the same state is never monitored twice.
    """

    @dg.sensor(
        job_name=MONITORING_JOB,
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a monitoring tick every MONITORING_INTERVAL, if there is a new prediction or label.",
    )
    @unless_running(MONITORING_JOB, "The tick before is still running.", every_seconds)
    def monitoring_sensor(
        context: dg.SensorEvaluationContext, platform: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        from selfheal.adapters.postgres.model_versions import production_version
        from selfheal.adapters.postgres.predictions import latest_activity

        opened = platform.open()
        champion = production_version(opened.store)
        if champion is None:
            return skip("No version is in production yet: run `selfheal bootstrap`.", every_seconds)
        newest_prediction, newest_label = latest_activity(opened.store, datetime.now(UTC))
        if newest_prediction is None:
            return skip("No prediction has been logged yet: waits for the first one.", every_seconds)
        state = f"v{champion.version} predictions:{newest_prediction.isoformat()} labels:{newest_label}"
        if state == context.cursor:
            return skip(
                f"Nothing new since the last tick (last prediction {newest_prediction:%Y-%m-%d %H:%M:%S} UTC): waits for one "
                "new prediction or label.",
                every_seconds,
            )
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=state)], cursor=state)

    return monitoring_sensor
