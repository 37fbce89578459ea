"""`python -m serving` as a process: what a crash, a stop and a wrong start leave behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from selfheal.adapters.postgres.embedded import ensure_running, release
from selfheal.settings import Settings
from serving.__main__ import STARTUP_FAILED, WRONG_SETTING, main
from tests.serving.running import (
    api_in_thread,
    api_process,
    bodies,
    bring_version_1,
    free_port,
    journal_rows,
    load_on,
    logged_probabilities,
    query,
    start_process,
    with_database,
)
from tests.waiting import eventually


def test_kill_9_under_load_loses_no_answered_prediction_and_doubles_none(api_settings: Settings) -> None:
    with api_process(api_settings, ingest_interval_seconds=60) as (api, process), load_on(api) as load:
        load.wait_for(200)
        own = bodies(1)[0] | {"prediction_id": "0198f0f0-5c1e-7000-8000-000000000000"}
        own_answer = api.post("/predict", own).json()
        process.kill()
        process.wait()
    answered = {answer["prediction_id"]: answer["probability"] for _, answer in load.answers}
    assert len(answered) == len(load.answers) >= 200
    assert len(logged_probabilities(api_settings)) < len(answered), "the crash must come before the copy"
    answered[own_answer["prediction_id"]] = own_answer["probability"]
    with api_in_thread(api_settings) as restarted:
        assert restarted.post("/predict", own).json() == own_answer, "it is known, and logged once"
        eventually(lambda: restarted.health()["journal_lag_bytes"] == 0, "the journal is copied")
        again = restarted.post("/predict", bodies(1)[0]).json()
        eventually(lambda: again["prediction_id"] in logged_probabilities(api_settings), "the new file is copied too")
    logged = logged_probabilities(api_settings)
    journaled = [row["prediction_id"] for row in journal_rows(api_settings)]
    assert {prediction_id: logged.get(prediction_id) for prediction_id in answered} == answered
    assert len(journaled) == len(set(journaled))
    assert set(logged) == set(journaled)
    # What was journaled but not answered any more: at most one group of each of the four clients.
    assert len(logged) - 1 - len(answered) <= 4


def test_a_line_torn_by_a_crash_is_left_out_and_everything_else_is_copied(api_settings: Settings) -> None:
    with api_in_thread(api_settings) as api:
        answered = api.post("/predict", bodies(1)[0]).json()["prediction_id"]
    (file,) = (api_settings.data_dir / "audit" / "predictions").glob("*.csv")
    whole = file.read_bytes()
    file.write_bytes(whole + whole.splitlines()[-1][:50])
    with api_in_thread(api_settings) as restarted:
        again = restarted.post("/predict", bodies(1)[0]).json()["prediction_id"]
        eventually(lambda: set(logged_probabilities(api_settings)) == {answered, again}, "both are copied")


def test_sigterm_under_load_copies_everything_answered_and_leaves_no_process(api_settings: Settings) -> None:
    """On the embedded Postgres: the process started it, so it stops it."""
    settings = api_settings.model_copy(update={"database_url": None, "ingest_interval_seconds": 60.0})
    pgdata = settings.data_dir / "postgres"
    bring_version_1(api_settings, settings)
    assert not (pgdata / "postmaster.pid").exists(), "nobody holds the embedded server yet"
    with api_process(settings) as (api, process), load_on(api) as load:
        load.wait_for(100)
        label = {"prediction_id": load.answers[0][1]["prediction_id"], "true_label": 0}
        assert api.post("/labels", label).status_code == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode in {0, -signal.SIGTERM}, output
        assert "Traceback" not in output
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        assert not (pgdata / "postmaster.pid").exists()
    server = ensure_running(pgdata)
    try:
        reachable = with_database(settings, server.url("postgres"))
        logged = logged_probabilities(reachable)
        assert logged == {row["prediction_id"]: float(row["probability"]) for row in journal_rows(settings)}
        assert {answer["prediction_id"] for _, answer in load.answers} <= set(logged)
        assert query(reachable, "SELECT prediction_id::text, true_label FROM label_store") == [
            (label["prediction_id"], 0)
        ]
    finally:
        release(pgdata)


# Starts that fail


@dataclass(frozen=True)
class Ended:
    """A process that ended by itself."""

    returncode: int
    output: str
    port: int


@pytest.fixture(scope="module", autouse=True)
def failing_starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, subprocess.Popen[str]]]]:
    """Started before the module's first test, so that nothing waits for them."""
    nobody_answers = f"postgresql://postgres:wordpass@127.0.0.1:{free_port()}/x"
    base = {"data_dir": tmp_path_factory.mktemp("failing") / "data", "use_case": "tests.toy_use_case:contract"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases: dict[str, dict[str, Any]] = {
            "wrong_setting": {"monitoring_interval": "soon", "api_workers": 2},
            "busy_port": {"api_port": taken.getsockname()[1]},
            "no_postgres": {"database_url": nobody_answers},
        }
        started: dict[str, tuple[int, subprocess.Popen[str]]] = {}
        for name, changes in cases.items():
            environment: dict[str, Any] = {"api_port": free_port()} | base | changes
            started[name] = environment["api_port"], start_process(Settings(_env_file=None), **environment)
        yield started
        for _, process in started.values():
            process.kill()
            process.wait()


@pytest.fixture
def ended(request: pytest.FixtureRequest, failing_starts: dict[str, tuple[int, subprocess.Popen[str]]]) -> Ended:
    """The failed start that the test names."""
    port, process = failing_starts[request.param]
    output, _ = process.communicate(timeout=90)
    return Ended(process.returncode, output, port)


@pytest.mark.parametrize(
    ("ended", "named"),
    [
        ("wrong_setting", ("MONITORING_INTERVAL=soon",)),
        ("busy_port", ("127.0.0.1:{port}", "API_PORT", "in use")),
    ],
    indirect=["ended"],
)
def test_what_is_configured_wrongly_is_told_in_one_line(ended: Ended, named: tuple[str, ...]) -> None:
    assert ended.returncode == WRONG_SETTING
    (line,) = ended.output.splitlines()
    assert line.startswith("selfheal: ")
    assert [part for part in named if part.format(port=ended.port) not in line] == []


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("USE_CASE", "tests.toy_use_case:derive", "not a ModelContract"),
        ("USE_CASE", "tests.no_such_use_case:contract", "no_such_use_case"),
        ("API_HOST", "192.0.2.1", "192.0.2.1:"),
        ("API_HOST", "no.such.host.invalid", "no.such.host.invalid:"),
    ],
)
def test_a_setting_that_turns_out_wrong_is_told_in_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, named: str
) -> None:
    monkeypatch.setenv("API_PORT", str(free_port()))
    monkeypatch.setenv("API_KEYS", "a-key-of-some-length")
    monkeypatch.setenv(name, value)
    assert main() == WRONG_SETTING
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert name in line


def test_a_start_without_postgres_waits_for_it_and_says_so_once_without_the_password(
    failing_starts: dict[str, tuple[int, subprocess.Popen[str]]],
) -> None:
    port, process = failing_starts["no_postgres"]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        health = eventually(lambda: answer_of(client), "it answers")
    assert (health.status_code, health.json()["status"]) == (503, "not_ready")
    assert "wordpass" not in health.text
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    told = [line for line in output.splitlines() if "promotions are not followed" in line]
    assert len(told) == 1
    assert "DATABASE_URL" in output
    assert "Traceback" not in output
    assert "wordpass" not in output


def answer_of(client: httpx.Client) -> httpx.Response | None:
    try:
        return client.get("/health")
    except httpx.TransportError:
        return None


def test_a_start_on_the_database_of_another_contract_gives_one_clear_error_and_no_traceback(
    api_settings: Settings,
) -> None:
    query(api_settings, "ALTER TABLE prediction_logs ALTER COLUMN restarts TYPE double precision")
    processes = [start_process(api_settings, api_port=free_port(), api_workers=n_workers) for n_workers in (1, 2)]
    for n_workers, process in enumerate(processes, 1):
        output, _ = process.communicate(timeout=90)
        assert process.returncode == STARTUP_FAILED
        told = [line for line in output.splitlines() if "prediction_logs.restarts is" in line]
        assert 1 <= len(told) <= n_workers
        assert "MLOPS_DB_NAME" in told[0]
        assert "Traceback" not in output
