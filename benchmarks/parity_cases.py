"""Small deployments that Dagster and a replay live through side by side (`benchmarks.parity`), each in a process of its own.

The limits are loose and the cooldown is short, so that in a few days much is decided: trainings, rejections, open verdicts,
promotions, and rollbacks once the world is as it was. Which decisions are taken does not matter here, only that they are the same.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from benchmarks.parity import Parity, compare_deployment
from selfheal.kit.parent_death import end_with_parent
from selfheal.simulate.replay.build import build, source_of
from selfheal.simulate.replay.deployment import Kind
from selfheal.simulate.replay.worlds import BrokenFeed, FromScenario, RiskiestChange, Sudden, World, all_labels
from tests.toy_use_case import contract

USE_CASE = "tests.toy_use_case:contract"
SOURCE_ROWS, SOURCE_SEED = 4_000, 1
OFTEN, SIX_HOURS = timedelta(minutes=5), timedelta(hours=6)
LOOSE = {
    "promotion_cooldown_days": 0.25,
    "min_probation_labels": 60,
    "min_samples_for_decision": 60,
    "min_auc": 0.5,
    "min_f1_improvement_pct": 0.5,
    "min_recall": 0.05,
    "probation_hours": 96.0,
}

BASE = World(
    "calm",
    "nothing changes",
    Kind.HARMLESS,
    champion_age_days=2.0,
    days_after=9.0,
    per_day=400.0,
    champion_rows=1_200,
)


@dataclass(frozen=True)
class Case:
    """A deployment and the interval of its looks."""

    world: World
    seed: int
    interval: timedelta = SIX_HOURS


def _drift(days: float) -> World:
    return replace(BASE, name=f"drift of {days:g} days", changes=(FromScenario(when=Sudden(days)),))


def _relation(days: float) -> World:
    change = RiskiestChange(0.5, "inverted", when=Sudden(days))
    return replace(BASE, name=f"another relation for {days:g} days", changes=(change,))


CASES = (
    *(Case(_drift(2.0), seed) for seed in (1, 2, 3, 4)),
    *(Case(_drift(4.0), seed) for seed in (1, 2, 3, 4)),
    *(Case(_drift(3.0), seed) for seed in (1, 2)),
    *(Case(_relation(3.0), seed) for seed in (1, 2)),
    *(Case(_relation(4.0), seed) for seed in (1, 2)),
    Case(replace(BASE, name="few labels", changes=(FromScenario(),), labels=all_labels(0.4, 0.5, 1.0)), 1),
    Case(replace(BASE, name="broken feed", feed=BrokenFeed("unit", repaired_after_days=3.0)), 1),
    Case(replace(_drift(1.0), champion_age_days=0.5, days_after=1.5, labels=all_labels(1.0, 0.1)), 5, OFTEN),
)
QUICK_CASES = CASES[:2]


def run_cases(cases: Sequence[Case], *, processes: int, on_progress: Callable[[int, int], None]) -> Parity:
    """Live through all cases on both sides; return what was compared.

    Args:
        processes: number of worker processes, at least 1.
        on_progress: called with the number of finished cases and of all.
    """
    found = Parity()
    on_progress(0, len(cases))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, end_with_parent, (os.getpid(),)) as pool:
        for number, one in enumerate(pool.map(run_case, cases), start=1):
            found.add(one)
            on_progress(number, len(cases))
    return found


def run_case(case: Case) -> Parity:
    """Live through one case on both sides; differences begin with its name."""
    deployment = build(case.world, source_of(contract.synthesize(SOURCE_ROWS, SOURCE_SEED), contract, "toy"), case.seed)
    with _quiet(), tempfile.TemporaryDirectory(prefix="selfheal-parity-") as folder:
        Path(folder).chmod(0o755)  # as root, Postgres runs as another user
        found = compare_deployment(
            deployment, USE_CASE, Path(folder) / "data", interval=case.interval, seed=case.seed, overrides=LOOSE
        )
    name = f"{case.world.name}, seed {case.seed}"
    return replace(found, differences=[f"{name}: {one}" for one in found.differences])


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Dagster and MLflow say while they run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


ALWAYS_AT_LEAST = 5
"""Decisions of each action and of each trigger that the whole comparison must have had."""

ACTIONS = ("train", "skip", "promote", "reject", "inconclusive", "rollback")
TRIGGERS = ("bootstrap", "drift", "performance", "schedule", "probation")
"""Those that a replay can have: a person's are none of the loop's."""
