"""Reproduction: train a version again from its record and compare to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from selfheal.adapters.postgres import model_versions
from selfheal.domain.model.content import canonical_content, differences
from selfheal.domain.records import Reproduction, TrainingRecord
from selfheal.domain.retraining.dataset import rows_digest
from selfheal.domain.retraining.training import grid_as_text, library_versions, train
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import PermanentError
from selfheal.kit.serialization import to_dict
from selfheal.services.retraining import parallelism

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract
    from selfheal.domain.records import ShadowModel
    from selfheal.domain.retraining.training import Progress, TrainedModel
    from selfheal.services.platform import Platform


def reproduce(platform: Platform, version: int, on_fits: Progress | None = None) -> Reproduction:
    """Trains a registered version again from its training set, with the recorded seed, and compares what comes of it.

    Raises:
        PermanentError: if there is no such version, or its training was not recorded.
        MissingArtifactError: if the training set is gone.
        IntegrityError: if training set or model file are not what was recorded.
    """
    registered = model_versions.model_version(platform.store, version)
    if registered is None:
        raise PermanentError(f"version {version} is not registered; `selfheal status` names the one in production")
    shadow = platform.registry.shadow_of_run(registered.mlflow_run_id)
    if shadow.record is None:
        raise PermanentError(
            f"version {version} was trained before trainings were recorded; it cannot be trained again"
        )
    recorded = platform.registry.model_bytes(registered)
    rows = platform.registry.training_set(shadow)
    trained = train(rows, platform.contract, shadow.record.seed, parallelism(platform.settings), on_fits)
    return Reproduction(
        model_name=registered.model_name,
        version=version,
        mlflow_run_id=registered.mlflow_run_id,
        data_sha256=shadow.training_set.sha256,
        differences=(*_model_differences(recorded, trained), *_other_differences(platform, shadow, trained)),
        changed_since=changed_since(shadow.record, platform.contract),
    )


def changed_since(record: TrainingRecord, contract: ModelContract) -> tuple[str, ...]:
    """Return what else a training rests on and has changed since, one sentence per change."""
    now = {"code": code_version(), **library_versions(), **_as_settings(grid_as_text(contract.param_grid))}
    then = {"code": record.code_version, **record.libraries, **_as_settings(record.param_grid)}
    return tuple(
        f"{name} was {then.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    )


def _as_settings(grid: dict[str, list[str]]) -> dict[str, str]:
    return {f"candidates of {name}": ", ".join(values) for name, values in grid.items()}


def _model_differences(recorded: bytes, trained: TrainedModel) -> list[str]:
    import skops.io

    again = canonical_content(skops.io.dumps(trained.pipeline))
    return [f"model {difference}" for difference in differences(canonical_content(recorded), again)]


def _other_differences(platform: Platform, shadow: ShadowModel, trained: TrainedModel) -> list[str]:
    recorded = to_dict(shadow)
    again = to_dict(replace(shadow, threshold=trained.threshold, params=trained.params, metrics=trained.metrics))
    found = [
        f"{name}: {recorded[name]} and {again[name]}"
        for name in ("threshold", "params", "metrics")
        if recorded[name] != again[name]
    ]
    if rows_digest(platform.registry.reference(shadow)) != rows_digest(trained.reference):
        found.append("reference: its rows or their probabilities differ")
    return found
