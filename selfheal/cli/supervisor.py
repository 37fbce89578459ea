"""`selfheal up`: the platform's processes on this machine, started together and stopped together.

`selfheal.cli.processes` runs them; here is what must hold before (folder, lock, nothing left of a start before, ports, schema, a
first model) and after (nothing left).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil

from selfheal.adapters.marked_processes import (
    END_GRACE_SECONDS,
    FOLDER_VARIABLE,
    START_VARIABLE,
    end_all,
    mark,
    marked_by,
)
from selfheal.cli.ports import port_variables
from selfheal.cli.processes import Printer, Program, Supervisor, stop_on_signals
from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.child_processes import log_end, with_our_programs
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.kit.open_files import others_with
from selfheal.kit.private_files import restrict_folders, restrict_new_files
from selfheal.services.addresses import addresses

if TYPE_CHECKING:
    from selfheal.settings import Settings

CODE_LOCATION = "selfheal"
LOOPBACK = "127.0.0.1"

START_TIMEOUT = "start_timeout_seconds: {}"
"""Of dagster.yaml, where it is that of 120 s; LAUNCH_TIMEOUT_SECONDS takes its place."""

POD_START_SECONDS = 900
"""At least, with TRAINING_RUNS_IN=kubernetes: a cluster may have to add a node, and pull the image."""

LIMITS = "    tag_concurrency_limits:\n"
LEFT_TO_TRAINER = "      - {key: selfheal/job, value: retraining, limit: 0} # `selfheal_assets.trainer` takes them\n"
"""Of dagster.yaml, with TRAINING_RUNS_IN=trainer: the daemon leaves runs that train in the queue."""

PROCESS_LAUNCHER = """
  module: selfheal_assets.run_launcher # each run in a process of its own, started by the daemon
  class: ProcessRunLauncher
  config: {}
"""
POD_LAUNCHER = """
  module: selfheal_assets.pod_launcher # runs that train in pods, the others in processes
  class: TrainingPodRunLauncher
  config: {{pod_file: {pod_file}}}
"""

LOCK_NAME = ".up.lock"

OUR_FOLDERS = (
    "assets",
    "audit",
    "cache",
    "dagster",
    "decisions",
    "logs",
    "mlflow",
    "monitoring",
    "reference",
    "reports",
    "run",
)
"""Of the data folder; beside them may lie what somebody else put there."""


READY_TIMEOUT_SECONDS = 180
"""For all doors to open, on a busy machine; later nobody is told that they have, and everything goes on."""

LEFT_OVER_GRACE_SECONDS = 3.0
"""For processes whose `up` is dead, before they are killed: nobody waits for their answers."""

STOPPED_RUN_TIMEOUT_SECONDS = END_GRACE_SECONDS
"""For a run that was told by the end of the daemon to be recorded as stopped: as long as whoever ends a run gives it."""

REAPER_TIMEOUT_SECONDS = END_GRACE_SECONDS + 5.0
"""For the reaper, which finds nothing left, to stop the embedded server. It goes on by itself if that takes longer."""


def data_folder(settings: Settings) -> Path:
    """Return the absolute path of DATA_DIR."""
    return settings.data_dir.expanduser().resolve()


def prepare_data_dir(settings: Settings) -> Path:
    """Return the data folder, created if it is missing, and writable; from now on this process writes private files.

    A command calls it once, before anything else writes.

    Raises:
        ConfigurationError: if the folder cannot be written.
    """
    folder = data_folder(settings)
    restrict_new_files(settings.umask)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        restrict_folders(folder, OUR_FOLDERS, settings.umask)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"DATA_DIR={folder} cannot be written ({error.strerror}); set DATA_DIR to a writable folder"
        ) from error
    return folder


def stop_in_order_on_signals() -> None:
    """Make SIGTERM and SIGHUP unwind this process as Ctrl-C does, so that what it started is stopped."""

    def leave(signum: int, _frame: object) -> None:
        raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, leave)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Lock the folder, so that two `up` never share it. Nothing that `up` starts inherits the lock.

    Raises:
        ConfigurationError: if another process holds the lock; the message names it.
    """
    with (folder / LOCK_NAME).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holders = _holders(lock.read().strip(), folder / LOCK_NAME)
            raise ConfigurationError(
                f"the platform is already up in {folder} (process {holders}); stop it (kill {holders}), or set another DATA_DIR"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _holders(written: str, lock: Path) -> str:
    """Return the numbers of the processes that hold the lock: the one written in it or, if that is dead, those that have it open."""
    if written.isdecimal() and psutil.pid_exists(int(written)):
        return written
    alive = map(str, others_with(lock))
    return " ".join(alive) or "of another user"


@contextmanager
def no_process_left(settings: Settings, folder: Path) -> Iterator[None]:
    """Leave no process behind, not even after a `kill -9` of this one; the caller holds the lock of the folder.

    Before: what an earlier `up` left is ended. Within: everything that is started is marked, and a reaper waits for the end of
    this process. After: what still runs is ended.
    """
    end_all(lambda: marked_by(folder, lambda _: True), LEFT_OVER_GRACE_SECONDS)
    start = uuid4().hex
    pgdata = [] if settings.has_external_database else [str(folder / "postgres")]
    reaper = subprocess.Popen(  # noqa: S603  (our own command, no shell)
        [sys.executable, "-m", "selfheal.adapters.marked_processes", str(folder), start, *pgdata],
        stdin=subprocess.PIPE,
        start_new_session=True,  # what is sent to our whole group does not end it
    )
    os.environ.update(mark(folder, start))
    try:
        yield
    finally:
        # A run was told by the end of the daemon, and is recording that it was stopped: told twice, it would not.
        psutil.wait_procs(marked_by(folder, lambda found: found == start), timeout=STOPPED_RUN_TIMEOUT_SECONDS)
        end_all(lambda: marked_by(folder, lambda found: found == start))
        for name in (FOLDER_VARIABLE, START_VARIABLE):
            os.environ.pop(name, None)
        assert reaper.stdin is not None
        reaper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            reaper.wait(REAPER_TIMEOUT_SECONDS)


def dagster_home(settings: Settings) -> Path:
    """Return DAGSTER_HOME below the data folder, with the current `dagster.yaml`."""
    home = data_folder(settings) / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    text = files("selfheal_assets").joinpath("dagster.yaml").read_text()
    seconds = settings.launch_timeout_seconds
    if settings.training_runs_in == "trainer":
        text = text.replace(LIMITS, LIMITS + LEFT_TO_TRAINER)
    if settings.training_runs_in == "kubernetes":
        pod_file = json.dumps(str(settings.training_pod_file))
        text = text.replace(PROCESS_LAUNCHER, POD_LAUNCHER.format(pod_file=pod_file))
        seconds = max(seconds, POD_START_SECONDS)
    text = text.replace(START_TIMEOUT.format(120), START_TIMEOUT.format(seconds))
    write_atomic(home / "dagster.yaml", text.encode())
    return home


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of every process of the platform."""
    return with_our_programs(os.environ) | {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DATA_DIR": str(data_folder(settings)),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DAGSTER_GRPC_TIMEOUT_SECONDS": str(settings.launch_timeout_seconds),  # of calls to the code server
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Several processes share the machine, and the matrices are small: threads would only wait for each other.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONUNBUFFERED": "1",
        **port_variables(settings),
        "TZ": "UTC",  # of logs and whatever else asks the host
        "PYTHONWARNINGS": "ignore",
    }


@dataclass(frozen=True)
class JobEvent:
    """A line of `python -m selfheal_assets`: its first (`PLAN`) names the steps, the others are the run's events."""

    type: str
    step: str | None = None
    level: str = ""
    message: str = ""
    error: str | None = None
    steps: tuple[str, ...] = ()


def run_job(
    settings: Settings,
    job_name: str,
    on_event: Callable[[JobEvent], None],
    request: Mapping[str, Any] | None = None,
) -> None:
    """Run one of Dagster's jobs in a child process and wait for it; call `on_event` with each event as it occurs.

    Args:
        request: for `retraining_job`, who requests it and why.

    Raises:
        ServiceUnavailableError: if it fails; the message has the cause.
    """
    log = data_folder(settings) / "logs" / f"{job_name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "selfheal_assets", job_name]
    command += [] if request is None else [json.dumps(request)]
    cause: str | None = None
    with (
        log.open("w") as record,
        subprocess.Popen(  # noqa: S603  (our own command, no shell)
            command, env=child_environment(settings), stdout=subprocess.PIPE, stderr=record, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                event = job_event(line)
                cause = cause or event.error
                on_event(event)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise ServiceUnavailableError(f"{job_name} failed: {cause or _last_line(log)}; the whole log is {log}")


def job_event(line: str) -> JobEvent:
    """Return the event of a line of `python -m selfheal_assets`."""
    found = json.loads(line)
    return JobEvent(
        type=found["type"],
        step=found.get("step"),
        level=found.get("level", ""),
        message=found.get("message") or "",
        error=found.get("error"),
        steps=tuple(found.get("steps", ())),
    )


def supervise(settings: Settings, mlflow_uri: str, on_ready: Callable[[], None]) -> int:
    """Run the processes until a signal comes, or one of them cannot be run; then stop all. Return the exit code.

    A process that ends is started again alone. `on_ready` is called once, from another thread, when all addresses answer.
    """
    to_run = programs(settings, mlflow_uri)
    environment = program_environment(settings)
    supervisor = Supervisor(to_run, environment, Printer([program.name for program in to_run]))
    stopping = threading.Event()
    announcer = threading.Thread(target=_announce, args=(settings, on_ready, stopping), daemon=True)
    with stop_on_signals(supervisor):
        announcer.start()
        try:
            return supervisor.run()
        finally:
            stopping.set()


def program_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of all programs."""
    from selfheal.adapters.mlflow_environment import CONNECTION_LIMITS

    return CONNECTION_LIMITS | child_environment(settings)


def programs(settings: Settings, mlflow_uri: str, host: str = LOOPBACK) -> list[Program]:
    """Return what runs beside each other, listening on `host`; the API listens on API_HOST.

    Args:
        mlflow_uri: where MLflow's tables are; only MLflow's own server asks.
    """
    workspace = _workspace(settings)
    code_server = ("-h", host, "-p", str(settings.code_server_port), "--location-name", CODE_LOCATION)
    mlflow = ("--host", host, "--port", str(settings.mlflow_port), "--workers", "1")
    quiet = ("--log-level", "warning")

    def python(*arguments: str) -> list[str]:
        return [sys.executable, "-m", *arguments]

    found = [
        Program("code", python("dagster", "api", "grpc", "-m", "selfheal_assets.definitions", *code_server, *quiet)),
        Program("dagster", python("selfheal_assets.webserver", "-w", workspace, "--host", host)),
        # Without the code server the daemon finds nothing to evaluate, and asks for it again a minute later.
        Program(
            "daemon",
            python("selfheal_assets.daemon", "-w", workspace),
            may_start=lambda: _accepts(settings.code_server_host, settings.code_server_port),
        ),
        Program("api", python("serving")),
    ]
    if settings.training_runs_in == "trainer":
        found.append(Program("trainer", python("selfheal_assets.trainer")))
    if not settings.has_tracking_server:
        own = {  # it does not read our settings
            "MLFLOW_BACKEND_STORE_URI": mlflow_uri,
            "API_KEYS": settings.api_keys.get_secret_value(),
            "MLFLOW_PUBLIC_URL": str(settings.mlflow_public_url or ""),
        }
        found.append(Program("mlflow", python("selfheal.adapters.mlflow_pages", *mlflow), environment=own))
    return found


def _accepts(host: str, port: int) -> bool:
    """Return whether something accepts connections there. The code server does once it has loaded."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _workspace(settings: Settings) -> str:
    """Write a workspace with one code server for webserver and daemon, which would otherwise start one every minute."""
    path = dagster_home(settings) / "workspace.yaml"
    host = json.dumps(settings.code_server_host)
    server = f"host: {host}, port: {settings.code_server_port}, location_name: {CODE_LOCATION}"
    write_atomic(path, f"load_from:\n  - grpc_server: {{{server}}}\n".encode())
    return str(path)


def _announce(settings: Settings, on_ready: Callable[[], None], stopping: threading.Event) -> None:
    import httpx

    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    waiting = list(addresses(settings))
    while waiting and time.monotonic() < deadline:
        if stopping.wait(0.5):
            return
        try:
            if httpx.get(waiting[0].url + waiting[0].ready_path, timeout=5).status_code < 500:
                waiting.pop(0)
        except httpx.HTTPError:
            continue
    if not waiting:
        on_ready()


def _last_line(log: Path) -> str:
    """Return the last line of a log, for a process that ended before its run began: the message of a traceback."""
    return log_end(log, max_lines=1).strip().split(": ", 1)[-1]
