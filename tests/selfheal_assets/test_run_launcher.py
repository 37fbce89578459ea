"""A run lives exactly as long as its process, and Dagster knows it: real processes, killed and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
import pytest

from selfheal_assets.interruptions import KILLS_TAG, OUT_OF_TIME_TAG, is_interrupted, repetition_of
from selfheal_assets.run_owners import RunOwners
from tests.processes import REPOSITORY
from tests.selfheal_assets.launching import (
    end_message,
    instance_with_launcher,
    launch,
    run_of,
    stored_run,
    until_status,
)
from tests.waiting import eventually

STARTED, FAILURE, CANCELED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
LAUNCHED = ("killed", "stopped", "terminated", "out of time")


@dataclass(frozen=True)
class Launched:
    """Runs that are under way, one for each test: they start together, since a start is most of the time."""

    instance: dg.DagsterInstance
    runs: dict[str, str]

    @property
    def owners(self) -> RunOwners:
        return RunOwners.of(self.instance)

    def process(self, name: str) -> psutil.Process:
        pid = self.owners.pid(self.runs[name])
        assert pid is not None
        return psutil.Process(pid)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    with instance_with_launcher(tmp_path_factory.mktemp("dagster")) as instance:
        limits = {"out of time": {"dagster/max_runtime": "0.01"}}
        started = Launched(instance, {name: launch(instance, **limits.get(name, {})) for name in LAUNCHED})
        for run_id in started.runs.values():
            until_status(instance, run_id, STARTED)
        yield started
        for name, run_id in started.runs.items():
            if started.owners.has_owner(run_id):
                started.process(name).kill()
    del os.environ["PYTHONPATH"]


def test_a_run_whose_process_is_killed_fails_at_once_and_is_to_be_repeated(launched: Launched) -> None:
    run_id = launched.runs["killed"]
    process = launched.process("killed")
    assert process.name().startswith("python")
    process.kill()
    killed_at = time.monotonic()
    run = until_status(launched.instance, run_id, FAILURE)
    assert time.monotonic() - killed_at < 5
    assert (
        end_message(launched.instance, run_id) == f"The process of the run (number {process.pid}) was ended by SIGKILL."
    )
    assert is_interrupted(run)
    eventually(lambda: not launched.owners.is_known(run_id), "its lock is gone")


def test_a_run_that_a_stop_interrupts_is_to_be_repeated_and_not_counted_as_killed(launched: Launched) -> None:
    launched.process("stopped").send_signal(signal.SIGTERM)
    run = until_status(launched.instance, launched.runs["stopped"], FAILURE)
    assert is_interrupted(run)
    assert repetition_of(run).tags[KILLS_TAG] == "0"


def test_a_run_that_a_person_terminates_ends_and_is_not_repeated(launched: Launched) -> None:
    process, run_id = launched.process("terminated"), launched.runs["terminated"]
    assert launched.instance.run_launcher.terminate(run_id)
    run = run_of(launched.instance, run_id)
    assert run.status is CANCELED
    assert not is_interrupted(run)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert not launched.instance.run_launcher.terminate(run_id)


def test_a_run_that_ran_out_of_time_says_so_and_is_not_repeated(launched: Launched) -> None:
    run_id = launched.runs["out of time"]
    assert launched.instance.run_launcher.terminate(run_id)
    run = launched.instance.get_run_by_id(run_id)
    assert run is not None
    launched.instance.report_run_failed(run, "Exceeded maximum runtime of 0 seconds.")  # as Dagster's monitor does
    run = run_of(launched.instance, run_id)
    assert run.status is FAILURE
    assert OUT_OF_TIME_TAG in run.tags
    assert not is_interrupted(run)


def test_a_run_without_a_process_is_terminated_at_once(launched: Launched) -> None:
    """As a power cut leaves it."""
    run = stored_run(launched.instance, STARTED)
    assert launched.instance.run_launcher.terminate(run.run_id)
    assert run_of(launched.instance, run.run_id).status is CANCELED


DAEMON = """
import sys, time
from pathlib import Path
from tests.waiting import eventually
from tests.selfheal_assets.launching import instance_with_launcher, launch
with instance_with_launcher(Path(sys.argv[1])) as instance:
    print(launch(instance), flush=True)
    time.sleep(60)
"""


def test_runs_end_with_the_daemon_that_launched_them(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", DAEMON, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as daemon:
        assert daemon.stdout is not None
        run_id = daemon.stdout.readline().strip()
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            assert RunOwners.of(instance).has_owner(run_id), "from the first moment on"
            daemon.kill()
            eventually(lambda: not RunOwners.of(instance).has_owner(run_id), "the run's process has ended")
        daemon.stdout.close()
