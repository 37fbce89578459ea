"""The platform as people run it: real processes, from the commands of the README."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from selfheal.simulate.demo import free_ports
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


def test_up_serves_and_ctrl_c_leaves_nothing_behind(bootstrapped: Path, tmp_path: Path) -> None:
    env = environment(bootstrapped)
    up = start(selfheal("up"), env, tmp_path / "up.log")
    try:
        eventually(
            lambda: "The platform is up" in (tmp_path / "up.log").read_text(), "the platform is up", START_SECONDS
        )
        assert answers(f"http://127.0.0.1:{env['API_PORT']}/health")
        assert answers(f"http://127.0.0.1:{env['MLFLOW_PORT']}/health")
        sensors = graphql(
            env["DAGSTER_PORT"],
            "{ repositoriesOrError { ... on RepositoryConnection { nodes { sensors { name sensorState { status } } } } } }",
        )
        doors = (env["API_PORT"], env["DAGSTER_PORT"], env["MLFLOW_PORT"])
        foreign = {"Origin": "https://evil.example"}
        asked = [httpx.post(f"http://127.0.0.1:{door}/graphql", json={}, headers=foreign) for door in doors]
        assert [(answer.status_code, answer.json()["type"]) for answer in asked] == [(403, "foreign_origin")] * 3
        running = {s["name"]: s["sensorState"]["status"] for s in sensors["repositoriesOrError"]["nodes"][0]["sensors"]}
        assert running["monitoring_sensor"] == running["drift_sensor"] == "RUNNING"

        second = subprocess.run(
            selfheal("up"), env={**env, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False
        )
        assert second.returncode == 2
        assert "already up" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
    finally:
        left = stop(up)
    assert left == []
    assert running_with(bootstrapped) == []
    assert not answers(f"http://127.0.0.1:{env['API_PORT']}/health")
    assert up.returncode == 0


def test_a_termination_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    env = environment(tmp_path / "data")
    up = start(selfheal("up"), env, tmp_path / "up.log")
    eventually(lambda: bool(list((tmp_path / "data").glob("logs/*"))), "the bootstrap has begun", START_SECONDS)
    assert stop(up, signal.SIGTERM) == []
    eventually(lambda: running_with(tmp_path) == [], "everything has stopped", 10)


def test_dagster_dev_works_without_a_word_of_configuration(bootstrapped: Path, tmp_path: Path) -> None:
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
    finally:
        left = stop(dev)
    assert left == []
    eventually(lambda: running_with(bootstrapped) == [], "everything has stopped", 10)
