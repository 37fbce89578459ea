"""A running `selfheal up` as its operator has it: started, looked at from outside, robbed of a process, started again.

Belongs here: which process is which, killing, waiting until it answers. Does not belong here: when what is killed
(`benchmarks.crash.processes`, `benchmarks.soak`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.stage import free_port, start
from selfheal.adapters.postgres.cluster import running_server

READY_TIMEOUT_SECONDS = 240.0
STOP_TIMEOUT_SECONDS = 60.0
START_TRIES = 3
"""A service manager starts again what ended with an error; nothing that lasts longer is "by itself"."""

PAUSE_BEFORE_RESTART_SECONDS = 2.0

PORTS = ("API_PORT", "DAGSTER_PORT", "MLFLOW_PORT", "CODE_SERVER_PORT")

ROLES: dict[str, tuple[str, ...]] = {
    "api": ("-m serving",),
    "code": ("dagster api grpc",),
    "webserver": ("selfheal_assets.webserver",),
    "daemon": ("selfheal_assets.daemon",),
    "mlflow": ("selfheal.adapters.mlflow_pages",),
    "run_worker": ("selfheal_assets.run_worker",),
}
"""Words in the command lines of the platform's processes."""

RUNS_QUERY = """
query Runs { runsOrError(limit: 200) { ... on Runs { results { runId jobName status endTime } } } }
"""
UNFINISHED = frozenset({"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"})


class PlatformIsStuckError(Exception):
    """It does not come up, or does not go on."""


@dataclass
class RunningPlatform:
    """One folder and the processes that run on it.

    Args:
        folder: below it are `data` and the log.
        environment: settings, beside the ports.
    """

    folder: Path
    environment: dict[str, str]
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in PORTS})
    up: psutil.Process | None = None
    n_starts: int = 0

    @property
    def data_dir(self) -> Path:
        """Return the platform's data folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Return the path of the log of `selfheal up`."""
        return self.folder / "up.log"

    @property
    def api_port(self) -> int:
        """Return the port of the API."""
        return self.ports["API_PORT"]

    def settings_environment(self) -> dict[str, str]:
        """Return the environment of every command on this platform."""
        ports = {name: str(port) for name, port in self.ports.items()}
        return {"DATA_DIR": str(self.data_dir), "LOG_LEVEL": "WARNING"} | ports | self.environment

    def start(self) -> None:
        """Start `selfheal up` and wait until it answers.

        Raises:
            PlatformIsStuckError: if it ends, or does not answer in time.
        """
        command = [sys.executable, "-m", "selfheal", "up"]
        self.up = start(command, self.log, self.settings_environment(), cwd=self.folder)  # a folder without `.env`
        self.n_starts += 1
        self.wait_until(self.answers, READY_TIMEOUT_SECONDS, "the platform answers")

    def ensure_up(self) -> int:
        """As a service manager: start again what has ended, a few times. Return how many starts it took.

        Raises:
            PlatformIsStuckError: if it does not come up.
        """
        for n_starts in range(START_TRIES + 1):
            try:
                if self.is_up:
                    self.wait_until(self.answers, READY_TIMEOUT_SECONDS, "the platform answers")
                else:
                    time.sleep(PAUSE_BEFORE_RESTART_SECONDS)
                    self.start()
            except PlatformIsStuckError:
                if n_starts == START_TRIES:
                    raise
            else:
                return n_starts
        raise AssertionError("it is up, or was not")

    @property
    def is_up(self) -> bool:
        """Return whether the process of `selfheal up` is running."""
        return self.up is not None and self.up.is_running() and self.up.status() != psutil.STATUS_ZOMBIE

    def answers(self) -> bool:
        """Return whether API, Dagster and MLflow answer, and are those of the present `up`: an earlier one may have left some."""
        paths = {"API_PORT": "/health/ready", "DAGSTER_PORT": "/server_info", "MLFLOW_PORT": "/health"}
        try:
            do_answer = all(
                httpx.get(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=5).status_code == 200
                for name, path in paths.items()
            )
        except httpx.HTTPError:
            return False
        return do_answer and any(self._is_below_up(process) for process in self.of_role("api"))

    def _is_below_up(self, process: psutil.Process) -> bool:
        try:
            return self.up is not None and self.up.pid in {parent.pid for parent in process.parents()}
        except psutil.Error:
            return False

    def wait_until(self, holds: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait; return how many seconds it took.

        Raises:
            PlatformIsStuckError: if it does not hold in time, or `selfheal up` has ended meanwhile.
        """
        began = time.monotonic()
        while not holds():
            if not self.is_up:
                raise PlatformIsStuckError(f"`selfheal up` has ended before {what}: {self.last_line()}")
            if time.monotonic() - began > seconds:
                raise PlatformIsStuckError(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.3)
        return time.monotonic() - began

    def last_line(self) -> str:
        """Return the last line of the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was written")

    def members(self) -> list[psutil.Process]:
        """Return every live process of the platform, those of an `up` that is gone included, and Postgres' postmaster."""
        found = []
        for process in psutil.process_iter(["pid"]):
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and self._is_ours(process):
                    found.append(process)
        postmaster = self.postmaster()
        return found if postmaster is None else [*found, postmaster]

    def of_role(self, role: str) -> list[psutil.Process]:
        """Return the live processes of a role: `up`, `postgres`, `run_worker`, or one of `ROLES`."""
        if role == "up":
            return [self.up] if self.is_up and self.up is not None else []
        if role == "postgres":
            postmaster = self.postmaster()
            return [] if postmaster is None else [postmaster]
        return self._with_words(role)

    def postmaster(self) -> psutil.Process | None:
        """Return the main process of the embedded Postgres, if it runs."""
        server = running_server(self.data_dir / "postgres")
        try:
            return None if server is None else psutil.Process(server.pid)
        except psutil.NoSuchProcess:
            return None

    def runs(self) -> list[dict[str, Any]]:
        """Return Dagster's newest runs.

        Raises:
            httpx.HTTPError: if Dagster does not answer.
        """
        return runs_of(self.ports["DAGSTER_PORT"])

    def has_ticked_since(self, moment: float) -> bool:
        """Return whether a monitoring run that ended after that moment (Unix seconds) has succeeded."""
        return has_ticked_since(moment, self.runs)

    def stop(self) -> list[psutil.Process]:
        """Stop as Ctrl-C does; return what is alive after that."""
        if self.is_up and self.up is not None:
            self.up.send_signal(signal.SIGINT)
            psutil.wait_procs([self.up], timeout=STOP_TIMEOUT_SECONDS)
        return self._left_after(5.0)

    def kill_everything(self) -> None:
        """SIGKILL to all that is left."""
        left = self.members()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)

    def _left_after(self, seconds: float) -> list[psutil.Process]:
        deadline = time.monotonic() + seconds
        while (left := self.members()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _is_ours(self, process: psutil.Process) -> bool:
        return process.pid != os.getpid() and process.environ().get("DATA_DIR") == str(self.data_dir)

    def _with_words(self, role: str) -> list[psutil.Process]:
        """Return the topmost processes of a role: what they forked has the same command line."""
        found = [process for process in self.members() if _has_word(process, ROLES[role])]
        numbers = {process.pid for process in found}
        return [process for process in found if _parent(process) not in numbers]


def runs_of(dagster_port: int, api_key: str | None = None) -> list[dict[str, Any]]:
    """Return Dagster's newest runs.

    Raises:
        httpx.HTTPError: if Dagster does not answer.
    """
    url, headers = f"http://127.0.0.1:{dagster_port}/graphql", {} if api_key is None else {"X-API-Key": api_key}
    answer = httpx.post(url, json={"query": RUNS_QUERY}, headers=headers, timeout=15).raise_for_status().json()
    runs: list[dict[str, Any]] = answer["data"]["runsOrError"].get("results", [])
    return runs


def has_ticked_since(moment: float, runs: Callable[[], list[dict[str, Any]]]) -> bool:
    """Return whether a monitoring run that ended after that moment (Unix seconds) has succeeded; False if nothing answers."""
    try:
        found = runs()
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False
    return any(
        run["jobName"] == "monitoring_job" and run["status"] == "SUCCESS" and (run["endTime"] or 0) > moment
        for run in found
    )


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _has_word(process: psutil.Process, words: Iterable[str]) -> bool:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return any(word in line for word in words)
