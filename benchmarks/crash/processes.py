"""A running `selfheal up` under traffic loses one process after the other: itself, the API, Dagster's, MLflow, Postgres.

Belongs here: whom it loses when, and how it goes on. Does not belong here: which process is which
(`benchmarks.running_platform`).

After each kill the platform has to answer again, started again as a service manager would if it has ended, and to finish a
tick within three intervals. Nothing of before may be left then. At the end the clients' answers are compared with Postgres,
and `selfheal verify` has the last word.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from rich.console import Console
from rich.progress import Progress

from benchmarks.crash import checks
from benchmarks.crash.forks import kill_all
from benchmarks.crash.kept_word import logged_labels, logged_rows, logged_twice, n_duplicated, n_lost, n_wrong
from benchmarks.running_platform import UNFINISHED, PlatformIsStuckError, RunningPlatform
from benchmarks.stage import request_rows
from benchmarks.witness import Client, Door, Ledger
from selfheal.adapters.datasets import load_dataset
from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres.ingest import ingest
from selfheal.domain.contract import TRUE_LABEL, load_contract
from selfheal.services.platform import open_platform
from selfheal.services.verification.run import verify_everything
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from selfheal.settings import Settings

TICK_SECONDS = 10
TICKS_TO_GO_ON = 3
SECONDS_OF_A_TICK = 45.0
"""Launching a run and running it, on two cores that others use as well."""

N_ROWS = 3_000
N_CLIENTS = 3
CLIENT_PAUSE_SECONDS = 0.15
LABEL_DELAY_SECONDS = 5.0
RUN_WORKER_TIMEOUT_SECONDS = 90.0
LONGEST_FUSE_SECONDS = 12.0
LONGEST_RUN_SECONDS = 3.0
CLOSED_WITHIN_SECONDS = 5.0

ROLES = ("up", "api", "code", "webserver", "daemon", "mlflow", "run_worker", "postgres", "everything")
"""`everything` is the power: all of them at the same moment."""


SEEN_FROM_OUTSIDE = frozenset({"up", "api", "webserver", "mlflow", "everything"})
"""Those whose end a door shows: while another one is away, API, Dagster and MLflow answer as ever."""


@dataclass
class Survived:
    """What was killed, and what was wrong after it."""

    kills: Counter[str] = field(default_factory=Counter)
    seconds_until_answering: dict[str, list[float]] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    n_starts: int = 0
    acknowledged: int = 0

    def found(self, key: str, role: str, sentence: str) -> None:
        """Count a finding under its key, and record it."""
        self.counts[key] += 1
        self.findings.append({"key": key, "process": role, "what": sentence})


class Traffic(threading.Thread):
    """Clients of the API in a thread of their own, until `stop`; with several ports, as behind a load balancer."""

    def __init__(self, ledger: Ledger, ports: Sequence[int], n_clients: int = N_CLIENTS, **client: Any) -> None:
        super().__init__(name="traffic", daemon=True)
        self._ledger, self._doors, self._n_clients = ledger, [Door(port) for port in ports], n_clients
        self._options = {"pause_seconds": CLIENT_PAUSE_SECONDS, "label_delay_seconds": LABEL_DELAY_SECONDS} | client
        self._stopping = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Send requests until `stop`; store the error if one ends it."""
        try:
            asyncio.run(self._send())
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        """Stop; raises what the clients raised."""
        self._stopping.set()
        self.join(60)
        if self.error is not None:
            raise self.error

    async def _send(self) -> None:
        clients = [
            asyncio.create_task(
                Client(
                    self._ledger,
                    self._doors,
                    number // 2 % len(self._doors),
                    n_rows=5 if number % 3 == 2 else 1,
                    has_own_ids=number % 2 == 1,
                    goes_elsewhere=len(self._doors) > 1,
                    **self._options,
                ).run()
            )
            for number in range(self._n_clients)
        ]
        while not self._stopping.is_set():
            await asyncio.sleep(0.2)
            for client in clients:
                if client.done():
                    client.result()
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def kill_processes(
    folder: Path, data: Path | None, console: Console, progress: Progress, *, n_kills: int, roles: Sequence[str] = ROLES
) -> Survived:
    """Kill each process of a running platform `n_kills` times, in random order."""
    survived = Survived()
    platform = RunningPlatform(folder, platform_environment(data))
    settings = settings_of(platform)
    contract = load_contract(settings.use_case)
    dataset = load_dataset(settings, contract)
    ledger = Ledger(
        request_rows(dataset, contract, N_ROWS), dataset.frame[TRUE_LABEL].head(N_ROWS).astype(int).tolist()
    )
    victims = [role for role in roles for _ in range(n_kills)]
    random.shuffle(victims)
    bar = progress.add_task("kill -9 of a running platform", total=len(victims))
    console.print("Starting `selfheal up`")
    try:
        platform.start()
        with traffic(ledger, platform):
            for role in victims:
                progress.update(bar, description=f"kill -9: {role} ({len(survived.findings)} findings)")
                n_before, began = len(survived.findings), time.monotonic()
                _kill_and_watch(platform, role, survived)
                said = "; ".join(finding["what"] for finding in survived.findings[n_before:]) or "it went on by itself"
                console.print(
                    f"kill -9 {role}: {said} ({time.monotonic() - began:.0f} s)", highlight=False, markup=False
                )
                progress.advance(bar)
        _stop_in_order(platform, survived)
        _verify(settings, ledger, survived)
    finally:
        platform.kill_everything()
    survived.n_starts = platform.n_starts
    return survived


def platform_environment(data: Path | None) -> dict[str, str]:
    """Return the settings of a platform that ticks fast."""
    rows = {"SYNTHETIC_ROWS": "6000"} if data is None else {"DATA": str(data.resolve()), "DATA_ROWS": "12000"}
    return {"MONITORING_INTERVAL": str(TICK_SECONDS), "PROMOTION_COOLDOWN_DAYS": "0"} | rows


def settings_of(platform: RunningPlatform) -> Settings:
    """Return the settings that the platform's processes have."""
    given = {name.lower(): value for name, value in platform.settings_environment().items()}
    return load_settings(**given, database_url=None, postgres_host=None)


@contextlib.contextmanager
def traffic(ledger: Ledger, platform: RunningPlatform, n_clients: int = N_CLIENTS, **client: Any) -> Iterator[Traffic]:
    """Send traffic while the context is open."""
    with sent_to(ledger, [platform.api_port], n_clients, **client) as sender:
        yield sender


@contextlib.contextmanager
def sent_to(ledger: Ledger, ports: Sequence[int], n_clients: int = N_CLIENTS, **client: Any) -> Iterator[Traffic]:
    """Send traffic to the ports while the context is open."""
    sender = Traffic(ledger, ports, n_clients, **client)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


def _kill_and_watch(platform: RunningPlatform, role: str, survived: Survived) -> None:
    """Kill one process and see the platform go on; if it does not, it begins anew, so that the next kill says something."""
    platform.ensure_up()
    time.sleep(random.uniform(0, LONGEST_FUSE_SECONDS))
    before = platform.members()
    if not kill(platform, role):
        survived.found("stuck", role, f"there was no process {role} to kill")
        return
    survived.kills[role] += 1
    killed_at, began = time.time(), time.monotonic()
    try:
        time.sleep(1.0)
        platform.ensure_up()
        if role in SEEN_FROM_OUTSIDE:
            survived.seconds_until_answering.setdefault(role, []).append(time.monotonic() - began)
        _wait_for_tick(platform, killed_at)
    except PlatformIsStuckError as error:
        survived.found("stuck", role, str(error))
    left = _left_of(before) if role in {"up", "everything"} else []
    for process in left:
        survived.found("left_behind", role, f"process {_command(process)}")
    kill_all(left)
    if not platform.answers():
        platform.kill_everything()
        platform.ensure_up()


def kill(platform: RunningPlatform, role: str) -> bool:
    """SIGKILL to one process of the role; return whether there was one."""
    if role == "everything":
        platform.kill_everything()
        return True
    processes = platform.of_role(role) if role != "run_worker" else _run_workers(platform)
    if not processes:
        return False
    victim = random.choice(processes)
    deadline = time.monotonic() + CLOSED_WITHIN_SECONDS
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.kill()
        while victim.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)  # its parent may take its time to bury it
    return True


def _run_workers(platform: RunningPlatform) -> list[psutil.Process]:
    """Return the run workers at a random moment at which there is one; none if there is none for long."""
    deadline = time.monotonic() + RUN_WORKER_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if platform.of_role("run_worker"):
            time.sleep(random.uniform(0, LONGEST_RUN_SECONDS))
            if processes := platform.of_role("run_worker"):  # else it was done before: the next one
                return processes
        time.sleep(0.05)
    return []


def _wait_for_tick(platform: RunningPlatform, since: float) -> None:
    """Wait until a tick has succeeded: three intervals from when it answers, and the time of a tick.

    Raises:
        PlatformIsStuckError: if none has; it names the runs.
    """
    seconds = TICKS_TO_GO_ON * TICK_SECONDS + SECONDS_OF_A_TICK
    try:
        platform.wait_until(lambda: platform.has_ticked_since(since), seconds, "a tick after the kill")
    except PlatformIsStuckError as error:
        with contextlib.suppress(httpx.HTTPError, KeyError, TypeError):
            states = Counter(f"{run['jobName']} {run['status']}" for run in platform.runs()[:10])
            raise PlatformIsStuckError(f"{error}; its newest runs: {dict(states)}") from None
        raise


def _left_of(before: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return what ran before an `up` was killed and still runs; Postgres goes from one `up` to the next."""
    deadline = time.monotonic() + CLOSED_WITHIN_SECONDS
    while True:
        left = [one for one in before if one.is_running() and not _is_of_postgres(one)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _is_of_postgres(process: psutil.Process) -> bool:
    """Also of what is gone already."""
    try:
        return process.name() == "postgres" or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:120]
    except psutil.Error:
        return str(process.pid)


def _stop_in_order(platform: RunningPlatform, survived: Survived) -> None:
    """No run may wait for ever, and nothing may be left after Ctrl-C."""
    platform.ensure_up()
    deadline = time.monotonic() + TICKS_TO_GO_ON * TICK_SECONDS + SECONDS_OF_A_TICK
    old = {run["runId"]: run for run in platform.runs() if run["status"] in UNFINISHED}
    while old and time.monotonic() < deadline:
        time.sleep(1.0)
        still = {run["runId"] for run in platform.runs() if run["status"] in UNFINISHED}
        old = {run_id: run for run_id, run in old.items() if run_id in still}
    for run in old.values():
        survived.found("stuck", "", f"a run of {run['jobName']} stays {run['status']}")
    for process in platform.stop():
        survived.found("left_behind", "", f"after Ctrl-C: process {_command(process)}")


def _verify(settings: Settings, ledger: Ledger, survived: Survived) -> None:
    """Compare what was acknowledged to clients with Postgres and the journals; then verify everything."""
    platform = open_platform(settings)
    try:
        kind = prediction_journal(platform.contract)
        for journal in (kind, LABEL_JOURNAL):
            ingest(platform.store, journal, settings.data_dir)
        logged, labels = logged_rows(platform), logged_labels(platform)
        survived.acknowledged = len(ledger.acknowledged)
        survived.counts["lost"] += n_lost(ledger.acknowledged, logged)
        survived.counts["lost"] += sum(labels.get(one) is None for one in ledger.labels)
        survived.counts["duplicated"] += n_duplicated(logged)
        survived.counts["wrong_values"] += n_wrong(
            platform, ledger, logged, logged_twice(platform, [settings.data_dir])
        )
        survived.counts["wrong_values"] += sum(labels.get(one, label) != label for one, label in ledger.labels.items())
        for result in verify_everything(platform).results:
            for sentence in result.findings:
                survived.found("wrong_values", "", f"verify: {sentence}")
    finally:
        platform.close()
    for sentence in checks.half_files(settings.data_dir):
        if ".tmp" in sentence:  # younger than a day: maintenance deletes it
            continue
        survived.found("left_behind", "", sentence)
