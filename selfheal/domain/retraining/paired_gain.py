"""Paired comparison of two models by log loss, Brier score, AUC-ROC or expected cost: the gain and its bounds. Pure.

A gain is positive where the challenger is better. Its bounds are for one number of rows and one level. That level is spent over
verdicts is the subject of `evidence`, which also compares F1.

A mean of losses, and AUC-ROC, have two hazards that a normal bound does not survive. Differences are skewed: many small gains
on rows without the event, rare large losses on rows with it. And a sample may lack the rare losses: a challenger that thirds a
low probability gains on every row until the first event. So the bound is the least of three:

- Student's t with the spread of the observed differences; that of AUC-ROC is DeLong's paired one (1988, Biometrics 44) with
  Welch's degrees of freedom;
- the same with the skewness taken out by Hall's transformation (1992, JRSS B 54);
- Hall's with spread and skewness as expected if the true probability of every row lay midway between the two models'. There
  both have equal Brier scores, row by row, so this is the spread under the hypothesis that the test rejects, as in a score
  test. It knows the losses that the sample lacks, since the loss under either label is known for each row.

The expected cost depends on the decisions alone, so its bounds come from the posterior of the kinds of row, like F1's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.domain.monitoring.intervals import hall_inverse, share_below
from selfheal.domain.monitoring.performance import roc_auc
from selfheal.domain.records import Interval
from selfheal.domain.retraining.class_counts import MIN_ROWS_PER_CLASS
from selfheal.domain.retraining.evidence import (
    CHALLENGER_SAYS_SO,
    CHAMPION_SAYS_SO,
    IS_POSITIVE,
    IntArray,
    kind_counts,
    posterior_bounds,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from selfheal.domain.retraining.evaluation import Evaluation, Scores

GainMetric: TypeAlias = Literal["log_loss", "brier", "auc", "expected_cost"]
PrimaryMetric: TypeAlias = Literal["f1"] | GainMetric

NAMES: dict[GainMetric, str] = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "auc": "AUC-ROC",
    "expected_cost": "expected cost per row",
}

SMALLEST_PROBABILITY = 1e-6
"""Probabilities are moved inside [this, 1 - this] for the log loss: one certain error may not outweigh all other rows."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Cost of a false alarm and of a missed event, in any one unit; a correct decision costs nothing."""

    false_alarm: float
    miss: float


EQUAL_COSTS = Costs(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Gain:
    """Both models' values of a metric, by how much the challenger is better, and one-sided bounds of that."""

    champion: float
    challenger: float
    gain: float
    bounds: Interval


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard error and skewness of an estimate, and the degrees of freedom of the error."""

    error: float
    skewness: float
    freedom: float = math.inf


def paired_gain(metric: GainMetric, evaluation: Evaluation, level: float, costs: Costs, seed: int) -> Gain | None:
    """Return the challenger's gain with bounds that are each missed with probability `level`.

    None if a class has fewer than `MIN_ROWS_PER_CLASS` rows: neither mean nor area has a known error then.

    Args:
        metric: what is compared.
        evaluation: rows with valid scores of both models.
        level: one-sided, of each bound.
        costs: of wrong decisions; only the expected cost uses them.
        seed: of the draws behind the bounds of the expected cost.

    Raises:
        ValueError: if the metric is unknown.
    """
    if metric not in get_args(GainMetric):
        raise ValueError(f"the metric {metric} is unknown; known are {', '.join(get_args(GainMetric))}")
    champion = evaluation.champion
    assert champion is not None, "a gain is one over a champion"
    labels, new, old = evaluation.labels, evaluation.challenger, champion
    if min(int(labels.sum()), int((1 - labels).sum())) < MIN_ROWS_PER_CLASS:
        return None
    if metric == "expected_cost":
        return cost_gain(labels, new, old, costs, level, seed)
    if metric == "auc":
        return auc_gain(labels, new.probabilities, old.probabilities, level)
    return loss_gain(metric, labels, new.probabilities, old.probabilities, level)


def loss_gain(
    metric: Literal["log_loss", "brier"], labels: IntArray, new: FloatArray, old: FloatArray, level: float
) -> Gain:
    """Return the gain in a mean loss, the champion's minus the challenger's; probabilities have the shape (n,)."""
    loss = log_losses if metric == "log_loss" else _squared_errors
    of_new, of_old = loss(new), loss(old)
    rows = np.arange(len(labels))
    by_label = of_old - of_new
    midway = (new + old) / 2
    spreads = (
        _spread_of_mean(by_label[labels, rows]),
        _expected_spread_of_mean(by_label, np.stack([1 - midway, midway])),
    )
    champion, challenger = (float(losses[labels, rows].mean()) for losses in (of_old, of_new))
    return _gain(champion, challenger, champion - challenger, *spreads, level)


def auc_gain(labels: IntArray, new: FloatArray, old: FloatArray, level: float) -> Gain:
    """Return the gain in the area under the ROC curve, the challenger's minus the champion's; scores have the shape (n,)."""
    is_event = labels == 1
    # by how much more of the other class a row outranks (events), or is outranked by (others)
    (new_others, new_events), (old_others, old_events) = (
        (np.sort(scores[~is_event]), np.sort(scores[is_event])) for scores in (new, old)
    )
    as_event = share_below(new_others, new) - share_below(old_others, old)
    as_other = share_below(old_events, old) - share_below(new_events, new)
    midway = (new + old) / 2
    observed = _spread_of_two_means(as_event[is_event], as_other[~is_event])
    expected = _expected_spread_of_two_means(as_event, as_other, midway, int(is_event.sum()))
    champion, challenger = (roc_auc(labels, scores) for scores in (old, new))
    return _gain(champion, challenger, challenger - champion, observed, expected, level)


def cost_gain(labels: IntArray, new: Scores, old: Scores, costs: Costs, level: float, seed: int) -> Gain:
    """Return the gain in the mean cost of the decisions, the champion's minus the challenger's."""
    counts = kind_counts(labels, new.predictions, old.predictions)
    of_new, of_old = (cost_by_kind(says_so, costs) for says_so in (CHALLENGER_SAYS_SO, CHAMPION_SAYS_SO))

    def difference(kinds: npt.NDArray[np.number]) -> FloatArray:
        return np.asarray(kinds @ (of_old - of_new) / kinds.sum(axis=-1), dtype=np.float64)

    bounds = posterior_bounds(counts, level, seed, difference, extreme=max(costs.false_alarm, costs.miss))
    values = [float(counts @ cost / counts.sum()) for cost in (of_old, of_new)]
    return Gain(values[0], values[1], float(difference(counts)), bounds)


def lower_bound(estimate: float, observed: Spread, expected: Spread, level: float) -> float:
    """Return the least of the three one-sided lower bounds (see the module).

    >>> even = Spread(error=0.5, skewness=0.0)
    >>> round(lower_bound(1.0, even, even, 0.05), 3)
    0.178
    """
    from scipy.special import stdtrit

    student = estimate - observed.error * float(stdtrit(observed.freedom, 1 - level))
    return min(
        student, *(estimate - spread.error * _hall_quantile(spread.skewness, level) for spread in (observed, expected))
    )


def _gain(old: float, new: float, gain: float, observed: Spread, expected: Spread, level: float) -> Gain:
    low = lower_bound(gain, observed, expected, level)
    high = -lower_bound(-gain, _mirrored(observed), _mirrored(expected), level)
    return Gain(old, new, gain, Interval(low, high))


def _mirrored(spread: Spread) -> Spread:
    return Spread(spread.error, -spread.skewness, spread.freedom)


def _hall_quantile(skewness: float, level: float) -> float:
    """Return the studentised distance of a lower bound, given the skewness of the estimate itself (`hall_inverse` with n = 1)."""
    return hall_inverse(NormalDist().inv_cdf(1 - level), skewness, n=1)


def log_losses(probabilities: FloatArray) -> FloatArray:
    """Return the log losses under the labels 0 and 1; shape (2, n)."""
    p = np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.stack([-np.log1p(-p), -np.log(p)])


def _squared_errors(probabilities: FloatArray) -> FloatArray:
    """Return the squared errors under the labels 0 and 1; shape (2, n)."""
    return np.stack([probabilities**2, (1 - probabilities) ** 2])


def _spread_of_mean(values: FloatArray) -> Spread:
    n = len(values)
    variance, third = _central_moments(values, np.full(n, 1 / n))
    return _spread(variance / (n - 1), third / n**2, n - 1)


def _expected_spread_of_mean(by_label: FloatArray, chances: FloatArray) -> Spread:
    """Return the spread of the mean where a row's value is random: `by_label[k, i]` with probability `chances[k, i]`."""
    n = by_label.shape[1]
    variance, third = _central_moments(by_label.ravel(), chances.ravel() / n)
    return _spread(variance / n, third / n**2)


def _spread_of_two_means(events: FloatArray, others: FloatArray) -> Spread:
    parts = [_central_moments(values, np.full(len(values), 1 / len(values))) for values in (events, others)]
    sizes = (len(events), len(others))
    variances = [variance / (n - 1) for (variance, _), n in zip(parts, sizes, strict=True)]
    third = sum(third / n**2 for (_, third), n in zip(parts, sizes, strict=True))
    squares = sum(variance**2 / (n - 1) for variance, n in zip(variances, sizes, strict=True))
    return _spread(sum(variances), third, sum(variances) ** 2 / squares if squares > 0 else math.inf)


def _expected_spread_of_two_means(
    as_event: FloatArray, as_other: FloatArray, chances: FloatArray, n_events: int
) -> Spread:
    """Return the spread where a row is an event with its chance; the numbers of events and others are those observed."""
    sizes = (n_events, len(chances) - n_events)
    variance = third = 0.0
    for values, weights, n in zip((as_event, as_other), (chances, 1 - chances), sizes, strict=True):
        if weights.sum() > 0:
            of_class = _central_moments(values, weights / weights.sum())
            variance, third = variance + of_class[0] / n, third + of_class[1] / n**2
    return _spread(variance, third)


def _central_moments(values: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Return the second and third central moment; the weights add up to 1."""
    deviations = values - values @ weights
    return float(deviations**2 @ weights), float(deviations**3 @ weights)


def _spread(variance: float, third: float, freedom: float = math.inf) -> Spread:
    """Return the spread of an estimate from its variance and third central moment; no skewness without a variance."""
    error = math.sqrt(variance)
    return Spread(error, third / error**3 if error**3 > 0 else 0.0, freedom)


def cost_by_kind(says_so: npt.NDArray[np.bool_], costs: Costs) -> FloatArray:
    """Return the cost of a decision by kind of row; shape (8,)."""
    return costs.false_alarm * (~IS_POSITIVE & says_so) + costs.miss * (IS_POSITIVE & ~says_so)
