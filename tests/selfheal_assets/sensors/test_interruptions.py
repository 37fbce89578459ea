"""A run is believed to be under way only while a process executes it, and what was cut short is requested again once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from selfheal.adapters.mlflow_registry import DAGSTER_RUN_TAG, EXPERIMENT
from selfheal.adapters.postgres.alerts import list_alerts
from selfheal_assets.interruptions import PARTITION_TAG, REPEATS_TAG, is_interrupted
from selfheal_assets.job_names import BOOTSTRAP_JOB, MONITORING_JOB, PROBATION_JOB
from selfheal_assets.jobs import monitoring_job
from selfheal_assets.resources.platform import PlatformResource
from selfheal_assets.run_owners import RunOwners
from selfheal_assets.sensors.interruptions import (
    LAUNCH_GRACE,
    MAX_AGE,
    build_interrupted_run_sensor,
    end_abandoned_runs,
)
from tests.candidates import mlflow_client
from tests.selfheal_assets.conftest import Dagster
from tests.selfheal_assets.launching import CODE, REMOTE, instance_with_launcher, run_of, sleeping_job, stored_run
from tests.selfheal_assets.sensors import evaluating
from tests.selfheal_assets.sensors.evaluating import skip_message

STARTING, STARTED, CANCELING = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
FAILURE, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
PLATFORM = PlatformResource()
"""Opened for trainings only."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as ephemeral:
        yield ephemeral


def later(by: timedelta = 2 * LAUNCH_GRACE) -> datetime:
    return datetime.now(UTC) + by


@pytest.mark.parametrize(
    ("status", "end"), [(STARTED, FAILURE), (STARTING, FAILURE), (CANCELING, CANCELED)], ids=lambda s: s.value
)
def test_a_run_of_before_a_power_cut_is_ended(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, end: dg.DagsterRunStatus
) -> None:
    owners = RunOwners.of(instance)
    run_id = stored_run(instance, status).run_id
    owners.claim(run_id).close()
    assert end_abandoned_runs(instance, PLATFORM, datetime.now(UTC)) == 1
    assert run_of(instance, run_id).status is end
    assert not owners.is_known(run_id)
    assert end_abandoned_runs(instance, PLATFORM, datetime.now(UTC)) == 0


@pytest.fixture
def launching(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_with_launcher(tmp_path) as instance:
        yield instance


def test_a_run_that_an_earlier_release_left_is_ended(launching: dg.DagsterInstance) -> None:
    run_id = stored_run(launching, STARTED).run_id
    assert end_abandoned_runs(launching, PLATFORM, later()) == 1
    assert run_of(launching, run_id).status is FAILURE


def test_a_run_of_another_launcher_is_believed(instance: dg.DagsterInstance) -> None:
    """Such as one in a cluster, where no lock of this machine says anything."""
    stored_run(instance, STARTED)
    assert end_abandoned_runs(instance, PLATFORM, later()) == 0


def test_a_run_that_is_executed_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = stored_run(instance, STARTED).run_id
    with RunOwners.of(instance).claim(run_id):
        assert end_abandoned_runs(instance, PLATFORM, later()) == 0
    assert run_of(instance, run_id).status is STARTED


def test_a_run_that_is_just_being_launched_is_left_alone(launching: dg.DagsterInstance) -> None:
    stored_run(launching, STARTING)
    assert end_abandoned_runs(launching, PLATFORM, datetime.now(UTC)) == 0


def test_a_run_that_a_command_of_dagsters_executes_is_believed(launching: dg.DagsterInstance) -> None:
    """`dagster job execute` takes no lock, and nobody else launched it."""
    launching.add_run(dg.DagsterRun(job_name=MONITORING_JOB, status=STARTED))
    assert end_abandoned_runs(launching, PLATFORM, later()) == 0


def test_a_lock_whose_run_has_ended_is_forgotten(instance: dg.DagsterInstance) -> None:
    owners = RunOwners.of(instance)
    owners.claim("ended").close()
    with owners.claim("about to be created"):
        end_abandoned_runs(instance, PLATFORM, datetime.now(UTC))
        assert owners.known() == {"about to be created"}


def evaluate(instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    sensor = build_interrupted_run_sensor([monitoring_job])
    repository = dg.Definitions(jobs=[sleeping_job]).get_repository_def()
    with dg.build_sensor_context(
        instance=instance, resources={"platform": PLATFORM}, repository_def=repository
    ) as context:
        answer = sensor(context)
    assert isinstance(answer, dg.SensorResult | dg.SkipReason)
    return answer


def test_what_was_cut_short_is_requested_again_until_it_runs_again(instance: dg.DagsterInstance) -> None:
    cut = stored_run(instance, FAILURE)
    for _ in range(2):
        answer = evaluate(instance)
        assert isinstance(answer, dg.SensorResult)
        (request,) = answer.run_requests or ()
        assert request.tags[REPEATS_TAG] == cut.run_id
    stored_run(instance, dg.DagsterRunStatus.QUEUED, **{REPEATS_TAG: cut.run_id})
    assert "No run was cut short" in skip_message(evaluate(instance))


def test_what_is_long_past_is_not_requested_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_run(instance, FAILURE)
    monkeypatch.setattr("selfheal_assets.sensors.interruptions.MAX_AGE", -MAX_AGE)
    assert "No run was cut short" in skip_message(evaluate(instance))


UNFIT = {
    "another release's configuration": {"run_config": {"ops": {"an_op_of_before": {"config": {"reason": "any"}}}}},
    "an asset that is gone": {"asset_selection": frozenset({dg.AssetKey("an_asset_of_before")})},
    "a partition that is gone": {"job_name": PROBATION_JOB, "tags": {PARTITION_TAG: "17"}},
}


def cut_short(instance: dg.DagsterInstance, **given: Any) -> str:
    """A run that was killed, as Dagster has stored it; return its number."""
    stored = {"job_name": MONITORING_JOB, "status": FAILURE, "remote_job_origin": REMOTE, "job_code_origin": CODE}
    return instance.add_run(dg.DagsterRun(**(stored | given))).run_id


@pytest.mark.integration
def test_a_run_that_this_release_cannot_repeat_is_named_and_in_the_way_of_no_other(dagster: Dagster) -> None:
    """Of several requests in one evaluation, Dagster launches none after the first that does not fit, for ever."""
    unfit = {why: cut_short(dagster.instance, **given) for why, given in UNFIT.items()}
    fits = cut_short(dagster.instance)
    answer = evaluating.evaluate(dagster, "interrupted_run_sensor")
    assert isinstance(answer, dg.SensorResult)
    assert [request.tags[REPEATS_TAG] for request in answer.run_requests or ()] == [fits]
    alerts = {alert.kind: alert.message for alert in list_alerts(dagster.platform.store, only_open=True)}
    assert set(alerts) == {"monitoring_job_failed", "probation_job_failed"}
    for run_id in unfit.values():
        assert f"run {run_id[:8]}, which was cut short: " in " ".join(alerts.values())
    for run_id in unfit.values():
        assert not is_interrupted(run_of(dagster.instance, run_id)), "it is not examined again"


@pytest.mark.integration
def test_a_training_of_a_killed_command_is_ended_in_mlflow_too_and_is_not_in_the_way_of_the_next(
    dagster: Dagster,
) -> None:
    """As `selfheal bootstrap` leaves it, which Dagster's daemon has never launched."""
    client = mlflow_client(dagster.platform)
    killed = dg.DagsterRun(job_name=BOOTSTRAP_JOB, status=STARTED)
    dagster.instance.add_run(killed)
    RunOwners.of(dagster.instance).claim(killed.run_id).close()
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    left = client.create_run(experiment, tags={DAGSTER_RUN_TAG: killed.run_id}).info.run_id
    assert end_abandoned_runs(dagster.instance, dagster.resource, datetime.now(UTC)) == 1
    assert run_of(dagster.instance, killed.run_id).status is FAILURE
    assert client.get_run(left).info.status == "FAILED"
