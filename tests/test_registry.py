"""The registry: what it logs, what it refuses to load, and what still works while MLflow is away."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal.errors import IntegrityError, ModelRefusedError
from selfheal.platform import Platform
from selfheal.records import ModelVersion, ShadowModel
from selfheal.registry import CACHED_FILES, STAGING_ALIAS, Registry, load_trusted, open_registry
from tests.at_once import at_once
from tests.candidates import champion, log_worse_model, mlflow_client, twin_of_champion
from tests.times import T0
from tests.traffic import toy_rows

NOWHERE = "http://127.0.0.1:9"


class Trap:
    """What a hostile model file would hold: code that runs while it is loaded. `sprung` says whether it ran."""

    sprung = False

    def __getstate__(self) -> dict[str, int]:
        return {"bait": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        Trap.sprung = True


@pytest.fixture
def trap() -> Iterator[Trap]:
    Trap.sprung = False
    yield Trap()
    Trap.sprung = False


def scores(registry: Registry, model: ModelVersion | ShadowModel) -> Any:
    rows = registry.contract.feature_frame(toy_rows(20)).to_numpy(dtype=np.float64)
    return registry.load(model).predict_proba(rows)


def cached(platform: Platform, name: str) -> Path:
    return platform.settings.data_dir / "cache" / name


@pytest.fixture
def logged(platform: Platform) -> ShadowModel:
    return log_worse_model(platform)


def test_a_logged_model_is_found_by_its_key_with_all_its_files(platform: Platform, logged: ShadowModel) -> None:
    assert platform.registry.find_shadow("worse") == logged
    assert platform.registry.find_shadow("another key") is None
    client = mlflow_client(platform)
    files = {file.path for file in client.list_artifacts(logged.mlflow_run_id)}
    assert files >= {"metrics.json", "params.json", "metadata.json", "requirements.txt", "reference.parquet"}
    run = client.get_run(logged.mlflow_run_id)
    assert run.data.metrics["f1"] == pytest.approx(logged.metrics.f1)
    assert len(platform.registry.reference(logged)) == 500


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


def test_a_file_with_an_untrusted_type_is_refused_and_nothing_in_it_runs(tmp_path: Path, trap: Trap) -> None:
    import skops.io

    path = tmp_path / "model.skops"
    skops.io.dump({"model": trap}, path)
    with pytest.raises(ModelRefusedError, match=r"types that are not trusted: tests\.test_registry\.Trap"):
        load_trusted(path)
    assert not Trap.sprung
    skops.io.load(path, trusted=["tests.test_registry.Trap"])
    assert Trap.sprung, "the trap would have worked"


class PickledTrap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("content", [b"", b"no model", pickle.dumps(PickledTrap())], ids=["empty", "text", "pickle"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.skops"
    path.write_bytes(content)
    with pytest.raises(ModelRefusedError, match=r"model\.skops does not load"):
        load_trusted(path)
    assert not (tmp_path / "sprung").exists()


def test_what_was_loaded_once_loads_while_mlflow_is_unreachable(platform: Platform) -> None:
    live = champion(platform)
    expected, reference = scores(platform.registry, live), platform.registry.reference(live)
    away = platform.settings.model_copy(update={"mlflow_tracking_uri": NOWHERE})
    registry = open_registry(away, platform.contract)
    np.testing.assert_array_equal(scores(registry, live), expected)
    assert registry.reference(live).equals(reference)


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
