"""Doing the pieces of worlds: on as many processes as asked, and saying how long the rest will take.

Belongs here: who does what when. Does not belong here: what a piece is (the modules of worlds), what is kept (`results`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from typing import Any, TypeAlias

from benchmarks.forecast import Forecast
from benchmarks.trust.results import Done, Results
from benchmarks.trust.worlds import Given, Piece, TrustWorld
from selfheal.kit.durations import span
from selfheal.kit.parent_death import end_with_parent

POLL_SECONDS = 1.0
AHEAD = 2
"""Pieces that wait in front of each process: a stopped run throws few away."""


@dataclass(frozen=True)
class Job:
    """A piece of a world."""

    world: str
    piece: Piece


def jobs_of(worlds: Sequence[TrustWorld], given: Given) -> list[Job]:
    """Return all pieces: world by world, the longest of each first, so that no process waits long for the last one."""
    return [
        Job(world.name, piece) for world in worlds for piece in sorted(world.pieces(given), key=lambda one: -one.cpu_s)
    ]


def do(jobs: Sequence[Job], given: Given, n_processes: int) -> Iterator[tuple[Job, Done] | None]:
    """Do the pieces, and yield each that is done, in no order; None about once a second while none is.

    Args:
        n_processes: that work at once; 0: in this one.
    """
    if n_processes == 0:
        for job in jobs:
            yield job, _done(job.piece, given)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # many threads in each of many processes wait for each other
    context = get_context("spawn")  # threads of the parent's libraries do not survive a fork
    with ProcessPoolExecutor(n_processes, context, end_with_parent, (os.getpid(),)) as pool:
        rest = list(reversed(jobs))
        pending: dict[Future[Done], Job] = {}
        try:
            while rest or pending:
                while rest and len(pending) < AHEAD * n_processes:
                    job = rest.pop()
                    pending[pool.submit(_done, job.piece, given)] = job
                finished, _ = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                if not finished:
                    yield None
                for future in finished:
                    yield pending.pop(future), future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _done(piece: Piece, given: Given) -> Done:
    began = time.process_time()
    text = json.dumps(piece.work(given, *piece.arguments), default=_plain)
    found = json.loads(text)  # the same whether it was kept or not
    return Done(found, time.process_time() - began)


def _plain(value: Any) -> Any:
    """Return a number of numpy as Python's."""
    return value.item()


OnWorld: TypeAlias = Callable[[TrustWorld, Mapping[str, Done]], None]
"""Told of a world and its pieces, by name and in their order, as soon as all are done."""


def measure(
    worlds: Sequence[TrustWorld],
    given: Given,
    results: Results,
    *,
    n_processes: int,
    on_world: OnWorld,
    on_progress: Callable[[str], None],
    every: timedelta = timedelta(minutes=1),
) -> None:
    """Do what the results lack, keep it, and say when a world is complete and how much is left.

    Args:
        on_progress: called with a sentence before the work, and about `every` so often.
    """
    forecast, todo = Forecast(max(1, n_processes)), []
    waiting = {world.name: _Waiting(world, given, on_world) for world in worlds}
    for job in jobs_of(worlds, given):
        known = results.find(job.world, job.piece)
        if known is None:
            forecast.add(job.world, job.piece.cpu_s)
            todo.append(job)
        else:
            forecast.learn(job.world, job.piece.cpu_s, known.cpu_s)
            waiting[job.world].done[job.piece.name] = known
    n_known = sum(len(one.done) for one in waiting.values())
    on_progress(forecast.plan(f"{len(todo):,} pieces" + (f", {n_known:,} are known" if n_known else "")))
    for one in waiting.values():
        one.report_if_complete()
    began = said = time.monotonic()
    n_done, cpu_s = 0, 0.0
    for finished in do(todo, given, n_processes):
        if finished is not None:
            job, found = finished
            results.keep(job.world, job.piece, found)
            forecast.finish(job.world, job.piece.cpu_s, found.cpu_s)
            n_done, cpu_s = n_done + 1, cpu_s + found.cpu_s
            waiting[job.world].done[job.piece.name] = found
            waiting[job.world].report_if_complete()
        now = time.monotonic()
        if n_done and now - said >= every.total_seconds():
            said = now
            left = span(forecast.time_left(now - began, cpu_s))
            on_progress(f"{n_done:,} of {len(todo):,} pieces are done, about {left} left")


class _Waiting:
    """A world, and those of its pieces that are done."""

    def __init__(self, world: TrustWorld, given: Given, on_world: OnWorld) -> None:
        self._world, self._on_world = world, on_world
        self._names = [piece.name for piece in world.pieces(given)]
        self.done: dict[str, Done] = {}

    def report_if_complete(self) -> None:
        if len(self.done) == len(self._names):
            self._on_world(self._world, {name: self.done[name] for name in self._names})
