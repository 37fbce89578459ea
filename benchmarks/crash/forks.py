"""A piece of work in a process of its own: forked, leading a session, and what it says survives its death.

Belongs here: forking, killing, and the messages between the two. Does not belong here: what is done there.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

DEADLINE_SECONDS = 120.0
"""A child that takes longer is killed: whatever it waits for will not come."""

BEGINS = "begins"
"""The message from which on the time until a kill is counted."""


class Pipe:
    """The child's end. Unbuffered: what was sent survives the sender."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, kind: str, value: Any = True) -> None:
        """Send one message: its length in a line, then its bytes."""
        data = pickle.dumps((kind, value))
        message = memoryview(json.dumps(len(data)).encode() + b"\n" + data)
        while message:
            message = message[os.write(self._descriptor, message) :]


@dataclass(frozen=True)
class Ended:
    """A child that has ended, and what it said before."""

    pid: int
    status: int
    said: list[tuple[str, Any]]

    def messages(self, kind: str) -> list[Any]:
        """Return the values of its messages of one kind, in the order sent."""
        return [value for name, value in self.said if name == kind]

    @property
    def last_words(self) -> str:
        """Return why it ended, as far as it could say so."""
        return "; ".join(self.messages("error")) or f"it ended with status {self.status}"


def forked(work: Callable[[Pipe], None], kill_after: float | None = None) -> Ended:
    """Run the work in a process of its own, which leads a session, and wait until it has ended.

    Args:
        kill_after: kill it so many seconds after it has said `BEGINS`.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_the_child(work, reading, writing)
    os.close(writing)
    said: list[tuple[str, Any]] = []
    try:
        for kind, value in _received(reading, pid):
            said.append((kind, value))
            if kind == BEGINS and kill_after is not None:
                time.sleep(kill_after)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    finally:
        os.close(reading)
    _, status = os.waitpid(pid, 0)
    return Ended(pid, status, said)


def sentence(error: BaseException) -> str:
    """Return an error in one line, with the product's function that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/selfheal/" in frame.filename]
    where = f" in {Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each; returns once they are gone."""
    killed = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            killed.append(process)
    psutil.wait_procs(killed, timeout=10)


def _be_the_child(work: Callable[[Pipe], None], reading: int, writing: int) -> None:
    code = 1
    try:
        os.close(reading)
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        pipe = Pipe(writing)
        try:
            work(pipe)
            code = 0
        except BaseException as error:
            pipe.send("error", sentence(error))
    finally:
        os._exit(code)


def _received(reading: int, pid: int) -> Iterator[tuple[str, Any]]:
    """Yield messages until the other end is closed; kill the process if that takes too long."""
    deadline, buffer = time.monotonic() + DEADLINE_SECONDS, b""
    while True:
        length, separator, rest = buffer.partition(b"\n")
        if separator and len(rest) >= int(length):
            buffer = rest[int(length) :]
            yield pickle.loads(rest[: int(length)])  # noqa: S301  (sent by our own child)
            continue
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            yield "error", f"it was not done within {DEADLINE_SECONDS:g} s"
            return
        data = os.read(reading, 65_536)
        if not data:
            return
        buffer += data


assert sys.platform.startswith("linux"), "processes are forked, and counted by their sessions"
