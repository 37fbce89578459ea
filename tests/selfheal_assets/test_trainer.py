"""The trainer takes runs that train from the queue, one at a time, and only it does; containers end each other's runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster._utils.tags import TagConcurrencyLimitsCounter

from selfheal.cli import supervisor
from selfheal.kit import health_probe
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import load_settings
from selfheal_assets import run_owners, trainer
from selfheal_assets.jobs import MONITORING_TAG, RETRAINING_TAG
from selfheal_assets.run_launcher import END_REQUESTED_TAG
from selfheal_assets.run_owners import RunOwners, write_owner
from tests.processes import REPOSITORY
from tests.selfheal_assets.launching import instance_with_launcher, launch, run_of, stored_run, until_status
from tests.waiting import eventually

QUEUED, STARTING, STARTED = dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED
CANCELING, CANCELED = dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with instance_with_launcher(tmp_path) as made:
        yield made


@pytest.fixture
def launched(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that the launcher was given; none is started."""
    runs: list[str] = []
    monkeypatch.setattr(instance.run_launcher, "launch_run", lambda context: runs.append(context.dagster_run.run_id))
    return runs


def is_blocked(settings_of: str, tags: dict[str, str], under_way: list[dict[str, str]], folder: Path) -> bool:
    """Whether the daemon leaves a run with these tags in the queue, by the dagster.yaml of these settings."""
    home = supervisor.dagster_home(load_settings(data_dir=folder, training_runs_in=settings_of))
    limits = yaml.safe_load((home / "dagster.yaml").read_text())["concurrency"]["runs"]["tag_concurrency_limits"]
    with dg.DagsterInstance.ephemeral() as instance:
        runs = [instance.create_run_for_job(noop, tags=one) for one in [tags, *under_way]]
        return TagConcurrencyLimitsCounter(limits, runs[1:]).is_blocked(runs[0])


@dg.job
def noop() -> None:
    pass


def test_with_a_trainer_the_daemon_leaves_runs_that_train_in_the_queue_and_no_others(tmp_path: Path) -> None:
    assert is_blocked("trainer", RETRAINING_TAG, [], tmp_path)
    assert not is_blocked("trainer", MONITORING_TAG, [], tmp_path)
    assert is_blocked("trainer", MONITORING_TAG, [MONITORING_TAG], tmp_path)
    assert not is_blocked("daemon", RETRAINING_TAG, [], tmp_path)
    assert is_blocked("daemon", RETRAINING_TAG, [RETRAINING_TAG], tmp_path)


def test_the_trainer_takes_the_run_that_has_waited_longest_and_trains(
    instance: dg.DagsterInstance, launched: list[str]
) -> None:
    assert trainer.take_next(instance) is None
    stored_run(instance, QUEUED, **MONITORING_TAG)
    assert trainer.take_next(instance) is None, "ticks are the daemon's"
    first, second = (stored_run(instance, QUEUED, **RETRAINING_TAG).run_id for _ in range(2))
    assert trainer.take_next(instance) == first
    assert run_of(instance, first).status is STARTING
    assert launched == [first]
    assert run_of(instance, second).status is QUEUED


@pytest.mark.parametrize("status", [STARTING, STARTED, CANCELING])
def test_no_run_is_taken_while_one_that_trains_is_under_way(
    status: dg.DagsterRunStatus, instance: dg.DagsterInstance, launched: list[str]
) -> None:
    stored_run(instance, status, **RETRAINING_TAG)
    stored_run(instance, QUEUED, **RETRAINING_TAG)
    assert trainer.take_next(instance) is None
    assert launched == []


def test_a_trainer_that_cannot_read_its_queue_goes_on_and_is_not_healthy(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping, answers = threading.Event(), iter([OSError("Postgres is away"), None])
    heartbeat = health_probe.heartbeat_path(tmp_path, "trainer")
    found: list[str | None] = []

    def take_next(_: dg.DagsterInstance) -> None:
        answer = next(answers)
        if answer is not None:
            raise answer

    def wait(seconds: float) -> None:
        found.append(health_probe.problem("trainer", data_dir=tmp_path))
        assert seconds < health_probe.MAX_BEAT_AGE_SECONDS
        if len(found) == 2:
            stopping.set()

    monkeypatch.setattr(trainer, "take_next", take_next)
    monkeypatch.setattr(stopping, "wait", wait)
    trainer.take_runs(instance, heartbeat, stopping)
    assert found == ["queue has not worked yet", None]


def test_there_is_one_trainer_for_a_queue(tmp_path: Path) -> None:
    with (
        trainer.only_one(tmp_path / "lock"),
        pytest.raises(ConfigurationError, match="another trainer takes the runs"),
        trainer.only_one(tmp_path / "lock"),
    ):
        pass
    with trainer.only_one(tmp_path / "lock"):
        pass


def test_a_process_number_of_another_container_is_none_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = RunOwners(tmp_path)
    with owners.claim("run") as lock:
        write_owner(lock, os.getpid())
        assert owners.pid("run") == os.getpid()
        monkeypatch.setattr(run_owners, "pid_namespace", lambda: "pid:[1]")
        assert owners.pid("run") is None
        assert owners.has_owner("run"), "but it is executed"


@pytest.mark.integration
def test_a_run_of_another_container_is_ended_by_the_launcher_there(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = launch(instance)
    until_status(instance, run_id, STARTED)
    pid = RunOwners.of(instance).pid(run_id)
    assert pid is not None
    with monkeypatch.context() as elsewhere:
        here = threading.main_thread()
        real = run_owners.pid_namespace
        # Only the thread that terminates is in another container; the launcher's own thread is where the run is.
        elsewhere.setattr(
            run_owners, "pid_namespace", lambda: "pid:[1]" if threading.current_thread() is here else real()
        )
        assert instance.run_launcher.terminate(run_id)
    ended = until_status(instance, run_id, CANCELED)
    assert END_REQUESTED_TAG in ended.tags
    eventually(lambda: not psutil.pid_exists(pid), "the process of the run has ended")


@pytest.mark.integration
def test_a_trainer_that_is_stopped_lets_its_run_record_that_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container nothing outlives the main process."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    launcher = "run_launcher: {module: selfheal_assets.run_launcher, class: ProcessRunLauncher}\n"
    (tmp_path / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{launcher}")
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path), "DATA_DIR": str(tmp_path)}
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run_id = stored_run(instance, QUEUED, **RETRAINING_TAG).run_id
        process = subprocess.Popen([sys.executable, "-m", "selfheal_assets.trainer"], env=environment)
        try:
            until_status(instance, run_id, STARTED)
            assert health_probe.problem("trainer", data_dir=tmp_path) is None
            eventually(lambda: RunOwners.of(instance).pid(run_id) is not None, "the run has an owner")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            run = run_of(instance, run_id)
            assert (run.status, run.tags["dagster/failure_reason"]) == (
                dg.DagsterRunStatus.FAILURE,
                "UNEXPECTED_TERMINATION",
            )
        finally:
            process.kill()
            process.wait()
