"""W11, W16, W17, W18, W21, W22: whole deployments, replayed under our policy and the oracle's.

The worlds are those of `selfheal.simulate.replay`, cut off when what is asked is known. A time that did not come counts as infinite, so
medians are taken. Rows are those that judge (`halves`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from benchmarks.measured import at_least as at_least_so_many
from benchmarks.trust.figures import NO_TARGET, Figure, at_least, at_most, exact, mean, median, rate
from benchmarks.trust.worlds import Figures, Given, Half, TrustWorld, halves
from selfheal.credit_risk import contract
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.simulate.replay.build import build, source_of
from selfheal.simulate.replay.catalogue import WORLDS as REPLAY_WORLDS
from selfheal.simulate.replay.engine import INTERVAL, Event, Replay, What
from selfheal.simulate.replay.natural import natural_deployment, read_named, recognised
from selfheal.simulate.replay.policies import ORACLE, OURS, policy_named
from selfheal.simulate.replay.worlds import (
    Change,
    FromScenario,
    Gradual,
    InputShift,
    Later,
    RiskiestChange,
    Sudden,
    World,
)

if TYPE_CHECKING:
    from selfheal.simulate.replay.deployment import Deployment

DEPLOYMENTS, DEPLOYMENTS_QUICK = 40, 1
DAY = np.timedelta64(1, "D")
Found = TypeVar("Found")
ELEC2_BRIER = 0.175


@dataclass(frozen=True, slots=True)
class Case:
    """A world of the replay under a policy."""

    world: World
    seed: int
    policy: str
    data: Path

    def replayed(self) -> Replay:
        """Replay it."""
        deployment = build(self.world, source_of(halves(self.data)[1], contract, self.data.name), self.seed)
        return policy_named(self.policy).run(deployment, INTERVAL, self.seed)


@dataclass(frozen=True, slots=True)
class Healing:
    """Days from the change to the first promotion of a version that is better than the champion, and the points of F1 it gained."""

    days: float
    gained_f1: float


def healing(found: Replay) -> Healing:
    """Return when a deployment was healed. A version is better if its Brier score on the rows after the change is."""
    deployment = found.deployment
    start = _first_row_after_change(deployment)
    truth = deployment.stream.true_label[start:]
    features = deployment.stream.features(start, len(deployment.stream))
    before = _quality(found.models[0].score(features), found.models[0].threshold, truth)
    for event in found.events:
        if event.what is not What.PROMOTED or event.row < start:
            continue
        model = found.models[event.version]
        now = _quality(model.score(features), model.threshold, truth)
        if now.brier < before.brier:
            assert deployment.change is not None
            return Healing(float((event.time - deployment.change) / DAY), 100 * (now.f1 - before.f1))
    return Healing(math.inf, 0.0)


@dataclass(frozen=True, slots=True)
class _Quality:
    brier: float
    f1: float


def _quality(probability: np.ndarray, threshold: float, truth: np.ndarray) -> _Quality:
    says = probability >= threshold
    hits = int((says & (truth == 1)).sum())
    return _Quality(
        float(np.mean((probability - truth) ** 2)), 2 * hits / max(1, int(says.sum()) + int((truth == 1).sum()))
    )


def _first_row_after_change(deployment: Deployment) -> int:
    assert deployment.change is not None, "something changes"
    return int(np.searchsorted(deployment.stream.event_time, deployment.change))


def healings(cases: Sequence[Case]) -> list[Healing]:
    """Replay the cases and say how each was healed."""
    return _of_each(cases, _healing_of)


def _healing_of(case: Case) -> Healing:
    return healing(case.replayed())


def _of_each(cases: Sequence[Case], work: Callable[[Case], Found]) -> list[Found]:
    """Do the work on each case, on as many at once as there are processors."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn")) as pool:
        return list(pool.map(work, cases))


def _cases(
    given: Given, world: World, policy: str, full: int = DEPLOYMENTS, quick: int = DEPLOYMENTS_QUICK
) -> list[Case]:
    first = 1_000 * given.seed
    return [Case(world, first + number, policy, given.data) for number in range(given.tries(full, quick))]


def against_oracle(
    given: Given, world: str, *, age: float, days_after: float, prefix: str
) -> Iterator[tuple[str, Figure]]:
    """Yield healing times of ours and of the oracle, their ratio, and the share of the oracle's points that was gained."""
    changed = replace(REPLAY_WORLDS[world], champion_age_days=age, days_after=days_after)
    named = {policy: healings(_cases(given, changed, policy)) for policy in (OURS, ORACLE)}
    days = {policy: [one.days for one in found] for policy, found in named.items()}
    yield f"{prefix}.days", median(days[OURS])
    yield f"{prefix}.days_oracle", median(days[ORACLE])
    pairs = zip(days[OURS], days[ORACLE], strict=True)
    yield f"{prefix}.times_oracle", median([ours / oracle for ours, oracle in pairs], at_most(2.0))
    yield f"{prefix}.gained_f1_points", mean([one.gained_f1 for one in named[OURS]])


def aged_champions(given: Given) -> Figures:
    """W16: everything changes, 1,440 labels a day."""
    return {
        name: figure
        for age in (7, 30, 90)
        for name, figure in against_oracle(
            given, "sudden", age=float(age), days_after=20.0, prefix=f"champion_{age}_days"
        )
    }


def old_champion(given: Given) -> Figures:
    """W17: everything changes, 144 labels a day, the champion is 180 days old."""
    return dict(against_oracle(given, "sudden_old_champion", age=180.0, days_after=30.0, prefix="champion_180_days"))


GAINS = {"partial_5": "gain_2", "partial_12": "gain_5", "partial_30": "gain_14"}
MOST_DAYS: Mapping[str, Mapping[str, float]] = {
    "labels_1440": {"gain_2": 14.0, "gain_5": 10.5, "gain_14": 0.7},
    "labels_144": {"gain_2": 120.0, "gain_5": 52.5, "gain_14": 9.0},
}


def partial_changes(given: Given) -> Figures:
    """W18: part of the rows change; by how many points a refit would gain, and labels a day."""
    found: dict[str, Figure] = {}
    for world, gain in GAINS.items():
        for labels, name, days_after in (("labels_1440", world, 40.0), ("labels_144", f"{world}_few_labels", 130.0)):
            changed = replace(REPLAY_WORLDS[name], days_after=days_after)
            days = [one.days for one in healings(_cases(given, changed, OURS))]
            found[f"{labels}.{gain}.days"] = median(days, at_most(MOST_DAYS[labels][gain]))
    return found


RISING: tuple[Change, ...] = (InputShift(factor=3.0, n_inputs=3, when=Gradual(60.0)),)
WINDOW, EVERY_DAYS = 7 * DAY, 5
"""A refit learns from every other row within a week before and after, and is judged on the others; such a refit is made so often."""

GAIN_POINTS = 2.0


def rising_inputs(given: Given) -> Figures:
    """W11: the strongest inputs rise slowly. Days from when a refit would gain two points of F1 to the next training.

    Trainings that the calendar asks for count as well: they are part of the loop.
    """
    rising = replace(REPLAY_WORLDS["rising_input"], changes=RISING, days_after=75.0)
    found = _of_each(_cases(given, rising, OURS), _asked_after_gain)
    waits = [wait for _, wait in found]
    return {
        "days_until_a_refit_gains_2_points": median([day for day, _ in found]),
        "days_to_retraining": median(waits, at_most(30.0)),
        "within_30_days": rate(sum(wait <= 30 for wait in waits), len(waits), at_least(0.9)),
    }


def _asked_after_gain(case: Case) -> tuple[float, float]:
    found = case.replayed()
    day = _day_of_gain(found, case.seed)
    if day is None:
        return math.inf, math.inf
    assert found.deployment.change is not None
    moment = found.deployment.change + np.timedelta64(day, "D")
    return float(day), wait_for(moment, [event.time for event in found.events if event.what is What.TRAINED])


def _day_of_gain(found: Replay, seed: int) -> int | None:
    """Return the first day after the change on which a refit would gain so many points on rows of that time; None if none does."""
    stream, change = found.deployment.stream, found.deployment.change
    assert change is not None
    for day in range(0, int((stream.event_time[-1] - change) / DAY) - 7, EVERY_DAYS):
        middle = change + np.timedelta64(day, "D")
        low, high = np.searchsorted(stream.event_time, [middle - WINDOW, middle + WINDOW])
        features, truth = stream.features(low, high), stream.true_label[low:high].astype(np.int64)
        refit = contract.build_estimator(seed).fit(features[::2], truth[::2])
        threshold = f1_optimal_threshold(truth[::2], refit.predict_proba(features[::2])[:, 1])
        champion = found.models[0]
        now = _quality(champion.score(features[1::2]), champion.threshold, truth[1::2])
        refitted = _quality(refit.predict_proba(features[1::2])[:, 1], threshold, truth[1::2])
        if 100 * (refitted.f1 - now.f1) >= GAIN_POINTS:
            return day
    return None


TURNS: tuple[Change, ...] = (
    FromScenario(when=Sudden(days=3.0)),
    RiskiestChange(0.5, "inverted", when=Later(days=9.0)),
)
"""A spell of three days, in which one version is promoted; once the cooldown is over, another one learns the world between; then the
second change makes both wrong, and in part of the deployments probation takes the last one back."""

ROLLBACK_DEPLOYMENTS, ROLLBACK_DEPLOYMENTS_QUICK = 160, 4
"""So many that about 40 of them, and one, roll back."""


def after_a_rollback(given: Given) -> Figures:
    """W21: days from an automatic rollback to the next training while the version that serves again does harm, too."""
    turning = replace(REPLAY_WORLDS["sudden"], changes=TURNS, champion_age_days=7.0, days_after=40.0)
    waits = _of_each(_cases(given, turning, OURS, ROLLBACK_DEPLOYMENTS, ROLLBACK_DEPLOYMENTS_QUICK), _wait_of)
    days = [wait for found in waits for wait in found]
    return {
        "rollbacks": exact(float(len(days))),
        "days_to_next_attempt": median(days, at_most(14.0)),
        "longest_days_to_next_attempt": exact(max(days, default=math.nan)),
    }


def _wait_of(case: Case) -> list[float]:
    return waits_after_rollbacks(case.replayed().events)


def waits_after_rollbacks(events: Iterable[Event]) -> list[float]:
    """Return, for each rollback, the days until the next training; infinite if there was none."""
    found = list(events)
    trained = [event.time for event in found if event.what is What.TRAINED]
    return [wait_for(event.time, trained) for event in found if event.what is What.ROLLED_BACK]


def wait_for(moment: np.datetime64, times: Iterable[np.datetime64]) -> float:
    """Return the days from a moment to the next of these times; infinite if there is none."""
    return min((float((time - moment) / DAY) for time in times if time > moment), default=math.inf)


def elec2(given: Given) -> Figures:
    """W22: the electricity market in its real order."""
    files = [path for path in given.streams if (known := recognised(path)) is not None and known.name == "elec2"]
    found: dict[str, Figure] = {}
    for path in files[:1]:
        name, stream = read_named(path, None)
        deployment = natural_deployment(name, stream, given.seed, n_rows=8_000 if given.is_quick else None)
        at_least_so_many("rows of Elec2 that are served", len(deployment.stream), 8_000)
        for policy in (OURS, "never", ORACLE):
            served = policy_named(policy).run(deployment, INTERVAL, given.seed)
            brier = float(np.mean((served.probability - deployment.stream.true_label) ** 2))
            found[f"brier_{policy}"] = exact(brier, at_most(ELEC2_BRIER) if policy == OURS else NO_TARGET)
    return found or {"brier_ours": exact(math.nan, at_most(ELEC2_BRIER))}


WORLDS = (
    TrustWorld("W11", "the strongest inputs rise slowly", Half.CHOSEN, rising_inputs),
    TrustWorld("W16", "a champion of 7, 30, 90 days, everything changes", Half.JUDGED, aged_champions),
    TrustWorld("W17", "a champion of 180 days, 144 labels a day", Half.CHOSEN, old_champion),
    TrustWorld("W18", "gains of 2, 5, 14 points", Half.JUDGED, partial_changes),
    TrustWorld("W21", "an automatic rollback to a version that does harm, too", Half.CHOSEN, after_a_rollback),
    TrustWorld("W22", "Elec2 in its real order", Half.JUDGED, elec2),
)
