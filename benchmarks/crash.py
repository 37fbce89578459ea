"""Is a prediction that was acknowledged ever lost, or doubled, when processes, Postgres and the disk fail under load?

    python -m benchmarks.crash --data cs-training.csv [--json crash.json] [--quick]

Several API processes share one data folder, as workers do, and are killed (SIGKILL) at random moments, now and then all at
once, while clients keep a record of every answer (`benchmarks.witness`). Half a line is left in some of the dead processes'
files, as a crash between write and sync leaves it. Postgres is killed, too. Then one process meets a full disk, and one a
disk that fails a sync (`benchmarks.failing_disk`). What was acknowledged must be in Postgres once, with the values that
were answered; and once more, after the table was emptied and the journals were read again from the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Protocol
from uuid import UUID, uuid4

import httpx
import numpy as np
import psutil
import typer
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from benchmarks.stage import (
    START_TIMEOUT_SECONDS,
    api_command,
    api_environment,
    free_port,
    prepare,
    request_rows,
    start,
)
from benchmarks.witness import SCORE_TOLERANCE, Acknowledged, Client, Door, Ledger, number_of
from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal, read_chunk
from selfheal.adapters.mlflow_store import mlflow_store_uri
from selfheal.adapters.postgres.ingest import compress_copied, ingest, lag_bytes
from selfheal.adapters.postgres.store import server_url

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.services.platform import Platform

N_DOORS = 4
CONNECTIONS_A_DOOR = 16
N_ROWS = 5_000
BATCH_ROWS = 10

ROWS_BEFORE_A_KILL = 200
"""A process is killed once it has acknowledged so many rows: before, it is not under load."""

LONGEST_FUSE_SECONDS = 0.5
ALL_AT_ONCE_SHARE = 0.05
COLD_START_EVERY = 10
"""The other processes are forked with their imports done: those are most of a start, and the same every time."""

COMPRESS_EVERY_SECONDS = 1.0
TORN_SHARE = 0.4

JOURNAL_MAX_MB, INGEST_INTERVAL_SECONDS = "0.3", "0.2"
"""Small, so that files are rotated, copied and compressed while processes are killed."""

SMALL_DISK_BYTES = 16_000_000
ALMOST_FULL_BYTES = 12_288
"""Room for a new file's header and a few rows, and no more."""

SECONDS_FULL = 3.0
SYNCS_BEFORE_FAILURE = 150
N_PROBES = 50
KILL_TIMEOUT_SECONDS = 30

TARGETS = {
    "kills": (">=", 200),
    "lost": ("<=", 0),
    "duplicated": ("<=", 0),
    "wrong_values": ("<=", 0),
    "labels_lost": ("<=", 0),
    "retries_answered_differently": ("<=", 0),
    "other_answers": ("<=", 0),
    "damaged_lines": ("<=", 0),
    "disk_full_acknowledged_lost": ("<=", 0),
    "disk_full_acknowledged_meanwhile": ("<=", 0),
    "eio_acknowledged_after": ("<=", 0),
    "eio_said_ready": ("<=", 0),
    "eio_synced_again": ("<=", 0),
    "replay_lost": ("<=", 0),
    "replay_differences": ("<=", 0),
    "lag_bytes_at_end": ("<=", 0),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done, and how long it may take."""

    n_kills: int
    n_postgres_kills: int
    most_minutes: float


FULL, QUICK = Plan(250, 5, 15), Plan(12, 1, 3)


@dataclass(slots=True)
class Ordeal:
    """What was done to the service, and what it did then."""

    kills: int = 0
    torn_files: int = 0
    postgres_kills: int = 0
    postgres_away_s_max: float = 0.0
    cold_recovery_seconds: list[float] = field(default_factory=list)
    warm_recovery_seconds: list[float] = field(default_factory=list)
    disk_full_by: str = ""
    disk_full_refused: int = 0
    disk_full_acknowledged_meanwhile: int = 0
    disk_full_files_added: int = 0
    disk_full_recovery_s: float = 0.0
    disk_full_numbers: range = range(0)
    eio_refused: int = 0
    eio_acknowledged_after: int = 0
    eio_said_ready: int = 0
    eio_synced_again: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is measured; `lost`, `duplicated` and `wrong_values` count rows. `_s` are seconds: `recovery_s_max` from a
    kill to the first answer of `python -m serving`, started at once; `recovery_warm_s_max` if its imports were done before.
    """

    kills: int
    acknowledged: int
    lost: int
    duplicated: int
    recovery_s_max: float
    recovery_s_median: float
    recovery_warm_s_max: float
    wrong_values: int
    labels_acknowledged: int
    labels_lost: int
    broken_requests: int
    retried: int
    asked_again: int
    retries_answered_differently: int
    retried_twice_logged: int
    other_answers: int
    torn_files: int
    torn_files_found: int
    damaged_lines: int
    postgres_kills: int
    postgres_away_s_max: float
    disk_full_by: str
    disk_full_acknowledged: int
    disk_full_acknowledged_lost: int
    disk_full_refused: int
    disk_full_acknowledged_meanwhile: int
    disk_full_files_added: int
    disk_full_recovery_s: float
    eio_refused: int
    eio_acknowledged_after: int
    eio_said_ready: int
    eio_synced_again: int
    replay_lost: int
    replay_differences: int
    journal_files: int
    lag_bytes_at_end: int
    minutes: float


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few kills: a look, not a proof.")] = False,
) -> None:
    """Take the service's processes, database and disk away under load, and count what it forgot. Exit code 1 if anything."""
    console = Console()
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))  # as Ctrl-C: take everything down
    with tempfile.TemporaryDirectory(prefix="selfheal-crash-") as name:
        Path(name).chmod(0o755)  # as root, the embedded Postgres runs as a user of its own
        outcome = measure(Path(name), data, QUICK if quick else FULL, console)
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(outcome), indent=1))
    raise typer.Exit(0 if all(is_met(key, value) for key, value in asdict(outcome).items() if key != "kills") else 1)


def measure(folder: Path, data: Path | None, plan: Plan, console: Console) -> Outcome:
    began = time.monotonic()
    platform, dataset = prepare(folder, data, console)
    ledger = Ledger(request_rows(dataset, platform.contract, N_ROWS))
    try:
        with small_disk(folder / "small" / "audit") as disk, Progress(console=console) as progress:
            ordeal = uvloop.run(undergo(platform, ledger, disk, plan, folder, progress))
            return verified(platform, ledger, ordeal, [platform.settings.data_dir, folder / "small"], began)
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    finally:
        platform.close()
        stop_postgres(platform.settings.data_dir / "postgres")


def stop_postgres(pgdata: Path) -> None:
    """Stops the embedded server if it is still there: the process that started it again may have been killed."""
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        postmaster = postmaster_of(pgdata)
        postmaster.send_signal(signal.SIGINT)  # a fast shutdown
        postmaster.wait(KILL_TIMEOUT_SECONDS)


def postmaster_of(pgdata: Path) -> psutil.Process:
    """Raises: FileNotFoundError, psutil.NoSuchProcess if none is running."""
    postmaster = psutil.Process(int((pgdata / "postmaster.pid").read_text().partition("\n")[0]))
    assert str(pgdata) in postmaster.cmdline(), f"process {postmaster.pid} is not the server of {pgdata}"
    return postmaster


async def undergo(
    platform: Platform, ledger: Ledger, disk: SmallDisk, plan: Plan, folder: Path, progress: Progress
) -> Ordeal:
    """Everything that is done to the service; at the end no process of it is left, whether it was done or was stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.closing(WarmStarter(folder / "api.log")) as starter:
        scene = Scene(platform, ledger, Ordeal(disk_full_by=disk.kind), folder, starter)
        await killed_in_turn(scene, plan, progress)
        bar = progress.add_task("Disk full, disk failing", total=2)
        await full_disk(scene, disk)
        progress.advance(bar)
        await failing_sync(scene)
        progress.advance(bar)
    return scene.ordeal


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
        return self.folder / "api.log"

    def environment(self, port: int, **changes: str) -> dict[str, str]:
        own = {"JOURNAL_MAX_MB": JOURNAL_MAX_MB, "INGEST_INTERVAL_SECONDS": INGEST_INTERVAL_SECONDS}
        return api_environment(self.platform.settings, port, **own, **changes)


# Processes


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
        """Raises: RuntimeError if the process has ended by itself."""
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
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(environment) + "\n")
        self._parent.stdin.flush()
        return psutil.Process(int(self._parent.stdout.readline()))

    def close(self) -> None:
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
    """API processes (of a command, or of the usual kind) with clients at each door; nothing of either stays at the end."""
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
    """Waits, and returns the seconds it took.

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


# Kills


async def killed_in_turn(scene: Scene, plan: Plan, progress: Progress) -> None:
    """Kills processes that are answering, one at a time and sometimes all, until the plan is done or its time is up."""
    deadline = time.monotonic() + 60 * plan.most_minutes
    task = progress.add_task("kill -9", total=plan.n_kills)
    ordeal = scene.ordeal
    async with (
        under_load(scene, n_doors=N_DOORS) as apis,
        beside(compress_now_and_then(scene.platform)),
        beside(kill_postgres_now_and_then(scene.platform, ordeal, plan)),
    ):
        while ordeal.kills < plan.n_kills and time.monotonic() < deadline:
            await until(lambda: bool(answering(apis)), apis, "a process acknowledges predictions")
            await asyncio.sleep(random.uniform(0, LONGEST_FUSE_SECONDS))
            victims = answering(apis)
            kill_and_restart(scene, victims if random.random() < ALL_AT_ONCE_SHARE else victims[:1])
            progress.update(task, completed=ordeal.kills, description=described(scene.ledger))
        await until(lambda: all(api.door.closed_at is None for api in apis), apis, "every process answers again")
    ordeal.cold_recovery_seconds = [seconds for api in apis for seconds in api.door.cold_recovery_seconds]
    ordeal.warm_recovery_seconds = [seconds for api in apis for seconds in api.door.warm_recovery_seconds]


def kill_and_restart(scene: Scene, victims: Sequence[Api]) -> None:
    for victim in victims:
        pid = victim.kill()
        if random.random() < TORN_SHARE:
            scene.ordeal.torn_files += leave_half_a_line(scene.platform, pid)
    for victim in victims:
        if scene.ordeal.kills % COLD_START_EVERY == 0:
            victim.start()
        else:
            victim.start_warm()
        scene.ordeal.kills += 1


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs the work while the context is open. Raises what it raised."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def compress_now_and_then(platform: Platform) -> None:
    """As one more process would that shares the folder: no API process lives long enough to come to it."""
    while True:
        for kind in (prediction_journal(platform.contract), LABEL_JOURNAL):
            with contextlib.suppress(DBAPIError):
                await asyncio.to_thread(compress_copied, platform.store, kind, platform.settings.data_dir)
        await asyncio.sleep(COMPRESS_EVERY_SECONDS)


async def kill_postgres_now_and_then(platform: Platform, ordeal: Ordeal, plan: Plan) -> None:
    """Kills the embedded server at even distances between the kills; the API processes start it again."""
    pgdata = platform.settings.data_dir / "postgres"
    for i in range(plan.n_postgres_kills):
        while ordeal.kills < plan.n_kills * (i + 1) // (plan.n_postgres_kills + 1):
            await asyncio.sleep(0.05)
        postmaster_of(pgdata).kill()
        ordeal.postgres_kills += 1
        killed_at = time.monotonic()
        while not await asyncio.to_thread(postgres_answers, platform):
            await asyncio.sleep(0.05)
        ordeal.postgres_away_s_max = max(ordeal.postgres_away_s_max, time.monotonic() - killed_at)


def postgres_answers(platform: Platform) -> bool:
    try:
        with platform.store.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except DBAPIError:
        return False
    return True


def answering(apis: Sequence[Api]) -> list[Api]:
    """Those that are under load, in any order."""
    found = [api for api in apis if api.door.n_acknowledged >= ROWS_BEFORE_A_KILL]
    return random.sample(found, len(found))


def described(ledger: Ledger) -> str:
    return f"kill -9 ({len(ledger.acknowledged):,} acknowledged)"


def leave_half_a_line(platform: Platform, pid: int) -> bool:
    """Appends the beginning of a line to the newest file of a dead process. Nobody was told of that prediction."""
    folder = prediction_journal(platform.contract).folder(platform.settings.data_dir)
    files = sorted(folder.glob(f"*-{pid}-*.csv"))
    if not files:
        return False
    with contextlib.suppress(FileNotFoundError):  # it has just been compressed
        last_line = files[-1].read_bytes().splitlines()[-1]
        line = str(uuid4()).encode() + last_line[last_line.index(b",") :]
        descriptor = os.open(files[-1], os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, line[: random.randrange(1, len(line))])
        os.close(descriptor)
        return True
    return False


# A full disk


class SmallDisk(Protocol):
    """What the audit trail of one API process lies on; it can be filled and emptied under that process."""

    kind: str

    def fill(self, process: psutil.Process, free_bytes: int = 0) -> None: ...
    def free(self, process: psutil.Process) -> None: ...


class Tmpfs:
    kind = "tmpfs"

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self, process: psutil.Process, free_bytes: int = 0) -> None:
        del process
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4_096)
        os.truncate(self._ballast, max(0, self._ballast.stat().st_size - free_bytes))

    def free(self, process: psutil.Process) -> None:
        del process
        self._ballast.unlink()


class LimitedFiles:
    """For those who may not mount: the kernel refuses the process every write, as EFBIG instead of ENOSPC."""

    kind = "rlimit"

    def fill(self, process: psutil.Process, free_bytes: int = 0) -> None:
        _, most = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (free_bytes, most))

    def free(self, process: psutil.Process) -> None:
        _, most = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (most, most))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A tmpfs at `folder` if we may mount one; else a limit on what processes write."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "selfheal-crash", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0  # noqa: S603
    try:
        yield Tmpfs(folder) if is_mounted else LimitedFiles()
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


async def full_disk(scene: Scene, disk: SmallDisk) -> None:
    """Fills the disk of one process that shares the Postgres, once wholly and once almost, then makes room.

    The process must refuse, acknowledge nothing, leave no litter, and take predictions again without a restart.
    """
    ledger, ordeal, settings = scene.ledger, scene.ordeal, scene.platform.settings
    folder = scene.folder / "small"
    shutil.copytree(settings.data_dir / "cache", folder / "cache")
    own = {
        "DATA_DIR": str(folder),
        "DATABASE_URL": server_url(settings, "postgres"),
        "MLFLOW_TRACKING_URI": mlflow_store_uri(settings),
    }
    first_number = ledger.n_asked_rows
    async with under_load(scene, changes=own) as apis:
        (api,) = apis
        await until(lambda: bool(answering(apis)), apis, "the process acknowledges predictions")
        assert api.process is not None
        for free_bytes in (0, ALMOST_FULL_BYTES):
            n_refused = ledger.n_refused
            disk.fill(api.process, free_bytes)
            await until(lambda before=n_refused: ledger.n_refused > before, apis, "a full disk is noticed")  # type: ignore[misc]
            n_acknowledged, n_files = api.door.n_acknowledged, n_journal_files(folder)
            await asyncio.sleep(SECONDS_FULL)
            if free_bytes == 0:
                ordeal.disk_full_acknowledged_meanwhile = api.door.n_acknowledged - n_acknowledged
            ordeal.disk_full_files_added = max(ordeal.disk_full_files_added, n_journal_files(folder) - n_files)
            ordeal.disk_full_refused += ledger.n_refused - n_refused
            n_acknowledged = api.door.n_acknowledged
            disk.free(api.process)
            seconds = await until(
                lambda before=n_acknowledged: api.door.n_acknowledged >= before + ROWS_BEFORE_A_KILL,  # type: ignore[misc]
                apis,
                "predictions are acknowledged again",
            )
            ordeal.disk_full_recovery_s = max(ordeal.disk_full_recovery_s, seconds)
    ordeal.disk_full_numbers = range(first_number, ledger.n_asked_rows)


def n_journal_files(data_dir: Path) -> int:
    return len(list((data_dir / "audit").rglob("*.csv*")))


# A disk that fails


async def failing_sync(scene: Scene) -> None:
    """One fdatasync of a process fails. From then on it must refuse, and never sync that file again."""
    ledger, ordeal = scene.ledger, scene.ordeal
    report = scene.folder / "synced-again"
    command = [sys.executable, "-m", "benchmarks.failing_disk", str(SYNCS_BEFORE_FAILURE), str(report)]
    n_refused = ledger.n_refused
    async with under_load(scene, command=command) as apis:
        (api,) = apis
        await until(lambda: ledger.n_refused > n_refused, apis, "a failed sync is noticed")
        await asyncio.sleep(0.2)  # for answers that were on their way
        n_acknowledged = api.door.n_acknowledged
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.door.port}", timeout=30) as client:
            for _ in range(N_PROBES):
                is_ready = (await client.get("/health/ready")).status_code == 200
                answer = await client.post("/predict", json=ledger.row(0))
                ordeal.eio_acknowledged_after += answer.status_code == 200
                ordeal.eio_said_ready += is_ready
                await asyncio.sleep(SECONDS_FULL / N_PROBES)
        ordeal.eio_acknowledged_after += api.door.n_acknowledged - n_acknowledged
    ordeal.eio_refused = ledger.n_refused - n_refused
    ordeal.eio_synced_again = len(report.read_text().splitlines()) if report.exists() else 0


# Whether it kept its word


def verified(platform: Platform, ledger: Ledger, ordeal: Ordeal, data_dirs: Sequence[Path], began: float) -> Outcome:
    """Copies what is left in the journals, and compares Postgres with what the clients were told; then all of it again
    from an emptied table.
    """
    kind = prediction_journal(platform.contract)
    platform.prepare()
    for data_dir in data_dirs:
        for journal in (kind, LABEL_JOURNAL):
            ingest(platform.store, journal, data_dir)
    logged = logged_rows(platform)
    labels = logged_labels(platform)
    with platform.store.engine.begin() as connection:
        connection.execute(text("TRUNCATE prediction_logs"))
    replays = [ingest(platform.store, kind, data_dir, from_start=True) for data_dir in data_dirs]
    replayed = logged_rows(platform)
    twice = logged_twice(platform, data_dirs)
    on_full_disk = [ack for ack in ledger.acknowledged if ack.number in ordeal.disk_full_numbers]
    return Outcome(
        kills=ordeal.kills,
        acknowledged=len(ledger.acknowledged),
        lost=n_lost(ledger.acknowledged, logged),
        duplicated=n_duplicated(logged) + n_duplicated(replayed),
        recovery_s_max=max(ordeal.cold_recovery_seconds),
        recovery_s_median=float(np.median(ordeal.cold_recovery_seconds)),
        recovery_warm_s_max=max(ordeal.warm_recovery_seconds),
        wrong_values=n_wrong(platform, ledger, logged, twice),
        labels_acknowledged=len(ledger.labels),
        labels_lost=sum(labels.get(prediction_id) != label for prediction_id, label in ledger.labels.items()),
        broken_requests=ledger.n_broken,
        retried=ledger.n_retried,
        asked_again=ledger.n_asked_again,
        retries_answered_differently=ledger.n_answered_differently,
        retried_twice_logged=len(twice),
        other_answers=ledger.n_other_answers,
        torn_files=ordeal.torn_files,
        torn_files_found=sum(replay.n_torn for replay in replays),
        damaged_lines=sum(len(replay.corrupt) for replay in replays),
        postgres_kills=ordeal.postgres_kills,
        postgres_away_s_max=ordeal.postgres_away_s_max,
        disk_full_by=ordeal.disk_full_by,
        disk_full_acknowledged=len(on_full_disk),
        disk_full_acknowledged_lost=n_lost(on_full_disk, logged),
        disk_full_refused=ordeal.disk_full_refused,
        disk_full_acknowledged_meanwhile=ordeal.disk_full_acknowledged_meanwhile,
        disk_full_files_added=ordeal.disk_full_files_added,
        disk_full_recovery_s=ordeal.disk_full_recovery_s,
        eio_refused=ordeal.eio_refused,
        eio_acknowledged_after=ordeal.eio_acknowledged_after,
        eio_said_ready=ordeal.eio_said_ready,
        eio_synced_again=ordeal.eio_synced_again,
        replay_lost=n_lost(ledger.acknowledged, replayed),
        replay_differences=n_different(logged, replayed, twice),
        journal_files=sum(len(kind.files(data_dir)) for data_dir in data_dirs),
        lag_bytes_at_end=sum(lag_bytes(platform.store, kind, data_dir) for data_dir in data_dirs),
        minutes=(time.monotonic() - began) / 60,
    )


def logged_rows(platform: Platform) -> pd.DataFrame:
    """`prediction_logs` by prediction id, every column as Postgres has it, numbers to their last bit."""
    import pandas as pd

    with platform.store.engine.connect() as connection:
        cursor = connection.connection.cursor()
        with cursor.copy("COPY prediction_logs TO STDOUT (FORMAT csv, HEADER)") as copy:
            data = b"".join(copy)
    return pd.read_csv(io.BytesIO(data), float_precision="round_trip").set_index("prediction_id").sort_index()


def logged_labels(platform: Platform) -> dict[str, int]:
    with platform.store.engine.connect() as connection:
        rows = connection.execute(text("SELECT prediction_id, true_label FROM label_store"))
        return {str(row.prediction_id): row.true_label for row in rows}


def n_lost(acknowledged: Sequence[Acknowledged], logged: pd.DataFrame) -> int:
    known = set(logged.index)
    return sum(ack.prediction_id not in known for ack in acknowledged)


def n_duplicated(logged: pd.DataFrame) -> int:
    """Rows beyond the first of what was asked once."""
    return len(logged) - logged["request_source"].nunique() + int(logged.index.duplicated().sum())


def n_wrong(platform: Platform, ledger: Ledger, logged: pd.DataFrame, twice: set[str]) -> int:
    """Acknowledged rows that are logged under another question or with other values than were answered and asked.

    All to the last bit, but for the probability of an id that two processes scored: whom a row is scored with may change it
    by rounding, and of two lines the log keeps the first.
    """
    import pandas as pd

    told = pd.DataFrame([asdict(ack) for ack in ledger.acknowledged]).set_index("prediction_id")
    found = logged.loc[logged.index.intersection(told.index)]
    told = told.loc[found.index]
    is_wrong = found["request_source"].map(number_of).to_numpy() != told["number"].to_numpy()
    for name in ("prediction", "threshold", "model_version"):
        is_wrong |= found[name].to_numpy() != told[name].to_numpy()
    allowed = np.where(found.index.isin(sorted(twice)), SCORE_TOLERANCE, 0.0)
    is_wrong |= ~(np.abs(found["probability"].to_numpy() - told["probability"].to_numpy()) <= allowed)
    contract = platform.contract
    inputs = np.array([[row[name] for name in contract.input_names] for row in ledger.rows], dtype=np.float64)
    matrix = contract.matrix(dict(zip(contract.input_names, inputs.T, strict=True)))
    expected = matrix[told["number"].to_numpy() % len(ledger.rows)]
    features = found[list(contract.feature_names)].to_numpy(dtype=np.float64)
    is_wrong |= ~((features == expected) | (np.isnan(features) & np.isnan(expected))).all(axis=1)
    return int(is_wrong.sum())


def n_different(logged: pd.DataFrame, replayed: pd.DataFrame, twice: set[str]) -> int:
    """Rows that a replay makes otherwise. Of an id that two processes logged either line may stay: they differ in when and in their file."""
    once = logged.index.difference(sorted(twice))
    when = ["created_at", "latency_ms", "segment"]
    if not logged.index.equals(replayed.index):
        return len(logged.index.symmetric_difference(replayed.index))
    differs = logged.drop(columns=when).compare(replayed.drop(columns=when))
    differs_in_time = logged.loc[once, when].compare(replayed.loc[once, when])
    return len(differs.index.union(differs_in_time.index))


def logged_twice(platform: Platform, data_dirs: Sequence[Path]) -> set[str]:
    """Ids that are in more than one line of the journals."""
    kind = prediction_journal(platform.contract)
    n_lines: Counter[bytes] = Counter()
    for data_dir in data_dirs:
        for path in kind.files(data_dir):
            offset = -1
            while (chunk := read_chunk(path, max(0, offset))).end_offset > offset:
                n_lines.update(line.partition(b",")[0] for line in chunk.lines)
                offset = chunk.end_offset
    return {str(UUID(prediction_id.decode())) for prediction_id, n in n_lines.items() if n > 1}


def is_met(name: str, value: float | str) -> bool:
    comparison, target = TARGETS.get(name, ("", 0))
    if not comparison:
        return True
    return float(value) >= target if comparison == ">=" else float(value) <= target


def show(outcome: Outcome, console: Console) -> None:
    table = Table(title="Crashes", title_justify="left")
    for column in ("measure", "value", "target", ""):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, value in asdict(outcome).items():
        comparison, target = TARGETS.get(name, ("", 0))
        shown = value if isinstance(value, str) else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        table.add_row(
            name, shown, f"{comparison} {target}" if comparison else "", "" if is_met(name, value) else "missed"
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
