"""Reconciliation of what follows Postgres: MLflow's aliases and stage tags, and the files of decisions.

Every step may be repeated, by several processes at once. A promotion or rollback reconciles at its end; the sensor
`registry_sensor` does so whatever happened before. So what a crash left unfinished is completed within a minute, and an
alias that was moved by hand is found.
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

REGISTRY_OUT_OF_SYNC = "registry_out_of_sync"
"""Kind of the alert."""

SETTLING = timedelta(minutes=5)
"""How long after a promotion MLflow may be behind without an alert: it follows, nobody has edited it."""

PROJECTION_STEPS = ("write_decision_files", "point_production_alias", "drop_staging_alias", "tag_stages")
"""What `project` does, in order."""


def project(platform: Platform, on_step: Callable[[str], None] = lambda _: None) -> list[str]:
    """Write missing decision files and reconcile MLflow; return what was corrected there, one sentence each."""
    on_step("write_decision_files")
    write_missing_files(platform.store, platform.settings.data_dir)
    return reconcile_registry(platform, on_step)


def watch_registry(platform: Platform, now: datetime) -> list[str]:
    """Run `project`; raise an alert if MLflow was out of sync, and resolve it once MLflow is found in sync.

    Returns:
        What was corrected, one sentence each.
    """
    production = model_versions.production_version(platform.store)
    corrected = project(platform)
    if not corrected:
        resolve_alert(platform.store, REGISTRY, REGISTRY_OUT_OF_SYNC, now)
    elif not _is_settling(production, now):
        message = (
            f"MLflow was out of sync with Postgres and has been corrected: {'; '.join(corrected)}. Someone may be editing "
            "aliases by hand."
        )
        open_or_update_alert(
            platform.store, REGISTRY, None, Alert(REGISTRY_OUT_OF_SYNC, Severity.WARNING, message), now
        )
    return corrected


def reconcile_registry(platform: Platform, on_step: Callable[[str], None] = lambda _: None) -> list[str]:
    """Make MLflow's aliases and stage tags follow Postgres; return what was corrected, one sentence each."""
    with exclusive(platform.store, Lock.REGISTRY):
        production = model_versions.production_version(platform.store)
        if production is None:
            return []
        on_step("point_production_alias")
        corrected = _point_production(platform, production.version)
        on_step("drop_staging_alias")
        _drop_staging(platform)
        on_step("tag_stages")
        return corrected + _tag_stages(platform)


def _point_production(platform: Platform, version: int) -> list[str]:
    alias = platform.registry.alias_version(PRODUCTION_ALIAS)
    if alias == version:
        return []
    platform.registry.point_alias(PRODUCTION_ALIAS, version)
    was = "no version" if alias is None else f"version {alias}"
    return [f"alias {PRODUCTION_ALIAS} pointed at {was} although version {version} is in production"]


def _drop_staging(platform: Platform) -> None:
    """Drop the alias `staging` once its version is not in staging any more."""
    alias = platform.registry.alias_version(STAGING_ALIAS)
    staged = None if alias is None else model_versions.model_version(platform.store, alias)
    if staged is not None and staged.stage is not Stage.STAGING:
        platform.registry.drop_alias(STAGING_ALIAS)


def _tag_stages(platform: Platform) -> list[str]:
    tags = platform.registry.stage_tags()
    corrected = []
    for version in model_versions.list_versions(platform.store, limit=len(tags)):
        tag = tags.get(version.version)
        if version.version in tags and tag != version.stage.value:
            platform.registry.tag_stage(version.version, version.stage)
            corrected.append(
                f"version {version.version} was tagged {tag or 'with no stage'} although it is {version.stage.value}"
            )
    return corrected


def _is_settling(production: ModelVersion | None, now: datetime) -> bool:
    return production is not None and production.promoted_at is not None and now - production.promoted_at < SETTLING
