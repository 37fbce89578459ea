"""A job that sleeps, launched by the platform's run launcher on a Dagster instance of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from selfheal_assets.job_names import MONITORING_JOB
from tests.waiting import eventually

LAUNCHER = {"module": "selfheal_assets.run_launcher", "class": "ProcessRunLauncher"}
DEADLINE_SECONDS = 60
REMOTE = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("127.0.0.1", 4000, location_name="selfheal"), "__repository__"),
    MONITORING_JOB,
)


@dg.op
def sleep() -> None:
    time.sleep(120)


@dg.job(name=MONITORING_JOB, executor_def=dg.in_process_executor)
def sleeping_job() -> None:
    sleep()


CODE = JobPythonOrigin(
    MONITORING_JOB,
    RepositoryPythonOrigin(sys.executable, ModuleCodePointer("tests.selfheal_assets.launching", "sleeping_job")),
)


@contextmanager
def instance_with_launcher(folder: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(folder), overrides={"run_launcher": LAUNCHER}) as instance:
        yield instance


def stored_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run as the queue has it, in any state; nobody executes it."""
    return instance.create_run_for_job(
        sleeping_job, status=status, tags=tags, job_code_origin=CODE, remote_job_origin=REMOTE
    )


def launch(instance: dg.DagsterInstance, **tags: str) -> str:
    """Launch a run as the daemon does; return its number."""
    run = stored_run(instance, dg.DagsterRunStatus.STARTING, **tags)
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run.run_id


def run_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def until_status(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    eventually(lambda: run_of(instance, run_id).status is status, f"the run is {status}", DEADLINE_SECONDS)
    return run_of(instance, run_id)


def end_message(instance: dg.DagsterInstance, run_id: str) -> Any:
    """What the event that ended the run says."""
    ends = {dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED}
    (message, *_) = [log.dagster_event.message for log in instance.all_logs(run_id, of_type=ends) if log.dagster_event]
    return message
