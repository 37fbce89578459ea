"""W11, W16, W17, W18, W21, W22: whole deployments, replayed under our policy and the oracle's.

The worlds are those of `selfheal.simulate.replay`, cut off when what is asked is known: a deployment is lived through until it is
healed, or has had its time. A time that did not come counts as infinite, so medians are taken. Rows are those that judge (`halves`).
A deployment is healed by a version that wins back `HEALED_SHARE` of what a refit to the rows after the change wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measured import at_least as at_least_so_many
from benchmarks.trust.figures import Figure, at_least, at_most, exact, mean, median, rate
from benchmarks.trust.worlds import Figures, Found, Given, Half, Piece, TrustWorld, found_by, judging_source
from selfheal.credit_risk import contract
from selfheal.domain.contract import FloatArray
from selfheal.domain.records import Action, Decision, Trigger
from selfheal.domain.retraining.evidence import IntArray
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.settings import default_settings
from selfheal.simulate.replay.build import CHANGE_AT, build
from selfheal.simulate.replay.catalogue import WORLDS as REPLAY_WORLDS
from selfheal.simulate.replay.engine import INTERVAL, Event, IsEnough, Replay, What, replay
from selfheal.simulate.replay.memory.traffic import as_moment
from selfheal.simulate.replay.natural import natural_deployment, read_named, recognised
from selfheal.simulate.replay.ours import Ours
from selfheal.simulate.replay.policies import ORACLE, OURS, policy_named
from selfheal.simulate.replay.replay_settings import settings_of_replay
from selfheal.simulate.replay.worlds import (
    Change,
    FromScenario,
    Gradual,
    InputShift,
    Later,
    RiskiestChange,
    Sudden,
    World,
    all_labels,
)

if TYPE_CHECKING:
    from selfheal.simulate.replay.deployment import Deployment

DEPLOYMENTS, DEPLOYMENTS_QUICK = 40, 1
DAY = np.timedelta64(1, "D")
HEALED_SHARE = 0.5
"""Of the Brier score: a version that is better for having seen more of the old world does not heal."""

ELEC2_BRIER, ELEC2_QUICK_ROWS = 0.175, 8_000


def replayed(deployment: Deployment, seed: int, policy: str, is_enough: IsEnough) -> Replay:
    """Replay a deployment under a policy, until it is enough."""
    asked = policy_named(policy).make(deployment, seed, INTERVAL)
    return replay(deployment, asked, interval=INTERVAL, seed=seed, is_enough=is_enough)


@dataclass(frozen=True, slots=True)
class Healing:
    """Days from the change to the first promotion of a version that heals, the points of F1 that it gained, and those there were."""

    days: float
    gained_f1: float
    attainable_f1: float = math.nan


def healing(found: Replay) -> Healing:
    """Return when a deployment was healed. Versions are compared on the rows after the change, with the one that served then."""
    deployment = found.deployment
    start = _first_row_after_change(deployment)
    truth = deployment.stream.true_label[start:]
    features = deployment.stream.features(start, len(deployment.stream))
    live = found.models[_version_at(found, start)]
    before, refitted = _quality(live.score(features), live.threshold, truth), _refitted(features, truth)
    healed_brier = before.brier - HEALED_SHARE * max(0.0, before.brier - refitted.brier)
    attainable = 100 * (refitted.f1 - before.f1)
    for event in found.events:
        if event.what is not What.PROMOTED or event.row < start:
            continue
        model = found.models[event.version]
        now = _quality(model.score(features), model.threshold, truth)
        if now.brier < healed_brier:
            assert deployment.change is not None
            return Healing(float((event.time - deployment.change) / DAY), 100 * (now.f1 - before.f1), attainable)
    return Healing(math.inf, 0.0, attainable)


def _version_at(found: Replay, row: int) -> int:
    """Return the version that served a row."""
    went_live = [one for one in found.events if one.what in {What.PROMOTED, What.ROLLED_BACK} and one.row <= row]
    return went_live[-1].version if went_live else 0


def _refitted(features: FloatArray, truth: IntArray) -> _Quality:
    """Return the quality of a refit to every other row, on the others."""
    refit = contract.build_estimator(0).fit(features[::2], truth[::2])
    threshold = f1_optimal_threshold(truth[::2], refit.predict_proba(features[::2])[:, 1])
    return _quality(refit.predict_proba(features[1::2])[:, 1], threshold, truth[1::2])


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


def healed_within(days: float) -> IsEnough:
    """Return what says that a deployment is healed, or has had so many days from the change to heal: nothing later counts."""

    def is_enough(found: Replay, now: np.datetime64) -> bool:
        change = found.deployment.change
        assert change is not None, "something changes"
        if float((now - change) / DAY) >= days:
            return True
        is_promoted_now = bool(found.events) and found.events[-1].what is What.PROMOTED and found.events[-1].time == now
        return is_promoted_now and healing(found).days < math.inf

    return is_enough


def healed(given: Given, world: World, seed: int, policies: tuple[str, ...], within: float) -> dict[str, list[float]]:
    """Return by policy the days after which a deployment was healed, infinite if not in time; points of F1 gained, and to gain."""
    deployment = build(world, judging_source(given.data), seed)
    found = {name: healing(replayed(deployment, seed, name, healed_within(within))) for name in policies}
    return {name: [one.days, one.gained_f1, one.attainable_f1] for name, one in found.items()}


def seeds_of(given: Given, full: int = DEPLOYMENTS, quick: int = DEPLOYMENTS_QUICK) -> range:
    """Return the seeds of a world's deployments."""
    return range(1_000 * given.seed, 1_000 * given.seed + given.tries(full, quick))


def pieces_against_oracle(given: Given, world: World, prefix: str, cpu_s: float) -> list[Piece]:
    """Return the deployments of a world, each under our policy and the oracle's."""
    arguments = (OURS, ORACLE), world.days_after
    return [Piece(f"{prefix}.{seed}", healed, (world, seed, *arguments), cpu_s) for seed in seeds_of(given)]


def against_oracle(found: Found, prefix: str) -> Iterator[tuple[str, Figure]]:
    """Yield healing times of ours and of the oracle, their ratio, and the share of the oracle's points that was gained."""
    pairs = [[Healing(*one[policy]) for policy in (OURS, ORACLE)] for one in found_by(found, prefix)]
    yield f"{prefix}.days", median([ours.days for ours, _ in pairs])
    yield f"{prefix}.days_oracle", median([oracle.days for _, oracle in pairs])
    yield f"{prefix}.times_oracle", median([ours.days / oracle.days for ours, oracle in pairs], at_most(2.0))
    yield f"{prefix}.gained_f1_points", mean([ours.gained_f1 for ours, _ in pairs])


AGES = {7: 15.0, 30: 28.0, 90: 60.0}
"""Days, each with the CPU seconds of a deployment."""


def w16_pieces(given: Given) -> list[Piece]:
    """Return the deployments in which everything changes, with 1,440 labels a day, by the age of the champion."""
    worlds = {age: replace(REPLAY_WORLDS["sudden"], champion_age_days=float(age), days_after=20.0) for age in AGES}
    return [
        piece
        for age, world in worlds.items()
        for piece in pieces_against_oracle(given, world, f"champion_{age}_days", AGES[age])
    ]


def w16_figures(_: Given, found: Found) -> Figures:
    """Return by the age of the champion how soon a deployment is healed."""
    return {name: figure for age in AGES for name, figure in against_oracle(found, f"champion_{age}_days")}


def w17_pieces(given: Given) -> list[Piece]:
    """Return the deployments in which everything changes, with 144 labels a day and a champion that is 180 days old."""
    world = replace(REPLAY_WORLDS["sudden_old_champion"], champion_age_days=180.0, days_after=30.0)
    return pieces_against_oracle(given, world, "champion_180_days", 70.0)


def w17_figures(_: Given, found: Found) -> Figures:
    """Return how soon a deployment is healed."""
    return dict(against_oracle(found, "champion_180_days"))


CHANGED_SHARES = {"gain_2": 0.11, "gain_5": 0.17, "gain_14": 0.3}
"""Share of the rows that change, by the points of F1 that a refit then gains over one to as many rows of the old world.

Chosen on the other half of the rows; what there was to gain over the version that served is a figure (`attainable_f1_points`).
"""
MOST_DAYS: Mapping[str, Mapping[str, float]] = {
    "labels_1440": {"gain_2": 14.0, "gain_5": 10.5, "gain_14": 0.7},
    "labels_144": {"gain_2": 120.0, "gain_5": 52.5, "gain_14": 9.0},
}


PROMPT = all_labels(delay_days=1 / 24)
"""Within an hour: a target of 0.7 days is for labels that do not take a day."""

DAYS_AFTER = {"labels_1440": 40.0, "labels_144": 130.0}
LEAST_DAYS = 14.0
"""A deployment is given twice the days of its target to heal, and at least so many."""


def w18_pieces(given: Given) -> list[Piece]:
    """Return the deployments of which a part of the rows changes, by labels a day and by the points that a refit would gain."""
    found: list[Piece] = []
    for labels, most in MOST_DAYS.items():
        for gain, share in CHANGED_SHARES.items():
            of_labels = REPLAY_WORLDS["partial_12" if labels == "labels_1440" else "partial_12_few_labels"]
            changes = (FromScenario(share),)
            changed = replace(of_labels, changes=changes, days_after=DAYS_AFTER[labels], labels=PROMPT)
            within = min(changed.days_after, days_to_heal(given, most[gain]))
            cpu_s = (0.6 if labels == "labels_1440" else 0.35) * (changed.champion_age_days + within)
            found += [
                Piece(f"{labels}.{gain}.{seed}", healed, (changed, seed, (OURS,), within), cpu_s)
                for seed in seeds_of(given)
            ]
    return found


def days_to_heal(given: Given, most: float) -> float:
    """Return the days after which a deployment that is not healed counts as never healed."""
    return most + 1.0 if given.is_quick else max(LEAST_DAYS, 2 * most)


def w18_figures(_: Given, found: Found) -> Figures:
    """Return by labels a day and by points that a refit would gain how soon a deployment is healed."""
    figures: Figures = {}
    for labels, most in MOST_DAYS.items():
        for gain in CHANGED_SHARES:
            deployments = [Healing(*one[OURS]) for one in found_by(found, f"{labels}.{gain}")]
            figures[f"{labels}.{gain}.days"] = median([one.days for one in deployments], at_most(most[gain]))
            attainable = [one.attainable_f1 for one in deployments]
            figures[f"{labels}.{gain}.attainable_f1_points"] = mean(attainable)
    return figures


RISING: tuple[Change, ...] = (InputShift(factor=3.0, n_inputs=3, when=Gradual(60.0)),)
WINDOW, EVERY_DAYS = 7 * DAY, 5
"""A refit learns from every other row within a week before and after, and is judged on the others; such a refit is made so often."""

GAIN_POINTS = 2.0


MOST_WAIT_DAYS = 30.0


def w11_pieces(given: Given) -> list[Piece]:
    """Return the deployments in which the strongest inputs rise slowly."""
    rising = replace(REPLAY_WORLDS["rising_input"], changes=RISING, days_after=75.0)
    return [Piece(f"deployment.{seed}", waits_after_gain, (rising, seed), 45.0) for seed in seeds_of(given)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What followed the moment at which a refit would gain: days, infinite where nothing came within `MOST_WAIT_DAYS`.

    Args:
        gain_day: of that moment, since the change.
        waited: to the next training, whatever asked for it.
        is_monitors: the monitor asked for that training, rather than the calendar.
        waited_for_monitor: to the next training of a loop without the weekly schedule.
    """

    gain_day: float
    waited: float = math.inf
    is_monitors: bool = False
    waited_for_monitor: float = math.inf


def waits_after_gain(given: Given, world: World, seed: int) -> dict[str, Any]:
    """Replay a deployment with and without the weekly schedule, each until a training follows the gain."""
    deployment = build(world, judging_source(given.data), seed)
    day = day_of_gain(deployment, seed)
    if day is None:
        return asdict(Asked(math.inf))
    assert deployment.change is not None, "something changes"
    moment = deployment.change + np.timedelta64(day, "D")
    settings = settings_of_replay(default_settings(), INTERVAL, seed)
    whole, alone = Ours(settings), Ours(settings, has_calendar=False)
    waited, waited_alone = (
        wait_in(replay(deployment, policy, seed=seed, is_enough=trained_after(moment)), moment)
        for policy in (whole, alone)
    )
    return asdict(Asked(day, waited, is_monitors(whole.decisions, moment), waited_alone))


def trained_after(moment: np.datetime64) -> IsEnough:
    """Return what says that a training has followed a moment, that a version was promoted before, or that it is too late."""

    def is_enough(found: Replay, now: np.datetime64) -> bool:
        return now >= moment and (wait_in(found, moment) < math.inf or now > moment + MOST_WAIT_DAYS * DAY)

    return is_enough


def wait_in(found: Replay, moment: np.datetime64) -> float:
    """Return the days from a moment to the next training; 0 if a version was promoted between the change and the moment."""
    change = found.deployment.change
    assert change is not None, "something changes"
    if any(event.what is What.PROMOTED and change < event.time <= moment for event in found.events):
        return 0.0
    waited = wait_for(moment, [event.time for event in found.events if event.what is What.TRAINED])
    return waited if waited <= MOST_WAIT_DAYS else math.inf


def is_monitors(decisions: Sequence[Decision], moment: np.datetime64) -> bool:
    """Return whether the monitor asked for the first training after a moment."""
    after = [one for one in decisions if one.action is Action.TRAIN and as_moment(one.created_at) > moment]
    return bool(after) and after[0].trigger_reason != Trigger.SCHEDULE


def w11_figures(_: Given, found: Found) -> Figures:
    """Return the days from when a refit would gain two points of F1 to the next training, and who asked for it."""
    deployments = [Asked(**one) for one in found.values()]
    waits, alone = [one.waited for one in deployments], [one.waited_for_monitor for one in deployments]
    return {
        "days_until_a_refit_gains_2_points": median([one.gain_day for one in deployments]),
        "days_to_retraining": median(waits, at_most(MOST_WAIT_DAYS)),
        "within_30_days": rate(sum(wait < math.inf for wait in waits), len(waits), at_least(0.9)),
        "first_asked_by_monitor": rate(sum(one.is_monitors for one in deployments), len(deployments)),
        "without_calendar.days_to_retraining": median(alone, at_most(MOST_WAIT_DAYS)),
        "without_calendar.within_30_days": rate(sum(wait < math.inf for wait in alone), len(alone), at_least(0.9)),
    }


def day_of_gain(deployment: Deployment, seed: int) -> int | None:
    """Return the first day after the change on which a refit would gain so many points on rows of that time; None if none does."""
    stream, change, champion = deployment.stream, deployment.change, deployment.champion
    assert change is not None, "something changes"
    for day in range(0, int((stream.event_time[-1] - change) / DAY) - 7, EVERY_DAYS):
        middle = change + np.timedelta64(day, "D")
        low, high = np.searchsorted(stream.event_time, [middle - WINDOW, middle + WINDOW])
        features, truth = stream.features(low, high), stream.true_label[low:high].astype(np.int64)
        refit = contract.build_estimator(seed).fit(features[::2], truth[::2])
        threshold = f1_optimal_threshold(truth[::2], refit.predict_proba(features[::2])[:, 1])
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

ROLLBACK_DEPLOYMENTS, ROLLBACK_DEPLOYMENTS_QUICK = 160, 2
"""So many that about 40 of them, and one, roll back."""


NEXT_ATTEMPT_DAYS = 14.0


def w21_pieces(given: Given) -> list[Piece]:
    """Return the deployments in which a rollback leads to a version that does harm, too."""
    turning = replace(REPLAY_WORLDS["sudden"], changes=TURNS, champion_age_days=7.0, days_after=40.0)
    seeds = seeds_of(given, ROLLBACK_DEPLOYMENTS, ROLLBACK_DEPLOYMENTS_QUICK)
    return [Piece(f"deployment.{seed}", wait_after_rollback, (turning, seed), 15.0) for seed in seeds]


def wait_after_rollback(given: Given, world: World, seed: int) -> float | None:
    """Return the days from the first rollback to the next training, infinite if there is none; None without a rollback."""
    last = CHANGE_AT + np.timedelta64(round(24 * (world.days_after - NEXT_ATTEMPT_DAYS)), "h")

    def is_enough(found: Replay, now: np.datetime64) -> bool:
        wait = first_wait(found.events)
        return now >= last if wait is None else wait < math.inf

    deployment = build(world, judging_source(given.data), seed)
    return first_wait(replayed(deployment, seed, OURS, is_enough).events)


def first_wait(events: Iterable[Event]) -> float | None:
    """Return the days from the first rollback to the next training, infinite if there is none; None without a rollback."""
    found = list(events)
    rolled_back = next((event.time for event in found if event.what is What.ROLLED_BACK), None)
    if rolled_back is None:
        return None
    return wait_for(rolled_back, [event.time for event in found if event.what is What.TRAINED])


def w21_figures(_: Given, found: Found) -> Figures:
    """Return the days from the first automatic rollback of a deployment to the next training."""
    days = [wait for wait in found.values() if wait is not None]
    return {
        "rollbacks": exact(float(len(days))),
        "days_to_next_attempt": median(days, at_most(NEXT_ATTEMPT_DAYS)),
        "longest_days_to_next_attempt": exact(max(days, default=math.nan)),
    }


def wait_for(moment: np.datetime64, times: Iterable[np.datetime64]) -> float:
    """Return the days from a moment to the next of these times; infinite if there is none."""
    return min((float((time - moment) / DAY) for time in times if time > moment), default=math.inf)


def w22_pieces(given: Given) -> list[Piece]:
    """Return the policies under which the electricity market is replayed, if its file is among the streams."""
    has_file = any(is_elec2(path) for path in given.streams)
    return [
        Piece(policy, brier_on_elec2, (policy,), float(given.tries(100, 20)))
        for policy in (OURS, "never", ORACLE)
        if has_file
    ]


def is_elec2(path: Path) -> bool:
    """Return whether a file is the electricity market's."""
    known = recognised(path)
    return known is not None and known.name == "elec2"


def brier_on_elec2(given: Given, policy: str) -> float:
    """Return the Brier score that was served on the electricity market in its real order."""
    path = next(path for path in given.streams if is_elec2(path))
    name, stream = read_named(path, None)
    deployment = natural_deployment(name, stream, given.seed, n_rows=ELEC2_QUICK_ROWS if given.is_quick else None)
    at_least_so_many("rows of Elec2 that are served", len(deployment.stream), ELEC2_QUICK_ROWS)
    served = policy_named(policy).run(deployment, INTERVAL, given.seed)
    return float(np.mean((served.probability - deployment.stream.true_label) ** 2))


def w22_figures(_: Given, found: Found) -> Figures:
    """Return the Brier scores of the policies."""
    scores = {f"brier_{policy}": exact(brier) for policy, brier in found.items()}
    return scores | {"brier_ours": exact(found.get(OURS, math.nan), at_most(ELEC2_BRIER))}


WORLDS = (
    TrustWorld("W11", "the strongest inputs rise slowly", Half.CHOSEN, w11_pieces, w11_figures),
    TrustWorld("W16", "a champion of 7, 30, 90 days, everything changes", Half.JUDGED, w16_pieces, w16_figures),
    TrustWorld("W17", "a champion of 180 days, 144 labels a day", Half.CHOSEN, w17_pieces, w17_figures),
    TrustWorld("W18", "gains of 2, 5, 14 points", Half.JUDGED, w18_pieces, w18_figures),
    TrustWorld("W21", "an automatic rollback to a version that does harm, too", Half.CHOSEN, w21_pieces, w21_figures),
    TrustWorld("W22", "Elec2 in its real order", Half.JUDGED, w22_pieces, w22_figures),
)
