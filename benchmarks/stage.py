"""Set-up shared by benchmarks: a platform of their own with trained versions, API processes, and rows to send.

Belongs here: setting up and taking down. Does not belong here: sending (`benchmarks.load`) and measuring.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console

from selfheal.adapters.datasets import Dataset, load_dataset
from selfheal.adapters.postgres.baseline import write_baseline
from selfheal.domain.contract import ModelContract
from selfheal.domain.records import Trigger
from selfheal.kit.child_processes import log_end, with_our_programs
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.final_validation import validate
from selfheal.services.promotion.going_live import promote, stage
from selfheal.services.retraining import decide_retraining, gather_training_set, judge, train_shadow
from selfheal.settings import Settings, load_settings
from selfheal.simulate.traffic import request_bodies

START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 30.0


def prepare(
    folder: Path, data: Path | None, console: Console, *, n_rows: int | None = None
) -> tuple[Platform, Dataset]:
    """Set up a platform below `folder` with version 1 in production and version 2 staged.

    Version 1 is trained on the CSV (None: on synthetic rows), version 2 on half of the rows. The platform has its own Postgres;
    `Platform.close` stops it.
    """
    settings = load_settings(
        data_dir=folder / "data", data=data, data_rows=n_rows, database_url=None, postgres_host=None
    )
    platform = open_platform(settings)
    dataset = load_dataset(settings, platform.contract)
    console.print(f"Training two versions on {dataset.description}")
    now = datetime.now(UTC)
    write_baseline(platform.store, dataset.frame, dataset.description, now, settings.data_dir)
    decision = decide_retraining(
        platform, Trigger.BOOTSTRAP, episode_id=None, actor="benchmark", reason="benchmark", now=now
    )
    rows = gather_training_set(platform, decision, dataset, decision.created_at)
    promote(platform, judge(platform, train_shadow(platform, rows, now), rows, now), now)
    half = replace(dataset, frame=dataset.frame.head(len(dataset.frame) // 2), sha256=f"{dataset.sha256}-half")
    other_rows = gather_training_set(platform, decision, half, decision.created_at)
    shadow = train_shadow(platform, other_rows, now)
    stage(platform, shadow, decision, now)
    validate(platform, shadow)  # as a promotion does: afterwards its file is on this machine
    return platform, dataset


def request_rows(dataset: Dataset, contract: ModelContract, n_rows: int) -> list[dict[str, Any]]:
    """Return `n_rows` request bodies from the data set's rows, repeated from the first if there are fewer."""
    bodies = [body for body, _ in request_bodies(dataset.frame.head(n_rows), contract)]
    return [bodies[i % len(bodies)] for i in range(n_rows)]


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def server(command: list[str], ready_url: str, log: Path, **environment: str) -> Iterator[psutil.Process]:
    """Run a command until the context ends; enter the context once `ready_url` answers with a status below 400."""
    process = start(command, log, environment)
    try:
        wait_until_ready(process, ready_url, log)
        yield process
    finally:
        stop(process)


def start(command: list[str], log: Path, environment: Mapping[str, str], cwd: Path | None = None) -> psutil.Process:
    """Start a command whose first word is a Python interpreter, with that interpreter's programs on its PATH."""
    with log.open("ab") as output:
        return psutil.Popen(
            command,
            env=with_our_programs(os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment), command[0]),
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until_ready(process: psutil.Process, ready_url: str, log: Path) -> None:
    """Wait until the URL answers; raise if the process ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(ready_url, timeout=5).status_code < 400:
                return
        except httpx.TransportError:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                break
        time.sleep(0.05)
    raise RuntimeError(f"the server for {ready_url} did not start; the end of {log}:\n{log_end(log)}")


def stop(process: psutil.Process, signum: int = signal.SIGTERM) -> None:
    """Stop the process and all of its descendants."""
    members = [process, *process.children(recursive=True)] if process.is_running() else []
    if members:
        process.send_signal(signum)
    _, alive = psutil.wait_procs(members, timeout=STOP_TIMEOUT_SECONDS)
    for member in alive:
        member.kill()


def api_command() -> list[str]:
    """Return the command that serves the API."""
    return [sys.executable, "-m", "serving"]


def api_environment(settings: Settings, port: int, **changes: str) -> dict[str, str]:
    """Return the environment of an API process on this platform's data folder."""
    return {
        "DATA_DIR": str(settings.data_dir.resolve()),
        "USE_CASE": settings.use_case,
        "API_PORT": str(port),
        "LOG_LEVEL": "WARNING",
    } | changes
