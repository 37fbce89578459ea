"""What follows Postgres and may stray from it: MLflow's aliases and stage tags, and the files of decisions.

Everything here may be repeated, by several processes at once: a promotion or rollback does it at its end, the sensor
`registry_sensor` and the check `alias_follows_postgres` do it whatever happened before. So what a crash left open is set right
within a minute, and an alias that somebody moved is found.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from selfheal.adapters.decision_log import write_missing_files
from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS, STAGING_ALIAS
from selfheal.adapters.postgres import model_versions
from selfheal.adapters.postgres.alerts import REGISTRY, open_or_update_alert, resolve_alert
from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.adapters.postgres.mutex import exclusive
from selfheal.domain.records import Alert, Severity, Stage

if TYPE_CHECKING:
    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform

REGISTRY_OUT_OF_SYNC = "registry_strayed"
"""Kind of the alert."""

SETTLING = timedelta(minutes=5)
"""After a promotion, how long MLflow may still be behind without anybody being told: it follows, it has not strayed."""

PROJECTION_STEPS = ("write_decision_files", "point_production_alias", "drop_staging_alias", "tag_stages")
"""What `project` does, in order."""


def project(platform: Platform, on_step: Callable[[str], None] = lambda _: None) -> list[str]:
    """Sets all of it right; returns how MLflow had strayed, a sentence each."""
    on_step("write_decision_files")
    write_missing_files(platform.store, platform.settings.data_dir)
    return reconcile_registry(platform, on_step)


def watch_registry(platform: Platform, now: datetime) -> list[str]:
    """Sets all of it right (`project`), and holds an alert if MLflow had strayed, until it is found as it should be."""
    production = model_versions.production_version(platform.store)
    strayed = project(platform)
    if not strayed:
        resolve_alert(platform.store, REGISTRY, REGISTRY_OUT_OF_SYNC, now)
    elif not _is_settling(production, now):
        message = f"MLflow had strayed and was set right: {'; '.join(strayed)}. Who changes it by hand?"
        open_or_update_alert(
            platform.store, REGISTRY, None, Alert(REGISTRY_OUT_OF_SYNC, Severity.WARNING, message), now
        )
    return strayed


def reconcile_registry(platform: Platform, on_step: Callable[[str], None] = lambda _: None) -> list[str]:
    """Makes MLflow's aliases and stage tags follow Postgres; returns what had strayed, a sentence each."""
    with exclusive(platform.store, Lock.REGISTRY):
        production = model_versions.production_version(platform.store)
        if production is None:
            return []
        on_step("point_production_alias")
        strayed = _point_production(platform, production.version)
        on_step("drop_staging_alias")
        _drop_staging(platform)
        on_step("tag_stages")
        return strayed + _tag_stages(platform)


def _point_production(platform: Platform, version: int) -> list[str]:
    alias = platform.registry.alias_version(PRODUCTION_ALIAS)
    if alias == version:
        return []
    platform.registry.point_alias(PRODUCTION_ALIAS, version)
    return [f"alias {PRODUCTION_ALIAS} pointed at {alias}, version {version} is in production"]


def _drop_staging(platform: Platform) -> None:
    """The alias `staging` ends with the staging of its version."""
    alias = platform.registry.alias_version(STAGING_ALIAS)
    staged = None if alias is None else model_versions.model_version(platform.store, alias)
    if staged is not None and staged.stage is not Stage.STAGING:
        platform.registry.drop_alias(STAGING_ALIAS)


def _tag_stages(platform: Platform) -> list[str]:
    tags = platform.registry.stage_tags()
    strayed = []
    for version in model_versions.list_versions(platform.store, limit=len(tags)):
        if version.version in tags and tags[version.version] != version.stage.value:
            platform.registry.tag_stage(version.version, version.stage)
            strayed.append(f"version {version.version} was tagged {tags[version.version]}, it is {version.stage.value}")
    return strayed


def _is_settling(production: ModelVersion | None, now: datetime) -> bool:
    return production is not None and production.promoted_at is not None and now - production.promoted_at < SETTLING
