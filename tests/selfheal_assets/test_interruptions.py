"""Which runs are taken up again: those that were cut short, not those that ended."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.events import RunFailureReason

from selfheal_assets.interruptions import (
    FAILURE_REASON_TAG,
    KILLS_TAG,
    MAX_REPEATS,
    OUT_OF_TIME_TAG,
    REPEATS_TAG,
    STEP_FAILURE,
    STOPPED,
    WILL_RETRY_TAG,
    is_interrupted,
    n_kills,
    repetition_of,
)
from tests.selfheal_assets.launching import CODE, REMOTE

FAILURE, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED


STOP = {FAILURE_REASON_TAG: STOPPED}


def run(status: dg.DagsterRunStatus, job_name: str = "retraining_job", **tags: str) -> dg.DagsterRun:
    config = {"ops": {"retraining_decision": {"config": {"reason": "asked for"}}}}
    return dg.DagsterRun(
        job_name=job_name,
        status=status,
        run_config=config,
        tags=tags,
        remote_job_origin=REMOTE,
        job_code_origin=CODE,
    )


STARVED = {FAILURE_REASON_TAG: RunFailureReason.START_TIMEOUT.value}


@pytest.mark.parametrize("tags", [{}, STOP, STARVED], ids=["killed", "stopped", "not started in time"])
@pytest.mark.parametrize("job_name", ["monitoring_job", "retraining_job", "probation_job"])
def test_a_run_that_was_killed_or_stopped_or_did_not_start_in_time_is_repeated(
    job_name: str, tags: dict[str, str]
) -> None:
    assert is_interrupted(run(FAILURE, job_name, **tags))


@pytest.mark.parametrize(
    "ended",
    [
        run(FAILURE, **{FAILURE_REASON_TAG: STEP_FAILURE}),
        run(FAILURE, **{OUT_OF_TIME_TAG: "true"}),
        run(FAILURE, **STOP, **{OUT_OF_TIME_TAG: "true"}),
        run(CANCELED),
        run(dg.DagsterRunStatus.SUCCESS),
        run(dg.DagsterRunStatus.STARTED),
        run(FAILURE, job_name="maintenance_job"),
        run(FAILURE, job_name="promote_job"),
        run(FAILURE, **{WILL_RETRY_TAG: "true"}),
        dg.DagsterRun(job_name="retraining_job", status=FAILURE),
    ],
    ids=[
        "step",
        "time",
        "time and stop",
        "person",
        "done",
        "under way",
        "daily",
        "by hand",
        "earlier release",
        "command",
    ],
)
def test_a_run_that_ended_is_not(ended: dg.DagsterRun) -> None:
    assert not is_interrupted(ended)


def test_one_that_is_killed_again_and_again_is_repeated_twice() -> None:
    killed, n_repeats = run(FAILURE), 0
    while is_interrupted(killed):
        killed = run(FAILURE, **repetition_of(killed).tags)
        n_repeats += 1
    assert n_repeats == MAX_REPEATS == n_kills(killed)


def test_a_stop_is_not_counted() -> None:
    """However often the platform is stopped during one long training, the training is not lost."""
    stopped = run(FAILURE, **STOP, **{KILLS_TAG: str(MAX_REPEATS)})
    for _ in range(10):
        stopped = run(FAILURE, **STOP, **repetition_of(stopped).tags)
        assert is_interrupted(stopped)
    assert n_kills(stopped) == MAX_REPEATS


def test_a_repetition_is_the_same_run_again_and_asked_for_once() -> None:
    first = run(
        FAILURE,
        **{
            "selfheal/request": "17",
            "dagster/partition": "3",
            "dagster/run_key": "request 17",
            ".dagster/grpc_info": "{}",
        },
    )
    request = repetition_of(first)
    assert (request.job_name, request.run_config, request.partition_key) == (first.job_name, first.run_config, "3")
    assert request.tags == {"selfheal/request": "17", REPEATS_TAG: first.run_id, KILLS_TAG: "1"}
    assert request.run_key == repetition_of(first).run_key != repetition_of(run(FAILURE)).run_key
    assert request.asset_selection is None
