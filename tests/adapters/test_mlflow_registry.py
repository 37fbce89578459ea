"""The registry: what it logs, what it refuses to load, and what still works while MLflow is away."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal.adapters.mlflow_registry import MODEL_FILE, STAGING_ALIAS, Registry, open_registry
from selfheal.adapters.mlflow_store import EXPERIMENT
from selfheal.adapters.model_cache import CACHED_FILES
from selfheal.domain.records import ModelVersion, ShadowModel
from selfheal.domain.retraining.dataset import rows_digest
from selfheal.kit.errors import IntegrityError, MissingArtifactError, ModelRefusedError, ServiceUnavailableError
from selfheal.services.platform import Platform
from tests import hostile_models
from tests.at_once import at_once
from tests.candidates import champion, log_worse_model, mlflow_client, twin_of_champion
from tests.object_store import Bucket
from tests.times import T0
from tests.traffic import toy_rows

NOWHERE = "http://127.0.0.1:9"


def scores(registry: Registry, model: ModelVersion | ShadowModel) -> Any:
    rows = registry.contract.feature_frame(toy_rows(20)).to_numpy(dtype=np.float64)
    return registry.load(model).predict_proba(rows)


def cached(platform: Platform, name: str) -> Path:
    return platform.settings.data_dir / "cache" / name


def empty_cache(platform: Platform) -> None:
    for path in (platform.settings.data_dir / "cache").iterdir():
        path.unlink()


@pytest.fixture
def logged(platform: Platform) -> ShadowModel:
    return log_worse_model(platform)


def test_a_logged_model_is_found_by_its_key_with_all_its_files(platform: Platform, logged: ShadowModel) -> None:
    assert platform.registry.find_shadow("worse") == logged
    assert platform.registry.find_shadow("another key") is None
    client = mlflow_client(platform)
    files = {file.path for file in client.list_artifacts(logged.mlflow_run_id)}
    assert files >= {"metrics.json", "params.json", "metadata.json", "requirements.txt", "reference.parquet"}
    assert "training_set.parquet" in files
    run = client.get_run(logged.mlflow_run_id)
    assert run.data.metrics["f1"] == pytest.approx(logged.metrics.f1)
    assert len(platform.registry.reference(logged)) == 500


def test_a_training_goes_on_though_the_experiment_was_deleted(platform: Platform, logged: ShadowModel) -> None:
    client = mlflow_client(platform)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    assert platform.registry.find_shadow("worse") == logged
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    platform.registry.tracking_config()
    assert client.get_experiment_by_name(EXPERIMENT).lifecycle_stage == "active"


def test_a_bucket_that_the_experiment_names_holds_its_models(platform: Platform, bucket: Bucket) -> None:
    """What a tracking server without a proxy for artifacts tells its clients, too."""
    client = mlflow_client(platform)
    of_the_folder = client.get_experiment_by_name(EXPERIMENT)
    client.rename_experiment(of_the_folder.experiment_id, "before the bucket")
    client.create_experiment(EXPERIMENT, artifact_location=f"{bucket.url}/mlflow")
    logged = log_worse_model(platform)
    names = {key.rpartition("/")[2] for key in bucket.listed()}
    assert names >= {MODEL_FILE, "reference.parquet", "training_set.parquet"}
    empty_cache(platform)
    assert len(scores(platform.registry, logged)) == 20
    assert rows_digest(platform.registry.training_set(logged).frame) == logged.training_set.sha256
    (model_key,) = [key for key in bucket.listed() if key.endswith(MODEL_FILE)]
    bucket.write(model_key, b"another model")
    empty_cache(platform)
    with pytest.raises(IntegrityError, match=r"model\.skops has changed"):
        platform.registry.load(logged)


def test_a_logged_model_that_was_deleted_is_as_good_as_none(platform: Platform, logged: ShadowModel) -> None:
    mlflow_client(platform).delete_logged_model(logged.artifact_uri.removeprefix("models:/"))
    assert platform.registry.find_shadow("worse") is None


def test_the_training_set_of_a_run_comes_back_as_it_was_gathered(platform: Platform, logged: ShadowModel) -> None:
    kept = platform.registry.training_set(logged)
    assert kept.info == logged.training_set
    assert rows_digest(kept.frame) == logged.training_set.sha256
    assert platform.registry.shadow_of_run(logged.mlflow_run_id) == logged
    first = platform.registry.training_set(champion(platform))
    assert (first.info.n_train, first.info.n_evaluation) == (2_100, 900)


def test_a_run_without_a_training_set_says_so(platform: Platform) -> None:
    with pytest.raises(MissingArtifactError, match=r"training_set\.parquet is not there"):
        platform.registry.training_set(twin_of_champion(platform))


def test_how_honest_the_probabilities_are_is_logged_with_the_run(platform: Platform) -> None:
    metrics = mlflow_client(platform).get_run(champion(platform).mlflow_run_id).data.metrics
    assert metrics["calibration_slope_out_of_fold"] == pytest.approx(1.0, abs=0.2)
    assert "calibration_spiegelhalter_z_evaluation" in metrics


def test_a_run_is_registered_as_one_version_however_often_it_is_asked_for(platform: Platform) -> None:
    shadow = twin_of_champion(platform)
    assert [platform.registry.register(shadow) for _ in range(3)] == [2, 2, 2]
    assert platform.registry.register(twin_of_champion(platform)) == 3


def test_an_alias_points_where_it_was_pointed_or_nowhere(platform: Platform) -> None:
    assert platform.registry.alias_version(STAGING_ALIAS) is None
    platform.registry.point_alias(STAGING_ALIAS, 1)
    assert platform.registry.alias_version(STAGING_ALIAS) == 1
    platform.registry.drop_alias(STAGING_ALIAS)
    assert platform.registry.alias_version(STAGING_ALIAS) is None


def test_an_empty_registry_has_no_alias_and_no_run(empty_platform: Platform) -> None:
    assert empty_platform.registry.alias_version(STAGING_ALIAS) is None
    assert empty_platform.registry.find_shadow("any") is None


def test_a_file_whose_digest_is_not_the_recorded_one_is_refused_naming_both(platform: Platform) -> None:
    live = champion(platform)
    with pytest.raises(
        IntegrityError, match=rf"model\.skops has changed: expected sha256 0+, found {live.artifact_sha256}"
    ):
        platform.registry.load(replace(live, artifact_sha256="0" * 64))
    with pytest.raises(IntegrityError, match=r"reference\.parquet has changed"):
        platform.registry.reference(replace(live, reference_sha256="0" * 64))
    assert not cached(platform, f"{'0' * 64}.skops").exists()


def test_a_model_of_another_contract_is_refused_naming_both_hashes(platform: Platform) -> None:
    foreign = replace(champion(platform), contract_hash="f" * 64)
    with pytest.raises(
        ModelRefusedError, match=rf"under contract f{{12}}, this process has {platform.contract.hash[:12]}"
    ):
        platform.registry.load(foreign)


@pytest.mark.parametrize("flavour", ["sklearn", "python_function"])
def test_only_the_skops_file_of_a_logged_model_is_read_whatever_its_mlmodel_says(
    platform: Platform, tmp_path: Path, flavour: str
) -> None:
    """MLflow's loaders would unpickle the one, and import and run the code of the other."""
    canary = tmp_path / "canary"
    uri = log_hostile_model(platform, tmp_path / "model", flavour, canary)
    sha256 = hashlib.sha256(hostile_models.raw_pickle(canary)).hexdigest()
    with pytest.raises(ModelRefusedError, match=r"model\.skops does not load: BadZipFile"):
        platform.registry.load(replace(champion(platform), artifact_uri=uri, artifact_sha256=sha256))
    assert not canary.exists()


def log_hostile_model(platform: Platform, folder: Path, flavour: str, canary: Path) -> str:
    """Logs a folder as MLflow has them, every file of which would create the canary."""
    folder.mkdir()
    for name in ("model.pkl", "model.skops"):
        (folder / name).write_bytes(hostile_models.raw_pickle(canary))
    (folder / "code").mkdir()
    (folder / "code" / "trap.py").write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")
    flavours = {
        "sklearn": "  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle, sklearn_version: 1.5.0}\n",
        "python_function": "  python_function: {loader_module: trap, code: code, data: model.pkl}\n",
    }
    (folder / "MLmodel").write_text(f"artifact_path: model\nflavors:\n{flavours[flavour]}")
    client = mlflow_client(platform)
    run = client.create_run(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    client.log_artifacts(run.info.run_id, str(folder), "model")
    return f"runs:/{run.info.run_id}/model"


@pytest.mark.parametrize("place", ["in the cache", "at MLflow"])
def test_a_model_file_that_is_too_large_is_refused_before_it_is_read(platform: Platform, place: str) -> None:
    live = champion(platform)
    path = cached(platform, f"{live.artifact_sha256}.skops")
    size = path.stat().st_size
    if place == "at MLflow":
        path.unlink()
    strict = open_registry(platform.settings.model_copy(update={"max_model_mb": (size - 1) / 1e6}), platform.contract)
    with pytest.raises(ModelRefusedError, match=f"has {size:,} bytes; MAX_MODEL_MB allows {size - 1:,}"):
        strict.load(live)
    assert path.exists() == (place == "in the cache")


def test_a_model_that_is_not_in_the_cache_is_refused_if_nobody_may_be_asked(platform: Platform) -> None:
    live = champion(platform)
    path = cached(platform, f"{live.artifact_sha256}.skops")
    registry = open_registry(platform.settings.model_copy(update={"mlflow_tracking_uri": NOWHERE}), platform.contract)
    assert registry.load(live, may_download=False)
    path.unlink()
    with pytest.raises(ModelRefusedError, match="not in this machine's cache any more"):
        registry.load(live, may_download=False)


def test_what_was_loaded_once_loads_while_mlflow_is_unreachable(platform: Platform) -> None:
    live = champion(platform)
    expected, reference = scores(platform.registry, live), platform.registry.reference(live)
    away = platform.settings.model_copy(update={"mlflow_tracking_uri": NOWHERE})
    registry = open_registry(away, platform.contract)
    np.testing.assert_array_equal(scores(registry, live), expected)
    assert registry.reference(live).equals(reference)


def test_what_was_never_loaded_waits_for_mlflow_and_says_so(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    live = champion(platform)
    cached(platform, f"{live.artifact_sha256}.skops").unlink()
    away = platform.settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(
        ServiceUnavailableError, match=r"MLflow did not provide .* check that it is running and healthy"
    ):
        open_registry(away, platform.contract).load(live)


def test_a_model_whose_files_are_gone_is_missed_by_name(platform: Platform, logged: ShadowModel) -> None:
    stored = mlflow_client(platform).get_logged_model(logged.artifact_uri.removeprefix("models:/"))
    (Path(stored.artifact_location.removeprefix("file://")) / MODEL_FILE).unlink()
    with pytest.raises(MissingArtifactError, match=r"model\.skops is not there; restore"):
        platform.registry.stored_model(logged)
    gone = replace(logged, artifact_uri="models:/m-00000000000000000000000000000000")
    with pytest.raises(MissingArtifactError, match=r"model\.skops is not there; restore"):
        platform.registry.stored_model(gone)


def test_a_damaged_file_in_the_cache_is_fetched_anew(platform: Platform) -> None:
    live = champion(platform)
    expected = scores(platform.registry, live)
    path = cached(platform, f"{live.artifact_sha256}.skops")
    path.write_bytes(b"rust")
    np.testing.assert_array_equal(scores(platform.registry, live), expected)
    assert path.stat().st_size > 4


def test_several_threads_may_fetch_a_file_at_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    live = champion(platform)
    path = cached(platform, f"{live.artifact_sha256}.skops")
    data = path.read_bytes()
    path.unlink()
    fetched = threading.Barrier(6, timeout=30)

    def fetch(uri: str) -> bytes:
        fetched.wait()
        return data

    monkeypatch.setattr(platform.registry, "_download", fetch)
    at_once([partial(platform.registry.load, live)] * 6)
    assert path.read_bytes() == data
    assert {file.suffix for file in path.parent.iterdir()} == {".skops", ".parquet"}, "no temporary file is left"


def test_the_cache_keeps_the_files_used_last(platform: Platform) -> None:
    live = champion(platform)
    folder = cached(platform, "")
    for number in range(CACHED_FILES + 5):
        path = folder / f"{number:064}.skops"
        path.touch()
        age = (T0 - timedelta(days=number)).timestamp()
        os.utime(path, (age, age))
    cached(platform, f"{live.artifact_sha256}.skops").unlink()
    platform.registry.load(live)
    left = {path.name for path in folder.iterdir()}
    assert len(left) == CACHED_FILES
    assert f"{live.artifact_sha256}.skops" in left
    assert f"{0:064}.skops" in left
    assert f"{CACHED_FILES + 4:064}.skops" not in left
