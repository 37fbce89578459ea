"""Who executes a run: a lock per run, held by the process that executes it.

The kernel releases the lock with its holder, however that ends. So a run that Dagster calls STARTED is believed to be under way
only while its lock is held: after a `kill -9` or a power cut it is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

FOLDER = "run_owners"


@dataclass(frozen=True)
class RunOwners:
    """The locks of the runs on this machine: one file per run, with the number of the process that executes it."""

    folder: Path

    @classmethod
    def of(cls, instance: dg.DagsterInstance) -> RunOwners:
        """Return those of a Dagster instance, below DAGSTER_HOME."""
        return cls(Path(instance.root_directory) / FOLDER)

    def claim(self, run_id: str) -> IO[bytes]:
        """Lock a run. The lock lasts until the file is closed, here and in each process that inherited it.

        Raises:
            BlockingIOError: if it has an owner already.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.has_owner(run_id):
            raise BlockingIOError(f"run {run_id} is executed by process {self.pid(run_id)}")
        # Locked before it has its name: whoever finds the file without its lock takes the run for abandoned.
        unnamed = self.folder.with_name(f".{run_id}.{os.getpid()}.tmp")
        lock = unnamed.open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.replace(self._path(run_id))
        return lock

    def is_known(self, run_id: str) -> bool:
        """Return whether the run ever had an owner here, alive or not."""
        return self._path(run_id).exists()

    def pid(self, run_id: str) -> int | None:
        """Return the process that executes the run; None if there is none, or it is in another container.

        In another container, on the same folder, its number means nothing here, or another process.
        """
        number, _, namespace = (self._read_held(run_id) or b"").decode().partition(" ")
        return int(number) if number and namespace == pid_namespace() else None

    def has_owner(self, run_id: str) -> bool:
        """Return whether a live process executes the run."""
        return self._read_held(run_id) is not None

    def _read_held(self, run_id: str) -> bytes | None:
        """Return what is written in the file of a run while somebody holds its lock; None if nobody does."""
        with contextlib.suppress(FileNotFoundError), self._path(run_id).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read()
        return None

    def forget(self, run_id: str) -> None:
        """Delete the file of a run that has ended."""
        self._path(run_id).unlink(missing_ok=True)

    def known(self) -> set[str]:
        """Return the runs that have a file here."""
        return {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()

    def _path(self, run_id: str) -> Path:
        return self.folder / run_id


def write_owner(lock: IO[bytes], pid: int) -> None:
    """Write the number of the process that holds the lock of a run, and where it is one, for whoever has to end it."""
    lock.write(f"{pid} {pid_namespace()}".encode())
    lock.flush()


def pid_namespace() -> str:
    """Return what process numbers of this process are valid in: the machine, or a container; empty if there is no such thing."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  (the link leads nowhere)
    except OSError:
        return ""
