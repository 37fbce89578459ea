"""The code location, built by one function."""

from __future__ import annotations

from typing import Any

import dagster as dg

from selfheal.settings import Settings, load_settings
from selfheal_assets import links
from selfheal_assets.asset_checks import ALL_CHECKS
from selfheal_assets.assets import monitoring, promotion, reference, reports, retraining, serving_logs
from selfheal_assets.io_managers import FrameIOManager, RecordIOManager
from selfheal_assets.jobs import ALL_JOBS
from selfheal_assets.resources import PlatformResource
from selfheal_assets.schedules import ALL_SCHEDULES
from selfheal_assets.sensors.registry import registry_sensor
from selfheal_assets.sensors.sensors import build_sensors


def build_definitions(**overrides: Any) -> dg.Definitions:
    """Everything Dagster runs and shows. `overrides` are settings that win over the environment, for tests.

    Raises:
        ConfigurationError: if a setting is wrong: the code location must not load half-configured.
    """
    settings = load_settings(**overrides)
    platform = PlatformResource(overrides=overrides)
    return dg.Definitions(
        assets=[_with_dashboard(asset, settings) for asset in load_assets()],
        asset_checks=ALL_CHECKS,
        jobs=ALL_JOBS,
        schedules=ALL_SCHEDULES,
        sensors=[*build_sensors(settings.monitoring_interval), registry_sensor],
        resources={
            "platform": platform,
            "record_io": RecordIOManager(platform=platform),
            "frame_io": FrameIOManager(platform=platform),
        },
        executor=dg.in_process_executor,
    )


def load_assets() -> list[dg.AssetsDefinition]:
    found = dg.load_assets_from_modules([reference, serving_logs, monitoring, reports, retraining, promotion])
    return [asset for asset in found if isinstance(asset, dg.AssetsDefinition)]


def _with_dashboard(asset: dg.AssetsDefinition, settings: Settings) -> dg.AssetsDefinition:
    """From every asset's page one click leads to the dashboard."""
    link = {"dashboard": links.dashboard(settings)}
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(metadata=link))


defs = build_definitions()
