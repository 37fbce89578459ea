"""SIGKILL to API processes, and to Postgres, while clients ask.

Belongs here: when which process is killed. Does not belong here: what a process is (`benchmarks.crash.api_processes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rich.progress import Progress
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from benchmarks.crash.api_processes import N_DOORS, Api, Scene, under_load, until
from benchmarks.crash.ordeal import ApiPlan, Ordeal
from benchmarks.witness import Ledger
from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres.cluster import running_server
from selfheal.adapters.postgres.ingest import compress_copied
from selfheal.adapters.postgres.journal_seals import seal_finished

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

ROWS_BEFORE_A_KILL = 200
"""A process is killed once it has acknowledged so many rows: before, it is not under load."""

LONGEST_FUSE_SECONDS = 0.5
ALL_AT_ONCE_SHARE = 0.05
COLD_START_EVERY = 10
"""The other processes are forked with their imports done: those are most of a start, and the same every time."""

COMPRESS_EVERY_SECONDS = 1.0
TORN_SHARE = 0.4


async def killed_in_turn(scene: Scene, plan: ApiPlan, progress: Progress) -> None:
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
    """Kill the victims, leave half a journal line of some, and start each again, cold or warm."""
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
    """Run the work while the context is open, then cancel it. Raise what it raised."""
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
                await asyncio.to_thread(seal_finished, platform.store, kind, platform.settings.data_dir)
                await asyncio.to_thread(compress_copied, platform.store, kind, platform.settings.data_dir)
        await asyncio.sleep(COMPRESS_EVERY_SECONDS)


async def kill_postgres_now_and_then(platform: Platform, ordeal: Ordeal, plan: ApiPlan) -> None:
    """Kills the embedded server at even distances between the kills; the API processes start it again."""
    pgdata = platform.settings.data_dir / "postgres"
    for i in range(plan.n_postgres_kills):
        while ordeal.kills < plan.n_kills * (i + 1) // (plan.n_postgres_kills + 1):
            await asyncio.sleep(0.05)
        server = running_server(pgdata)
        assert server is not None, f"no server of {pgdata} runs"
        os.kill(server.pid, signal.SIGKILL)
        ordeal.postgres_kills += 1
        killed_at = time.monotonic()
        while not await asyncio.to_thread(postgres_answers, platform):
            await asyncio.sleep(0.05)
        ordeal.postgres_away_s_max = max(ordeal.postgres_away_s_max, time.monotonic() - killed_at)


def postgres_answers(platform: Platform) -> bool:
    """Return whether Postgres answers a query."""
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
    """Return the text of the progress bar, with the number of acknowledged rows."""
    return f"kill -9 ({len(ledger.acknowledged):,} acknowledged)"


def leave_half_a_line(platform: Platform, pid: int) -> bool:
    """Append the beginning of a line to the newest file of a dead process; return whether there was one.

    No client received an answer for that prediction.
    """
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
