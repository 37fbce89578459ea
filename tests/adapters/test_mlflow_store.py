"""A data folder may be moved or restored elsewhere: MLflow's artifacts are found, and new ones made, where it is now."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from selfheal.adapters.mlflow_store import (
    EXPERIMENT,
    ExperimentLocation,
    follow_folder,
    mlflow_database_url,
    moved_uris,
)
from selfheal.adapters.postgres import model_versions
from selfheal.domain.records import Trigger
from selfheal.kit.errors import ServiceUnavailableError
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import promote
from selfheal.services.verification.run import verify_everything
from tests.services.steps import decide, retrain, whole_tick
from tests.times import T0
from tests.traffic import serve, toy_rows


def test_a_moved_platform_verifies_without_its_cache_and_heals_where_it_is(platform: Platform) -> None:
    before = platform.settings.data_dir
    url = mlflow_database_url(platform.settings)
    assert url is not None
    follow_folder(url, before / "mlflow", is_own=True)  # it was copied from a template, which is still there
    sent = serve(platform, toy_rows(1_200, scenario="overheating"))
    now = sent.last_at + (sent.last_at - T0)
    platform.close()
    after = before.with_name("elsewhere, with spaces & co")
    shutil.move(before, after)
    shutil.rmtree(after / "cache")

    moved = open_platform(platform.settings.model_copy(update={"data_dir": after}))
    try:
        found = verify_everything(moved)
        assert found.is_sound, [(r.name, r.findings, r.unchecked) for r in found.results]
        episode_id = whole_tick(moved, now).episode_id
        verdict = retrain(moved, decide(moved, Trigger.DRIFT, now, episode_id), now)
        promote(moved, verdict, now)
        assert model_versions.champion(moved.store).version == 2
        assert (after / "mlflow" / verdict.shadow.mlflow_run_id).is_dir()
        assert verify_everything(moved).is_sound
    finally:
        moved.close()
    assert not before.exists()


def test_a_database_that_does_not_answer_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        ServiceUnavailableError, match=r"MLflow's database does not answer: .* check MLFLOW_TRACKING_URI"
    ):
        follow_folder("postgresql://nobody@127.0.0.1:9/mlflow", tmp_path, is_own=True)


# The rule


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact folder with one run in it."""
    (tmp_path / "mlflow" / "run-here").mkdir(parents=True)
    return tmp_path / "mlflow"


@pytest.fixture
def gone(tmp_path: Path) -> ExperimentLocation:
    """An experiment whose folder is not there any more, but one of whose runs is in `folder`."""
    return ExperimentLocation(EXPERIMENT, (tmp_path / "old" / "mlflow").as_uri(), ("run-without-files", "run-here"))


@pytest.mark.parametrize("is_own", [True, False])
def test_what_is_in_the_folder_and_no_longer_where_it_was_has_moved(
    folder: Path, gone: ExperimentLocation, is_own: bool
) -> None:
    renamed = replace(gone, name="renamed by hand")
    for one in (gone, renamed):
        assert moved_uris([one], folder, is_own=is_own) == [gone.uri]


@pytest.mark.parametrize("is_own", [True, False])
def test_what_is_where_it_was_has_not_moved(folder: Path, is_own: bool) -> None:
    assert moved_uris([ExperimentLocation(EXPERIMENT, folder.as_uri(), ("run-here",))], folder, is_own=is_own) == []


def test_artifacts_of_another_host_stay_where_they_are(folder: Path, gone: ExperimentLocation) -> None:
    assert moved_uris([replace(gone, run_ids=("run-elsewhere",))], folder, is_own=False) == []


def test_a_copy_beside_its_original_reads_its_own_files_if_it_has_its_own_tables(
    folder: Path, gone: ExperimentLocation, tmp_path: Path
) -> None:
    (tmp_path / "old" / "mlflow").mkdir(parents=True)
    assert moved_uris([gone], folder, is_own=True) == [gone.uri]
    assert moved_uris([gone], folder, is_own=False) == []


def test_our_experiment_is_never_written_outside_of_the_folder_if_the_tables_are_its_own(folder: Path) -> None:
    without_runs = ExperimentLocation(EXPERIMENT, "file:///old/mlflow", ())
    assert moved_uris([without_runs], folder, is_own=True) == ["file:///old/mlflow"]
    assert moved_uris([without_runs], folder, is_own=False) == []


def test_an_experiment_that_a_person_keeps_elsewhere_stays_there(folder: Path) -> None:
    own = ExperimentLocation("mine", "file:///home/ada/mlruns/7", ("run-of-mine",))
    assert moved_uris([own], folder, is_own=True) == []
