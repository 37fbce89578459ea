"""`selfheal start NAME`: becomes the process that `selfheal up` would run, or says in one line why not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from selfheal.cli import app, supervisor
from selfheal.cli.single_process import PROGRAMS
from selfheal.kit import health_probe
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import load_settings
from tests.environment import forget_settings

KEY = "k" * 40


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forget_settings(monkeypatch)
    monkeypatch.setenv("TRAINING_RUNS_IN", "trainer")
    monkeypatch.setattr("selfheal.adapters.mlflow_store.mlflow_store_uri", lambda _: "postgresql://mlflow")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Command and environment of what this process would have become."""
    found: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda _, command, environment: found.append((command, environment)))
    return found


def start(*arguments: str) -> None:
    CliRunner().invoke(app, ["start", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_process_is_the_one_that_up_runs(name: str, started: list[tuple[list[str], dict[str, str]]]) -> None:
    start(name)
    ((command, environment),) = started
    program = {one.name: one for one in supervisor.programs(load_settings(), "postgresql://mlflow")}[PROGRAMS[name]]
    assert command == list(program.command)
    assert environment.get("MLFLOW_BACKEND_STORE_URI") == ("postgresql://mlflow" if name == "mlflow" else None)
    assert Path(environment["DAGSTER_HOME"], "dagster.yaml").exists()


def test_dagsters_own_command_is_run_in_the_environment_of_the_processes(
    started: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    """As the pod of a training does, whose arguments begin with `dagster`."""
    CliRunner().invoke(app, ["dagster", "api", "execute_run", "{}", "--help"], catch_exceptions=False)
    ((command, environment),) = started
    assert command[1:] == ["-m", "dagster", "api", "execute_run", "{}", "--help"]
    assert environment["DAGSTER_HOME"] == str(tmp_path / "data/dagster")
    assert Path(environment["DAGSTER_HOME"], "dagster.yaml").exists()


def test_every_process_has_a_health_check() -> None:
    assert PROGRAMS.keys() == health_probe.NAMES


def test_a_process_listens_where_it_is_told(
    started: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEYS", KEY)
    monkeypatch.setenv("CODE_SERVER_HOST", "code-server")
    for name in ("code-server", "webserver", "mlflow"):
        start(name, "--host", "0.0.0.0")
    assert all("0.0.0.0" in command for command, _ in started)
    start("daemon")
    command, _ = started[-1]
    assert 'host: "code-server", port: 4000' in Path(command[command.index("-w") + 1]).read_text()


@pytest.mark.parametrize("name", ["webserver", "mlflow"])
def test_pages_that_other_hosts_reach_need_keys(name: str) -> None:
    with pytest.raises(ConfigurationError, match="API_KEYS is empty; set API_KEYS"):
        start(name, "--host", "0.0.0.0")


def test_a_process_that_these_settings_do_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINING_RUNS_IN", "daemon")
    with pytest.raises(ConfigurationError, match="`selfheal start trainer` needs TRAINING_RUNS_IN=trainer"):
        start("trainer")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    with pytest.raises(ConfigurationError, match="`selfheal start mlflow` needs no MLFLOW_TRACKING_URI"):
        start("mlflow")
    assert CliRunner().invoke(app, ["start", "nothing"]).exit_code == 2


def test_mlflow_gets_the_keys_wherever_they_are_and_no_other_process_has_them_in_its_environment(
    started: list[tuple[list[str], dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api_keys").write_text(KEY)
    monkeypatch.setenv("API_KEYS_FILE", str(tmp_path / "api_keys"))
    for name in sorted(PROGRAMS):
        start(name)
    with_key = [command for command, environment in started if KEY in environment.values()]
    assert with_key == [command for command, _ in started if "selfheal.adapters.mlflow_pages" in command]
