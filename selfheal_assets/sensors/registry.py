"""Registry sensor: reconciliation of MLflow, the decision files and the versions' pages in Dagster with Postgres.

It also runs without traffic, and completes what a crash left unfinished.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.resources.versions import MODEL_VERSIONS, is_reported, live_materialization, partition_of
from selfheal_assets.sensors.skipping import skip

if TYPE_CHECKING:
    from selfheal.domain.records import Promotion
    from selfheal.services.platform import Platform

EVERY_SECONDS = 60
"""Interval, and so the time until MLflow follows a promotion or rollback over the API, which does not wait for it."""

REPORTED_BY_ITS_RUN = timedelta(minutes=1)
"""Age from which the sensor reports a promotion; a run reports its own promotion within seconds."""

MAX_REPORTED_AT_ONCE = 25


@dg.sensor(
    name="registry_sensor",  # Dagster stores under this name whether the sensor was stopped
    minimum_interval_seconds=EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reconciles what follows Postgres: MLflow's aliases and stage tags, with an alert if somebody moved them, or deleted or "
    "renamed the experiment, a run or the registered model; the files "
    "of decisions that a crash left unwritten; a materialisation of `production_model` for each version that went live by the "
    "API, the command line or a probation. Launches no run.",
)
def registry_reconciler(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    from selfheal.services.promotion.registry_sync import watch_registry

    opened, now = platform.open(), datetime.now(UTC)
    strayed = watch_registry(opened, now)
    unseen = _not_handled_yet(opened, _position(context.cursor), now)
    missing = [promotion for promotion in unseen if not is_reported(context.instance, promotion)]
    versions = sorted({partition_of(promotion.version) for promotion in missing})
    found = f"Found: {'; '.join(strayed)}." if strayed else "MLflow follows Postgres."
    reported = f" Reported as live: version {', '.join(versions)}." if versions else ""
    return dg.SensorResult(
        skip_reason=skip(found + reported, EVERY_SECONDS),
        asset_events=[live_materialization(opened, promotion) for promotion in missing],
        dynamic_partitions_requests=[MODEL_VERSIONS.build_add_request(versions)] if versions else [],
        cursor=str(unseen[-1].position) if unseen else context.cursor,
    )


def _position(cursor: str | None) -> int:
    """Return the last promotion handled; the first where a person cleared the cursor or wrote anything into it."""
    return int(cursor) if cursor is not None and cursor.isdecimal() else 0


def _not_handled_yet(platform: "Platform", position: int, now: datetime) -> Sequence["Promotion"]:
    """Return the promotions after `position` that are old enough, oldest first, at most `MAX_REPORTED_AT_ONCE`."""
    from selfheal.adapters.postgres.promotions import list_promotions

    newer = [
        promotion
        for promotion in reversed(list_promotions(platform.store))
        if promotion.position > position and abs(now - promotion.promoted_at) >= REPORTED_BY_ITS_RUN
    ]
    return newer[:MAX_REPORTED_AT_ONCE]
