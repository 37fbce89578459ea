"""Applying a world's changes to rows: who is chosen, what is measured, and what comes of it. Pure functions of rows and a generator.

Belongs here: one function per declaration of `worlds`. No input is named: those that matter are found by their correlation with the
outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from selfheal.domain.contract import FloatArray, ModelContract
from selfheal.simulate.replay.models import Rows
from selfheal.simulate.replay.stream import BoolArray, IntArray, LabelArray
from selfheal.simulate.replay.worlds import (
    Change,
    FromScenario,
    GroupShift,
    InputAwakens,
    InputShift,
    MixShift,
    MoreEvents,
    PriorShift,
    RelationGone,
    RiskiestChange,
)

if TYPE_CHECKING:
    from selfheal.simulate.replay.worlds import BrokenFeed

LEVELS = 64
"""Steps of a changing mix: rows whose intensities round to the same step are drawn together."""

MANY_VALUES = 10
"""An input with more values than this can move; one with fewer is a code or a flag."""

Score = Callable[[Rows], FloatArray]
"""The first champion's probability for each row."""

OneChange = TypeVar("OneChange")


@dataclass
class Traffic:
    """The rows of a deployment while changes are applied to them; `hours` since the change, `columns` and `labels` writable."""

    hours: FloatArray
    columns: dict[str, FloatArray]
    labels: LabelArray

    def rows(self) -> Rows:
        """Return the rows as they are now."""
        return Rows(self.columns, self.labels)


# Who comes


def choose_rows(
    pool: Rows, contract: ModelContract, changes: Sequence[Change], hours: FloatArray, rng: np.random.Generator
) -> IntArray:
    """Draw a row of the pool, with replacement, for each time; shape as `hours`.

    Each row's weight is exp(sum over changes of intensity x preference), so that covariate and prior shifts compose.
    """
    preferences = [(change.when, _preference(change, pool, contract)) for change in changes if _chooses(change)]
    if not preferences:
        return rng.integers(len(pool), size=len(hours))
    steps = np.stack([np.round(when.intensity(hours) * LEVELS) for when, _ in preferences])
    levels, group = np.unique(steps, axis=1, return_inverse=True)
    found = np.empty(len(hours), dtype=np.int64)
    for number in range(levels.shape[1]):
        log_weights = sum(
            step / LEVELS * preference for step, (_, preference) in zip(levels[:, number], preferences, strict=True)
        )
        is_here = group.ravel() == number
        found[is_here] = _weighted(np.exp(log_weights - np.max(log_weights)), int(is_here.sum()), rng)
    return found


def _weighted(weights: FloatArray, n_rows: int, rng: np.random.Generator) -> IntArray:
    cumulated = np.cumsum(weights)
    found = np.searchsorted(cumulated, rng.random(n_rows) * cumulated[-1], side="right")
    return np.asarray(np.minimum(found, len(weights) - 1), dtype=np.int64)


def _chooses(change: Change) -> bool:
    return isinstance(change, MixShift | PriorShift | GroupShift)


def _preference(change: Change, pool: Rows, contract: ModelContract) -> FloatArray:
    """Return each pool row's log weight at intensity 1."""
    match change:
        case MixShift():
            names = strongest_inputs(pool, contract, change.n_inputs)
            signs = [np.sign(_correlation(pool.columns[name], pool.labels)) or 1.0 for name in names]
            scores = [sign * normal_scores(pool.columns[name]) for sign, name in zip(signs, names, strict=True)]
            return np.asarray(change.size_sd * np.sum(scores, axis=0))
        case PriorShift():
            return np.asarray(np.log(change.odds_factor) * pool.labels)
        case GroupShift():
            return _group_preference(change, pool)
        case _:
            raise TypeError(f"{type(change).__name__} chooses no rows")


def _group_preference(change: GroupShift, pool: Rows) -> FloatArray:
    preference = np.zeros(len(pool))
    members = {number: pool.columns[group_name(number)] == 1 for number, _ in change.shares}
    rest = 1 - sum(share for _, share in change.shares)
    others = 1 - sum(float(is_member.mean()) for is_member in members.values())
    for number, share in change.shares:
        now = max(float(members[number].mean()), 1 / len(pool))
        preference[members[number]] = np.log(share / now) - np.log(rest / others)
    return preference


def group_name(number: int) -> str:
    """Return the name of a group's one-hot input."""
    return f"group_{number}"


# What is measured, and what comes of it


def apply_changes(
    traffic: Traffic,
    contract: ModelContract,
    changes: Sequence[Change],
    pool: Rows,
    score: Score,
    rng: np.random.Generator,
) -> None:
    """Apply, in their order, the changes that do not choose rows; `traffic` is changed in place."""
    for change in changes:
        intensity = change.when.intensity(traffic.hours)
        match change:
            case InputShift():
                _move_inputs(traffic, contract, change, pool, intensity)
            case FromScenario():
                _play_scenario(traffic, contract, change, intensity, rng)
            case RelationGone():
                is_struck = rng.random(len(traffic.hours)) < change.share * intensity
                _draw_at_base_rate(traffic, is_struck, pool, rng)
            case RiskiestChange():
                _change_riskiest(traffic, change, pool, score, intensity, rng)
            case MoreEvents():
                traffic.labels[rng.random(len(traffic.hours)) < change.share * intensity] = 1
            case InputAwakens():
                shuffle_input(traffic.columns, strongest_inputs(pool, contract, 1)[0], intensity < 0.5, rng)
            case _:
                pass


def _move_inputs(
    traffic: Traffic, contract: ModelContract, change: InputShift, pool: Rows, intensity: FloatArray
) -> None:
    movable = [name for name in contract.input_names if len(np.unique(pool.columns[name])) > MANY_VALUES]
    limits = {feature.name: (feature.lower, feature.upper) for feature in contract.inputs}
    for name in strongest_inputs(pool, contract, change.n_inputs, movable):
        moved = traffic.columns[name] * (1 + change.factor * intensity)
        moved += change.size_sd * intensity * robust_sd(pool.columns[name])
        moved = np.round(moved) if contract.kinds[name] == "int" else moved
        traffic.columns[name] = np.clip(moved, *limits[name])


def _play_scenario(
    traffic: Traffic, contract: ModelContract, change: FromScenario, intensity: FloatArray, rng: np.random.Generator
) -> None:
    import pandas as pd

    scenario = contract.first_scenario if change.scenario is None else contract.scenario(change.scenario)
    struck = np.flatnonzero(rng.random(len(traffic.hours)) < change.share * intensity)
    if not len(struck):
        return
    names = list(contract.input_names)
    inputs = pd.DataFrame({name: traffic.columns[name][struck] for name in names})
    changed, labels = scenario.apply(inputs, traffic.labels[struck].astype(np.int64), rng)
    for name in names:
        traffic.columns[name][struck] = changed[name].to_numpy(dtype=np.float64)
    traffic.labels[struck] = labels


def _change_riskiest(
    traffic: Traffic,
    change: RiskiestChange,
    pool: Rows,
    score: Score,
    intensity: FloatArray,
    rng: np.random.Generator,
) -> None:
    limit = np.quantile(score(pool), 1 - change.share)
    is_struck = (score(traffic.rows()) >= limit) & (rng.random(len(traffic.hours)) < intensity)
    if change.to == "inverted":
        traffic.labels[is_struck] = 1 - traffic.labels[is_struck]
    else:
        _draw_at_base_rate(traffic, is_struck, pool, rng)


def _draw_at_base_rate(traffic: Traffic, is_struck: BoolArray, pool: Rows, rng: np.random.Generator) -> None:
    rate = float(pool.labels.mean())
    traffic.labels[is_struck] = rng.random(int(is_struck.sum())) < rate


def shuffle_input(columns: dict[str, FloatArray], name: str, is_struck: BoolArray, rng: np.random.Generator) -> None:
    """Shuffle an input's values among the struck rows, so that it says nothing there."""
    values = columns[name].copy()
    values[is_struck] = rng.permutation(values[is_struck])
    columns[name] = values


# Broken feeds


def break_feed(
    columns: dict[str, FloatArray],
    contract: ModelContract,
    feed: BrokenFeed,
    hours: FloatArray,
    pool: Rows,
    rng: np.random.Generator,
) -> None:
    """Change the inputs as a faulty sender does, from the change until the repair; outcomes are not touched."""
    until = np.inf if feed.repaired_after_days is None else feed.repaired_after_days * 24.0
    is_struck = (hours >= 0) & (hours < until)
    movable = [name for name in contract.input_names if len(np.unique(pool.columns[name])) > MANY_VALUES]
    first, second = strongest_inputs(pool, contract, 2, movable)[:2] if len(movable) > 1 else (movable * 2)[:2]
    feature = next(f for f in contract.inputs if f.name == first)
    values = columns[first].copy()
    match feed.fault:
        case "unit":
            values[is_struck] = np.clip(values[is_struck] * 100.0, feature.lower, feature.upper)
        case "missing":
            values[is_struck] = np.nan if feature.is_nullable else feature.lower
        case "constant":
            values[is_struck] = np.nanmedian(pool.columns[first])
        case "out_of_bounds":
            values[is_struck & (rng.random(len(hours)) < 0.1)] = feature.upper
        case "swapped":
            other = columns[second].copy()
            values[is_struck], other[is_struck] = other[is_struck], values[is_struck].copy()
            columns[second] = other
        case "frozen_rows":
            _freeze_rows(columns, is_struck, hours)
            return
    columns[first] = values


def _freeze_rows(columns: dict[str, FloatArray], is_struck: BoolArray, hours: FloatArray) -> None:
    _, first_of_hour, hour = np.unique(np.floor(hours), return_index=True, return_inverse=True)
    source = np.where(is_struck, first_of_hour[hour], np.arange(len(hours)))
    for name, values in columns.items():
        columns[name] = values[source]


# Which inputs matter


def strongest_inputs(
    rows: Rows, contract: ModelContract, n_inputs: int, among: Sequence[str] | None = None
) -> list[str]:
    """Return the inputs whose ranks are most strongly correlated with the outcome, the strongest first."""
    names = list(contract.input_names if among is None else among)
    return sorted(names, key=lambda name: -abs(_correlation(rows.columns[name], rows.labels)))[:n_inputs]


def _correlation(values: FloatArray, labels: LabelArray) -> float:
    """Return the correlation of ranks and labels, 0 for a constant; missing values have the middle rank."""
    ranks = normal_scores(values)
    spread = float(ranks.std() * labels.std())
    return float(np.mean((ranks - ranks.mean()) * (labels - labels.mean()))) / spread if spread else 0.0


def normal_scores(values: FloatArray) -> FloatArray:
    """Return each value's rank as a standard normal quantile (ties: their mean rank); 0 where missing."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    is_known = ~np.isnan(values)
    scores = np.zeros(len(values))
    n_known = int(is_known.sum())
    if n_known:
        scores[is_known] = ndtri((rankdata(values[is_known]) - 0.5) / n_known)
    return scores


def robust_sd(values: FloatArray) -> float:
    """Return the interquartile range over 1.349, the standard deviation of a normal variable; the plain one if it is 0."""
    low, high = np.nanquantile(values, [0.25, 0.75])
    return float((high - low) / 1.349) or float(np.nanstd(values))
