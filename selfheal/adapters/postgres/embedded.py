"""Embedded Postgres server: one per data folder, shared by every process that uses the folder.

The first process starts it and the last one stops it. Use is counted by shared locks on a file, which the kernel
releases even for a killed process, so a crash never leaves a wrong count behind.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from selfheal.adapters.postgres import cluster
from selfheal.kit.errors import ConfigurationError
from selfheal.kit.open_files import others_with

USERS_NAME = ".postgres.users"
"""Beside the cluster: locked by each process that uses it."""

DYING_TIMEOUT_SECONDS = 10.0
"""For processes that were killed to be dead."""

DYING_POLL_SECONDS = 0.05

_guard = threading.Lock()
_running: dict[Path, EmbeddedServer] = {}
_leases: Counter[Path] = Counter()


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server, reached through a Unix socket; it listens on no port."""

    pgdata: Path
    socket_dir: Path
    _lock_file: IO[bytes]
    _owner_pid: int

    def url(self, database: str) -> str:
        """Return the URL (`postgresql://`) of one of its databases."""
        return socket_url(self.socket_dir, database)

    def release(self) -> None:
        """Release the server, which stops if no other process uses it. Does nothing in a forked child."""
        with _guard:
            if _running.get(self.pgdata) is not self or os.getpid() != self._owner_pid:
                return
            del _running[self.pgdata]
            with self._lock_file:
                _stop_if_last(self.pgdata, self._lock_file)


def socket_url(socket_dir: Path, database: str) -> str:
    """Return the URL (`postgresql://`) of a database behind a Unix socket."""
    return f"postgresql://postgres@/{database}?host={quote(str(socket_dir), safe='')}&port={cluster.PORT}"


def url_if_running(pgdata: Path, database: str) -> str | None:
    """Return the URL of a database of this folder's server; None if it does not run.

    Neither starts nor leases the server.
    """
    pgdata = pgdata.expanduser().resolve()
    server = cluster.running_server(pgdata)
    return None if server is None or server.socket_dir is None else socket_url(server.socket_dir, database)


class Lease:
    """One use of the server within a process, which releases the server with its last lease. Starts nothing."""

    def __init__(self, pgdata: Path) -> None:
        self._pgdata = pgdata.expanduser().resolve()
        self._is_active = True
        with _guard:
            _leases[self._pgdata] += 1

    def end(self) -> None:
        """Release the server if this was the process's last lease. Ending a lease twice changes nothing."""
        with _guard:
            if not self._is_active:
                return
            self._is_active = False
            _leases[self._pgdata] -= 1
            is_last = _leases[self._pgdata] == 0
        if is_last:
            release(self._pgdata)


def ensure_running(pgdata: Path) -> EmbeddedServer:
    """Return the server of this folder, started if necessary; it is in use until the process ends or calls `release`.

    Raises:
        ConfigurationError: if the folder cannot be written, or this user cannot run a server in it.
        ServiceUnavailableError: if the server does not start.
    """
    pgdata = pgdata.expanduser().resolve()
    with _guard:
        server = _running.get(pgdata)
        if server is not None and server._owner_pid == os.getpid():
            if cluster.running_server(pgdata) is not None:
                return server
            del _running[pgdata]
            server._lock_file.close()
        server = _start(pgdata)
        _running[pgdata] = server
        atexit.register(server.release)
        return server


def release(pgdata: Path) -> None:
    """Release this folder's server if this process uses it, whatever leases it still has."""
    server = _running.get(pgdata.expanduser().resolve())
    if server is not None:
        server.release()


def stop_if_unused(pgdata: Path) -> None:
    """Stop this folder's server if it runs and no process uses it. Starts nothing."""
    pgdata = pgdata.expanduser().resolve()
    with suppress(FileNotFoundError), (pgdata.parent / USERS_NAME).open("rb+") as users:
        _stop_if_last(pgdata, users)


def _start(pgdata: Path) -> EmbeddedServer:
    try:
        pgdata.parent.mkdir(parents=True, exist_ok=True)
        users = (pgdata.parent / USERS_NAME).open("ab")
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            with _alone(pgdata):
                socket_dir = cluster.start(pgdata)
        except BaseException:
            users.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot write in {pgdata.parent}: {error.strerror}; set DATA_DIR to a writable folder"
        ) from error
    return EmbeddedServer(pgdata, socket_dir, users, os.getpid())


def _stop_if_last(pgdata: Path, users: IO[bytes]) -> None:
    if _is_last_user(users):
        with suppress(FileNotFoundError), _alone(pgdata):  # a deleted folder: its server ends by itself
            cluster.stop(pgdata)


def _is_last_user(lock_file: IO[bytes]) -> bool:
    """Give up the shared lock, and return whether nobody else has it; then this process has the exclusive one.

    A process that was killed holds its lock until it is dead: on a busy machine for seconds. Nobody comes after it who
    would stop the server, so it is waited for.
    """
    deadline = time.monotonic() + DYING_TIMEOUT_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if others_with(Path(os.fsdecode(lock_file.name))) or time.monotonic() > deadline:
            return False
        time.sleep(DYING_POLL_SECONDS)


@contextmanager
def _alone(pgdata: Path) -> Iterator[None]:
    """Hold the lock of those who start or stop this folder's server; released by the kernel if this process dies."""
    with (pgdata.parent / ".postgres.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
