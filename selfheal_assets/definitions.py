"""The code location, built by one function."""

from __future__ import annotations

from typing import Any, TypeAlias

import dagster as dg

from selfheal.kit.code_version import code_version
from selfheal.kit.owners import parse_owners
from selfheal.settings import Settings, load_settings
from selfheal_assets.asset_checks import ALL_CHECKS
from selfheal_assets.assets import monitoring, promotion, reference, retraining, serving_logs
from selfheal_assets.jobs import all_jobs
from selfheal_assets.metadata import plain
from selfheal_assets.resources import links
from selfheal_assets.resources.io_managers import FrameIOManager, RecordIOManager
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.resources.tracking import RESOURCE_KEY, TrackingResource
from selfheal_assets.schedules import ALL_SCHEDULES
from selfheal_assets.sensors import build_sensors

GROUPS = (reference, serving_logs, monitoring, retraining, promotion)
"""One module per group, with the group's name. A module imports assets of earlier ones only."""

Asset: TypeAlias = dg.AssetsDefinition | dg.AssetSpec


def build_definitions(**overrides: Any) -> dg.Definitions:
    """Return everything that Dagster runs and shows. `overrides` are settings that override the environment, for tests.

    Raises:
        ConfigurationError: if a setting is wrong, so that the code location does not load.
    """
    settings = load_settings(**overrides)
    platform = PlatformResource(overrides=overrides)
    jobs = all_jobs(settings.training_timeout_seconds)
    return dg.Definitions(
        assets=load_assets(settings),
        asset_checks=ALL_CHECKS,
        jobs=jobs,
        schedules=ALL_SCHEDULES,
        sensors=build_sensors(settings.monitoring_interval, jobs),
        resources={
            "platform": platform,
            "io_manager": RecordIOManager(platform=platform),
            "frame_io": FrameIOManager(platform=platform),
            RESOURCE_KEY: TrackingResource(platform=platform),
        },
        executor=dg.in_process_executor,
    )


def load_assets(settings: Settings) -> list[Asset]:
    """Return the asset graph with what all assets have in common: group, owners, code version, a link to the dashboard.

    The code version covers all of selfheal's code, so that a value computed by other code is recognisable.
    """
    link, owners, version = links.dashboard(settings), parse_owners(settings.asset_owners), code_version()
    assets: dict[dg.AssetKey, Asset] = {}
    for module in GROUPS:
        group = module.__name__.rpartition(".")[2]

        def completed(spec: dg.AssetSpec, group: str = group) -> dg.AssetSpec:
            known = spec.replace_attributes(group_name=group, owners=owners, code_version=version)
            return known.merge_attributes(metadata=plain({"dashboard": link}))

        for asset in dg.load_assets_from_modules([module], include_specs=True):
            if isinstance(asset, dg.AssetsDefinition | dg.AssetSpec) and asset.key not in assets:
                (assets[asset.key],) = dg.map_asset_specs(completed, [asset])
    return list(assets.values())


defs = build_definitions()
