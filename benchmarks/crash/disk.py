"""A full disk, and one that fails a sync, under an API process.

Belongs here: taking the disk away. Does not belong here: taking the process away (`benchmarks.crash.api_kills`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import httpx
import psutil

from benchmarks.crash.api_kills import ROWS_BEFORE_A_KILL, answering
from benchmarks.crash.api_processes import Scene, under_load, until
from selfheal.adapters.mlflow_store import mlflow_store_uri
from selfheal.adapters.postgres.store import server_url

SMALL_DISK_BYTES = 16_000_000
ALMOST_FULL_BYTES = 12_288
"""Room for a new file's header and a few rows, and no more."""

SECONDS_FULL = 3.0
SYNCS_BEFORE_FAILURE = 150
N_PROBES = 50


class SmallDisk(Protocol):
    """What the audit trail of one API process lies on; it can be filled and emptied under that process."""

    kind: str

    def fill(self, process: psutil.Process, free_bytes: int = 0) -> None:
        """Fill the disk until `free_bytes` bytes are left."""

    def free(self, process: psutil.Process) -> None:
        """Make room on the disk again."""


class Tmpfs:
    """A small file system in memory, filled by one large file."""

    kind = "tmpfs"

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self, process: psutil.Process, free_bytes: int = 0) -> None:
        """Fill the file system until `free_bytes` bytes are left."""
        del process
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4_096)
        os.truncate(self._ballast, max(0, self._ballast.stat().st_size - free_bytes))

    def free(self, process: psutil.Process) -> None:
        """Delete the file that fills the file system."""
        del process
        self._ballast.unlink()


class LimitedFiles:
    """For those who may not mount: the kernel refuses the process every write, as EFBIG instead of ENOSPC."""

    kind = "rlimit"

    def fill(self, process: psutil.Process, free_bytes: int = 0) -> None:
        """Limit each file that the process writes to `free_bytes` bytes."""
        _, most = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (free_bytes, most))

    def free(self, process: psutil.Process) -> None:
        """Set the limit back to the hard limit."""
        _, most = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (most, most))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a tmpfs at `folder` if we may mount one; else limit what processes write."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "selfheal-crash", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0  # noqa: S603
    try:
        yield Tmpfs(folder) if is_mounted else LimitedFiles()
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


async def full_disk(scene: Scene, disk: SmallDisk) -> None:
    """Fill the disk of one process that shares the Postgres, once wholly and once almost; make room after each.

    The process must refuse, acknowledge nothing, leave no stray files, and take predictions again without a restart.
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
    """Return the number of journal files, compressed or not."""
    return len(list((data_dir / "audit").rglob("*.csv*")))


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
