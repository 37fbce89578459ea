"""`selfheal up`: the platform's processes on this machine, started together and stopped together.

honcho runs them; here is what must hold before (folder, lock, ports, schema, a first model) and after (nothing left).
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
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

from selfheal.cli.ports import port_variables
from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.kit.private_files import restrict_folders, restrict_new_files
from selfheal.services.addresses import addresses

if TYPE_CHECKING:
    from selfheal.settings import Settings

CODE_LOCATION = "selfheal"


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


def prepare_data_dir(settings: Settings) -> Path:
    """Return the data folder, created if it is missing, and writable; from now on this process writes private files.

    Raises:
        ConfigurationError: naming the folder if it cannot be written.
    """
    folder = settings.data_dir.expanduser().resolve()
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
    """Lock the folder, so that two `up` never share it.

    Raises:
        ConfigurationError: naming the process that holds it.
    """
    with (folder / LOCK_NAME).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise ConfigurationError(
                f"the platform is already up in {folder} (process {holder}); stop it, or set another DATA_DIR"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def dagster_home(settings: Settings) -> Path:
    """DAGSTER_HOME below the data folder, with the current `dagster.yaml` in it."""
    home = prepare_data_dir(settings) / "dagster"
    home.mkdir(exist_ok=True)
    write_atomic(home / "dagster.yaml", files("selfheal_assets").joinpath("dagster.yaml").read_bytes())
    return home


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of every process of the platform."""
    return os.environ | {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DATA_DIR": str(settings.data_dir.expanduser().resolve()),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Several processes share the machine, and the matrices are small: threads would only wait for each other.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONUNBUFFERED": "1",
        **port_variables(settings),
        "TZ": "UTC",  # of logs and whatever else asks the host
        "PYTHONWARNINGS": "ignore",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
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
    """Run one of Dagster's jobs here, to the end; `on_event` is called with each of its events as it occurs.

    Args:
        request: for `retraining_job`, who asks for it and why.

    Raises:
        ServiceUnavailableError: if it fails, with the cause.
    """
    log = prepare_data_dir(settings) / "logs" / f"{job_name}.log"
    log.parent.mkdir(exist_ok=True)
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
    """Run the processes until one stops or a signal comes; then stop the others. Return the exit code.

    `on_ready` is called once, from another thread, when all addresses answer.
    """
    from honcho.manager import Manager

    environment = child_environment(settings)
    workspace = _workspace(settings)
    python = shlex.quote(sys.executable)
    mlflow = f"{python} -m mlflow server --host 127.0.0.1 --port {settings.mlflow_port} --workers 1"
    code_server = f"-h 127.0.0.1 -p {settings.code_server_port} --location-name {CODE_LOCATION}"
    commands = {
        "code": f"exec {python} -m dagster api grpc -m selfheal_assets.definitions {code_server} --log-level warning",
        "dagster": f"exec {python} -m dagster_webserver -h 127.0.0.1 -p {settings.dagster_port} -w {workspace} "
        "--log-level warning",
        "daemon": f"exec {python} -m dagster._daemon run -w {workspace} --log-level warning",
        "api": f"exec {python} -m serving",
        "mlflow": f"exec {mlflow}",
    }
    manager = Manager()
    for name, command in commands.items():
        manager.add_process(name, command, env=environment | {"MLFLOW_BACKEND_STORE_URI": mlflow_uri})
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # honcho knows only the other two
    stopping = threading.Event()
    announcer = threading.Thread(target=_announce, args=(settings, on_ready, stopping), daemon=True)
    announcer.start()
    try:
        manager.loop()
    finally:
        stopping.set()
    returncode: int = manager.returncode or 0
    return 0 if returncode in {130, 143} else returncode


def _workspace(settings: Settings) -> str:
    """One code server for webserver and daemon: the daemon would otherwise start a new one every minute."""
    path = dagster_home(settings) / "workspace.yaml"
    server = f"host: 127.0.0.1, port: {settings.code_server_port}, location_name: {CODE_LOCATION}"
    write_atomic(path, f"load_from:\n  - grpc_server: {{{server}}}\n".encode())
    return shlex.quote(str(path))


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
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
    return (lines or ["no output"])[-1].split(": ", 1)[-1]
