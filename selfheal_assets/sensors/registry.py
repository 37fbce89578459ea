"""Keeps MLflow and the files of decisions what Postgres says, also while no traffic comes and whatever a crash left open."""

from datetime import UTC, datetime

import dagster as dg

from selfheal_assets.resources import PlatformResource

EVERY_SECONDS = 60
"""How soon MLflow follows a promotion or rollback over the API, which does not wait for it."""


@dg.sensor(
    minimum_interval_seconds=EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sets MLflow's aliases and stage tags right, and tells people if somebody moved them. Writes the files of decisions "
    "that a crash kept from having one. Launches no run.",
)
def registry_sensor(platform: PlatformResource) -> dg.SkipReason:
    from selfheal.services.promotion.registry_sync import watch_registry

    strayed = watch_registry(platform.open(), datetime.now(UTC))
    told = f"Set right: {'; '.join(strayed)}." if strayed else "MLflow follows Postgres."
    return dg.SkipReason(f"{told} Looks again in {EVERY_SECONDS} s.")
