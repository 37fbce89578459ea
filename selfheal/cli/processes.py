"""A process supervisor: programs run side by side, each is restarted alone with back-off, and all are stopped together.

Each program is a process group of its own. What a program leaves of its group when it ends is ended too, so that its successor
finds the port free.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO

from selfheal.kit.backoff import Backoff

POLL_SECONDS = 0.1

RESTART_BACKOFF = Backoff(initial_seconds=1.0, max_seconds=30.0)
"""Before the second restart in a row and each later one. The first comes at once."""

STEADY_SECONDS = 20.0
"""A program that ran for so long did start: what ends it then is a new failure, not the same one again."""

MAX_FAILURES = 6
"""In a row, for a program that ends by itself. It will not start by being started once more."""

WRONG_SETTING = 2
"""The exit code of a program that cannot run as it is configured."""

STOP_TIMEOUT_SECONDS = 12.0
"""Longer than the API takes to answer the requests in progress; then what still runs is killed."""

COLOURS = (36, 33, 32, 35, 34)
"""ANSI: cyan, yellow, green, magenta, blue."""


@dataclass(frozen=True)
class Program:
    """What is run under a name."""

    name: str
    command: Sequence[str]
    may_start: Callable[[], bool] = lambda: True
    """Asked before each start, every `POLL_SECONDS`."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """What it has besides the environment of all."""


def pause_before_restart(returncode: int, n_failures: int, *, is_first_start: bool) -> float | None:
    """Return after how many seconds a program that has ended is started again; None: it is not, and the others stop, too.

    Args:
        returncode: negative if a signal ended it; then it is always started again.
        n_failures: how often it has ended in a row, this time included, before it had run for `STEADY_SECONDS`.
        is_first_start: whether it has been started once only.

    >>> [pause_before_restart(-9, n, is_first_start=False) for n in (1, 2, 3, 9)]
    [0.0, 1.0, 2.0, 30.0]
    >>> pause_before_restart(1, MAX_FAILURES + 1, is_first_start=False) is None
    True
    """
    if returncode == WRONG_SETTING and is_first_start:
        return None
    if returncode >= 0 and n_failures > MAX_FAILURES:
        return None
    return 0.0 if n_failures == 1 else RESTART_BACKOFF.seconds(n_failures - 1)


class Printer:
    """Writes the lines of all programs to one stream, each with time and name."""

    def __init__(self, names: Sequence[str], stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._width = max(len(name) for name in (*names, "system"))
        self._colours = dict(zip(names, COLOURS, strict=False)) if self._stream.isatty() else {}
        self._writing = threading.Lock()

    def write(self, name: str, line: str) -> None:
        """Write one line; a reader that has closed the stream is no reason to stop."""
        prefix = f"{datetime.now(UTC).astimezone():%H:%M:%S} {name:{self._width}} | "
        colour = self._colours.get(name)
        shown = prefix if colour is None else f"\033[{colour}m{prefix}\033[0m"
        with self._writing, contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{shown}{line.rstrip()}\n")
            self._stream.flush()


@dataclass
class _Running:
    """A program with its present process."""

    program: Program
    process: subprocess.Popen[str] | None = None
    started_at: float = 0.0
    n_starts: int = 0
    n_failures: int = 0
    due_at: float = 0.0
    """When it is started next, if it does not run."""


class Supervisor:
    """Runs programs until it is told to stop, or one of them cannot be run."""

    def __init__(self, programs: Sequence[Program], environment: Mapping[str, str], printer: Printer) -> None:
        self._running = [_Running(program) for program in programs]
        self._environment = dict(environment)
        self._printer = printer
        self._is_stopping = False  # not an Event, whose lock the code that a signal interrupts may hold

    def stop(self) -> None:
        """Have `run` stop all programs and return. May be called by a signal handler or another thread."""
        self._is_stopping = True

    def run(self) -> int:
        """Run until `stop` is called: 0; or until a program cannot be run: its exit code."""
        try:
            while not self._is_stopping:
                for running in self._running:
                    code = self._attend(running)
                    if code is not None:
                        return code
                time.sleep(POLL_SECONDS)
            return 0
        finally:
            self._stop_all()

    def _attend(self, running: _Running) -> int | None:
        """Start what is due, notice what has ended; return the exit code of a program that is not to be restarted."""
        if running.process is None:
            if time.monotonic() >= running.due_at and running.program.may_start():
                self._start(running)
            return None
        code = running.process.poll()
        if code is None:
            return None
        _kill_group(running.process.pid)
        has_been_steady = time.monotonic() - running.started_at >= STEADY_SECONDS
        running.n_failures = 1 if has_been_steady else running.n_failures + 1
        running.process = None
        pause = pause_before_restart(code, running.n_failures, is_first_start=running.n_starts == 1)
        name = running.program.name
        if pause is None:
            self._printer.write(
                "system", f"{name} has ended with exit code {code} and cannot be run: everything is stopped"
            )
            return code or 1
        running.due_at = time.monotonic() + pause
        self._printer.write("system", f"{name} has ended ({_described(code)}); it is started again in {pause:g} s")
        return None

    def _start(self, running: _Running) -> None:
        running.process = subprocess.Popen(  # noqa: S603  (our own commands, no shell)
            running.program.command,
            env={**self._environment, **running.program.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        running.started_at = time.monotonic()
        running.n_starts += 1
        name, output = running.program.name, running.process.stdout
        self._printer.write("system", f"{name} started (process {running.process.pid})")
        threading.Thread(target=self._print_lines, args=(name, output), daemon=True).start()

    def _print_lines(self, name: str, output: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in output:
                self._printer.write(name, line)

    def _stop_all(self) -> None:
        """End all process groups, the programs first by themselves; whoever takes too long is killed."""
        processes = [running.process for running in self._running if running.process is not None]
        for process in processes:
            _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
        for process in processes:
            _kill_group(process.pid)
            process.wait()


@contextmanager
def stop_on_signals(supervisor: Supervisor) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGHUP stop the supervisor, within this block."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.signal(signum, lambda *_: supervisor.stop()) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _kill_group(pid: int) -> None:
    _signal_group(pid, signal.SIGKILL)


def _signal_group(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _described(returncode: int) -> str:
    return f"exit code {returncode}" if returncode >= 0 else signal.Signals(-returncode).name
