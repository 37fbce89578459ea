"""Candidates for promotion without a training: twins of the champion under runs of their own in the real MLflow store.

Belongs here: what a test of promotion needs to have in the registry. A twin scores as the champion does, so it passes
the final validation; `log_worse_model` logs a model that does harm.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from selfheal.adapters.mlflow_store import EXPERIMENT
from selfheal.adapters.postgres import model_versions
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.records import Action, GateVerdict, Repair, ScoreMetrics, ShadowModel, TrainingSetInfo
from selfheal.kit.serialization import from_dict, to_json
from tests import builders
from tests.times import T0
from tests.traffic import toy_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from mlflow import MlflowClient
    from sklearn.pipeline import Pipeline

    from selfheal.adapters.postgres.store import Store
    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform


def champion(platform: Platform) -> ModelVersion:
    found = model_versions.production_version(platform.store)
    assert found is not None, "nothing is in production"
    return found


def mlflow_client(platform: Platform) -> MlflowClient:
    """A client of its own: MLflow's global address, which it also exports, stays as it is."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=platform.settings.mlflow_tracking_uri)


def repair_of(platform: Platform, version: int, repair: Repair) -> ShadowModel:
    """A twin of the champion whose run says that it is a repair of a version."""
    twin = replace(twin_of_champion(platform), params={"repair": repair.value, "repaired_version": version})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metadata.json"
        path.write_bytes(to_json(twin))
        mlflow_client(platform).log_artifact(twin.mlflow_run_id, str(path))
    return twin


def twin_of_champion(platform: Platform) -> ShadowModel:
    """A candidate with the champion's model file and reference, and a run of its own."""
    original = champion(platform)
    client = mlflow_client(platform)
    run = client.create_run(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.parquet"
        platform.registry.reference(original).to_parquet(path, index=False)
        client.log_artifact(run.info.run_id, str(path))
    client.set_terminated(run.info.run_id)
    metrics = from_dict(ScoreMetrics, original.metrics)
    return ShadowModel(
        model_name=original.model_name,
        mlflow_run_id=run.info.run_id,
        artifact_uri=original.artifact_uri,
        artifact_sha256=original.artifact_sha256,
        reference_sha256=original.reference_sha256,
        contract_hash=original.contract_hash,
        threshold=original.threshold,
        params={},
        metrics=metrics,
        training_set=TrainingSetInfo(
            source="twin",
            sha256="0" * 64,
            n_train=original.n_samples - metrics.n_rows,
            n_evaluation=metrics.n_rows,
            n_positive=metrics.n_positive,
            window_start=None,
            window_end=None,
            label_coverage_pct=None,
        ),
        trained_at=T0,
        trigger_reason="drift",
        decision_id="training",
    )


def passed(platform: Platform, shadow: ShadowModel) -> GateVerdict:
    """The verdict that the shadow is to replace the champion of this moment."""
    decision = builders.decision(
        decision_id=f"gates-{shadow.mlflow_run_id[:8]}",
        action=Action.PROMOTE,
        reason="all applicable gates passed",
        champion_version=champion(platform).version,
        mlflow_run_id=shadow.mlflow_run_id,
        model_sha256=shadow.artifact_sha256,
    )
    return GateVerdict(decision, shadow, None, shadow.metrics)


def put_live(store: Store, version: int, replaces: int | None, now: datetime) -> None:
    """A person's word that needs no model: the version is in production in Postgres, and who listens is told."""
    decision = builders.decision(
        decision_id=uuid4().hex[:16],
        created_at=now,
        action=Action.FORCE_PROMOTE,
        champion_version=replaces,
        challenger_version=version,
    )
    model_versions.go_live(store, version, replaces=replaces, decision=decision, now=now, probation_until=None)


def log_worse_model(platform: Platform) -> ShadowModel:
    """Logs a model that learned the opposite of the truth."""
    return _logged(platform, "worse", lambda _: None)


def log_model_without_scores(platform: Platform) -> ShadowModel:
    """Logs a model that loads and gives NaN, as a fit that diverged does."""

    def diverge(pipeline: Pipeline) -> None:
        pipeline[-1].coef_[:] = np.nan

    return _logged(platform, "diverged", diverge)


def _logged(platform: Platform, shadow_key: str, spoil: Callable[[Pipeline], None]) -> ShadowModel:
    from selfheal.domain.retraining.dataset import TrainingSet, rows_digest
    from selfheal.domain.retraining.training import TrainedModel

    twin = twin_of_champion(platform)
    features = platform.contract.feature_frame(toy_rows(500))
    matrix = features.to_numpy(dtype=np.float64)
    labels = toy_rows(500)[TRUE_LABEL].to_numpy(dtype=np.int64)
    pipeline = platform.contract.build_estimator(0).fit(matrix, 1 - labels)
    frame = features.assign(**{TRUE_LABEL: labels})
    reference = frame.assign(probability=pipeline.predict_proba(matrix)[:, 1])
    spoil(pipeline)
    return platform.registry.log_shadow(
        TrainedModel(pipeline, 0.5, {}, twin.metrics, reference),
        TrainingSet(frame, replace(twin.training_set, n_evaluation=500, sha256=rows_digest(frame))),
        shadow_key=shadow_key,
        decision_id="training",
        trigger_reason="manual",
        now=T0,
    )
