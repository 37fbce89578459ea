"""W16, W17, W18, W22: whole deployments, replayed under our policy and the oracle's.

The worlds are those of `selfheal.simulate.replay`, cut off when what is asked is known. A time that did not come counts as infinite, so
medians are taken. Rows are those that judge (`halves`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measured import at_least as at_least_so_many
from benchmarks.trust.figures import NO_TARGET, Figure, at_most, exact, mean, median
from benchmarks.trust.worlds import Figures, Given, Half, TrustWorld, halves
from selfheal.credit_risk import contract
from selfheal.simulate.replay.build import build, source_of
from selfheal.simulate.replay.catalogue import WORLDS as REPLAY_WORLDS
from selfheal.simulate.replay.engine import INTERVAL, Replay, What
from selfheal.simulate.replay.natural import natural_deployment, read_named, recognised
from selfheal.simulate.replay.policies import ORACLE, OURS, policy_named

if TYPE_CHECKING:
    from selfheal.simulate.replay.deployment import Deployment

DEPLOYMENTS, DEPLOYMENTS_QUICK = 40, 1
DAY = np.timedelta64(1, "D")
ELEC2_BRIER = 0.175


@dataclass(frozen=True, slots=True)
class Case:
    """A world of the replay with another age of the champion or number of days after the change, under a policy."""

    world: str
    seed: int
    policy: str
    data: Path
    champion_age_days: float
    days_after: float

    def replayed(self) -> Replay:
        """Replay it."""
        world = replace(REPLAY_WORLDS[self.world], champion_age_days=self.champion_age_days, days_after=self.days_after)
        deployment = build(world, source_of(halves(self.data)[1], contract, self.data.name), self.seed)
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
    """Replay the cases, as many at once as there are processors."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(os.cpu_count() or 1, get_context("spawn")) as pool:
        return list(pool.map(_healing_of, cases))


def _healing_of(case: Case) -> Healing:
    return healing(case.replayed())


def _cases(
    given: Given, world: str, policy: str, *, age: float | None = None, days_after: float | None = None
) -> list[Case]:
    declared = REPLAY_WORLDS[world]
    n_seeds = given.tries(DEPLOYMENTS, DEPLOYMENTS_QUICK)
    return [
        Case(
            world,
            1_000 * given.seed + number,
            policy,
            given.data,
            declared.champion_age_days if age is None else age,
            declared.days_after if days_after is None else days_after,
        )
        for number in range(n_seeds)
    ]


def against_oracle(
    given: Given, world: str, *, age: float, days_after: float, prefix: str
) -> Iterator[tuple[str, Figure]]:
    """Yield healing times of ours and of the oracle, their ratio, and the share of the oracle's points that was gained."""
    named = {
        policy: healings(_cases(given, world, policy, age=age, days_after=days_after)) for policy in (OURS, ORACLE)
    }
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
            days = [one.days for one in healings(_cases(given, name, OURS, days_after=days_after))]
            found[f"{labels}.{gain}.days"] = median(days, at_most(MOST_DAYS[labels][gain]))
    return found


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
    TrustWorld("W16", "a champion of 7, 30, 90 days, everything changes", Half.JUDGED, aged_champions),
    TrustWorld("W17", "a champion of 180 days, 144 labels a day", Half.CHOSEN, old_champion),
    TrustWorld("W18", "gains of 2, 5, 14 points", Half.JUDGED, partial_changes),
    TrustWorld("W22", "Elec2 in its real order", Half.JUDGED, elec2),
)
