"""Failed runs are alerts until the job succeeds again."""

from __future__ import annotations

import dagster as dg
import pytest

from selfheal.adapters.mlflow_registry import DAGSTER_RUN_TAG
from selfheal.adapters.mlflow_store import EXPERIMENT
from selfheal.adapters.postgres.alerts import list_alerts
from selfheal_assets.assets.retraining import RequestTrigger
from selfheal_assets.interruptions import KILLS_TAG, MAX_REPEATS, MAX_RUNTIME_TAG, OUT_OF_TIME_TAG
from selfheal_assets.sensors.retraining import ATTEMPT_TAG, EPISODE_TAG
from selfheal_assets.sensors.run_status import run_failure_alert, run_success
from tests.candidates import mlflow_client
from tests.selfheal_assets.conftest import Dagster, retraining_config
from tests.selfheal_assets.launching import CODE, REMOTE

pytestmark = pytest.mark.integration

JOB = "maintenance_job"


@pytest.fixture
def failed(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> dg.ExecuteInProcessResult:
    """A run of maintenance that could not write."""

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("selfheal.services.maintenance.maintain", no_room)
        result = dagster.run(JOB)
    assert not result.success
    return result


def end_of(result: dg.ExecuteInProcessResult) -> dg.DagsterEvent:
    ends = {dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS}
    (end,) = [event for event in result.all_events if event.event_type in ends]
    return end


def after_failure(dagster: Dagster, result: dg.ExecuteInProcessResult, **tags: str) -> object:
    with dg.build_run_status_sensor_context(
        sensor_name="run_failure_alert",
        dagster_event=end_of(result),
        dagster_instance=dagster.instance,
        dagster_run=result.dagster_run.with_tags({**result.dagster_run.tags, **tags}),
        resources={"platform": dagster.resource},
    ).for_run_failure() as context:
        return run_failure_alert(context)


def after_success(dagster: Dagster, result: dg.ExecuteInProcessResult) -> object:
    with dg.build_run_status_sensor_context(
        sensor_name="run_success",
        dagster_event=end_of(result),
        dagster_instance=dagster.instance,
        dagster_run=result.dagster_run,
        resources={"platform": dagster.resource},
    ) as context:
        return run_success(context)


def open_kinds(dagster: Dagster) -> list[str]:
    return [alert.kind for alert in list_alerts(dagster.platform.store, only_open=True)]


def test_a_failed_run_is_one_open_alert_until_the_job_succeeds(
    dagster: Dagster, failed: dg.ExecuteInProcessResult
) -> None:
    for _ in range(2):
        assert after_failure(dagster, failed) is None
    (alert,) = list_alerts(dagster.platform.store, only_open=True)
    assert (alert.kind, alert.severity) == ("maintenance_job_failed", "critical")
    assert failed.run_id[:8] in alert.message
    assert "delete_what_is_old: OSError: [Errno 28] No space left on device" in alert.message, "its cause, at once"
    succeeded = dagster.run(JOB)
    after_success(dagster, succeeded)
    assert open_kinds(dagster) == []
    assert isinstance(after_success(dagster, succeeded), dg.SkipReason)


def killed(dagster: Dagster, job_name: str, **tags: str) -> dg.DagsterRun:
    """A run whose process was killed."""
    run = dg.DagsterRun(
        job_name=job_name,
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
        remote_job_origin=REMOTE,
        job_code_origin=CODE,
    )
    dagster.instance.add_run(run)
    dagster.instance.report_run_failed(run, "The process of the run was ended by SIGKILL.")
    found = dagster.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def after_end_of(dagster: Dagster, run: dg.DagsterRun) -> object:
    (record,) = dagster.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
    assert record.event_log_entry.dagster_event is not None
    with dg.build_run_status_sensor_context(
        sensor_name="run_failure_alert",
        dagster_event=record.event_log_entry.dagster_event,
        dagster_instance=dagster.instance,
        dagster_run=run,
        resources={"platform": dagster.resource},
    ).for_run_failure() as context:
        return run_failure_alert(context)


def test_a_run_that_is_repeated_is_no_alert_yet(dagster: Dagster) -> None:
    assert isinstance(after_end_of(dagster, killed(dagster, "monitoring_job")), dg.SkipReason)
    assert open_kinds(dagster) == []
    assert after_end_of(dagster, killed(dagster, "monitoring_job", **{KILLS_TAG: str(MAX_REPEATS)})) is None
    assert open_kinds(dagster) == ["monitoring_job_failed"]


def test_a_training_that_ran_out_of_time_is_an_alert_that_names_the_limit(dagster: Dagster) -> None:
    tags = {OUT_OF_TIME_TAG: "true", MAX_RUNTIME_TAG: "14400"}
    assert after_end_of(dagster, killed(dagster, "retraining_job", **tags)) is None
    (alert,) = list_alerts(dagster.platform.store, only_open=True)
    assert alert.kind == "retraining_job_failed"
    assert "ended after 4 h, since TRAINING_TIMEOUT_SECONDS=14400 had passed" in alert.message
    assert "not repeated" in alert.message


def test_a_training_that_ran_out_of_time_spends_the_attempt_of_its_episode(
    dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = []
    monkeypatch.setattr(
        "selfheal.services.retraining.record_out_of_time", lambda _, *attempt: spent.append(attempt[:2])
    )
    of_attempt = {EPISODE_TAG: "e1", ATTEMPT_TAG: "2"}
    after_end_of(dagster, killed(dagster, "retraining_job", **of_attempt))
    assert spent == [], "a killed one is repeated"
    limit = {OUT_OF_TIME_TAG: "true", MAX_RUNTIME_TAG: "14400"}
    after_end_of(dagster, killed(dagster, "retraining_job", **of_attempt, **limit))
    assert spent == [("e1", 2)]


def test_a_failure_that_is_looked_at_after_the_next_success_is_no_alert(
    dagster: Dagster, failed: dg.ExecuteInProcessResult
) -> None:
    assert dagster.run(JOB).success
    assert isinstance(after_failure(dagster, failed), dg.SkipReason)
    assert open_kinds(dagster) == []


def test_what_a_killed_training_left_running_in_mlflow_is_ended_as_failed(dagster: Dagster) -> None:
    """A process that was killed ended neither its hook nor its resource."""
    client = mlflow_client(dagster.platform)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    skipped = dagster.run("retraining_job", retraining_config(RequestTrigger.schedule))
    of_this_run = client.create_run(experiment, tags={DAGSTER_RUN_TAG: skipped.run_id}).info.run_id
    of_another = client.create_run(experiment, tags={DAGSTER_RUN_TAG: "another"}).info.run_id
    after_failure(dagster, skipped)
    assert [client.get_run(run_id).info.status for run_id in (of_this_run, of_another)] == ["FAILED", "RUNNING"]


def test_an_mlflow_that_does_not_answer_takes_no_alert_away(dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("no answer")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("selfheal.adapters.mlflow_registry.Registry.fail_runs_of", away)
    monkeypatch.setattr("selfheal.services.retraining.decide_retraining", fail)
    failed = dagster.run("retraining_job")
    assert after_failure(dagster, failed) is None
    assert open_kinds(dagster) == ["retraining_job_failed"]
