"""Maintenance with retention in minutes: `python -m benchmarks.soak.upkeep MINUTES`, started by `benchmarks.soak`.

The settings count in days, and so does Dagster's own purge of sensor ticks. Here both are done by the product's functions and
Dagster's, with other limits.
"""

from __future__ import annotations

import dataclasses
import sys
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from selfheal.services import maintenance
from selfheal.services.platform import open_platform
from selfheal.settings import Settings, load_settings
from selfheal_assets.retention import delete_old

IN_DAYS = tuple(name for name in Settings.model_fields if name.endswith("_retention_days"))
MINUTES_PER_DAY = 24 * 60


def main(minutes: float) -> int:
    """Delete what is older than so many minutes."""
    settings = load_settings()
    platform = open_platform(settings)
    days = minutes / MINUTES_PER_DAY
    impatient = dataclasses.replace(platform, settings=settings.model_copy(update=dict.fromkeys(IN_DAYS, days)))
    maintenance.LEFT_BEHIND_AFTER = timedelta(minutes=minutes)
    now = datetime.now(UTC)
    try:
        with dg.DagsterInstance.get() as instance:
            report = maintenance.maintain(impatient, now, partial(delete_old, instance))
            _purge_ticks(instance, now - timedelta(minutes=minutes))
    finally:
        platform.close()
    print(report)
    return 0


def _purge_ticks(instance: dg.DagsterInstance, before: datetime) -> None:
    """As Dagster's daemon does after `purge_after_days`."""
    for state in instance.all_instigator_state():
        instance.purge_ticks(state.instigator_origin_id, state.selector_id, before=before.timestamp())


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
