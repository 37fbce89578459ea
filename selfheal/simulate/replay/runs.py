"""Many replays: every (world, policy, seed), in parallel processes, with one JSON line per finished cell.

Belongs here: what is still to be done and where results go. A line is appended in one write under a lock as soon as its cell is finished,
so a run that is killed loses only the cells under way; the next run of the same command continues. A torn last line is dropped. A cell's
fingerprint covers its world, policy, seed, interval and data: results of another declaration are not taken for this one's. It does not
cover the code, which a line names.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from selfheal.kit.code_version import code_version
from selfheal.kit.json_lines import append_line, count_lines, read_lines
from selfheal.kit.parent_death import end_with_parent
from selfheal.simulate.replay.deployment import Deployment
from selfheal.simulate.replay.engine import INTERVAL
from selfheal.simulate.replay.measures import figures
from selfheal.simulate.replay.policies import ORACLE, policy_named

POLL_SECONDS = 1.0
"""Time between two readings of how far a run is."""

ONE_THREAD = "OMP_NUM_THREADS"
"""More threads for matrices of a few columns take longer, on a busy machine a hundred times."""

FORMAT = 1
"""Part of every fingerprint: raised when the meaning of a figure changes."""


class Builder(Protocol):
    """Makes the deployments of a run in any process: a picklable object that is the same everywhere."""

    def build(self, name: str, seed: int) -> Deployment:
        """Return the deployment of a world or stream for a seed."""

    def fingerprint(self, name: str) -> str:
        """Return what a deployment depends on beside its seed, as text."""


@dataclass(frozen=True, order=True)
class Cell:
    """One replay: a world or natural stream, a seed and a policy."""

    world: str
    seed: int
    policy: str


@dataclass(frozen=True)
class Run:
    """A run: how deployments are built, where results go, and the interval of decisions."""

    builder: Builder
    results: Path
    interval: timedelta = INTERVAL

    def fingerprint(self, cell: Cell) -> str:
        """Return the sha256 (hex) of all that a cell's figures depend on, the code apart."""
        policy = policy_named(cell.policy)
        parts = (FORMAT, cell.world, cell.seed, policy.name, policy.description, self.interval.total_seconds())
        text = json.dumps([*parts, self.builder.fingerprint(cell.world)])
        return hashlib.sha256(text.encode()).hexdigest()


def run_cells(
    run: Run, cells: Iterable[Cell], *, processes: int, on_progress: Callable[[int, int], None] | None = None
) -> dict[Cell, dict[str, Any]]:
    """Replay the cells that the results lack; return the figures of all.

    The policies of one world and seed run in one process, one after the other, on a deployment that is built once.

    Args:
        processes: number of worker processes; 0: in this one.
        on_progress: called with the number of finished cells and of all, about once a second.

    Raises:
        InvalidDataError: if the file of results holds something else.
    """
    wanted = sorted(set(cells))
    report = on_progress or _ignore
    done = finished(run, wanted)
    n_lines_before = count_lines(run.results)

    def tick() -> None:
        report(len(done) + count_lines(run.results) - n_lines_before, len(wanted))

    tick()
    batches = _batches(cell for cell in wanted if cell not in done)
    if processes == 0:
        for batch in batches:
            for _ in _replayed(run, batch):
                tick()
    elif batches:
        _run_in_processes(run, batches, processes, tick)
    return finished(run, wanted)


def finished(run: Run, cells: Sequence[Cell]) -> dict[Cell, dict[str, Any]]:
    """Return the figures of those cells that the file of results has.

    Raises:
        InvalidDataError: if a line, other than a torn last one, is none of a run's.
    """
    lines = read_lines(run.results, "fingerprint", "result of a replay")
    by_fingerprint = {line["fingerprint"]: line for line in lines}
    prints = {cell: run.fingerprint(cell) for cell in cells}
    return {cell: by_fingerprint[found] for cell, found in prints.items() if found in by_fingerprint}


def _batches(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return the cells by seed and world, seeds first: the worlds of a seed share a champion that is trained once."""
    batches: dict[tuple[int, str], list[Cell]] = {}
    for cell in cells:
        batches.setdefault((cell.seed, cell.world), []).append(cell)
    return [batches[key] for key in sorted(batches)]


def _run_in_processes(run: Run, batches: list[list[Cell]], processes: int, on_tick: Callable[[], None]) -> None:
    context = multiprocessing.get_context("spawn")  # threads of the parent's libraries do not survive a fork
    os.environ.setdefault(ONE_THREAD, "1")  # of each worker: there are as many of them as processors
    with ProcessPoolExecutor(processes, context, end_with_parent, (os.getpid(),)) as pool:
        pending: set[Future[None]] = {pool.submit(_replay_batch, run, batch) for batch in batches}
        try:
            while pending:
                done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                on_tick()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _replay_batch(run: Run, batch: list[Cell]) -> None:
    for _ in _replayed(run, batch):
        pass


def _replayed(run: Run, batch: list[Cell]) -> Iterator[Cell]:
    """Replay a batch and append each cell's line; yield each cell when its line is written."""
    deployment = run.builder.build(batch[0].world, batch[0].seed)
    for cell in batch:
        began = time.process_time()
        found = policy_named(cell.policy).run(deployment, run.interval, cell.seed)
        cpu_seconds = time.process_time() - began
        line = {
            "fingerprint": run.fingerprint(cell),
            "world": cell.world,
            "seed": cell.seed,
            "policy": cell.policy,
            "code": code_version(),
            "cpu_seconds": round(cpu_seconds, 3),
            **figures(found, is_yardstick=cell.policy == ORACLE).as_json(),
        }
        append_line(run.results, line)
        yield cell


def _ignore(_n_done: int, _n_all: int) -> None:
    """Ignore the progress."""
