"""The processes of one `selfheal up`, found by a mark in their environment, which each inherits from the one that started it.

A number in a file may be another program's by now, and a parent may be dead; what a process was started with stays. The embedded
Postgres has the mark too and is left out: its users count themselves (`selfheal.adapters.postgres.embedded`).

`python -m selfheal.adapters.marked_processes FOLDER START [PGDATA]` is the reaper: it waits until `up`, which holds the other end
of its standard input, has ended, however that was, and ends what it left running.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

FOLDER_VARIABLE, START_VARIABLE = "SELFHEAL_UP_FOLDER", "SELFHEAL_UP_START"
POSTGRES = "postgres"

END_GRACE_SECONDS = 10.0
"""For a run to be recorded as stopped, and a request to be answered; then a process is killed."""

MAX_ROUNDS = 5
"""A process may start another one while it is being ended."""


def mark(folder: Path, start: str) -> dict[str, str]:
    """Return the environment variables that mark the processes of one start of the platform in this folder."""
    return {FOLDER_VARIABLE: str(folder), START_VARIABLE: start}


def marked_by(folder: Path, is_wanted: Callable[[str], bool]) -> list[psutil.Process]:
    """Return the live processes of starts in this folder that are wanted; without this process and the embedded server.

    Those of another user cannot be seen.
    """
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            is_ours = environment.get(FOLDER_VARIABLE) == str(folder) and is_wanted(environment.get(START_VARIABLE, ""))
            if is_ours and process.pid != os.getpid() and process.name() != POSTGRES:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_all(find: Callable[[], Sequence[psutil.Process]], grace_seconds: float = END_GRACE_SECONDS) -> list[int]:
    """End the processes that `find` returns, and those that they start meanwhile; return the numbers of all.

    Args:
        grace_seconds: how long they may take to end by themselves before they are killed.
    """
    ended: list[int] = []
    for _ in range(MAX_ROUNDS):
        processes = find()
        if not processes:
            break
        ended += [process.pid for process in processes]
        _send(processes, signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, timeout=grace_seconds)
        _send(alive, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=grace_seconds)
    return ended


def _send(processes: Sequence[psutil.Process], signum: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(signum)
        except psutil.Error:
            continue


def reap(folder: Path, start: str, pgdata: Path | None) -> None:
    """Wait for the end of `up`, then end what is left of this start, and the embedded server if nobody uses it any more."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_all(lambda: marked_by(folder, lambda found: found == start))
    if pgdata is not None:
        from selfheal.adapters.postgres import embedded

        embedded.stop_if_unused(pgdata)


if __name__ == "__main__":
    reap(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]) if len(sys.argv) > 3 else None)
