"""Sensors: those that decide what runs, one for interrupted runs, one for housekeeping, one for reconciliation, two that follow runs.

A sensor that decides reads, asks a pure rule of `selfheal`, and requests a run or says why not; it changes nothing but the
record of that decision. The others act; of these, only the one for interrupted runs requests any: the same ones again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from selfheal_assets.sensors.housekeeping import build_housekeeping_sensor
from selfheal_assets.sensors.interruptions import build_interrupted_run_sensor
from selfheal_assets.sensors.monitoring import build_monitoring_sensor
from selfheal_assets.sensors.probation import build_probation_sensor
from selfheal_assets.sensors.registry import registry_reconciler
from selfheal_assets.sensors.retraining import build_retraining_sensors
from selfheal_assets.sensors.run_status import RUN_ALERTS

if TYPE_CHECKING:
    from selfheal_assets.jobs import Job

MAX_FOLLOW_UP_SECONDS = 30
"""Longest interval of the sensors that follow a tick: retraining and probation."""

MAX_HOUSEKEEPING_SECONDS = 60
"""Longest interval of the housekeeping sensor; the back-off of alerts starts at one minute."""


def build_sensors(monitoring_interval_seconds: int, jobs: "Sequence[Job]") -> Sequence[dg.SensorDefinition]:
    """Return all sensors.

    Args:
        monitoring_interval_seconds: the monitoring sensor fires at most that often.
        jobs: those that interrupted runs may be of.
    """
    follow_up_seconds = min(MAX_FOLLOW_UP_SECONDS, monitoring_interval_seconds)
    of_the_loop = (
        build_monitoring_sensor(monitoring_interval_seconds),
        *build_retraining_sensors(follow_up_seconds),
        build_probation_sensor(follow_up_seconds),
        build_interrupted_run_sensor(jobs),
        registry_reconciler,
        *RUN_ALERTS,
    )
    housekeeping_seconds = min(MAX_HOUSEKEEPING_SECONDS, monitoring_interval_seconds)
    return (*of_the_loop, build_housekeeping_sensor(housekeeping_seconds, [one.name for one in of_the_loop]))
