"""Housekeeping sensor: deliver due alerts, and open and resolve alerts that no run is responsible for. It requests no run."""

import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus, InstigatorType  # Dagster exports no public name

from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.sensors.skipping import skip


def build_housekeeping_sensor(every_seconds: int, loop_sensors: Collection[str]) -> dg.SensorDefinition:
    """Return the sensor of housekeeping, evaluated every `every_seconds`. It launches no run.

    Missing traffic is measured from now on, because the time while the platform was off says nothing about its clients.

    Args:
        loop_sensors: names of the sensors without which the loop stands still.
    """
    started_at = time.monotonic()

    @dg.sensor(
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Delivers alerts that could not be delivered before, raises those of traffic that stops and of states in "
        "which the loop cannot go on by itself, and resolves those of finished probations. Launches no run.",
    )
    def housekeeping_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SkipReason:
        from selfheal.adapters.alerting.delivery import deliver_due_alerts
        from selfheal.services.probation import resolve_finished_alerts
        from selfheal.services.stalls import watch_stalls
        from selfheal.services.tick import check_traffic

        opened, now = platform.open(), datetime.now(UTC)
        awake_since = now - timedelta(seconds=time.monotonic() - started_at)
        pulse = check_traffic(opened, awake_since, now)
        resolve_finished_alerts(opened, now)
        deliver_due_alerts(opened.settings, opened.store, now)  # nothing below may hold up what is due already
        stalls = watch_stalls(opened, awake_since, now, stopped_sensors(context.instance, loop_sensors))
        deliver_due_alerts(opened.settings, opened.store, now)
        waits = f" The loop waits: {', '.join(stall.state for stall in stalls)}." if stalls else ""
        return skip(f"Alerts are up to date; traffic: {pulse.value}.{waits}", every_seconds)

    return housekeeping_sensor


def stopped_sensors(instance: dg.DagsterInstance, names: Collection[str]) -> Sequence[str]:
    """Return which of these sensors somebody has stopped in Dagster, in alphabetical order."""
    if instance.schedule_storage is None:  # nothing can be stopped in an instance that keeps no state of sensors
        return ()
    stopped = instance.all_instigator_state(
        instigator_type=InstigatorType.SENSOR, instigator_statuses={InstigatorStatus.STOPPED}
    )
    return sorted({state.instigator_name for state in stopped} & set(names))
