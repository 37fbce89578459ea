"""A sensor says why it requests no run, and requests none while one is queued or under way."""

from __future__ import annotations

import dagster as dg
import pytest

from selfheal_assets.sensors.skipping import BUSY, skip, unless_running

JOB = "some_job"


@unless_running(JOB, "The run before is under way.", 30)
def decide(context: dg.SensorEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(run_key=context.cursor)


def decision_beside(job_name: str, status: dg.DagsterRunStatus) -> dg.RunRequest | dg.SkipReason:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_run(dg.DagsterRun(job_name=job_name, status=status))
        return decide(dg.build_sensor_context(instance=instance, cursor="state"))


@pytest.mark.parametrize("status", ["STARTING", "STARTED"])
def test_a_run_that_is_under_way_is_the_reason(status: str) -> None:
    assert decision_beside(JOB, dg.DagsterRunStatus(status)) == skip("The run before is under way.", 30)


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED"])
def test_a_run_that_has_ended_is_none(status: str) -> None:
    assert isinstance(decision_beside(JOB, dg.DagsterRunStatus(status)), dg.RunRequest)


def test_a_run_that_waits_in_the_queue_counts_too() -> None:
    assert dg.DagsterRunStatus.QUEUED in BUSY, "only the daemon's queue can make such a run"


def test_nor_is_a_run_of_another_job() -> None:
    assert isinstance(decision_beside("another_job", dg.DagsterRunStatus.STARTED), dg.RunRequest)


def test_a_reason_says_when_the_next_evaluation_is() -> None:
    assert skip("350 labels, 400 wanted.", 300).skip_message == "350 labels, 400 wanted. Next evaluation in 5 min."
