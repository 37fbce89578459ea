"""Verification of artifacts: files that decisions rest on, against their recorded digests; and MLflow's alias."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from selfheal.adapters.mlflow_registry import CROSS_FITTED_FILE, PRODUCTION_ALIAS
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.adapters.postgres.baseline import baseline_path, baseline_row
from selfheal.domain.records import JUDGED, Decision, ModelVersion
from selfheal.kit.errors import IntegrityError, MissingArtifactError, PermanentError
from selfheal.services.verification.decided import ALL
from selfheal.services.verification.findings import Check, CheckResult

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

OnStep = Callable[[str], None]


def check_models(platform: Platform, on_step: OnStep) -> CheckResult:
    """Check each version's downloaded model file against its digest, and its record against its MLflow run."""
    check = Check("model files")
    for version in _versions(platform):
        name = f"version {version.version}"
        on_step(f"model file of {name}")
        with check.checking(f"model of {name}"):
            _refuse_other(platform.registry.stored_model(version), version.artifact_sha256)
        with check.checking(f"record of {name}"):
            _compare_with_run(platform, version)
    return check.result()


def check_references(platform: Platform, on_step: OnStep) -> CheckResult:
    """Check the first baseline in table and file, and each version's frozen reference."""
    check = Check("references")
    with check.checking("first baseline"):
        _check_baseline(platform)
    for version in _versions(platform):
        on_step(f"reference of version {version.version}")
        with check.checking(f"reference of version {version.version}"):
            _refuse_other(platform.registry.stored_reference(version), version.reference_sha256)
    return check.result()


def check_training_sets(
    platform: Platform, verdicts: Iterable[Decision], on_step: OnStep, *, with_versions: bool = True
) -> CheckResult:
    """Check the training sets of these verdicts and, by default, of all versions; and what cross-fitted ones were judged by.

    Each is compared with the digests in its run and in the chain.
    """
    check = Check("training sets")
    versions = _versions(platform) if with_versions else []
    runs = dict.fromkeys(version.mlflow_run_id for version in versions)
    runs |= dict.fromkeys(decision.mlflow_run_id for decision in verdicts if decision.mlflow_run_id is not None)
    decided = _decisions_by_run(platform)
    for run_id in runs:
        on_step(f"training set of run {run_id[:8]}")
        with check.checking(f"training set of run {run_id}"):
            found = _training_set_digest(platform, run_id, decided.get(run_id, ()))
            for decision in decided.get(run_id, ()):
                if decision.data_sha256 not in {None, found}:
                    raise IntegrityError(
                        f"it has sha256 {found}, decision {decision.decision_id} rests on {decision.data_sha256}"
                    )
        _check_cross_fitted(platform, check, run_id, decided.get(run_id, ()))
    return check.result()


def _check_cross_fitted(platform: Platform, check: Check, run_id: str, decided: Collection[Decision]) -> None:
    """Check what a cross-fitted challenger was judged by; a run without a record is a finding of its training set."""
    try:
        shadow = platform.registry.shadow_of_run(run_id)
    except MissingArtifactError:
        return
    if shadow.cross_fitted_sha256 is None and all(one.cross_fitted_sha256 is None for one in decided):
        return
    with check.checking(f"{CROSS_FITTED_FILE} of run {run_id}"):
        found = hashlib.sha256(platform.registry.stored_cross_fitted(shadow)).hexdigest()
        problem = next(cross_fitted_problems(found, shadow.cross_fitted_sha256, decided), None)
        if problem is not None:
            raise IntegrityError(problem)


def cross_fitted_problems(found: str, of_run: str | None, decided: Iterable[Decision]) -> Iterator[str]:
    """Yield where the digest of what a challenger was judged by is another one in its run or in a decision of the chain.

    Verdicts of releases that did not record it have None, and are compared with the run alone.
    """
    if found != of_run:
        yield f"it has sha256 {found}, its run names {of_run}; restore it from a backup"
    for decision in decided:
        if decision.cross_fitted_sha256 not in {None, found}:
            yield f"it has sha256 {found}, decision {decision.decision_id} rests on {decision.cross_fitted_sha256}"


def check_alias(platform: Platform) -> CheckResult:
    """Check MLflow's alias and stage tags against Postgres."""
    check = Check("alias and stage tags")
    production = model_versions.production_version(platform.store)
    number = None if production is None else production.version
    with check.checking(f"alias {PRODUCTION_ALIAS}"):
        alias = platform.registry.alias_version(PRODUCTION_ALIAS)
        if alias != number:
            raise IntegrityError(f"points at version {alias}, but {number} is in production")
    with check.checking("stage tags"):
        tags = platform.registry.stage_tags()
        for version in _versions(platform):
            tag = tags.get(version.version, version.stage.value)
            if tag != version.stage.value:
                check.found([f"version {version.version} is tagged {tag}, but it is {version.stage.value}"])
    return check.result()


def _check_baseline(platform: Platform) -> None:
    row = baseline_row(platform.store)
    path = baseline_path(platform.store, platform.settings.data_dir)
    if row is None:
        if path.exists() or _versions(platform):
            raise IntegrityError("table reference_data has lost it")
        return
    _refuse_other(row.parquet, row.sha256)
    if not path.exists():
        raise IntegrityError(f"{path} is not there; any reading of the baseline restores it from Postgres")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}; delete it to have it restored") from error
    _refuse_other(data, row.sha256)


def _versions(platform: Platform) -> list[ModelVersion]:
    return model_versions.list_versions(platform.store, ALL)


def _refuse_other(data: bytes, expected: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise IntegrityError(f"has changed: expected sha256 {expected}, found {found}; restore it from a backup")


def _compare_with_run(platform: Platform, version: ModelVersion) -> None:
    shadow = platform.registry.shadow_of_run(version.mlflow_run_id)
    for name in ("artifact_uri", "artifact_sha256", "reference_sha256", "contract_hash", "threshold"):
        ours, theirs = getattr(version, name), getattr(shadow, name)
        if ours != theirs:
            raise IntegrityError(f"model_metadata has {name} {ours}, its run has {theirs}")


def stores_training_set(decided: Iterable[Decision]) -> bool:
    """Return whether the release that decided on a run stored the rows that it was trained and judged on.

    The verdict says so, and the chain covers it: the limits of a verdict have had the seed of its draws since then. A
    run without a verdict is not taken for an older one.
    """
    verdicts = [decision for decision in decided if decision.action in JUDGED]
    return not verdicts or any("seed" in (verdict.gate_config or {}) for verdict in verdicts)


def _training_set_digest(platform: Platform, run_id: str, decided: Collection[Decision]) -> str:
    """Return the digest of a run's stored rows, which are checked against it.

    Raises:
        IntegrityError: if they are missing or have changed.
        PermanentError: if they are missing because the release that trained it did not store them.
    """
    try:
        shadow = platform.registry.shadow_of_run(run_id)
        return platform.registry.training_set(shadow).info.sha256
    except MissingArtifactError:
        if stores_training_set(decided):
            raise
        raise PermanentError("the release that trained it did not store the rows") from None


def _decisions_by_run(platform: Platform) -> dict[str, list[Decision]]:
    found: dict[str, list[Decision]] = {}
    for decision in decisions.all_readable(platform.store).values():
        if decision is not None and decision.mlflow_run_id is not None:
            found.setdefault(decision.mlflow_run_id, []).append(decision)
    return found
