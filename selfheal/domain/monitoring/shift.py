"""Shift of one column: two distances (KS, rank), one p-value.

Belongs here: the statistics of one column in two samples. `selfheal.domain.monitoring.thresholds` and `.drift` decide what is
significant and what is material.

Each column gets two tests. The Kolmogorov-Smirnov test detects any change of shape; Wilcoxon's rank-sum test detects a shift
of the whole column with far fewer rows. Both use ranks only, so outliers (22,000 among values around 0.2) have no undue
influence; ties are treated exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selfheal.domain.monitoring.category_shift import CategoryDistances, category_distances

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray
    from selfheal.domain.records import LevelShift

SAME_VALUE = 1e-13
"""Values so close, relative to their size, are one value: what rounding makes of the same row on two machines. As two, the
few scores that a table of coarse inputs has would all seem to have moved."""

MAX_SCORE_BINS = 512
"""Largest number of distinct ranks in the tail computation; grouping them barely changes the distribution's moments."""


class Sample(NamedTuple):
    """One column of one sample, sorted: its distinct values in ascending order, how often each stands there, how many miss.

    Whoever compares a sample more than once sorts it once.
    """

    values: FloatArray
    counts: FloatArray
    n_known: int
    n_missing: int
    copies: float = 1.0
    """Design effect of rows that recur (`selfheal.domain.clusters.copies_effect`): n rows are worth n / `copies` independent ones."""
    levels: tuple[str, ...] | None = None
    """The texts of the distinct values, if they are the codes of a category's levels."""

    @classmethod
    def of(cls, column: FloatArray | Sample, copies: float = 1.0) -> Sample:
        """Sort a column, shape (n,); return a sample as it is."""
        if isinstance(column, Sample):
            return column
        is_missing = np.isnan(column)
        n_missing = int(np.count_nonzero(is_missing))
        known = np.sort(column[~is_missing] if n_missing else column)
        starts = np.flatnonzero(known[1:] != known[:-1]) + 1
        starts = np.concatenate([[0], starts]) if len(known) else starts
        counts = np.diff(starts, append=len(known)).astype(np.float64)
        return cls(known[starts], counts, len(known), n_missing, copies)

    @property
    def n_rows(self) -> int:
        """Return the number of values, missing ones included."""
        return self.n_known + self.n_missing

    @property
    def missing_pct(self) -> float:
        """Return the percentage of missing values."""
        return 100.0 * self.n_missing / self.n_rows


class Shift(NamedTuple):
    """The shift of one column between two samples, without missing values.

    `ks_distance` is the largest difference of the two distribution functions, 0 to 1; `rank_shift` is P(current > reference) -
    P(current < reference), -1 to 1 (rank-biserial correlation); `p_value` is that of both tests together, by the smaller one.
    """

    ks_distance: float
    rank_shift: float
    p_value: float

    @property
    def effect(self) -> float:
        """Return the larger of the two distances, 0 to 1."""
        return max(self.ks_distance, abs(self.rank_shift))


NO_SHIFT = Shift(0.0, 0.0, 1.0)
"""The shift of a column without any value on one side."""


@dataclass(frozen=True)
class Distances:
    """How far one column of two samples is apart, without missing values; its p-value, which costs more, is computed on demand.

    `ks_distance` and `rank_shift` are those of `Shift`.
    """

    current: Sample
    reference: Sample
    ks_distance: float
    ranks: _RankSum | None

    @property
    def rank_shift(self) -> float:
        """Return the rank-biserial correlation, -1 to 1; 0 without any value on one side."""
        return 0.0 if self.ranks is None else self.ranks.shift

    @property
    def effect(self) -> float:
        """Return the larger of the two distances, 0 to 1."""
        return max(self.ks_distance, abs(self.rank_shift))

    @property
    def direction(self) -> str:
        """Return whether the values have become higher or lower."""
        return "higher" if self.rank_shift > 0 else "lower"

    def moves(self) -> tuple[LevelShift, ...]:
        """Return no levels: these are numbers."""
        return ()

    @cached_property
    def p_value(self) -> float:
        """Return the p-value of both tests together, twice the smaller one; 1 without any value on one side."""
        if self.ranks is None:
            return 1.0
        now, then = self.current, self.reference
        by_shape = ks_p_value(self.ks_distance, now.n_known / now.copies, then.n_known / then.copies)
        smaller = min(by_shape, self.ranks.p_value())
        return min(1.0, 2 * smaller)


def distances(current: FloatArray | Sample, reference: FloatArray | Sample) -> Distances | CategoryDistances:
    """Measure how far `current` is from `reference` (shapes (n,) and (m,)); missing values are ignored."""
    now, then = Sample.of(current), Sample.of(reference)
    if now.levels is not None or then.levels is not None:
        return category_distances(now, then)
    if not now.n_known or not then.n_known:
        return Distances(now, then, 0.0, None)
    counts = _counts(now, then)
    ranks = _RankSum.of(counts)
    if max(now.copies, then.copies) > 1:
        ranks = ranks.worth(now, then)
    return Distances(now, then, _ks_distance(counts), ranks)


def standardised(values: FloatArray) -> FloatArray:
    """Return the values, shape (n,), with mean 0 and variance 1; zeros if they are all the same."""
    spread = float(values.std())
    return (values - values.mean()) / spread if spread else np.zeros(len(values))


def standardised_ranks(values: FloatArray) -> FloatArray:
    """Return the mid-ranks of the known values, shape (n,), with mean 0 and variance 1; 0 for a missing value."""
    from scipy.stats import rankdata

    is_known = ~np.isnan(values)
    ranks = np.zeros(len(values))
    if is_known.any():
        ranks[is_known] = standardised(rankdata(values[is_known]))
    return ranks


def column_shift(current: FloatArray | Sample, reference: FloatArray | Sample) -> Shift:
    """Measure the shift of `current` from `reference` (shapes (n,) and (m,)); missing values are ignored.

    >>> column_shift(np.array([1.0, 2.0]), np.array([3.0, 4.0])).effect
    1.0
    """
    found = distances(current, reference)
    return Shift(found.ks_distance, found.rank_shift, found.p_value)


def rank_shift(current: FloatArray | Sample, reference: FloatArray | Sample) -> float:
    """Return P(current > reference) - P(current < reference); 0 without any value on one side."""
    return distances(current, reference).rank_shift


def ks_distance(current: FloatArray | Sample, reference: FloatArray | Sample) -> float:
    """Return the largest difference of the two empirical distribution functions, of a category the distance; 0 if a side has no value.

    Range 0 to 1. Kolmogorov (1933), Smirnov (1939).

    >>> ks_distance(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    1.0
    """
    now, then = Sample.of(current), Sample.of(reference)
    if now.levels is not None or then.levels is not None:
        return category_distances(now, then).effect
    return _ks_distance(_counts(now, then)) if now.n_known and then.n_known else 0.0


def ks_p_value(distance: float, n_current: float, n_reference: float) -> float:
    """Return the two-sided p-value of a KS distance, by the asymptotic distribution (Kolmogorov, 1933).

    It is conservative for few rows and for ties.
    """
    from scipy.special import kolmogorov

    return float(kolmogorov(distance * math.sqrt(n_current * n_reference / (n_current + n_reference))))


def share_p_value(k_current: float, n_current: float, k_reference: float, n_reference: float) -> float:
    """Return the two-sided p-value for equal shares, such as two missing rates: the rank-sum test of two values.

    >>> share_p_value(0, 100, 0, 100)
    1.0
    """
    if not n_current or not n_reference:
        return 1.0
    current = np.array([n_current - k_current, k_current], dtype=np.float64)
    reference = np.array([n_reference - k_reference, k_reference], dtype=np.float64)
    return _RankSum.of((current, reference)).p_value()


def _counts(current: Sample, reference: Sample) -> tuple[FloatArray, FloatArray]:
    """How often each distinct value, in order, stands in either sample; distinct by more than `SAME_VALUE`."""
    place = np.searchsorted(reference.values, current.values) + np.arange(len(current.values))
    is_reference = np.ones(len(current.values) + len(reference.values), dtype=np.bool_)
    is_reference[place] = False
    in_order, of_current, of_reference = (np.zeros(len(is_reference)) for _ in range(3))
    in_order[place], in_order[is_reference] = current.values, reference.values
    of_current[place], of_reference[is_reference] = current.counts, reference.counts
    sizes = np.minimum(np.abs(in_order), np.finfo(np.float64).max)
    with np.errstate(invalid="ignore"):  # infinity less infinity: the same value
        is_next = np.diff(in_order) > SAME_VALUE * np.minimum(sizes[1:], sizes[:-1])
    starts = np.concatenate([[0], np.flatnonzero(is_next) + 1])
    return np.add.reduceat(of_current, starts), np.add.reduceat(of_reference, starts)


def _ks_distance(counts: tuple[FloatArray, FloatArray]) -> float:
    current, reference = counts
    return float(np.abs(np.cumsum(current) / current.sum() - np.cumsum(reference) / reference.sum()).max())


class _RankSum(NamedTuple):
    """Wilcoxon's rank-sum test, with the tail of the ranks' own distribution instead of the normal one.

    If nine values in ten are equal, the normal tail is wrong by factors at the small levels that a false-alarm budget of
    months needs. Under the null hypothesis the current rows are a draw without replacement from all rows. The tail of their
    mean score is approximated by Lugannani and Rice's saddlepoint formula (1980) for independent draws; their number is
    chosen so that the variance is the same.
    """

    scores: FloatArray
    """The distinct mid-ranks of all rows, centred and divided by the number of rows."""
    weights: FloatArray
    """The share of rows with each score."""
    mean_score: float
    """The mean score of the current rows."""
    n_draws: float
    step: float
    """Half of the smallest possible change of `mean_score`: the continuity correction."""
    shift: float

    @classmethod
    def of(cls, counts: tuple[FloatArray, FloatArray]) -> _RankSum:
        """Build the test from the counts of each distinct value, in ascending order, in either sample."""
        current, reference = counts
        total = current + reference
        if not total.all():
            current, total = current[total > 0], total[total > 0]
        n_current, n_total = float(current.sum()), float(total.sum())
        n_reference = n_total - n_current
        weights = total / n_total
        scores = np.cumsum(weights) - weights / 2 - 0.5
        mean_score = float((current * scores).sum()) / n_current
        gap = float(np.diff(scores).min()) if len(scores) > 1 else 0.0
        return cls(
            scores,
            weights,
            mean_score=mean_score,
            n_draws=n_current * n_total / n_reference,
            step=gap / (2 * n_current),
            shift=2 * mean_score * n_total / n_reference,
        )

    def worth(self, current: Sample, reference: Sample) -> _RankSum:
        """Return the test for rows that recur: with as many draws as give the variance of their effective counts."""
        share = reference.n_known / (current.n_known + reference.n_known)
        variance = current.copies / current.n_known + reference.copies / reference.n_known
        return self._replace(n_draws=1 / (share**2 * variance))

    def p_value(self) -> float:
        """Return the two-sided p-value."""
        distance = abs(self.mean_score) - self.step
        if distance <= 0 or len(self.scores) < 2:
            return 1.0
        scores, weights = _gathered(self.scores, self.weights)
        scores = scores if self.mean_score > 0 else -scores
        return min(1.0, 2 * _upper_tail(scores, weights, distance, self.n_draws))


def _gathered(scores: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    if len(scores) <= MAX_SCORE_BINS:
        return scores, weights
    which = np.minimum(((scores + 0.5) * MAX_SCORE_BINS).astype(np.int64), MAX_SCORE_BINS - 1)
    gathered: FloatArray = np.bincount(which, weights, MAX_SCORE_BINS).astype(np.float64)
    means = np.bincount(which, weights * scores, MAX_SCORE_BINS)
    filled = gathered > 0
    return means[filled] / gathered[filled], gathered[filled]


def _upper_tail(scores: FloatArray, weights: FloatArray, distance: float, n_draws: float) -> float:
    """Return P(mean of `n_draws` independent scores >= `distance`) for scores with mean 0 (Lugannani and Rice, 1980)."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    highest = float(scores.max())
    if distance >= highest * (1 - 1e-9):
        return math.pow(float(weights[scores.argmax()]), n_draws)

    below_highest = scores - highest

    def tilted(tilt: float) -> tuple[FloatArray, float, float]:
        """Return each score's weight under the tilt, their sum, and the tilted mean: the generating function's derivative."""
        terms = weights * np.exp(tilt * below_highest)
        total = float(terms.sum())
        return terms, total, float((terms * scores).sum()) / total

    if tilted(0.0)[2] >= distance:  # the derivative at 0 is 0 up to rounding
        return 0.5
    bound = 1.0
    while tilted(bound)[2] < distance:
        bound *= 2
    # close to the mean the formula is a difference of two large numbers: the tilt has to be exact
    tilt = float(brentq(lambda t: tilted(t)[2] - distance, 0.0, bound, xtol=1e-15, rtol=1e-15))
    terms, total, mean = tilted(tilt)
    generated = tilt * highest + math.log(total)
    variance = float((terms * (scores - mean) ** 2).sum()) / total
    root = math.sqrt(max(0.0, 2 * n_draws * (tilt * distance - generated)))
    slope = tilt * math.sqrt(n_draws * variance)
    if root < 1e-3 or slope <= 0:
        return 0.5
    density = math.exp(-root * root / 2) / math.sqrt(2 * math.pi)
    return min(1.0, max(0.0, float(ndtr(-root)) + density * (1 / slope - 1 / root)))
