"""Cluster: the folder of an embedded Postgres server. Made whole or not at all, started, and stopped.

Not here: who uses the server and when it may stop (`embedded`). The caller holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil

from selfheal.adapters.postgres import os_user, programs
from selfheal.adapters.postgres.os_user import OsUser
from selfheal.kit.atomic_file import sync_folder
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError

logger = logging.getLogger(__name__)

PORT = 5432
"""Part of the socket's name; nothing listens on a port."""

START_TIMEOUT_SECONDS = 300
"""After a crash the server replays its log before it answers: minutes at worst."""

STOP_TIMEOUT_SECONDS = 60
"""A stop writes what is in memory; after that it is ended at once, and replays its log at the next start."""

STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
"""What Postgres calls them: transactions are rolled back and everything is written; or not even that."""

POLL_SECONDS = 0.05

MAX_SOCKET_PATH_BYTES = 107
"""Linux's limit for a Unix socket, without the final zero; macOS has 103."""

SOCKET_DIR_PREFIX = "selfheal-postgres-"
MAX_LOG_BYTES = 10_000_000
MADE_WHOLE = ".made-whole"
"""A file in the folder: whatever it lacks, it has been complete."""

FIRST_USER_OID = 16_384
"""Databases below are initdb's own."""

ERROR_MARK = re.compile(r"\b(?:FATAL|PANIC|initdb: error|pg_ctl: error):")

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The locale of the machine where the folder was made may not exist where it is now.
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
}
"""In force whatever the machine that made the folder had."""


@dataclass(frozen=True)
class RunningServer:
    """A live server of a folder, as its `postmaster.pid` describes it."""

    pid: int
    socket_dir: Path | None
    """None until it is known: in the first moments of a start."""

    status: str
    """`starting`, `ready`, `stopping`, or empty."""


def running_server(pgdata: Path) -> RunningServer | None:
    """Return the server that runs on this folder now; None if none does."""
    lines = _pid_file(pgdata)
    if not (lines and lines[0].isdecimal() and _is_server_of(int(lines[0]), pgdata)):
        return None
    socket_dir = Path(lines[4]) if len(lines) >= 5 and lines[4] else None
    return RunningServer(int(lines[0]), socket_dir, lines[7].strip() if len(lines) >= 8 else "")


def start(pgdata: Path) -> Path:
    """Return the folder of the server's socket; the cluster is made and its server started where that is not done yet.

    Raises:
        ConfigurationError: if this user cannot run it here.
        ServiceUnavailableError: if the server does not start; its log says why.
    """
    user = os_user.server_user(pgdata)
    _remove_left_over(pgdata)
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        server = running_server(pgdata)
        if server is None:
            _let_in(user, pgdata)
            if not (pgdata / "PG_VERSION").exists():
                _make(pgdata, user)
            _launch(pgdata, user)
        elif server.status == "ready" and server.socket_dir is not None:
            return server.socket_dir
        time.sleep(POLL_SECONDS)
    raise ServiceUnavailableError(
        f"the embedded Postgres in {pgdata} did not start: not ready within {START_TIMEOUT_SECONDS} s; "
        f"its log is {pgdata / 'log'}"
    )


def stop(pgdata: Path) -> None:
    """Stop the server that runs on this folder, if one does, in order; at once if that takes too long.

    By signals: `pg_ctl`, run as the server's user, would find no server where that user no longer reaches the folder.
    """
    server = running_server(pgdata)
    if server is None:
        return
    for mode, signum in STOP_SIGNALS.items():
        try:
            psutil.Process(server.pid).send_signal(signum)
        except psutil.AccessDenied:
            logger.warning("Postgres in %s runs as another user and cannot be stopped", pgdata)
            return
        except psutil.NoSuchProcess:
            break
        if _has_stopped(pgdata, STOP_TIMEOUT_SECONDS):
            break
        logger.warning("Postgres in %s did not stop (%s) within %d s", pgdata, mode, STOP_TIMEOUT_SECONDS)
    _remove_socket_dir(server.socket_dir, pgdata)


def _has_stopped(pgdata: Path, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while running_server(pgdata) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _let_in(user: OsUser | None, pgdata: Path) -> None:
    """Let the server's user reach the folder's place and the programs."""
    if user is None:
        return
    os_user.open_path(pgdata, user)
    os_user.open_path(programs.installation(), user)
    for folder in (programs.installation(), programs.shared_libraries()):
        os_user.open_tree(folder, user)


def _remove_left_over(pgdata: Path) -> None:
    """Remove what a process left that was killed while it made, started or ran a server here."""
    for unfinished in pgdata.parent.glob(f".{pgdata.name}.*.new"):
        _end_writers(unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)
    if running_server(pgdata) is not None:
        return
    _remove_stale_lock_files(pgdata)
    if _is_half_made(pgdata):
        aside = pgdata.with_name(f"{pgdata.name}.half-made-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        pgdata.rename(aside)
        logger.warning("%s was left half made by a first start that was killed: moved to %s, delete it", pgdata, aside)


def _end_writers(folder: Path) -> None:
    """End what still makes a cluster there: `initdb` and its servers outlive a process that was killed."""
    killed = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if str(folder) in process.cmdline() or Path(process.cwd()).is_relative_to(folder):
                process.kill()
                killed.append(process)
    psutil.wait_procs(killed, STOP_TIMEOUT_SECONDS)


def _is_half_made(pgdata: Path) -> bool:
    """Return whether an initdb that was killed left this folder: earlier releases ran it in place.

    It never held a database of anybody's, and was never started or lacks what every finished one has.
    """
    if not pgdata.is_dir() or (pgdata / MADE_WHOLE).exists() or not any(pgdata.iterdir()):
        return False
    base = pgdata / "base"
    oids = [int(folder.name) for folder in base.iterdir() if folder.name.isdecimal()] if base.is_dir() else []
    if any(oid >= FIRST_USER_OID for oid in oids):
        return False
    finished = ("PG_VERSION", "global/pg_control", "base/5/PG_VERSION", "postmaster.opts")
    return any(not (pgdata / name).exists() for name in finished)


def _make(pgdata: Path, user: OsUser | None) -> None:
    """Make the cluster beside its place and move it there once it is finished: a process killed in between leaves none."""
    if pgdata.is_dir() and any(pgdata.iterdir()):
        raise ConfigurationError(
            f"{pgdata} holds databases but no PG_VERSION: it is no whole folder of a Postgres server; restore a backup into a "
            "new DATA_DIR, or what is missing"
        )
    unfinished = Path(tempfile.mkdtemp(prefix=f".{pgdata.name}.", suffix=".new", dir=pgdata.parent))
    try:
        if user is not None:
            os.chown(unfinished, user.uid, user.gid)
        # The same on every machine: the host's locale decides neither how text is sorted nor whether initdb works at all.
        locale = ("--encoding=UTF8", "--locale-provider=builtin", "--locale=C", "--builtin-locale=C.UTF-8")
        arguments = ("--auth=trust", "--username=postgres", *locale, "--pgdata", str(unfinished))
        programs.run("initdb", arguments, {}, user)
        _mark_made_whole(unfinished, user)
        unfinished.rename(pgdata)
        sync_folder(pgdata.parent)
    except subprocess.CalledProcessError as error:
        raise ServiceUnavailableError(
            f"the embedded Postgres in {pgdata} could not be made: {_why(error.output, place=0)}; see that the disk has room and "
            "the folder may be written"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _mark_made_whole(folder: Path, user: OsUser | None) -> None:
    (folder / MADE_WHOLE).touch(mode=0o600)
    if user is not None:
        os.chown(folder / MADE_WHOLE, user.uid, user.gid)


def _launch(pgdata: Path, user: OsUser | None) -> None:
    if user is not None and pgdata.stat().st_uid != user.uid:
        os_user.give_tree(pgdata, user)  # copied by root, or from a machine with other users
    _refuse_other_version(pgdata)
    log = _opened_log(pgdata / "log", user)
    socket_dir = _socket_dir(pgdata, user)
    settings = SETTINGS | {"unix_socket_directories": f'"{socket_dir}"'}
    options = ["-D", str(pgdata), *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))]
    arguments = ("start", "-w", "-t", str(START_TIMEOUT_SECONDS), "-o", shlex.join(options))
    with log:
        try:
            programs.run("pg_ctl", arguments, {"PGDATA": str(pgdata)}, user, output=log)
        except subprocess.CalledProcessError as error:
            _remove_socket_dir(socket_dir, pgdata)
            why = _why(error.output)
            raise ServiceUnavailableError(
                f"the embedded Postgres in {pgdata} did not start: {why}; its log is {pgdata / 'log'}"
            ) from error
        except BaseException:  # this process must leave: the server that it has just started would belong to nobody
            stop(pgdata)
            _remove_socket_dir(socket_dir, pgdata)
            raise


def _refuse_other_version(pgdata: Path) -> None:
    version = (pgdata / "PG_VERSION").read_text().strip()
    if version != str(programs.MAJOR_VERSION):
        raise ConfigurationError(
            f"{pgdata} was made by Postgres {version}, but this installation brings {programs.MAJOR_VERSION}; restore a backup "
            "into a new DATA_DIR, or set DATABASE_URL to a server of that version"
        )


def _opened_log(path: Path, user: OsUser | None) -> IO[bytes]:
    """Open the server's log for appending; a large one of earlier runs takes the place of the one before."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name("log.1"))
    file = open(path, "a+b", opener=lambda name, flags: os.open(name, flags, mode=0o600))  # noqa: SIM115  (returned)
    if user is not None:
        os.fchown(file.fileno(), user.uid, user.gid)
    file.seek(0, os.SEEK_END)
    return file


def _why(printed: str, place: int = -1) -> str:
    """Return the line of Postgres' output that says why it gave up: of those marked as an error the one at `place`, else the last.

    A server's log ends with it; `initdb` goes on to say what it could not tidy up.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    marked = [line[found.end() :].strip() for line in lines if (found := ERROR_MARK.search(line))]
    return marked[place] if marked else (lines or ["it printed nothing"])[-1]


def _socket_dir(pgdata: Path, user: OsUser | None) -> Path:
    """Return the folder of the server's socket: the cluster's, or a private temporary one if its path cannot be used.

    A socket's path has a short limit, and to Postgres' clients a comma separates hosts.
    """
    if _can_hold_socket(pgdata):
        return pgdata
    candidates = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108  (a new folder in it, closed to others)
    parent = next(folder for folder in candidates if _can_hold_socket(folder / f"{SOCKET_DIR_PREFIX}12345678"))
    folder = Path(tempfile.mkdtemp(prefix=SOCKET_DIR_PREFIX, dir=parent))
    if user is not None:
        os.chown(folder, user.uid, user.gid)
        os_user.open_path(folder, user)
    return folder


def _can_hold_socket(folder: Path) -> bool:
    path = os.fsencode(folder / f".s.PGSQL.{PORT}")
    return len(path) <= MAX_SOCKET_PATH_BYTES and b"," not in path and b'"' not in path


def _remove_socket_dir(socket_dir: Path | None, pgdata: Path) -> None:
    if socket_dir is not None and socket_dir != pgdata and socket_dir.name.startswith(SOCKET_DIR_PREFIX):
        shutil.rmtree(socket_dir, ignore_errors=True)


def _pid_file(pgdata: Path) -> list[str]:
    """Return the lines of `postmaster.pid`: number, folder, start, port, folder of the socket, host, memory, status."""
    try:
        return (pgdata / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _remove_stale_lock_files(pgdata: Path) -> None:
    """Remove the lock files that a crash left; called when no server of this folder runs.

    Postgres trusts the process number in them: it would give way to an unrelated process that has the number now, or to one
    that is dead and not reaped yet (process 1 of a container often reaps nothing).
    """
    lines = _pid_file(pgdata)
    (pgdata / "postmaster.pid").unlink(missing_ok=True)
    if len(lines) >= 5 and lines[4]:
        (Path(lines[4]) / f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)
        _remove_socket_dir(Path(lines[4]), pgdata)


def _is_server_of(pid: int, pgdata: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return "postgres" in process.name() and str(pgdata) in process.cmdline()
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False
