"""`API_WORKERS=2`: two processes that share an address, a DATA_DIR and a Postgres, and lose nothing when one is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import force_promote
from tests.conftest import WITH_MLFLOW
from tests.serving.conftest import TWO_VERSIONS, clone
from tests.serving.observability.test_metrics import Samples, scrape
from tests.serving.raw_http import connected, post
from tests.serving.running import (
    REPOSITORY,
    START_PATIENCE_SECONDS,
    TIMEOUT_SECONDS,
    Api,
    api_process,
    bodies,
    journal_rows,
    logged_probabilities,
)
from tests.times import T0
from tests.waiting import eventually

N_WORKERS = 2


@pytest.fixture(scope="module")
def running(
    server: EmbeddedServer, two_versions_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Api, subprocess.Popen[str]]]:
    """`python -m serving` with two workers, version 1 in production and version 2 staged."""
    data_dir = tmp_path_factory.mktemp("workers") / "data"
    settings = clone(server, TWO_VERSIONS, two_versions_template, "workers", data_dir, WITH_MLFLOW)
    with api_process(settings, api_workers=N_WORKERS) as (api, process):
        eventually(lambda: both_have_answered(api, process), "each worker answers and tells", START_PATIENCE_SECONDS)
        yield api, process


def workers_of(process: subprocess.Popen[str]) -> set[int]:
    found = set()
    for one in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # of which a zombie is one
            found |= {one.pid for word in one.cmdline() if "spawn_main" in word}
    return found


def by_worker(samples: Samples, name: str) -> dict[int, float]:
    """A metric's sum for each worker."""
    found: dict[int, float] = {}
    for (sample, labels), number in samples.items():
        if sample == name:
            worker = int(dict(labels)["worker"])
            found[worker] = found.get(worker, 0.0) + number
    return found


def n_told(api: Api) -> float:
    return sum(by_worker(scrape(api), "selfheal_predictions_total").values())


def both_have_answered(api: Api, process: subprocess.Popen[str]) -> bool:
    ask_alone(api, bodies(1)[0])
    shown = by_worker(scrape(api), "selfheal_predictions_total")
    return {worker for worker, count in shown.items() if count > 0} == workers_of(process)


def ask_alone(api: Api, row: dict[str, Any]) -> dict[str, Any]:
    """On a connection of its own, which either worker may take."""
    with connected(api) as connection:
        connection.send(post(row))
        answer = connection.answer()
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.json()
    return body


def test_both_workers_answer_and_the_metrics_of_both_are_told_by_each(
    running: tuple[Api, subprocess.Popen[str]],
) -> None:
    api, process = running
    assert len(workers_of(process)) == N_WORKERS
    for row in bodies(40):
        ask_alone(api, row)
    n_acknowledged = len(journal_rows(api.settings))  # not what the metrics said before: a worker tells now and then
    assert n_acknowledged >= 40
    eventually(lambda: n_told(api) == n_acknowledged, "all are counted, and by one worker each")
    assert by_worker(scrape(api), "selfheal_ready") == dict.fromkeys(workers_of(process), 1.0)


def test_a_connection_that_was_idle_for_as_long_as_clients_keep_theirs_still_answers(
    running: tuple[Api, subprocess.Popen[str]],
) -> None:
    """Closed by the service at the moment in which a client uses it again, it would cost that request."""
    api, _ = running
    (row,) = bodies(1)
    with connected(api) as connection:
        for pause in (0.0, 6.0):
            time.sleep(pause)
            connection.send(post(row))
            assert connection.answer().status == 200


def test_one_worker_copies_for_both(running: tuple[Api, subprocess.Popen[str]]) -> None:
    api, _ = running
    ids = {ask_alone(api, row)["prediction_id"] for row in bodies(40)}
    eventually(lambda: ids <= logged_probabilities(api.settings).keys(), "the journal is copied")
    files = [path for path in (api.settings.data_dir / "audit" / "predictions").iterdir() if path.suffix == ".csv"]
    assert len(files) >= N_WORKERS, "each worker has a journal file of its own"


@pytest.fixture
def platform(running: tuple[Api, subprocess.Popen[str]]) -> Iterator[Platform]:
    opened = open_platform(running[0].settings)
    yield opened
    opened.close()


def test_both_workers_follow_a_promotion(running: tuple[Api, subprocess.Popen[str]], platform: Platform) -> None:
    api, _ = running
    force_promote(platform, 2, reason="better", actor="test", now=T0)
    eventually(lambda: {ask_alone(api, bodies(1)[0])["model_version"] for _ in range(20)} == {2}, "both serve it")


@dataclass
class Stubborn:
    """What clients were answered that send a request again, under the same id, until it is answered."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    n_broken: int = 0

    def wait_for(self, n_more: int) -> None:
        target = len(self.answers) + n_more
        eventually(lambda: len(self.answers) >= target, f"{n_more} more answers")


@contextmanager
def stubborn_clients(api: Api, n_clients: int = 6) -> Iterator[Stubborn]:
    told, stop = Stubborn(), threading.Event()

    def work(rows: list[dict[str, Any]]) -> None:
        client = httpx.Client(base_url=api.client.base_url, timeout=TIMEOUT_SECONDS)
        while not stop.is_set():
            for row in rows:
                prediction_id = str(uuid4())
                while prediction_id not in told.answers and not stop.is_set():
                    try:
                        answer = client.post("/predict", json=row | {"prediction_id": prediction_id})
                        assert answer.status_code == 200, answer.text
                        told.answers[prediction_id] = answer.json()
                    except httpx.TransportError:
                        told.n_broken += 1
                        client.close()
                        client = httpx.Client(base_url=api.client.base_url, timeout=TIMEOUT_SECONDS)
        client.close()

    threads = [threading.Thread(target=work, args=(bodies(50, seed),)) for seed in range(n_clients)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)


def test_killing_a_worker_loses_no_answer_and_another_takes_its_place(
    running: tuple[Api, subprocess.Popen[str]],
) -> None:
    api, process = running
    killed: set[int] = set()
    with stubborn_clients(api) as told:
        told.wait_for(100)
        while not told.n_broken:  # one that had no client, or none with a request under way, breaks nothing
            victim = min(workers_of(process))
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
            eventually(lambda: len(workers_of(process) - killed) == N_WORKERS, "there are two again")
            told.wait_for(50)
        told.wait_for(50)
    expected = {one: answer["probability"] for one, answer in told.answers.items()}
    eventually(lambda: expected.keys() <= logged_probabilities(api.settings).keys(), "the journal is copied")
    logged = logged_probabilities(api.settings)
    assert {one: logged[one] for one in expected} == expected
    assert expected.keys() <= {row["prediction_id"] for row in journal_rows(api.settings)}


def test_sigterm_stops_all_and_everything_answered_is_in_postgres(
    running: tuple[Api, subprocess.Popen[str]],
) -> None:
    """The last of the module: it ends what the others use."""
    api, process = running
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    ids = {ask_alone(api, row)["prediction_id"] for row in bodies(20)}
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=START_PATIENCE_SECONDS)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    _, alive = psutil.wait_procs(family, timeout=TIMEOUT_SECONDS)
    assert alive == []
    assert ids <= logged_probabilities(api.settings).keys()


def serve_nothing() -> None:
    """A worker as uvicorn starts it, up to where the application would be made."""
    from serving import asgi

    def wait(_: object) -> None:
        os.write(sys.stdout.fileno(), f"{os.getpid()}\n".encode())
        time.sleep(60)

    asgi.create_app = wait  # type: ignore[assignment]
    asgi.served()


PARENT = """
import multiprocessing
from tests.serving.test_workers import serve_nothing
if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=serve_nothing).start()
"""


def test_workers_end_with_their_parent_which_nobody_else_would_tell_to_stop(tmp_path: Path) -> None:
    """Otherwise they hold the port, and the next start is refused."""
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.stdout.close()
    assert psutil.wait_procs([worker], timeout=TIMEOUT_SECONDS)[1] == []
