"""Samples of what may grow: memory, descriptors and connections of each process; rows and bytes that are kept.

Belongs here: measuring, every few seconds. Does not belong here: what a series says (`benchmarks.soak.series`).

`rss` is the resident memory of a process without what it shares: its own pages and the files it has mapped. Pages that a
forked child still shares with it count in full: their share would fall with each child, and rise when it ends. MLflow and
Postgres are several processes; there a page that several of them map counts once. Postgres' shared buffers are in use from
their first touch on and never grow beyond their size: they are `shared`, with that size as their bound.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from benchmarks.running_platform import RunningPlatform
from benchmarks.soak.bounds import EVIDENCE, KEPT, PROCESSES, REPORTS, UNLABELLED
from benchmarks.soak.kept import shared_memory_bytes, what_is_kept
from benchmarks.soak.series import Series

OF_SEVERAL_PROCESSES = frozenset({"mlflow", "postgres"})
KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process, or of several together: their own, and what they share with others (`shmem`)."""

    own: float
    shared: float


def memory_of(processes: Sequence[psutil.Process]) -> Memory:
    """Return the memory of the processes; of several, pages that they map together count once.

    Raises:
        OSError: if it is one process, and gone.
    """
    if len(processes) == 1:
        found = kib_of(Path(f"/proc/{processes[0].pid}/status"))
        return Memory(KIB * (found["RssAnon"] + found["RssFile"]), KIB * found["RssShmem"])
    rollups = []
    for one in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a child that has just ended holds nothing
            rollups.append(kib_of(Path(f"/proc/{one.pid}/smaps_rollup")))
    own = sum(one["Pss_Anon"] + one["Pss_File"] for one in rollups)
    return Memory(KIB * own, KIB * sum(one["Pss_Shmem"] for one in rollups))


def kib_of(path: Path) -> defaultdict[str, float]:
    """Return the lines `Name:  123 kB` of a file below `/proc`; a name that it lacks is 0."""
    found: defaultdict[str, float] = defaultdict(float)
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = float(value.removesuffix(" kB"))
    return found


class Sampler(threading.Thread):
    """Takes samples in a thread of its own, until `stop`. A process that is away, or a database that does not answer, is left out.

    Args:
        platform: what is measured.
        every_seconds: between samples of the processes.
        kept_every: samples of the processes between two of what is kept.
        count_answers: returns the number of predictions that were acknowledged so far.
    """

    def __init__(
        self, platform: RunningPlatform, every_seconds: float, kept_every: int, count_answers: Callable[[], int]
    ) -> None:
        super().__init__(name="sampler", daemon=True)
        self._platform, self._every, self._kept_every = platform, every_seconds, kept_every
        self._count_answers = count_answers
        self._stopping, self._began = threading.Event(), time.monotonic()
        self._lives: dict[str, tuple[int, int]] = {}
        self.series: defaultdict[str, defaultdict[str, Series]] = defaultdict(lambda: defaultdict(Series))
        self.parts: list[tuple[float, dict[str, tuple[float, float]]]] = []
        """Rows and bytes of each table and folder of what is kept, at each time in seconds."""

        self.shared_limit_bytes: float | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Take samples until `stop`; store the error if one ends it."""
        number, self._began = 0, time.monotonic()
        while not self._stopping.wait(self._every):
            try:
                self._sample_processes()
                if number % self._kept_every == 0:
                    self._sample_kept()
            except (psutil.Error, psycopg.Error, OSError):
                continue
            except BaseException as error:
                self.error = error
                return
            finally:
                number += 1

    def stop(self) -> None:
        """Stop, and raise the error that ended the sampling, if any."""
        self._stopping.set()
        self.join(60)
        if self.error is not None:
            raise self.error

    @property
    def seconds(self) -> float:
        """Return the seconds since the sampling began."""
        return time.monotonic() - self._began

    @property
    def seconds_sampled(self) -> float:
        """Return the time of the last sample."""
        return max(
            (series.times_s[-1] for one in self.series.values() for series in one.values() if series.times_s),
            default=0.0,
        )

    def n_lives(self, role: str, after_s: float) -> int:
        """Return how many lives of a process were sampled after that many seconds."""
        return len(set(self.series[role]["rss"].settled(after_s=after_s).segments))

    def _sample_processes(self) -> None:
        for role in PROCESSES:
            for process in self._platform.of_role(role)[:1]:
                with contextlib.suppress(psutil.Error, OSError):
                    life = self._life(role, process.pid)
                    children = process.children(recursive=True) if role in OF_SEVERAL_PROCESSES else []
                    family = [process, *children]
                    memory = memory_of(family)
                    measured = {
                        "rss": memory.own,
                        "shared": memory.shared,
                        "processes": float(len(family)),
                        "fds": float(sum(one.num_fds() for one in family)),
                        "connections": float(sum(len(one.net_connections("all")) for one in family)),
                    }
                    for name, value in measured.items():
                        self.series[role][name].add(self.seconds, value, life)

    def _life(self, role: str, pid: int) -> int:
        number, known = self._lives.get(role, (0, pid))
        if known != pid:
            number += 1
        self._lives[role] = (number, pid)
        return number

    def _sample_kept(self) -> None:
        self.shared_limit_bytes = self.shared_limit_bytes or shared_memory_bytes(self._platform.data_dir)
        kept = what_is_kept(self._platform.data_dir)
        for name in (KEPT, EVIDENCE):
            self.series[name]["rows"].add(self.seconds, kept.rows[name])
            self.series[name]["bytes"].add(self.seconds, kept.sizes[name])
        self.series[REPORTS]["bytes"].add(self.seconds, kept.sizes[REPORTS])
        self.series[UNLABELLED]["rows"].add(self.seconds, kept.rows[UNLABELLED])
        self.series[UNLABELLED]["acknowledged"].add(self.seconds, float(self._count_answers()))
        self.parts.append((self.seconds, kept.parts))
