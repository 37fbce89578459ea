"""The real API over a loopback socket, in a thread or as a process, and what its clients and its journal saw.

Belongs here: starting, stopping, asking, reading back. Does not belong here: any rule (the tests say those).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from selfheal.adapters.journal import LABEL_JOURNAL, JournalKind, prediction_journal, read_chunk
from selfheal.adapters.postgres.model_versions import model_version, production_version, register_staging
from selfheal.domain.contract import ModelContract, load_contract
from selfheal.services.platform import Platform, open_platform
from selfheal.services.scoring import scoring_of
from selfheal.settings import Settings
from selfheal.simulate.traffic import request_bodies
from serving.__main__ import IDLE_CONNECTION_TIMEOUT_SECONDS
from serving.app import create_app
from serving.asgi import AsgiApplication
from serving.scoring.http_fast_path import FastPathProtocol
from tests import toy_use_case
from tests.traffic import toy_rows
from tests.waiting import TIMEOUT_SECONDS, eventually

REPOSITORY = Path(__file__).parents[2]
START_PATIENCE_SECONDS = 120.0
"""For processes that import everything, several of them on a busy machine."""


# Starting


@dataclass(frozen=True)
class Api:
    """A running API and a client of it; `app` if it runs in this process."""

    settings: Settings
    client: httpx.Client
    app: FastAPI | None = None

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get("/health").json()
        return answer

    def info(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get("/model/info").json()
        return answer


@contextmanager
def api_in_thread(settings: Settings, **options: Any) -> Iterator[Api]:
    """The app under uvicorn, in a thread of this process; stopped in order at the end.

    Args:
        options: of uvicorn, where they differ from those of `python -m serving`; `http=StrictHttpProtocol` is the way without a
            shortcut.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings)
    as_served: dict[str, Any] = {
        "http": FastPathProtocol,
        "proxy_headers": False,
        "log_config": None,
        "lifespan": "on",
        "timeout_keep_alive": IDLE_CONNECTION_TIMEOUT_SECONDS,
    }
    server = uvicorn.Server(uvicorn.Config(AsgiApplication(app), **(as_served | options)))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive(), "the API starts or gives up")
        assert server.started, "the API did not start"
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=TIMEOUT_SECONDS) as client:
            yield Api(settings, client, app)
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_SECONDS)
        assert not thread.is_alive(), "the API did not stop"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def environment_of(settings: Settings, **changes: Any) -> dict[str, str]:
    """The environment under which a process has these settings."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set} | changes
    plain = {
        name.upper(): str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
        for name, value in given.items()
        if value is not None
    }
    return os.environ | plain | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def start_process(settings: Settings, *, max_open_files: int | None = None, **changes: Any) -> subprocess.Popen[str]:
    """`python -m serving` in a session of its own, not waited for; `max_open_files` is its `ulimit -n`."""
    limited = [] if max_open_files is None else ["sh", "-c", f'ulimit -n {max_open_files} && exec "$@"', "limited"]
    return subprocess.Popen(
        [*limited, sys.executable, "-m", "serving"],
        env=environment_of(settings, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextmanager
def api_process(
    settings: Settings, *, max_open_files: int | None = None, **changes: Any
) -> Iterator[tuple[Api, subprocess.Popen[str]]]:
    """`python -m serving`, ready to score; killed at the end if it is still there."""
    port = free_port()
    process = start_process(settings, max_open_files=max_open_files, api_port=port, **changes)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_SECONDS) as client:
            is_decided = lambda: process.poll() is not None or _is_ready(client)  # noqa: E731
            eventually(is_decided, "the process serves or ends", START_PATIENCE_SECONDS)
            assert process.poll() is None, process.stdout and process.stdout.read()
            yield Api(settings, client), process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def bring_version_1(source: Settings, target: Settings) -> None:
    """Puts version 1 in production on another, empty Postgres; its file is in the data folder's cache already."""
    opened = open_platform(source)
    version = production_version(opened.store)
    opened.close()
    assert version is not None
    opened = open_platform(target)
    register_staging(opened.store, version)
    opened.close()


# Asking


def bodies(n_rows: int, seed: int = 5) -> list[dict[str, Any]]:
    """Request bodies of the toy use case, some with a missing temperature."""
    return [body for body, _ in request_bodies(toy_rows(n_rows, seed), toy_use_case.contract)]


def expected_probabilities(platform: Platform, version: int, rows: Sequence[dict[str, Any]]) -> list[float]:
    """What the version's model says of each row alone, loaded here and asked without the API."""
    import pandas as pd

    registered = model_version(platform.store, version)
    assert registered is not None
    frame = pd.DataFrame(list(rows), columns=list(platform.contract.input_names)).astype("float64")
    matrix = platform.contract.feature_frame(frame).to_numpy(dtype="float64")
    scoring = scoring_of(platform, registered)
    return [float(scoring(row[np.newaxis])[0]) for row in matrix]


@dataclass
class Load:
    """Clients that post one row after the other until told to stop, and what they were answered."""

    answers: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def wait_for(self, n_more: int) -> None:
        target = len(self.answers) + n_more
        eventually(lambda: len(self.answers) >= target or self.failures, f"{n_more} more answers")


@contextmanager
def load_on(api: Api, n_clients: int = 4) -> Iterator[Load]:
    """Keeps `n_clients` busy while the context is open. A client ends at its first failure, which is kept."""
    load = Load()
    stop = threading.Event()

    def work(rows: list[dict[str, Any]]) -> None:
        with httpx.Client(base_url=api.client.base_url, timeout=TIMEOUT_SECONDS) as client:
            while not stop.is_set():
                for row in rows:
                    try:
                        answer = client.post("/predict", json=row)
                        answer.raise_for_status()
                    except httpx.HTTPError as error:
                        load.failures.append(f"{type(error).__name__}: {error}")
                        return
                    load.answers.append((row, answer.json()))
                    if stop.is_set():
                        return

    threads = [threading.Thread(target=work, args=(bodies(50, seed),)) for seed in range(n_clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)


# Reading back


def with_database(settings: Settings, url: str) -> Settings:
    """The same settings on another server."""
    return settings.model_copy(update={"database_url": SecretStr(url)})


def journal_rows(settings: Settings, kind: JournalKind | None = None) -> list[dict[str, str]]:
    """Everything in a journal's files, as text, the oldest first. Default: the prediction journal."""
    kind = kind or prediction_journal(contract_of(settings))
    rows: list[dict[str, str]] = []
    for path in kind.files(settings.data_dir):
        chunk = read_chunk(path, 0)
        assert not chunk.corrupt
        rows.extend(dict(zip(chunk.columns, line.decode().split(","), strict=True)) for line in chunk.lines)
    return rows


def label_rows(settings: Settings) -> list[dict[str, str]]:
    return journal_rows(settings, LABEL_JOURNAL)


def query(settings: Settings, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of the platform's database."""
    url = settings.external_database_url(settings.mlops_db_name)
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql, parameters)
        return [] if cursor.description is None else cursor.fetchall()


def logged_probabilities(settings: Settings) -> dict[str, float]:
    """Probability by prediction id, as Postgres has it."""
    rows = query(settings, "SELECT prediction_id::text, probability FROM prediction_logs")
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def contract_of(settings: Settings) -> ModelContract:
    return load_contract(settings.use_case)
