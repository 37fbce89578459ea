"""One point: a process dies at a step, another one goes on, and what is wrong then is counted.

Belongs here: from the copy of a state to the findings. Does not belong here: which points are tried (`points`), what a step is
(`steps`), what an operation is (`operations`), what must hold (`checks`).

The first process makes the state random, begins the operation and dies; the second one finds what it left. Nothing of the first
runs after its step: no `finally`, no `atexit`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.crash import checks
from benchmarks.crash.checks import Findings
from benchmarks.crash.forks import BEGINS, Ended, Pipe, forked, kill_all, sentence
from benchmarks.crash.operations import OPERATIONS, Flavour
from benchmarks.crash.states import (
    Acknowledged,
    State,
    Trial,
    copy_databases,
    copy_folder,
    drop_databases,
    move_artifacts,
    settings_of,
)
from benchmarks.crash.steps import END, Step, Watch
from selfheal.settings import load_settings
from tests.times import T0

N_ROUNDS = 3
"""Ticks within which the platform must have gone on by itself."""

RANDOM_MOMENT = "a random moment"
"""In place of a step's name, with that of the flavour: SIGKILL from outside, after a random part of what a run takes."""

THOROUGH_SHARE = 0.05
"""Of the points end with `selfheal verify` as well."""

POWER_CUT_SHARE = 0.5
"""Of the deaths take the process's children with them, as `docker kill` and the power do."""


@dataclass(frozen=True)
class Point:
    """Where to die: at the `ordinal`-th time that a step with this name is reached."""

    operation: str
    flavour: str
    step: str
    seed: int
    ordinal: int = 1
    run_seconds: float = 1.0
    """How long a run to the end takes, for a random moment in it."""


@dataclass(frozen=True)
class Tried:
    """What came of a point. `n_rounds` is how often the platform had to go on; the findings are sentences by key."""

    point: Point
    is_reached: bool
    findings: Findings
    steps: Counter[str] = field(default_factory=Counter)
    """Of a run to the end: how often each step was taken."""

    run_seconds: float | None = None
    """Of a run to the end."""

    seconds: float = 0.0
    """Of the whole point."""

    n_rounds: int = 0
    error: str = ""
    """Why the step was not reached."""


_lane: _Lane | None = None


@dataclass
class _Lane:
    """What one process tries points with: copies of the states that name its own folder, made when they are first needed."""

    url: str
    folder: Path
    states: dict[str, State]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def try_folder(self) -> Path:
        return self.folder / "try"

    @property
    def data_dir(self) -> Path:
        return self.try_folder / "data"

    def state(self, name: str) -> State:
        own = f"{self.name}_{name}"
        if own not in self.states:
            master = self.states[name]
            copy_databases(self.url, master.name, own)
            move_artifacts(self.url, own, master.data_dir, self.data_dir)
            self.states[own] = State(own, master.data_dir, master.now, master.extra, master.acknowledged)
        return self.states[own]


def begin_lane(url: str, folder: Path, states: dict[str, State]) -> None:
    """Prepare a process of the pool: a folder of its own, and the states to copy from."""
    global _lane  # noqa: PLW0603  (a process of a pool has no other place)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the benchmark's own, which was inherited
    own = folder / f"lane{os.getpid()}"
    own.mkdir()
    own.chmod(0o755)
    _lane = _Lane(url, own, dict(states))


def run_point(point: Point) -> Tried:
    """Copy the state, let a process die at the point, let another one go on, and say what is wrong."""
    assert _lane is not None, "a lane was begun"
    began = time.monotonic()
    flavour = OPERATIONS[point.operation][point.flavour]
    name = f"{_lane.name}_try"
    shutil.rmtree(_lane.try_folder, ignore_errors=True)
    shutil.rmtree(_lane.folder / "runs", ignore_errors=True)
    _lane.try_folder.mkdir()
    _lane.try_folder.chmod(0o755)
    trial = copied_for(_lane, flavour, name, point)
    try:
        return _tried(_lane, flavour, point, trial, began)
    finally:
        kill_all(checks.processes_of(-1, _lane.try_folder))
        if flavour.state is not None:
            drop_databases(_lane.url, name)


def copied_for(lane: _Lane, flavour: Flavour, name: str, point: Point) -> tuple[Trial, Acknowledged]:
    """Return a trial in a copy of the flavour's state, with what was acknowledged in that state."""
    rng = random.Random(point.seed)
    if flavour.state is None:
        settings = load_settings(
            data_dir=lane.data_dir, database_url=None, postgres_host=None, use_case="tests.toy_use_case:contract"
        )
        return Trial(settings, T0, rng), Acknowledged()
    state = lane.state(flavour.state)
    copy_databases(lane.url, state.name, name)
    copy_folder(state.data_dir, lane.data_dir)
    acknowledged = Acknowledged()
    acknowledged.update(state.acknowledged)
    return Trial(settings_of(lane.url, lane.data_dir, name), state.now, rng, state.extra), acknowledged


def _tried(lane: _Lane, flavour: Flavour, point: Point, copied: tuple[Trial, Acknowledged], began: float) -> Tried:
    trial, acknowledged = copied
    after = None if not point.step.startswith(RANDOM_MOMENT) else 0.9 * trial.rng.random() * point.run_seconds
    died = forked(lambda pipe: _until_the_point(trial, flavour, point, pipe, lane.try_folder), kill_after=after)
    told = died.messages("acknowledged")
    for one in told:
        acknowledged.update(one)
    for now in died.messages("now"):
        trial.now = now
    steps = next(iter(died.messages("steps")), Counter())
    run_seconds = next(iter(died.messages("seconds")), None)
    was_killed = after is not None and not died.messages("error") and not steps
    is_reached = bool(died.messages("died")) or was_killed
    findings = checks.no_findings()
    if not is_reached:
        return Tried(point, False, findings, error=died.last_words if died.status else "")
    _clean_up_after(died, lane.try_folder, trial.rng, findings, is_server_ours=flavour.owns_server)
    came_next = forked(lambda pipe: _go_on(trial, acknowledged, flavour, point, pipe))
    for one in came_next.messages("findings"):
        for key, sentences in one.items():
            findings[key] += sentences
    if not came_next.messages("findings"):
        findings["stuck"].append(f"whoever came next died: {came_next.last_words}")
    left = checks.processes_of(came_next.pid, lane.try_folder)
    findings["left_behind"] += [f"process {' '.join(one.cmdline())[:120]}" for one in left]
    kill_all(left)
    (n_rounds,) = came_next.messages("rounds") or [0]
    return Tried(point, True, findings, steps, run_seconds, time.monotonic() - began, n_rounds)


def _clean_up_after(died: Ended, folder: Path, rng: random.Random, findings: Findings, *, is_server_ours: bool) -> None:
    """Kill what the dead process started, as a power cut does, or report it, unless a server may live on."""
    left = checks.processes_of(died.pid, folder)
    if rng.random() < POWER_CUT_SHARE:
        kill_all(left)
    elif not is_server_ours:
        findings["left_behind"] += [f"process {' '.join(one.cmdline())[:120]}" for one in left]


def _until_the_point(trial: Trial, flavour: Flavour, point: Point, pipe: Pipe, folder: Path) -> None:
    """In the first process: makes the state random, begins, and dies."""
    trial.tell = lambda one: pipe.send("acknowledged", one)
    steps: Counter[str] = Counter()
    n_left = point.ordinal

    def on_step(step: Step) -> None:
        nonlocal n_left
        steps[step.name] += 1
        if step.name != point.step:
            return
        n_left -= 1
        if n_left == 0:
            if step.finish_half is not None:
                step.finish_half()
            _die(trial, pipe)

    flavour.prepare(trial)
    pipe.send("now", trial.now)
    watch = Watch(folder, on_step)
    watch.begin()
    pipe.send(BEGINS)
    began = time.monotonic()
    flavour.run(trial)
    watch.is_on = False
    if point.step == END:
        pipe.send("steps", steps)
        pipe.send("seconds", time.monotonic() - began)
        _die(trial, pipe)
    pipe.send("steps", steps)


def _die(trial: Trial, pipe: Pipe) -> None:
    """End this process at once: nothing is closed, rolled back or flushed."""
    pipe.send("died")
    if trial.rng.random() < 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)


def _go_on(trial: Trial, acknowledged: Acknowledged, flavour: Flavour, point: Point, pipe: Pipe) -> None:
    """In the second process: what is there, what the platform makes of it in three rounds, and what is wrong then."""
    findings = checks.no_findings()
    trial.tell = acknowledged.update
    trial.now += checks.LONG_AFTER / 3_000
    if not flavour.owns_server:
        _merge(findings, checks.at_any_moment(trial))
    unfinished: list[str] = []
    n_rounds = 0
    while n_rounds < N_ROUNDS:
        n_rounds += 1
        try:
            flavour.go_on(trial)
            unfinished = flavour.unfinished(trial)
        except (Exception, SystemExit) as error:
            unfinished = [sentence(error)]
        if not unfinished:
            break
    findings["stuck"] += unfinished
    pipe.send("rounds", n_rounds)
    if not flavour.owns_server:
        try:
            is_thorough = random.Random(point.seed).random() < THOROUGH_SHARE
            deletes = flavour.deletes_old_predictions
            _merge(findings, checks.after_all(trial, acknowledged, deletes_old=deletes, is_thorough=is_thorough))
        except Exception as error:
            findings["stuck"].append(f"it cannot be looked at: {sentence(error)}")
    elif not unfinished:
        findings["left_behind"] += checks.half_files(trial.settings.data_dir)
    trial.close()
    pipe.send("findings", findings)


def _merge(findings: Findings, others: Findings) -> None:
    for key, sentences in others.items():
        findings[key] += [one for one in sentences if one not in findings[key]]
