"""Shift of one column: two distances (KS, rank), one p-value.

Belongs here: the statistics of one column in two samples. What is too unlikely, and what is too small to matter, is decided in
`selfheal.domain.monitoring.thresholds` and `.drift`.

Two tests look at each column, because neither sees everything: Kolmogorov and Smirnov's at any change of shape, Wilcoxon's
rank sum at a move of the whole column, which it finds with far fewer rows. Both use ranks only, so a tail of 22,000 among
values around 0.2 drowns nothing; ties are counted as they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray

SAME_VALUE = 1e-13
"""Values so close, relative to their size, are one value: what rounding makes of the same row on two machines. As two, the
few scores that a table of coarse inputs has would all seem to have moved."""

MAX_SCORE_BINS = 512
"""Ranks are gathered into so many values before their distribution's tail is computed: its moments hardly notice."""


class Shift(NamedTuple):
    """A column's move, missing values left out.

    `ks_distance` is the largest difference of the two distribution functions, 0 to 1; `rank_shift` is P(current > reference) -
    P(current < reference), -1 to 1 (rank-biserial correlation); `p_value` is that of the smaller of the two tests' p-values.
    """

    ks_distance: float
    rank_shift: float
    p_value: float

    @property
    def effect(self) -> float:
        """The larger of the two distances, 0 to 1."""
        return max(self.ks_distance, abs(self.rank_shift))


NO_SHIFT = Shift(0.0, 0.0, 1.0)
"""Of a column that has no value on one side."""


def column_shift(current: FloatArray, reference: FloatArray) -> Shift:
    """How far `current` has moved from `reference` (shapes (n,) and (m,)); missing values are left out.

    >>> column_shift(np.array([1.0, 2.0]), np.array([3.0, 4.0])).effect
    1.0
    """
    now, then = current[~np.isnan(current)], reference[~np.isnan(reference)]
    if not len(now) or not len(then):
        return NO_SHIFT
    counts = _counts(now, then)
    distance = _ks_distance(counts)
    ranks = _RankSum.of(counts)
    smaller = min(ks_p_value(distance, len(now), len(then)), ranks.p_value())
    return Shift(distance, ranks.shift, min(1.0, 2 * smaller))


def ks_distance(current: FloatArray, reference: FloatArray) -> float:
    """Largest difference of the two empirical distribution functions, missing values left out; 0 if a side is empty.

    Range 0 to 1. Kolmogorov (1933), Smirnov (1939).

    >>> ks_distance(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    1.0
    """
    now, then = current[~np.isnan(current)], reference[~np.isnan(reference)]
    return _ks_distance(_counts(now, then)) if len(now) and len(then) else 0.0


def ks_p_value(distance: float, n_current: int, n_reference: int) -> float:
    """Two-sided p-value of a KS distance, by its limit for many rows, which is on the safe side for few and for ties.

    Kolmogorov (1933).
    """
    from scipy.special import kolmogorov

    return float(kolmogorov(distance * math.sqrt(n_current * n_reference / (n_current + n_reference))))


def share_p_value(k_current: int, n_current: int, k_reference: int, n_reference: int) -> float:
    """Two-sided p-value that two shares are equal, such as two missing rates: the rank-sum test of two values.

    >>> share_p_value(0, 100, 0, 100)
    1.0
    """
    if not n_current or not n_reference:
        return 1.0
    current = np.array([n_current - k_current, k_current], dtype=np.float64)
    reference = np.array([n_reference - k_reference, k_reference], dtype=np.float64)
    return _RankSum.of((current, reference)).p_value()


def _counts(current: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How often each distinct value, in order, stands in either sample; distinct by more than `SAME_VALUE`."""
    values = np.concatenate([current, reference])
    order = np.argsort(values)
    in_order = values[order]
    sizes = np.minimum(np.abs(in_order), np.finfo(np.float64).max)
    with np.errstate(invalid="ignore"):  # infinity less infinity: the same value
        is_next = np.diff(in_order) > SAME_VALUE * np.minimum(sizes[1:], sizes[:-1])
    which = np.concatenate([[0], np.cumsum(is_next)])
    is_current = order < len(current)
    counted = [np.bincount(which[part], minlength=int(which[-1]) + 1) for part in (is_current, ~is_current)]
    return counted[0].astype(np.float64), counted[1].astype(np.float64)


def _ks_distance(counts: tuple[FloatArray, FloatArray]) -> float:
    current, reference = counts
    return float(np.abs(np.cumsum(current) / current.sum() - np.cumsum(reference) / reference.sum()).max())


class _RankSum(NamedTuple):
    """Wilcoxon's rank-sum test, with the tail of the ranks' own distribution instead of the normal one.

    With nine equal values in ten, the normal tail is wrong by factors where an alarm budget of months lives. Under the null
    hypothesis the mean score of the current rows is that of a draw without replacement from all rows; its tail is
    approximated by Lugannani and Rice's saddlepoint formula (1980) for independent draws, with as many of them as have the
    same variance.
    """

    scores: FloatArray
    """Distinct mid-ranks of all rows, centred, as shares of their number."""
    weights: FloatArray
    """Shares of rows that have them."""
    mean_score: float
    """Of the current rows."""
    n_draws: float
    step: float
    """Half of the smallest move of `mean_score`: the correction for continuity."""
    shift: float

    @classmethod
    def of(cls, counts: tuple[FloatArray, FloatArray]) -> _RankSum:
        """From how often each distinct value, in order, stands in either sample."""
        current, reference = counts
        total = current + reference
        current, total = current[total > 0], total[total > 0]
        n_current, n_total = float(current.sum()), float(total.sum())
        n_reference = n_total - n_current
        weights = total / n_total
        scores = np.cumsum(weights) - weights / 2 - 0.5
        mean_score = float((current * scores).sum()) / n_current
        gap = float(np.diff(scores).min()) if len(scores) > 1 else 0.0
        return cls(
            *_gathered(scores, weights),
            mean_score=mean_score,
            n_draws=n_current * n_total / n_reference,
            step=gap / (2 * n_current),
            shift=2 * mean_score * n_total / n_reference,
        )

    def p_value(self) -> float:
        """Two-sided."""
        distance = abs(self.mean_score) - self.step
        if distance <= 0 or len(self.scores) < 2:
            return 1.0
        scores = self.scores if self.mean_score > 0 else -self.scores
        return min(1.0, 2 * _upper_tail(scores, self.weights, distance, self.n_draws))


def _gathered(scores: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    if len(scores) <= MAX_SCORE_BINS:
        return scores, weights
    which = np.minimum(((scores + 0.5) * MAX_SCORE_BINS).astype(np.int64), MAX_SCORE_BINS - 1)
    gathered: FloatArray = np.bincount(which, weights, MAX_SCORE_BINS).astype(np.float64)
    means = np.bincount(which, weights * scores, MAX_SCORE_BINS)
    filled = gathered > 0
    return means[filled] / gathered[filled], gathered[filled]


def _upper_tail(scores: FloatArray, weights: FloatArray, distance: float, n_draws: float) -> float:
    """P(mean of `n_draws` independent scores >= `distance`), for scores with mean 0 (Lugannani and Rice, 1980)."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    highest = float(scores.max())
    if distance >= highest * (1 - 1e-9):
        return math.pow(float(weights[scores.argmax()]), n_draws)

    def tilted(tilt: float) -> tuple[float, float, float]:
        """Cumulant generating function and its first two derivatives."""
        terms = weights * np.exp(tilt * (scores - highest))
        total = float(terms.sum())
        mean = float((terms * scores).sum()) / total
        return tilt * highest + math.log(total), mean, float((terms * (scores - mean) ** 2).sum()) / total

    if tilted(0.0)[1] >= distance:  # 0, but for rounding
        return 0.5
    bound = 1.0
    while tilted(bound)[1] < distance:
        bound *= 2
    tilt = float(brentq(lambda t: tilted(t)[1] - distance, 0.0, bound, xtol=1e-10))
    generated, _, variance = tilted(tilt)
    root = math.sqrt(max(0.0, 2 * n_draws * (tilt * distance - generated)))
    slope = tilt * math.sqrt(n_draws * variance)
    if root < 1e-3 or slope <= 0:
        return 0.5
    density = math.exp(-root * root / 2) / math.sqrt(2 * math.pi)
    return min(1.0, max(0.0, float(ndtr(-root)) + density * (1 / slope - 1 / root)))
