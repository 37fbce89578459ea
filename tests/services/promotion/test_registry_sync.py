"""What strays from Postgres is set right, and told where nobody should have touched it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from click.testing import CliRunner

from selfheal.adapters import mlflow_repairs
from selfheal.adapters.decision_log import decision_folder, verify_decisions
from selfheal.adapters.mlflow_registry import EXPERIMENT, PRODUCTION_ALIAS, STAGING_ALIAS
from selfheal.adapters.postgres import decisions, model_versions
from selfheal.adapters.postgres.alerts import list_alerts
from selfheal.domain.records import Action, Stage
from selfheal.services.platform import Platform
from selfheal.services.promotion.registry_sync import (
    REGISTRY_OUT_OF_SYNC,
    SETTLING,
    project,
    reconcile_registry,
    repair_registry,
    watch_registry,
)
from selfheal.services.verification.artifacts import check_models
from tests import builders
from tests.candidates import champion, log_worse_model, mlflow_client, passed, put_live, twin_of_champion
from tests.times import T0

if TYPE_CHECKING:
    from mlflow import MlflowClient

LATER = T0 + timedelta(hours=1)


@pytest.fixture
def two(platform: Platform) -> Platform:
    """Version 2 was promoted at `LATER`, by what Postgres says; MLflow knows nothing of it yet."""
    from selfheal.services.promotion.going_live import stage

    verdict = passed(platform, twin_of_champion(platform))
    stage(platform, verdict.shadow, verdict.decision, LATER)
    put_live(platform.store, 2, 1, LATER)
    return platform


def open_kinds(platform: Platform) -> list[str]:
    return [row.kind for row in list_alerts(platform.store, only_open=True)]


def test_everything_in_mlflow_follows_postgres(two: Platform) -> None:
    assert reconcile_registry(two) == [
        "alias production pointed at version 1 although version 2 is in production",
        "version 2 was tagged Staging although it is Production",
        "version 1 was tagged Production although it is Archived",
    ]
    assert two.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert two.registry.alias_version(STAGING_ALIAS) is None
    assert two.registry.stage_tags() == {1: "Archived", 2: "Production"}
    assert reconcile_registry(two) == []


def test_a_lost_alias_is_set_again(platform: Platform) -> None:
    platform.registry.drop_alias(PRODUCTION_ALIAS)
    assert reconcile_registry(platform) == [
        "alias production pointed at no version although version 1 is in production"
    ]
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1


def test_there_is_nothing_to_set_right_before_the_bootstrap(empty_platform: Platform) -> None:
    assert project(empty_platform) == []


def test_the_alias_of_a_version_that_still_waits_stays(platform: Platform) -> None:
    from selfheal.services.promotion.going_live import stage

    verdict = passed(platform, twin_of_champion(platform))
    stage(platform, verdict.shadow, verdict.decision, LATER)
    assert reconcile_registry(platform) == []
    assert platform.registry.alias_version(STAGING_ALIAS) == 2
    assert platform.registry.stage_tags()[2] == Stage.STAGING.value


def test_an_alias_that_somebody_moved_is_set_right_and_told_until_it_stays_right(two: Platform) -> None:
    project(two)
    two.registry.point_alias(PRODUCTION_ALIAS, 1)
    moved_at = LATER + SETTLING
    assert watch_registry(two, moved_at) == [
        "alias production pointed at version 1 although version 2 is in production"
    ]
    assert two.registry.alias_version(PRODUCTION_ALIAS) == 2
    (alert,) = list_alerts(two.store, only_open=True)
    assert (alert.kind, alert.severity, alert.source) == (REGISTRY_OUT_OF_SYNC, "warning", "registry")
    assert alert.message == (
        "MLflow was out of sync with Postgres and has been corrected: alias production pointed at version 1 although version 2 "
        "is in production. Someone may be editing aliases by hand."
    )
    assert watch_registry(two, moved_at + timedelta(minutes=1)) == []
    assert open_kinds(two) == []


def test_what_a_promotion_of_a_moment_ago_left_open_is_finished_and_no_alert(two: Platform) -> None:
    assert watch_registry(two, LATER + timedelta(seconds=30)) != []
    assert two.registry.alias_version(PRODUCTION_ALIAS) == champion(two).version == 2
    assert open_kinds(two) == []


def test_a_promotion_before_the_clock_was_set_back_excuses_nothing(two: Platform) -> None:
    project(two)
    two.registry.point_alias(PRODUCTION_ALIAS, 1)
    assert watch_registry(two, LATER - timedelta(days=2)) != []
    assert open_kinds(two) == [REGISTRY_OUT_OF_SYNC]


def test_the_newest_decisions_get_the_files_that_a_crash_kept_them_from(platform: Platform) -> None:
    for number in range(15):
        decisions.append(platform.store, builders.decision(decision_id=f"d{number}", action=Action.SKIP))
    project(platform)
    problems = verify_decisions(platform.store, platform.settings.data_dir)
    assert sorted(problems) == sorted(f"decision d{number} has no JSON file" for number in range(5)), (
        "those are no accident"
    )
    written = {path.stem.rpartition("-")[2] for path in decision_folder(platform.settings.data_dir).glob("*.json")}
    assert {f"d{number}" for number in range(15)} & written == {f"d{number}" for number in range(5, 15)}


def test_a_decision_is_completed_by_the_next_one(platform: Platform) -> None:
    from selfheal.adapters.decision_log import record_decision

    decisions.append(platform.store, builders.decision(decision_id="crashed"))
    record_decision(platform.store, platform.settings.data_dir, builders.decision(decision_id="next"))
    assert verify_decisions(platform.store, platform.settings.data_dir) == []
    assert model_versions.production_version(platform.store) is not None


# What a person deletes or renames on MLflow's pages


def delete_experiment(client: MlflowClient, _: Platform) -> None:
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)


def rename_experiment(client: MlflowClient, _: Platform) -> None:
    client.rename_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id, "old stuff")


def delete_run(client: MlflowClient, platform: Platform) -> None:
    client.delete_run(champion(platform).mlflow_run_id)


def rename_model(client: MlflowClient, platform: Platform) -> None:
    client.rename_registered_model(platform.contract.name, "my model")


def delete_model(client: MlflowClient, platform: Platform) -> None:
    client.delete_registered_model(platform.contract.name)


def delete_version(client: MlflowClient, platform: Platform) -> None:
    client.delete_model_version(platform.contract.name, str(champion(platform).version))


def delete_logged_model(client: MlflowClient, platform: Platform) -> None:
    client.delete_logged_model(champion(platform).artifact_uri.removeprefix("models:/"))


REPAIRED = {
    delete_experiment: "experiment selfheal had been deleted and was restored",
    rename_experiment: "experiment selfheal had been renamed to 'old stuff' and has its name again",
    delete_run: "the run of version 1 had been deleted and was restored",
    rename_model: "had been renamed to 'my model' and has its name again",
    delete_model: "had been deleted; 2 of its 2 versions are registered again",
}


@pytest.mark.parametrize("by_hand", REPAIRED, ids=lambda function: function.__name__)
def test_what_is_deleted_or_renamed_in_mlflow_is_put_back_and_named_at_once(
    two: Platform, by_hand: Callable[[MlflowClient, Platform], None]
) -> None:
    project(two)
    by_hand(mlflow_client(two), two)
    found = watch_registry(two, LATER + timedelta(seconds=30))
    assert REPAIRED[by_hand].replace("version 1", f"version {champion(two).version}") in found[0]
    (alert,) = list_alerts(two.store, only_open=True)
    assert found[0] in alert.message
    assert "Serving is not affected" in alert.message
    assert watch_registry(two, LATER + timedelta(minutes=1)) == []
    assert open_kinds(two) == []
    assert two.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert two.registry.stage_tags() == {1: "Archived", 2: "Production"}
    assert two.registry.reference(champion(two)) is not None
    assert two.registry.register(twin_of_champion(two)) == 3, "a number is never given twice"


@pytest.mark.parametrize(
    "by_hand", [*REPAIRED, delete_version, delete_logged_model], ids=lambda function: function.__name__
)
def test_whatever_is_deleted_or_renamed_in_mlflow_serving_and_the_next_promotion_go_on(
    two: Platform, by_hand: Callable[[MlflowClient, Platform], None]
) -> None:
    """Also before the next check has put it back."""
    from selfheal.services.promotion.going_live import stage

    project(two)
    shadow = twin_of_champion(two) if by_hand is not delete_logged_model else log_worse_model(two)
    by_hand(mlflow_client(two), two)
    for path in (two.settings.data_dir / "cache").glob("*.skops"):
        path.unlink()
    assert two.registry.load(champion(two)), "from MLflow, whatever is in the cache"
    verdict = passed(two, shadow)
    assert stage(two, verdict.shadow, verdict.decision, LATER).version == 3
    assert two.registry.tracking_config()["experiment_name"] == EXPERIMENT
    put_live(two.store, 3, 2, LATER + timedelta(minutes=2))
    watch_registry(two, LATER + timedelta(minutes=2))
    assert two.registry.alias_version(PRODUCTION_ALIAS) == 3


def test_a_version_that_mlflow_cannot_give_back_is_named_until_the_next_promotion(two: Platform) -> None:
    project(two)
    delete_version(mlflow_client(two), two)
    for minute in (0, 1):
        (found,) = watch_registry(two, LATER + timedelta(minutes=minute))
        assert found.startswith("version 2, which is in production, was deleted in MLflow")
        assert open_kinds(two) == [REGISTRY_OUT_OF_SYNC]
    put_live(two.store, 1, 2, LATER + timedelta(minutes=2))
    watch_registry(two, LATER + timedelta(minutes=2))
    assert two.registry.alias_version(PRODUCTION_ALIAS) == 1


def collect_garbage(platform: Platform) -> None:
    """As `mlflow gc` does from a shell."""
    from mlflow.cli import gc  # takes seconds

    done = CliRunner().invoke(gc, ["--backend-store-uri", str(platform.settings.mlflow_tracking_uri)])
    assert done.exit_code == 0, done.output


def without_files(platform: Platform) -> Path:
    """The folder of the champion's model in MLflow's artifact store, after it was deleted on a page and `mlflow gc` ran."""
    client, live = mlflow_client(platform), champion(platform)
    folder = Path(
        url2pathname(urlparse(client.get_model_version_download_uri(live.model_name, str(live.version))).path)
    )
    assert (folder / "model.skops").is_file()
    delete_logged_model(client, platform)
    collect_garbage(platform)
    assert not (folder / "model.skops").exists()
    assert client.get_model_version(live.model_name, str(live.version)).status == "READY"
    return folder


@pytest.fixture
def kept_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow gc` changes the process's."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.usefixtures("kept_environment")
def test_the_files_of_production_that_mlflow_removed_are_found_served_on_and_put_back(platform: Platform) -> None:
    folder = without_files(platform)
    live = champion(platform)
    found = check_models(platform, lambda _: None)
    assert found.findings[0].startswith("model of version 1: model.skops is not there")
    assert platform.registry.load(live), "from this machine's copy"
    put_back = "the files of version 1 were removed from MLflow's artifact store (as by `mlflow gc`) and were put back"
    (sentence,) = watch_registry(platform, LATER)
    assert sentence.startswith(put_back)
    assert open_kinds(platform) == [REGISTRY_OUT_OF_SYNC]
    assert check_models(platform, lambda _: None).n_findings == 0, "the very file, by its digest"
    assert {"MLmodel", "model.skops", "requirements.txt"} <= {path.name for path in folder.iterdir()}
    assert watch_registry(platform, LATER + timedelta(minutes=1)) == []
    assert open_kinds(platform) == []


@pytest.mark.usefixtures("kept_environment")
def test_without_a_copy_the_missing_files_are_named_until_there_is_one(platform: Platform, tmp_path: Path) -> None:
    without_files(platform)
    copy = platform.settings.data_dir / "cache" / f"{champion(platform).artifact_sha256}.skops"
    aside = copy.rename(tmp_path / copy.name)
    for minute in (0, 1):
        (sentence,) = watch_registry(platform, LATER + timedelta(minutes=minute))
        assert "cannot be put back by this host" in sentence
        assert copy.name in sentence
        assert open_kinds(platform) == [REGISTRY_OUT_OF_SYNC]
    aside.rename(copy)
    (sentence,) = watch_registry(platform, LATER + timedelta(minutes=2))
    assert "were put back" in sentence


def test_a_promotion_goes_on_although_every_earlier_model_was_deleted(platform: Platform) -> None:
    from selfheal.services.promotion.going_live import stage

    client, new = mlflow_client(platform), log_worse_model(platform)
    delete_logged_model(client, platform)
    delete_model(client, platform)
    (sentence,) = repair_registry(platform)[:1]
    assert "their models were deleted, too" in sentence
    verdict = passed(platform, new)
    assert stage(platform, verdict.shadow, verdict.decision, LATER).version == 2, "a number is never given twice"
    put_live(platform.store, 2, 1, LATER)
    watch_registry(platform, LATER)
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert platform.registry.load(champion(platform))


def test_a_restoration_of_the_registered_model_that_was_interrupted_is_begun_anew(
    two: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(two)
    delete_model(mlflow_client(two), two)
    create = mlflow_repairs.create_version

    def interrupted(client: MlflowClient, *args: Any) -> int:
        number = create(client, *args)
        if number == 1:
            raise ConnectionError
        return number

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(mlflow_repairs, "create_version", interrupted)
        repair_registry(two)
    (found,) = repair_registry(two)
    assert "2 of its 2 versions are registered again" in found
    assert two.registry.register(twin_of_champion(two)) == 3


def test_a_version_whose_model_was_deleted_too_leaves_its_number_unused(two: Platform) -> None:
    from selfheal.services.promotion.going_live import stage

    project(two)
    worse = log_worse_model(two)
    verdict = passed(two, worse)
    stage(two, verdict.shadow, verdict.decision, LATER)
    client = mlflow_client(two)
    client.delete_logged_model(worse.artifact_uri.removeprefix("models:/"))
    delete_model(client, two)
    (found,) = repair_registry(two)
    assert "2 of its 3 versions are registered again" in found
    assert two.registry.register(twin_of_champion(two)) == 4
