"""Rules of the demo in containers, on an engine that is only a script: what is asked of it, what is measured, what is left."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from selfheal.cli import app
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.settings import Settings
from selfheal.simulate import compose, compose_demo
from selfheal.simulate.compose import ComposeProject, deploy_folder
from selfheal.simulate.compose_demo import PROJECT, demo_arguments, demo_project, run_compose_demo
from selfheal.simulate.demo import DemoOptions
from tests.environment import forget_settings
from tests.processes import REPOSITORY

ENGINE = """#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >> calls
case "$*" in
    "image inspect"*) echo 1530000000 ;;
    "ps --all"*) cat containers 2> /dev/null ;;
    "volume ls"* | "network ls"*) cat left 2> /dev/null ;;
    "inspect "*) cat inspected ;;
    "top "*) printf 'PID RSS\\n7 1000\\n9 24000\\n' ;;
    *" up "*) [ ! -e fails ] || { echo 'no room' >&2; exit 1; }; echo one two > containers ;;
    *" down "*) rm -f containers ;;
    *" logs "*) echo 'api: what it said' ;;
    *" cat "*) cat outcome ;;
esac
true
"""
OPTIONS = DemoOptions(
    data=None,
    json_file=None,
    leave_running=False,
    scenario="overheating",
    rate_per_second=50.0,
    interval_seconds=7,
    seed=4,
    timeout_seconds=5.0,
)


def inspected(service: str, **state: Any) -> dict[str, Any]:
    return {
        "Id": service,
        "Config": {"Labels": {"com.docker.compose.service": service}},
        "State": {"Pid": 7, "Status": "running", "ExitCode": 0, "Health": {"Status": "healthy"}} | state,
        "RestartCount": 0,
        "Image": "sha256:1",
    }


@dataclass(frozen=True)
class FakeEngine:
    folder: Path

    def calls(self, word: str) -> list[str]:
        path = self.folder / "calls"
        return [line for line in path.read_text().splitlines() if f" {word} " in line] if path.exists() else []

    def write(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    forget_settings(monkeypatch)
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "docker").write_text(ENGINE)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("DOCKER", str(folder / "docker"))
    monkeypatch.setenv("USE_CASE", "tests.toy_use_case:contract")
    monkeypatch.setattr(compose, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(ComposeProject, "make_secrets", lambda _: None)
    fake = FakeEngine(folder)
    fake.write("outcome", {"healed": True, "f1_before": 0.4, "f1_after": 0.5})
    done = {"Status": "exited", "Health": {}}
    fake.write("inspected", [inspected("api"), inspected("daemon"), inspected("bootstrap", **done)])
    return fake


def run(tmp_path: Path, **changes: Any) -> tuple[int, dict[str, Any]]:
    path = tmp_path / "outcome.json"
    code = run_compose_demo(replace(OPTIONS, json_file=path, **changes), Console(quiet=True))
    return code, json.loads(path.read_text())


def test_the_outcome_is_that_of_the_demo_and_what_the_containers_came_to(engine: FakeEngine, tmp_path: Path) -> None:
    code, outcome = run(tmp_path)
    assert code == 0
    assert (outcome["healed"], outcome["f1_before"], outcome["f1_after"]) == (True, 0.4, 0.5)
    assert (outcome["containers"], outcome["image_mb"]) == (2, 1530.0), "the one-shot has ended"
    assert outcome["rss_mb_total"] == round(2 * 25_000 * 1024 / 1e6, 1)
    assert 0 <= outcome["ready_s"] <= outcome["seconds_total"]
    assert outcome["left_behind"] == []


def test_what_an_interrupted_demo_left_is_removed_before_and_everything_after(
    engine: FakeEngine, tmp_path: Path
) -> None:
    run(tmp_path)
    words = [line.split() for line in engine.calls(PROJECT)]
    commands = [line[line.index(PROJECT) + 1] for line in words]
    assert [one for one in commands if one in {"--profile", "up"}] == ["--profile", "up", "--profile"]
    assert len(engine.calls("down")) == 2
    assert all("--volumes" in line and "--remove-orphans" in line for line in engine.calls("down"))


def test_something_that_is_left_behind_is_named_and_is_a_failure(engine: FakeEngine, tmp_path: Path) -> None:
    engine.write("left", "selfheal-demo_data\n")
    code, outcome = run(tmp_path)
    assert code == 1
    assert outcome["left_behind"] == ["volume selfheal-demo_data", "network selfheal-demo_data"]


@pytest.mark.parametrize("outcome", [{"healed": False}, {}, {"healed": "yes"}])
def test_only_a_demo_that_healed_succeeds(outcome: dict[str, Any], engine: FakeEngine, tmp_path: Path) -> None:
    engine.write("outcome", outcome)
    assert run(tmp_path)[0] == 1


@pytest.mark.parametrize("failure", ["up", "health", "end"])
def test_containers_that_do_not_come_up_are_removed_and_their_logs_shown(
    failure: str, engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if failure == "up":
        engine.write("fails", "")
    state = {"Health": {"Status": "unhealthy"}} if failure == "health" else {"Status": "exited", "ExitCode": 3}
    engine.write("inspected", [inspected("api", **state)])
    wanted = r"`docker compose up` failed: no room" if failure == "up" else r"api is \w+.*\n.*what it said"
    with pytest.raises(ServiceUnavailableError, match=wanted):
        run_compose_demo(replace(OPTIONS, timeout_seconds=0.2), Console())
    assert "api: what it said" in capsys.readouterr().out
    assert len(engine.calls("down")) == 2


def test_with_keep_the_containers_stay_and_the_command_that_removes_them_is_shown(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_compose_demo(replace(OPTIONS, leave_running=True), Console()) == 0
    assert len(engine.calls("down")) == 1
    assert f"--project-name {PROJECT} down --volumes" in capsys.readouterr().out


# What the containers are given


def test_the_containers_train_on_the_rows_that_the_demo_leaves_for_it(engine: FakeEngine) -> None:
    variables = demo_project(OPTIONS).variables
    assert variables == {"DEMO_ROWS": "12000", "DEMO_INTERVAL": "7", "DEMO_SEED": "4"}
    text = (REPOSITORY / "deploy/compose.demo.yaml").read_text()
    demo = yaml.safe_load(text.replace("!override", ""))["x-demo"]
    used = json.dumps(demo)
    assert all(f"${{{name}:" in used for name in [*variables, compose_demo.DATA])
    assert {name.lower() for name in demo["environment"]} <= Settings.model_fields.keys()


def test_data_that_the_containers_could_not_read_are_refused(engine: FakeEngine, tmp_path: Path) -> None:
    from tests.toy_use_case import contract

    path = tmp_path / "rows.csv"
    contract.synthesize(6_000, 1).to_csv(path, index=False)
    path.chmod(0o644)
    assert demo_project(replace(OPTIONS, data=path)).variables[compose_demo.DATA] == str(path)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=rf"chmod o\+r {path}"):
        demo_project(replace(OPTIONS, data=path))


def test_the_demo_in_the_container_has_the_options_of_the_one_outside(engine: FakeEngine) -> None:
    words = demo_arguments(OPTIONS)
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given["--scenario"] == "overheating"
    assert (float(given["--rate"]), int(given["--seed"]), float(given["--timeout"])) == (50.0, 4, 5.0)
    known = {option for parameter in command("demo").params for option in parameter.opts}
    assert given.keys() <= known


def command(name: str) -> Any:
    import typer

    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


def test_a_platform_that_runs_is_not_started_in_containers() -> None:
    words = ["demo", "--target", "compose", "--api", "http://api:8000", "--dagster", "http://webserver:3000"]
    assert CliRunner().invoke(app, words).exit_code == 2


def test_without_compose_files_the_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert deploy_folder(tmp_path) == REPOSITORY / "deploy"
    monkeypatch.setattr(compose, "FILE", "missing.yaml")
    with pytest.raises(ConfigurationError, match=r"run this in a clone of the repository"):
        deploy_folder(tmp_path)


def test_without_an_engine_the_error_says_so(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER", "no-such-engine")
    with pytest.raises(ServiceUnavailableError, match="there is no no-such-engine; install an engine"):
        ComposeProject("p", REPOSITORY / "deploy").compose("up")
    assert os.environ["DOCKER"] == "no-such-engine"
