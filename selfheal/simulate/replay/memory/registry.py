"""Trained models of a replay, with their rows and version numbers.

Belongs here: what `selfheal.adapters.mlflow_registry.Registry` keeps in MLflow, in a dictionary. A run is named by what it
trained, so that the same replay gives the same ids. Models are kept as they are: skops gives back the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from selfheal.domain.records import ModelVersion, ShadowModel, Stage
from selfheal.kit.errors import MissingArtifactError, ModelRefusedError
from selfheal.kit.serialization import digest_of

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import ModelContract
    from selfheal.domain.retraining.cross_fitting import CrossFitted
    from selfheal.domain.retraining.dataset import TrainingSet
    from selfheal.domain.retraining.training import TrainedModel


@dataclass(frozen=True, eq=False)
class _Run:
    shadow: ShadowModel
    key: str
    trained: TrainedModel
    rows: TrainingSet
    reference: pd.DataFrame


class MemoryRegistry:
    """Trained models of a replay (`ModelRegistry`)."""

    def __init__(self, contract: ModelContract) -> None:
        self._contract = contract
        self._runs: dict[str, _Run] = {}
        self._numbers: dict[str, int] = {}
        self._aliases: dict[str, int] = {}
        self._tags: dict[int, str | None] = {}

    def trained(self, model: ModelVersion | ShadowModel) -> TrainedModel:
        """Return what the training of a model gave."""
        return self._run(model).trained

    def load(self, model: ModelVersion | ShadowModel) -> Pipeline:
        if model.contract_hash != self._contract.hash:
            raise ModelRefusedError("the model was trained under another contract than this replay's")
        return self._run(model).trained.pipeline

    def reference(self, model: ModelVersion | ShadowModel) -> pd.DataFrame:
        return self._run(model).reference

    def training_set(self, model: ModelVersion | ShadowModel) -> TrainingSet:
        return self._run(model).rows

    def cross_fitted(self, model: ModelVersion | ShadowModel) -> CrossFitted | None:
        return self._run(model).trained.cross_fitted

    def find_shadow(self, shadow_key: str) -> ShadowModel | None:
        return next((run.shadow for run in self._runs.values() if run.key == shadow_key), None)

    def log_shadow(
        self,
        trained: TrainedModel,
        training_set: TrainingSet,
        *,
        shadow_key: str,
        decision_id: str,
        trigger_reason: str,
        now: datetime,
        run_id: str | None = None,
    ) -> ShadowModel:
        run = run_id or digest_of("run", shadow_key)[:32]
        shadow = ShadowModel(
            model_name=self._contract.name,
            mlflow_run_id=run,
            artifact_uri=f"memory:/{run}",
            artifact_sha256=digest_of("model", shadow_key),
            reference_sha256=digest_of("reference", shadow_key),
            contract_hash=self._contract.hash,
            threshold=trained.threshold,
            params=trained.params,
            metrics=trained.metrics,
            training_set=training_set.info,
            trained_at=now,
            trigger_reason=trigger_reason,
            decision_id=decision_id,
            record=trained.record,
            cross_fitted_sha256=None if trained.cross_fitted is None else digest_of("cross-fitted", shadow_key),
        )
        reference = trained.reference.reset_index(drop=True)  # as a Parquet file gives it back
        self._runs[run] = _Run(shadow, shadow_key, trained, training_set, reference)
        return shadow

    def shadow_of_run(self, run_id: str) -> ShadowModel:
        if run_id not in self._runs:
            raise MissingArtifactError(f"there is no run {run_id} in this replay")
        return self._runs[run_id].shadow

    def register(self, shadow: ShadowModel) -> int:
        number = self._numbers.setdefault(shadow.mlflow_run_id, len(self._numbers) + 1)
        self._tags.setdefault(number, Stage.STAGING.value)
        return number

    def model_bytes(self, model: ModelVersion | ShadowModel) -> bytes:
        """Return nothing: a replay has no files. The model must be there.

        Raises:
            MissingArtifactError: if it is not.
        """
        self._run(model)
        return b""

    def has_answered(self, version: ModelVersion) -> bool:  # noqa: ARG002
        """Return True: what a replay goes back to has served in it."""
        return True

    def has_registered_model(self) -> bool:
        return True

    def repair_model(self, versions: Sequence[ModelVersion], spare: ShadowModel | None = None) -> list[str]:  # noqa: ARG002
        return []

    def has_version(self, version: int) -> bool:
        return version in self._tags

    def alias_version(self, alias: str) -> int | None:
        return self._aliases.get(alias)

    def point_alias(self, alias: str, version: int) -> None:
        self._aliases[alias] = version

    def drop_alias(self, alias: str) -> None:
        self._aliases.pop(alias, None)

    def stage_tags(self, limit: int = 100) -> dict[int, str | None]:
        return {number: self._tags[number] for number in sorted(self._tags, reverse=True)[:limit]}

    def tag_stage(self, version: int, stage: Stage) -> None:
        self._tags[version] = stage.value

    def _run(self, model: ModelVersion | ShadowModel) -> _Run:
        if model.mlflow_run_id not in self._runs:
            raise MissingArtifactError(f"there is no run {model.mlflow_run_id} in this replay")
        return self._runs[model.mlflow_run_id]
