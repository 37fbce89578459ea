"""The platform as people run it: real processes, from the commands of the README."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from selfheal.adapters.postgres.embedded import ensure_running
from selfheal.cli.processes import STOP_TIMEOUT_SECONDS
from selfheal.cli.supervisor import STOPPED_RUN_TIMEOUT_SECONDS
from selfheal.services.addresses import http_url
from selfheal.simulate.demo import free_ports
from selfheal_assets.interruptions import REPEATS_TAG, STOPPED
from tests.processes import REPOSITORY, running_with, selfheal, start, stop
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

START_SECONDS = 200


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """A platform of the toy use case with ports of its own."""
    api, dagster, mlflow, code = (str(port) for port in free_ports(4))
    ports = {"API_PORT": api, "DAGSTER_PORT": dagster, "MLFLOW_PORT": mlflow, "CODE_SERVER_PORT": code}
    toy = {"USE_CASE": "tests.toy_use_case:contract", "SYNTHETIC_ROWS": "3000", "DATA_DIR": str(data_dir)}
    return dict(os.environ) | toy | ports | settings


@pytest.fixture(scope="module")
def bootstrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a first version, as `selfheal bootstrap` leaves it; the tests of this module share it.

    On a host like many: a space in the path, a time zone that is not UTC, a umask that lets others read.
    """
    folder = tmp_path_factory.mktemp("platform") / "a user's data"
    done = subprocess.run(
        selfheal("bootstrap"),
        env={**environment(folder), "PYTHONPATH": str(REPOSITORY), "TZ": "Asia/Kolkata"},
        umask=0o022,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Version 1 is in production" in done.stdout
    return folder


def graphql(port: str, query: str) -> dict[str, Any]:
    answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=20)
    data: dict[str, Any] = answer.json()["data"]
    return data


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_what_the_platform_writes_is_closed_to_other_users(bootstrapped: Path) -> None:
    written = [bootstrapped, *bootstrapped.rglob("*")]
    open_to_others = [p for p in written if not p.is_symlink() and p.stat().st_mode & 0o077]
    passable = [bootstrapped] if os.geteuid() == 0 else []  # as root, to Postgres' own user
    assert open_to_others == passable
    assert bootstrapped.stat().st_mode & 0o066 == 0, "passed at most, never listed"
    assert any(p.suffix == ".skops" or "model" in p.name for p in written), "the model's files, too"


@dataclass(frozen=True)
class Up:
    """`selfheal up` in a folder, with what it was told."""

    process: subprocess.Popen[bytes]
    env: dict[str, str]

    @property
    def api(self) -> str:
        return http_url(self.env["API_HOST"], int(self.env["API_PORT"]))

    def port(self, of: str) -> str:
        return self.env[f"{of}_PORT"]

    def retrainings(self) -> list[dict[str, Any]]:
        """The newest first."""
        asked = '{ runsOrError(filter: {pipelineName: "retraining_job"}) { ... on Runs { results { runId status } } } }'
        found: list[dict[str, Any]] = graphql(self.port("DAGSTER"), asked)["runsOrError"]["results"]
        return found


def loopback() -> str:
    """The loopback address that is not the default, if this machine has it."""
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return "::1"
    return "127.0.0.1"


@pytest.fixture(scope="module")
def up(bootstrapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    env = environment(bootstrapped, API_HOST=loopback(), MONITORING_INTERVAL="10")
    log = tmp_path_factory.mktemp("up") / "up.log"
    process = start(selfheal("up"), env, log)
    try:
        eventually(lambda: "The platform is up" in log.read_text(), "the platform is up", START_SECONDS)
        yield Up(process, env)
    finally:
        stop(process)


@dataclass(frozen=True)
class Stopped:
    """What was left when `up` was stopped with Ctrl-C while a retraining was under way."""

    run_id: str
    left: list[psutil.Process]
    seconds: float


@pytest.fixture(scope="module")
def stopped(up: Up) -> Stopped:
    asked = httpx.post(f"{up.api}/retrainings", json={"reason": "to be stopped"}, timeout=20)
    assert asked.status_code == 202, asked.text
    eventually(lambda: [run["status"] for run in up.retrainings()] == ["STARTED"], "the run is under way", 60)
    run_id = up.retrainings()[0]["runId"]
    began = time.monotonic()
    left = stop(up.process)
    return Stopped(run_id, left, time.monotonic() - began)


def test_up_opens_its_doors_to_the_loopback_address_it_is_told_and_to_no_foreign_page(up: Up) -> None:
    assert answers(f"{up.api}/health")
    assert answers(f"http://127.0.0.1:{up.port('MLFLOW')}/health")
    sensors = graphql(
        up.port("DAGSTER"),
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { sensors { name sensorState { status } } } } } }",
    )
    running = {s["name"]: s["sensorState"]["status"] for s in sensors["repositoriesOrError"]["nodes"][0]["sensors"]}
    assert running["monitoring_sensor"] == running["drift_sensor"] == "RUNNING"
    doors = (up.api, *(f"http://127.0.0.1:{up.port(name)}" for name in ("DAGSTER", "MLFLOW")))
    foreign = {"Origin": "https://evil.example"}
    asked = [httpx.post(f"{door}/graphql", json={}, headers=foreign) for door in doors]
    assert [(answer.status_code, answer.json()["type"]) for answer in asked] == [(403, "foreign_origin")] * 3


def test_a_second_up_in_the_same_folder_ends_with_one_line(up: Up) -> None:
    second = subprocess.run(
        selfheal("up"), env={**up.env, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False
    )
    assert second.returncode == 2
    assert "already up" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1


def test_ctrl_c_during_a_run_leaves_nothing_behind_and_the_run_as_stopped(
    up: Up, stopped: Stopped, bootstrapped: Path
) -> None:
    assert stopped.left == []
    assert running_with(bootstrapped) == []
    assert not answers(f"{up.api}/health")
    assert up.process.returncode == 0
    assert stopped.seconds < STOP_TIMEOUT_SECONDS + STOPPED_RUN_TIMEOUT_SECONDS
    assert stored_run(bootstrapped, stopped.run_id) == ("FAILURE", STOPPED)


def stored_run(data_dir: Path, run_id: str) -> tuple[str, str]:
    """Status and reason of a run, as the stopped platform's database has them."""
    server = ensure_running(data_dir / "postgres")
    query = """
        SELECT status, value FROM runs JOIN run_tags USING (run_id) WHERE run_id = %s AND key = 'dagster/failure_reason'
    """
    with psycopg.connect(server.url("dagster")) as connection:
        found = connection.execute(query, (run_id,)).fetchone()
    server.release()
    assert found is not None
    return found


def test_a_termination_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    env = environment(tmp_path / "data")
    up = start(selfheal("up"), env, tmp_path / "up.log")
    eventually(lambda: bool(list((tmp_path / "data").glob("logs/*"))), "the bootstrap has begun", START_SECONDS)
    assert stop(up, signal.SIGTERM) == []
    eventually(lambda: running_with(tmp_path) == [], "everything has stopped", 10)


def test_dagster_dev_works_without_a_word_of_configuration_and_takes_up_the_run_that_was_stopped(
    bootstrapped: Path, stopped: Stopped, tmp_path: Path
) -> None:
    env = environment(bootstrapped)
    home = subprocess.run(
        selfheal("dagster-home"), env={**env, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True
    ).stdout.strip()
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-p",
        env["DAGSTER_PORT"],
        "-w",
        str(REPOSITORY / "workspace.yaml"),
    ]
    dev = start(command, env | {"DAGSTER_HOME": home}, tmp_path / "dev.log")
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{env['DAGSTER_PORT']}/server_info"), "it answers", START_SECONDS)
        nodes = graphql(env["DAGSTER_PORT"], "{ assetNodes { assetKey { path } } }")["assetNodes"]
        assert {"path": ["production_model"]} in [node["assetKey"] for node in nodes]
        repeated = f'''{{ runsOrError(filter: {{tags: [{{key: "{REPEATS_TAG}", value: "{stopped.run_id}"}}]}}) {{
            ... on Runs {{ results {{ status }} }} }} }}'''
        ended = lambda: graphql(env["DAGSTER_PORT"], repeated)["runsOrError"]["results"] == [{"status": "SUCCESS"}]  # noqa: E731
        eventually(ended, "the run is repeated, once, to its end", START_SECONDS)
    finally:
        left = stop(dev)
    assert left == []
    eventually(lambda: running_with(bootstrapped) == [], "everything has stopped", 10)
