"""The API under load while its processes, its Postgres and its disk fail: the ordeal as a whole.

Belongs here: the order of things. Does not belong here: each of them (`api_kills`, `disk`, `kept_word`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer
import uvloop
from rich.console import Console
from rich.progress import Progress

from benchmarks.crash.api_kills import killed_in_turn
from benchmarks.crash.api_processes import N_ROWS, Scene, WarmStarter
from benchmarks.crash.disk import SmallDisk, failing_sync, full_disk, small_disk
from benchmarks.crash.kept_word import verified
from benchmarks.crash.ordeal import ApiOutcome, ApiPlan, Ordeal
from benchmarks.stage import (
    prepare,
    request_rows,
)
from benchmarks.witness import Ledger
from selfheal.adapters.postgres import cluster

if TYPE_CHECKING:
    from selfheal.services.platform import Platform


def measure(folder: Path, data: Path | None, plan: ApiPlan, console: Console) -> ApiOutcome:
    """Run the whole ordeal on a new platform in the folder, and return what was measured.

    Raises:
        typer.Exit: if SIGTERM ends it.
    """
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
        cluster.stop(platform.settings.data_dir / "postgres")  # the process that restarted it may have been killed


async def undergo(
    platform: Platform, ledger: Ledger, disk: SmallDisk, plan: ApiPlan, folder: Path, progress: Progress
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
