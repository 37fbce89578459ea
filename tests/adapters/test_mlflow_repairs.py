"""What is put back in MLflow, and what is left alone. The services' tests have each thing that a person can delete."""

from __future__ import annotations

import pytest

from selfheal.adapters.mlflow_registry import EXPERIMENT
from selfheal.adapters.mlflow_repairs import active_experiment, has_version, model_id_of, restore_runs
from selfheal.services.platform import Platform
from tests.candidates import champion, mlflow_client, twin_of_champion


@pytest.mark.parametrize(
    ("uri", "model_id"),
    [("models:/m-1", "m-1"), ("models:/toy/1", None), ("models:/toy@production", None), ("runs:/abc/model", None)],
)
def test_only_a_logged_model_has_an_id(uri: str, model_id: str | None) -> None:
    assert model_id_of(uri) == model_id


def test_a_run_that_belongs_to_no_version_may_be_deleted(platform: Platform) -> None:
    client, live = mlflow_client(platform), champion(platform)
    rejected = twin_of_champion(platform).mlflow_run_id
    for run_id in (rejected, live.mlflow_run_id):
        client.delete_run(run_id)
    assert restore_runs(client, EXPERIMENT, [live]) == ["the run of version 1 had been deleted and was restored"]
    assert restore_runs(client, EXPERIMENT, [live]) == []
    assert client.get_run(rejected).info.lifecycle_stage == "deleted"


def test_an_experiment_that_was_never_made_is_none(platform: Platform) -> None:
    assert active_experiment(mlflow_client(platform), "another") is None


def test_a_version_is_there_until_it_is_deleted(platform: Platform) -> None:
    client, name = mlflow_client(platform), platform.contract.name
    assert has_version(client, name, 1)
    client.delete_model_version(name, "1")
    assert not has_version(client, name, 1)
    assert not has_version(client, "another", 1)
