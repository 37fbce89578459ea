"""API processes that share a data folder, and the clients at their doors.

Belongs here: starting, killing and replacing a process. Does not belong here: when it is killed (`benchmarks.crash.api_kills`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import psutil

from benchmarks.crash.ordeal import Ordeal
from benchmarks.stage import (
    START_TIMEOUT_SECONDS,
    api_command,
    api_environment,
    free_port,
    start,
)
from benchmarks.witness import Client, Door, Ledger

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

N_DOORS = 4
CONNECTIONS_A_DOOR = 16
N_ROWS = 5_000
BATCH_ROWS = 10

JOURNAL_MAX_MB, INGEST_INTERVAL_SECONDS = "0.3", "0.2"
"""Small, so that files are rotated, copied and compressed while processes are killed."""

KILL_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Scene:
    """What every part of the ordeal works with."""

    platform: Platform
    ledger: Ledger
    ordeal: Ordeal
    folder: Path
    starter: WarmStarter

    @property
    def log(self) -> Path:
        """Return the path of the log that all API processes share."""
        return self.folder / "api.log"

    def environment(self, port: int, **changes: str) -> dict[str, str]:
        """Return the environment of an API process on this port, with `changes` to its settings."""
        own = {"JOURNAL_MAX_MB": JOURNAL_MAX_MB, "INGEST_INTERVAL_SECONDS": INGEST_INTERVAL_SECONDS}
        return api_environment(self.platform.settings, port, **own, **changes)


@dataclass(slots=True)
class Api:
    """The API processes behind one door, one after the other."""

    door: Door
    scene: Scene
    changes: dict[str, str]
    process: psutil.Process | None = None

    def start(self, command: list[str] | None = None) -> None:
        """`python -m serving`, or another command."""
        self.process = start(command or api_command(), self.scene.log, self._environment())
        self.door.is_cold = True

    def start_warm(self) -> None:
        """Fork an API process whose imports are done."""
        self.process = self.scene.starter.start(self._environment())
        self.door.is_cold = False

    def kill(self) -> int:
        """SIGKILL; returns the process number once the process is gone."""
        assert self.process is not None, "it was not started"
        self.door.note_closed()
        self.process.kill()
        self.process.wait(KILL_TIMEOUT_SECONDS)
        return self.process.pid

    def check(self) -> None:
        """Check that the process is still running.

        Raises:
            RuntimeError: if it has ended by itself.
        """
        if self.process is None or not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE:
            end = self.scene.log.read_text()[-3_000:]
            raise RuntimeError(f"an API process ended by itself; the end of {self.scene.log}:\n{end}")

    def _environment(self) -> dict[str, str]:
        return self.scene.environment(self.door.port, **self.changes)


class WarmStarter:
    """Forks API processes whose imports are done (`benchmarks.warm_start`)."""

    def __init__(self, log: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.warm_start"]
        with log.open("ab") as output:
            self._parent = subprocess.Popen(  # noqa: S603  (our own command, no shell)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True, start_new_session=True
            )

    def start(self, environment: dict[str, str]) -> psutil.Process:
        """Fork an API process with this environment, and return it."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(environment) + "\n")
        self._parent.stdin.flush()
        return psutil.Process(int(self._parent.stdout.readline()))

    def close(self) -> None:
        """Kill the process that forks the others, and wait for its end."""
        self._parent.kill()
        self._parent.communicate()


@contextlib.asynccontextmanager
async def under_load(
    scene: Scene,
    *,
    n_doors: int = 1,
    command: list[str] | None = None,
    changes: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[list[Api]]:
    """Run API processes with clients of each; stop both when the context closes.

    Args:
        command: what to run instead of a warm `python -m serving`.
    """
    apis = [Api(Door(free_port()), scene, dict(changes)) for _ in range(n_doors)]
    clients: list[asyncio.Task[None]] = []
    try:
        for api in apis:
            if command is None:
                api.start_warm()
            else:
                api.start(command)
        doors = [api.door for api in apis]
        clients += [
            asyncio.create_task(client_of(scene.ledger, doors, home, number).run())
            for home in range(n_doors)
            for number in range(CONNECTIONS_A_DOOR)
        ]
        yield apis
    finally:
        for task in clients:
            task.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        for api in apis:
            if api.process is not None and api.process.is_running():
                api.process.kill()
                api.process.wait(KILL_TIMEOUT_SECONDS)
        failures = [error for error in ended if isinstance(error, Exception)]
        if failures:
            raise failures[0]


def client_of(ledger: Ledger, doors: Sequence[Door], home: int, number: int) -> Client:
    """Every kind of client is at each door: one row or a batch, with own ids or without, faithful to its door or not."""
    return Client(
        ledger,
        doors,
        home,
        n_rows=BATCH_ROWS if number % 8 >= 6 else 1,
        has_own_ids=number % 2 == 1,
        goes_elsewhere=number % 4 == 1,
    )


async def until(condition: Callable[[], bool], apis: Sequence[Api], what: str) -> float:
    """Wait until the condition holds, and return the seconds it took.

    Raises:
        RuntimeError: if it takes longer than a start may, or an API process ends meanwhile.
    """
    began = time.monotonic()
    while not condition():
        for api in apis:
            api.check()
        if time.monotonic() - began > START_TIMEOUT_SECONDS:
            raise RuntimeError(f"not within {START_TIMEOUT_SECONDS:.0f} s: {what}")
        await asyncio.sleep(0.02)
    return time.monotonic() - began
