"""What must hold before the platform's processes start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from selfheal.adapters.marked_processes import mark
from selfheal.cli import supervisor
from selfheal.cli.supervisor import JobEvent
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.settings import load_settings
from selfheal.simulate.demo import free_ports


def test_a_second_up_in_the_same_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with (
        supervisor.only_one(tmp_path),
        pytest.raises(ConfigurationError, match=f"already up .*process {os.getpid()}"),
        supervisor.only_one(tmp_path),
    ):
        pass
    with supervisor.only_one(tmp_path):
        pass


KILLED_UP = """
import subprocess, sys
from pathlib import Path
from selfheal.cli import supervisor
with supervisor.only_one(Path(sys.argv[1])):
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    sys.stdin.read()
"""


def test_a_killed_up_holds_no_lock_although_what_it_started_lives(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_UP, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        child = psutil.Process(int(up.stdout.readline()))
        up.kill()
    with supervisor.only_one(tmp_path):
        assert child.is_running()
    child.kill()


def test_a_lock_whose_writer_is_dead_is_refused_with_the_processes_that_hold_it(tmp_path: Path) -> None:
    """As the forks of an earlier release do, which inherited the lock."""
    lock = tmp_path / supervisor.LOCK_NAME
    holding = "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, 2); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holding, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        lock.write_text(str(2**22 + 1))
        with (
            pytest.raises(ConfigurationError, match=rf"process {holder.pid}\).*kill {holder.pid}"),
            supervisor.only_one(tmp_path),
        ):
            pass
        holder.kill()


def test_what_an_earlier_up_left_is_ended_before_the_next_one_starts_and_what_this_one_leaves_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOPPED_RUN_TIMEOUT_SECONDS", 0.1)
    settings = load_settings(data_dir=tmp_path, database_url="postgresql://nowhere/selfheal")
    left = subprocess.Popen(["sleep", "60"], env=os.environ | mark(tmp_path, "earlier"))
    with supervisor.no_process_left(settings, tmp_path):
        assert not psutil.pid_exists(left.pid)
        ours = subprocess.Popen(["sleep", "60"], env=dict(os.environ))
        assert ours.poll() is None
    assert not psutil.pid_exists(ours.pid)
    assert (left.wait(), ours.wait()) == (0, 0), "already reaped"


@pytest.mark.parametrize("folder", ["file/data", "/proc/selfheal-data"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    settings = load_settings(data_dir=tmp_path / folder)
    with pytest.raises(ConfigurationError, match=r"DATA_DIR=.*cannot be written"):
        supervisor.prepare_data_dir(settings)


def test_dagster_home_has_the_shipped_instance_configuration(tmp_path: Path) -> None:
    home = supervisor.dagster_home(load_settings(data_dir=tmp_path))
    text = (home / "dagster.yaml").read_text()
    assert "SelfhealPostgresStorage" in text
    assert "run_monitoring" in text


def test_the_time_limit_of_launches_reaches_the_starts_of_runs_and_the_calls_to_the_code_server(tmp_path: Path) -> None:
    for seconds in (120, 450):
        settings = load_settings(data_dir=tmp_path, launch_timeout_seconds=seconds)
        environment = supervisor.child_environment(settings)
        instance = yaml.safe_load((tmp_path / "dagster/dagster.yaml").read_text())
        assert instance["run_monitoring"]["start_timeout_seconds"] == seconds
        assert environment["DAGSTER_GRPC_TIMEOUT_SECONDS"] == str(seconds)


def test_a_job_that_cannot_start_says_why_and_where_its_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(data_dir=tmp_path)
    monkeypatch.setenv("API_PORT", "0")
    with pytest.raises(ServiceUnavailableError, match=r"maintenance_job failed: .*API_PORT=0.*maintenance_job\.log"):
        supervisor.run_job(settings, "maintenance_job", pytest.fail)


def test_a_line_of_a_run_is_an_event() -> None:
    assert supervisor.job_event('{"type": "PLAN", "steps": ["one", "two"]}') == JobEvent("PLAN", steps=("one", "two"))
    said = '{"type": "LOG", "time": "now", "step": "one", "level": "INFO", "message": "3 of 16 fits"}'
    assert supervisor.job_event(said) == JobEvent("LOG", "one", "INFO", "3 of 16 fits")
    failed = '{"type": "STEP_FAILURE", "step": "one", "level": "ERROR", "message": "failed", "error": "no room"}'
    assert supervisor.job_event(failed).error == "no room"
    of_the_run = '{"type": "RUN_SUCCESS", "step": null, "level": "DEBUG", "message": null}'
    assert supervisor.job_event(of_the_run) == JobEvent("RUN_SUCCESS", level="DEBUG")


@pytest.mark.parametrize(("uri", "starts_mlflow"), [(None, True), ("http://mlflow.example.org", False)])
def test_a_tracking_server_that_runs_elsewhere_is_not_started(
    tmp_path: Path, uri: str | None, starts_mlflow: bool
) -> None:
    programs = supervisor.programs(load_settings(data_dir=tmp_path, mlflow_tracking_uri=uri), "postgresql://mlflow")
    names = {program.name for program in programs}
    assert ("mlflow" in names) == starts_mlflow
    assert {"code", "daemon", "dagster", "api"} <= names


def test_the_daemon_starts_once_the_code_server_listens(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    programs = supervisor.programs(load_settings(data_dir=tmp_path, code_server_port=port), "postgresql://mlflow")
    (daemon,) = [program for program in programs if program.name == "daemon"]
    assert not daemon.may_start()
    with socket.create_server(("127.0.0.1", port)):
        assert daemon.may_start()
    assert all(program.may_start() for program in programs if program is not daemon)
