"""Housekeeping sensor: deliver due alerts, and open and resolve alerts that no run is responsible for. It requests no run."""

import time
from datetime import UTC, datetime, timedelta

import dagster as dg

from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.sensors.skipping import skip


def build_housekeeping_sensor(every_seconds: int) -> dg.SensorDefinition:
    """Return the sensor of housekeeping, evaluated every `every_seconds`. It launches no run.

    Missing traffic is measured from now on, because the time while the platform was off says nothing about its clients.
    """
    started_at = time.monotonic()

    @dg.sensor(
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Delivers alerts that could not be delivered before, raises one if no traffic comes any more, and resolves "
        "those of finished probations. Launches no run.",
    )
    def housekeeping_sensor(platform: PlatformResource) -> dg.SkipReason:
        from selfheal.adapters.alerting.delivery import deliver_due_alerts
        from selfheal.services.probation import resolve_finished_alerts
        from selfheal.services.tick import check_traffic

        opened, now = platform.open(), datetime.now(UTC)
        awake_since = now - timedelta(seconds=time.monotonic() - started_at)
        pulse = check_traffic(opened, awake_since, now)
        resolve_finished_alerts(opened, now)
        deliver_due_alerts(opened.settings, opened.store, now)
        return skip(f"Alerts are up to date; traffic: {pulse.value}.", every_seconds)

    return housekeeping_sensor
