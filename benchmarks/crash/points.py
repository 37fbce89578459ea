"""Which points are tried: every durable step of every operation, and what came of them all together.

Belongs here: finding the steps, choosing points, counting. Does not belong here: trying one (`trying`).
"""

from __future__ import annotations

import os
import pickle
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.crash.forks import Ended, forked
from benchmarks.crash.operations import Flavour, operations
from benchmarks.crash.resuming import PointsFile
from benchmarks.crash.states import STATES, State, make_state, memory_server, saved
from benchmarks.crash.steps import END
from benchmarks.crash.trying import RANDOM_MOMENT, Point, Tried, begin_lane, run_point

POINTS_OF_EACH_STEP = 20
POINTS_IN_ALL = 10_000
SPARE = 1.05
"""Share of points planned beyond that: in some states a step is not reached."""

MOST_CLEAN_RUNS = 3
"""Runs to the end by which the steps of a flavour are found."""

TRIES = 4
"""With so many states a step is tried to be reached."""

MAX_FINDINGS_KEPT = 300
POINTS_PER_LINE = 50
"""Where there is no terminal to draw a bar on."""


@dataclass
class Results:
    """All points that were tried."""

    by: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    counts: Counter[str] = field(default_factory=Counter)
    causes: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """How often each finding was made: operation, step, key, sentence without numbers."""

    findings: list[dict[str, Any]] = field(default_factory=list)
    known: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Steps that a run to the end takes, by operation."""

    unreached: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    """Why a state or a flavour could not be tried at all."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    file: PointsFile | None = None
    """Where each point is written as soon as it is done."""

    @classmethod
    def resumed(cls, file: PointsFile | None, only: Collection[str]) -> Results:
        """Return the results of the points that the file has, of these operations."""
        results = cls()
        for tried in [] if file is None else file.points:
            if tried.point.operation in only:
                results.count(tried)
        results.file = file
        return results

    @property
    def n_points(self) -> int:
        """Return the number of crash points that were reached."""
        return sum(sum(steps.values()) for steps in self.by.values())

    def add(self, tried: Tried) -> None:
        """Add a crash point that has just been tried, and write it to the file."""
        point = tried.point
        if not tried.is_reached:
            self.unreached[f"{point.operation}: {point.step}: {tried.error or 'not taken'}"] += 1
            return
        self.count(tried)
        if self.file is not None:
            self.file.append(tried)

    def count(self, tried: Tried) -> None:
        """Add a crash point that was reached to the counts and findings."""
        point = tried.point
        self.by[point.operation][point.step] += 1
        self.seconds[point.operation].append(tried.seconds)
        for key, sentences in tried.findings.items():
            self.counts[key] += len(sentences)
            for sentence in sentences:
                self.causes[point.operation, point.step, key, _without_numbers(sentence)] += 1
                if len(self.findings) < MAX_FINDINGS_KEPT:
                    where = {"operation": point.operation, "flavour": point.flavour, "step": point.step}
                    self.findings.append({"key": key, "what": sentence, **where, "seed": point.seed})


def try_points(
    folder: Path,
    progress: Progress,
    *,
    n_each: int,
    n_lanes: int,
    only: Sequence[str] = (),
    seed: int = 20,
    file: PointsFile | None = None,
) -> Results:
    """Try every step of every operation `n_each` times; if it is several times, `POINTS_IN_ALL` points altogether.

    Args:
        folder: in memory, and the embedded server's user may enter it.
        n_lanes: how many points are tried at once.
        only: operations; none: all.
        file: of earlier runs, whose points count; new ones are added to it.
    """
    import_everything()
    chosen = {name: flavours for name, flavours in operations().items() if not only or name in only}
    results = Results.resumed(file, chosen)
    if results.n_points:
        progress.console.print(f"{results.n_points:,} points of earlier runs count")
    rng = random.Random(f"{seed} {results.n_points}")  # a run that goes on tries other states than the one before
    with memory_server(folder) as server:
        url = server.url("postgres")
        states = make_states(url, folder, chosen, progress, results)
        with ProcessPoolExecutor(n_lanes, get_context("fork"), begin_lane, (url, folder, states)) as lanes:
            try:
                _try_points(lanes, chosen, states, progress, rng, results, n_each=n_each, is_everything=not only)
            except BaseException:
                lanes.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: what waits in the lanes takes minutes
                raise
    return results


def _try_points(
    lanes: ProcessPoolExecutor,
    chosen: dict[str, dict[str, Flavour]],
    states: Collection[str],
    progress: Progress,
    rng: random.Random,
    results: Results,
    *,
    n_each: int,
    is_everything: bool,
) -> None:
    n_seeds = min(n_each, MOST_CLEAN_RUNS)
    found = discover(lanes, chosen, progress, rng, n_seeds=n_seeds, states=states, results=results)
    _try_all(lanes, first_plan(found, n_each, rng, results.by), results, progress, "every step", rng, found)
    if is_everything and n_each > 1:
        n_more = round(SPARE * (POINTS_IN_ALL - results.n_points))
        _try_all(lanes, filling_plan(found, results, n_more, rng), results, progress, "more states", rng, found)


def import_everything() -> None:
    """Do in the process that all others are forked from what costs seconds in each."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import dagster  # noqa: F401
    import evidently  # noqa: F401
    import mlflow.sklearn
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store
    import sklearn.linear_model  # noqa: F401
    import skops.io  # noqa: F401

    import selfheal.cli
    import selfheal.services.reports.writer
    import selfheal_assets.storage  # noqa: F401
    import tests.candidates
    import tests.toy_use_case

    assert mlflow.sklearn
    assert selfheal.cli
    assert tests.candidates


def make_states(
    url: str, folder: Path, chosen: dict[str, dict[str, Flavour]], progress: Progress, results: Results
) -> dict[str, State]:
    """Make the states that the chosen operations begin from, each in a process of its own."""
    wanted = [flavour.state for flavours in chosen.values() for flavour in flavours.values() if flavour.state]
    names = [name for name in STATES if any(name in _with_ancestors(one) for one in wanted)]
    states: dict[str, State] = {}
    bar = progress.add_task("states", total=len(names))
    (folder / "states").mkdir()
    for name in names:
        before = STATES[name][0]
        progress.advance(bar)
        if before is not None and before not in states:
            continue
        path = folder / f"{name}.pickle"
        ended = _make_in_child(url, folder / "states", name, states.get(before or ""), path)
        if ended.status:
            results.errors.append(f"the state {name!r} could not be made: {ended.last_words}")
            continue
        states[name] = pickle.loads(path.read_bytes())  # noqa: S301  (written by our own child)
    return states


def _make_in_child(url: str, folder: Path, name: str, before: State | None, path: Path) -> Ended:
    return forked(lambda _pipe: saved(make_state(url, folder, name, before), path))


def _with_ancestors(name: str) -> list[str]:
    before = STATES[name][0]
    return [name] if before is None else [name, *_with_ancestors(before)]


# Which points


@dataclass
class Reached:
    """A step in one flavour: how often a run takes it at most, and the seed of the state in which it does."""

    times: int = 0
    seed: int = 0


@dataclass
class Found:
    """Steps of one operation: by name the flavours that reach it."""

    steps: dict[str, dict[str, Reached]] = field(default_factory=dict)
    run_seconds: dict[str, float] = field(default_factory=dict)
    """Of a run to the end, by flavour."""

    def note(self, flavour: str, step: str, times: int, seed: int) -> None:
        """Record how often a run takes a step, and its seed, if no earlier run took it as often."""
        reached = self.steps.setdefault(step, {}).setdefault(flavour, Reached())
        if times > reached.times:
            reached.times, reached.seed = times, seed


def discover(
    lanes: ProcessPoolExecutor,
    chosen: dict[str, dict[str, Flavour]],
    progress: Progress,
    rng: random.Random,
    *,
    n_seeds: int,
    states: Collection[str],
    results: Results,
) -> dict[str, Found]:
    """Run every flavour to its end, in a few states, and note the steps it takes; one that does not get there is an error."""
    points = [
        Point(operation, flavour, END, rng.randrange(1 << 30))
        for operation, flavours in chosen.items()
        for flavour, how in flavours.items()
        for _ in range(n_seeds)
        if how.state is None or how.state in states
    ]
    found = {operation: Found() for operation in chosen}
    bar = progress.add_task("clean runs", total=len(points))
    for tried in lanes.map(run_point, points):
        point = tried.point
        progress.advance(bar)
        if not tried.is_reached:
            results.errors.append(f"{point.operation} ({point.flavour}) does not get to its end: {tried.error}")
            continue
        results.add(tried)
        found[point.operation].run_seconds[point.flavour] = tried.run_seconds or 1.0
        for step, times in (tried.steps | Counter({END: 1, f"{RANDOM_MOMENT}, {point.flavour}": 1})).items():
            found[point.operation].note(point.flavour, step, times, point.seed)
            results.known[point.operation].add(step)
    return found


def first_plan(
    found: dict[str, Found], n_each: int, rng: random.Random, done: Mapping[str, Mapping[str, int]] | None = None
) -> list[Point]:
    """Return what is missing to `n_each` points of every step, in any order. `done`: how many there are, by operation and step."""
    done = done or {}
    plan = [
        _point(operation, one, step, rng)
        for operation, one in found.items()
        for step in one.steps
        for _ in range(n_each - done.get(operation, {}).get(step, 0))
    ]
    rng.shuffle(plan)
    return plan


def filling_plan(found: dict[str, Found], results: Results, n_points: int, rng: random.Random) -> list[Point]:
    """Return so many more points, more of those operations that take less time: all get about the same time."""
    means = {name: sum(taken) / len(taken) for name, taken in results.seconds.items() if taken}
    names = list(means)
    chosen = rng.choices(names, [1 / means[name] ** 2 for name in names], k=max(0, n_points))
    return [_point(name, found[name], rng.choice(list(found[name].steps)), rng) for name in chosen]


def _point(operation: str, found: Found, step: str, rng: random.Random) -> Point:
    flavour = rng.choice(list(found.steps[step]))
    times = found.steps[step][flavour].times
    ordinal = rng.randrange(times) + 1 if step.endswith("+") else 1
    return Point(operation, flavour, step, rng.randrange(1 << 30), ordinal, found.run_seconds.get(flavour, 1.0))


def another_try(point: Point, n_tries: int, found: Found, rng: random.Random) -> Point:
    """Return the same step in another state; at last in the state in which it was found."""
    if n_tries < TRIES - 1:
        return replace(point, seed=rng.randrange(1 << 30), ordinal=1)
    return replace(point, seed=found.steps[point.step][point.flavour].seed, ordinal=1)


def _try_all(
    lanes: ProcessPoolExecutor,
    plan: Sequence[Point],
    results: Results,
    progress: Progress,
    what: str,
    rng: random.Random,
    found: dict[str, Found],
) -> None:
    """Try the points, and those that were not reached again in other states. At most a few wait in each lane."""
    bar = progress.add_task(what, total=len(plan))
    waiting = [(point, 1) for point in reversed(plan)]
    running: dict[Any, tuple[Point, int]] = {}
    while waiting or running:
        while waiting and len(running) < 64:
            point, n_tries = waiting.pop()
            running[lanes.submit(run_point, point)] = (point, n_tries)
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            point, n_tries = running.pop(future)
            tried = future.result()
            if not tried.is_reached and n_tries < TRIES:
                waiting.append((another_try(point, n_tries, found[point.operation], rng), n_tries + 1))
                continue
            results.add(tried)
            n_findings = sum(results.counts.values())
            progress.update(bar, advance=1, description=f"{what} ({n_findings:,} findings)")
            if not progress.console.is_terminal and results.n_points % POINTS_PER_LINE == 0:
                progress.console.print(f"{results.n_points:,} points, {n_findings:,} findings")


def _without_numbers(sentence: str) -> str:
    """Return the sentence as it is the same for each instance of its kind."""
    return re.sub(r"[0-9a-f]{8,}|[0-9][0-9.,:T-]+", "…", sentence)[:200]
