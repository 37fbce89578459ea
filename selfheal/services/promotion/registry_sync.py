"""Reconciliation of what follows Postgres: MLflow's runs, versions, aliases and stage tags, and the files of decisions.

Every step may be repeated, also by several processes at once. A promotion or rollback reconciles at its end, and the sensor
`registry_sensor` does so every minute. So what a crash left unfinished is completed within a minute, and an alias that was
moved by hand is found.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS, STAGING_ALIAS
from selfheal.adapters.postgres.alerts import REGISTRY
from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.domain.records import Alert, Severity, Stage
from selfheal.kit.errors import MissingArtifactError

if TYPE_CHECKING:
    from selfheal.domain.records import ModelVersion, ShadowModel
    from selfheal.services.platform import Platform
    from selfheal.services.repositories import LoopPlatform

REGISTRY_OUT_OF_SYNC = "registry_out_of_sync"
"""Kind of the alert."""

SETTLING = timedelta(minutes=5)
"""Time after a promotion in which MLflow may lag behind without an alert."""

MAX_RUNS_LOOKED_UP = 100
"""Newest versions whose runs are looked for in MLflow's trash, each minute and in one query."""

MAX_VERSIONS_RESTORED = 10_000
"""Versions that are registered again after the whole model was deleted."""

PROJECTION_STEPS = ("write_decision_files", "point_production_alias", "drop_staging_alias", "tag_stages")
"""Steps of `project`, in order."""


def project(platform: LoopPlatform, on_step: Callable[[str], None] = lambda _: None) -> list[str]:
    """Write missing decision files and reconcile MLflow; return what was corrected there, one sentence each."""
    on_step("write_decision_files")
    platform.decisions.write_missing_files()
    return reconcile_registry(platform, on_step)


def watch_registry(platform: Platform, now: datetime) -> list[str]:
    """Run `project`; raise an alert if MLflow was out of sync, and resolve it once MLflow is found in sync.

    Returns:
        What was corrected, one sentence each.
    """
    production = platform.versions.production()
    repaired = repair_registry(platform)
    corrected = project(platform)
    message = _alert_message(repaired, [] if _is_settling(production, now) else corrected)
    if message is not None:
        platform.alerts.open_or_update(REGISTRY, None, Alert(REGISTRY_OUT_OF_SYNC, Severity.WARNING, message), now)
    elif not corrected:
        platform.alerts.resolve(REGISTRY, REGISTRY_OUT_OF_SYNC, now)
    return repaired + corrected


def repair_registry(platform: Platform) -> list[str]:
    """Put back in MLflow what a person has deleted or renamed there; return what was found, one sentence each.

    What MLflow keeps no way back for is said, too. Serving needs none of it: it has the files of its version.
    """
    with platform.exclusive(Lock.REGISTRY):
        production = platform.versions.production()
        if production is None:
            return []
        versions = platform.versions.newest(limit=MAX_RUNS_LOOKED_UP)
        found = platform.registry.repair_runs(production, versions)
        try:
            found += restore_registered_model(platform)
        except MissingArtifactError as error:
            found.append(str(error))
        if not platform.registry.has_version(production.version):
            found.append(
                f"version {production.version}, which is in production, was deleted in MLflow, which keeps no way back; it "
                "continues to serve, and the next promotion sets the alias again"
            )
        for version in _needed(platform, production):
            found += platform.registry.repair_files(version)
        return found


def _needed(platform: LoopPlatform, production: ModelVersion) -> list[ModelVersion]:
    """Return the version in production and the one that a rollback returns to."""
    number = production.previous_version
    previous = None if number is None else platform.versions.find(number)
    return [production] if previous is None else [production, previous]


def restore_registered_model(platform: LoopPlatform, spare: ShadowModel | None = None) -> list[str]:
    """Put back the registered model if it was deleted or renamed in MLflow; return what was found. For one caller at a time.

    Args:
        spare: a model that is about to be registered.

    Raises:
        MissingArtifactError: if the models of all versions were deleted, too, and there is no spare one.
    """
    if platform.registry.has_registered_model():
        return []
    versions = platform.versions.newest(limit=MAX_VERSIONS_RESTORED)
    return platform.registry.repair_model(versions, spare)


def reconcile_registry(platform: LoopPlatform, on_step: Callable[[str], None] = lambda _: None) -> list[str]:
    """Make MLflow's aliases and stage tags follow Postgres; return what was corrected, one sentence each."""
    with platform.exclusive(Lock.REGISTRY):
        production = platform.versions.production()
        if production is None:
            return []
        on_step("point_production_alias")
        corrected = _point_production(platform, production.version)
        on_step("drop_staging_alias")
        _drop_staging(platform)
        on_step("tag_stages")
        return corrected + _tag_stages(platform)


def _point_production(platform: LoopPlatform, version: int) -> list[str]:
    alias = platform.registry.alias_version(PRODUCTION_ALIAS)
    if alias == version or not platform.registry.has_version(version):
        return []  # a version that was deleted there has no alias: `repair_registry` says so
    platform.registry.point_alias(PRODUCTION_ALIAS, version)
    was = "no version" if alias is None else f"version {alias}"
    return [f"alias {PRODUCTION_ALIAS} pointed at {was} although version {version} is in production"]


def _drop_staging(platform: LoopPlatform) -> None:
    """Drop the alias `staging` once its version is no longer in staging."""
    alias = platform.registry.alias_version(STAGING_ALIAS)
    staged = None if alias is None else platform.versions.find(alias)
    if staged is not None and staged.stage is not Stage.STAGING:
        platform.registry.drop_alias(STAGING_ALIAS)


def _tag_stages(platform: LoopPlatform) -> list[str]:
    tags = platform.registry.stage_tags()
    corrected = []
    for version in platform.versions.newest(limit=len(tags)):
        tag = tags.get(version.version)
        if version.version in tags and tag != version.stage.value:
            platform.registry.tag_stage(version.version, version.stage)
            corrected.append(
                f"version {version.version} was tagged {tag or 'with no stage'} although it is {version.stage.value}"
            )
    return corrected


def _alert_message(repaired: list[str], corrected: list[str]) -> str | None:
    """Return what the alert says; None if there is nothing to say."""
    sentences = []
    if corrected:
        sentences.append(
            f"MLflow was out of sync with Postgres and has been corrected: {'; '.join(corrected)}. Someone may be editing "
            "aliases by hand."
        )
    if repaired:
        sentences.append(
            f"Somebody deleted or renamed what the platform needs in MLflow: {'; '.join(repaired)}. Serving is not affected."
        )
    return " ".join(sentences) or None


def _is_settling(production: ModelVersion | None, now: datetime) -> bool:
    """Return whether the promotion was a moment ago; one from the future was before a clock was set back."""
    return (
        production is not None and production.promoted_at is not None and abs(now - production.promoted_at) < SETTLING
    )
