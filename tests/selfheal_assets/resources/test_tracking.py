"""A Dagster run that trains and its MLflow run belong together: linked both ways, ended with it, FAILED where it failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from selfheal.adapters.mlflow_environment import EXPORTED
from selfheal.adapters.mlflow_store import EXPERIMENT
from selfheal.domain.records import Action
from selfheal.kit.errors import TrainingFailedError
from selfheal.settings import Settings
from selfheal_assets.assets.retraining import RequestTrigger
from selfheal_assets.resources.tracking import MLFLOW_RUN_TAG, MLFLOW_URL_TAG, TrainingRun
from tests.candidates import mlflow_client
from tests.selfheal_assets.conftest import Dagster, retraining_config
from tests.traffic import serve, toy_rows

pytestmark = pytest.mark.integration

DRIFTED_ROWS = 1_000


def mlflow_runs(dagster: Dagster) -> list[Any]:
    """The newest first."""
    client = mlflow_client(dagster.platform)
    return list(client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id]))


def tags_of(dagster: Dagster, result: dg.ExecuteInProcessResult) -> dict[str, str]:
    run = dagster.instance.get_run_by_id(result.run_id)
    assert run is not None
    return dict(run.tags)


def retrain(dagster: Dagster) -> dg.ExecuteInProcessResult:
    return dagster.run("retraining_job", retraining_config(RequestTrigger.drift))


@pytest.fixture
def drifted(dagster: Dagster) -> Dagster:
    """A platform whose champion, trained without Dagster, does harm."""
    serve(dagster.platform, toy_rows(DRIFTED_ROWS, scenario="overheating"))
    assert dagster.run("monitoring_job").success
    return dagster


def test_a_training_is_one_run_in_both_with_links_both_ways(
    make_dagster: Callable[[Settings], Dagster], settings: Settings
) -> None:
    dagster = make_dagster(settings)
    result = dagster.run("bootstrap_job")
    assert result.success
    (run,) = mlflow_runs(dagster)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("bootstrap ")
    page = f"http://127.0.0.1:3000/runs/{result.run_id}"
    assert (run.data.tags["dagster_run_id"], run.data.tags["dagster_run_url"]) == (result.run_id, page)
    assert page in run.data.tags["mlflow.note.content"], "MLflow shows it as a link"
    tags = tags_of(dagster, result)
    assert tags[MLFLOW_RUN_TAG] == run.info.run_id
    assert tags[MLFLOW_URL_TAG].endswith(f"/runs/{run.info.run_id}")
    assert result.output_for_node("promotion").mlflow_run_id == run.info.run_id, "the version is of this run"


def test_a_run_that_trains_nothing_has_no_run_in_mlflow(dagster: Dagster) -> None:
    before = [run.info.run_id for run in mlflow_runs(dagster)]
    skipped = dagster.run("retraining_job", retraining_config(RequestTrigger.schedule))
    assert skipped.success
    assert skipped.output_for_node("retraining_decision").action is Action.SKIP
    assert dagster.run("monitoring_job").success
    assert [run.info.run_id for run in mlflow_runs(dagster)] == before
    assert MLFLOW_RUN_TAG not in tags_of(dagster, skipped)


def test_a_rejected_model_is_a_finished_run_although_the_last_step_was_skipped(
    make_dagster: Callable[[Settings], Dagster], make_settings: Callable[..., Settings]
) -> None:
    dagster = make_dagster(make_settings(min_auc=0.99))
    serve(dagster.platform, toy_rows(DRIFTED_ROWS, scenario="overheating"))
    assert dagster.run("monitoring_job").success
    result = retrain(dagster)
    assert result.success
    run = mlflow_runs(dagster)[0]
    assert (run.data.tags["dagster_run_id"], run.info.status) == (result.run_id, "FINISHED")


def test_a_training_that_fails_is_a_failed_run(drifted: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TrainingFailedError("it does not converge")

    monkeypatch.setattr("selfheal.services.retraining.train", fail)
    result = retrain(drifted)
    assert not result.success
    run = mlflow_runs(drifted)[0]
    assert (run.data.tags["dagster_run_id"], run.info.status) == (result.run_id, "FAILED")


def test_a_step_that_fails_after_the_training_fails_the_run_and_the_next_goes_on_with_it(drifted: Dagster) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("away")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("selfheal.services.retraining.judge", fail)
        failed = retrain(drifted)
    assert not failed.success
    run = mlflow_runs(drifted)[0]
    assert (run.data.tags["dagster_run_id"], run.info.status) == (failed.run_id, "FAILED")

    again = retrain(drifted)
    assert again.success
    same = mlflow_runs(drifted)[0]
    assert same.info.run_id == run.info.run_id, "what was trained is not trained again"
    assert (same.data.tags["dagster_run_id"], same.info.status) == (again.run_id, "FINISHED")
    assert tags_of(drifted, again)[MLFLOW_RUN_TAG] == run.info.run_id


def test_a_step_that_a_person_runs_alone_ends_its_run_too(drifted: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drifted.materialize("retraining_decision").success
    assert drifted.materialize("training_set").success

    def fail(*_: object, **__: object) -> None:
        raise TrainingFailedError("it does not converge")

    with monkeypatch.context() as patched:
        patched.setattr("selfheal.services.retraining.train", fail)
        assert not drifted.materialize("shadow_model").success
    assert mlflow_runs(drifted)[0].info.status == "FAILED"
    trained = drifted.materialize("shadow_model")
    assert trained.success
    run = mlflow_runs(drifted)[0]
    assert (run.data.tags["dagster_run_id"], run.info.status) == (trained.run_id, "FINISHED")

    linked = drifted.materialize("shadow_model")
    same = mlflow_runs(drifted)[0]
    assert same.info.run_id == run.info.run_id
    assert same.data.tags["dagster_run_id"] == trained.run_id, "a run that ended well is left as it is"
    assert tags_of(drifted, linked)[MLFLOW_RUN_TAG] == run.info.run_id


def test_nothing_of_mlflow_is_left_in_the_environment(drifted: Dagster) -> None:
    """Our own settings, and processes that a training starts, would take it for theirs."""
    assert retrain(drifted).success
    assert set(EXPORTED) & set(os.environ) == set()


def test_a_run_that_is_canceled_while_it_trains_is_a_killed_run(dagster: Dagster) -> None:
    run = dg.DagsterRun(job_name="retraining_job", status=dg.DagsterRunStatus.CANCELING)
    dagster.instance.add_run(run)
    training_run = TrainingRun(dagster.resource, dagster.instance, run, log=None)
    run_id = training_run.open()
    training_run.close()
    training_run.close()
    assert mlflow_client(dagster.platform).get_run(run_id).info.status == "KILLED"
