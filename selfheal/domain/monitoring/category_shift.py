"""Shift of a category between two samples: how many rows have another level, whether that is chance, and which levels they are.

Under the null hypothesis the current rows are a draw without replacement from all rows, so that everything that depends on the
pooled counts alone (which levels are tested, which are merged) is allowed. Two tests, since neither finds all:

- By level: Fisher's exact test (1922) of each level against all others, the smallest p-value times the number of levels that could
  have had one as small (Tarone, 1990). A level with a handful of rows cannot be significant and costs nothing, so that a column of
  50,000 levels, most of them rare, is tested as sharply as one of 50. It holds for any counts, and names the level.
- All levels: the log-likelihood ratio G with Williams' correction (1976), after levels that are too rare for its distribution
  have been merged with others about as common. It finds many small moves.

Rows that recur count as fewer (Rao and Scott, 1992): both samples are divided by their design effects.

The distance is total variation: the share of rows that would have to change their level. Between two samples of one population it is
above 0, far above if there are many levels; what sampling alone gives is exactly known (De Moivre's mean deviation) and taken out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.records import LevelShift

if TYPE_CHECKING:
    from selfheal.domain.levels import FloatArray
    from selfheal.domain.monitoring.shift import Sample

MIN_EXPECTED = 5.0
"""Rows that a level must be expected to have in the smaller sample, or it is merged with others (Cochran, 1954)."""

MAX_EXACT_TESTS = 5
"""Levels whose exact test is computed: those with the largest deviances of their own. The others have larger p-values, or as good as."""

MAX_NAMED = 5
"""Levels that are named, those whose shares have moved most."""


@dataclass(frozen=True)
class CategoryDistances:
    """How far a category of two samples is apart, without missing values; its p-value, which costs more, is computed on demand.

    It has what `selfheal.domain.monitoring.shift.Distances` has. Levels have no order: `rank_shift` is 0.
    """

    current: Sample
    reference: Sample
    ks_distance: float
    counts: LevelCounts | None

    @property
    def rank_shift(self) -> float:
        """Return 0: levels are neither higher nor lower."""
        return 0.0

    @property
    def effect(self) -> float:
        """Return the total variation, less what sampling explains, 0 to 1."""
        return self.ks_distance

    @cached_property
    def p_value(self) -> float:
        """Return the p-value of both tests together, twice the smaller one; 1 without any value on one side."""
        return 1.0 if self.counts is None else self.counts.p_value()

    @property
    def direction(self) -> str:
        """Return which level has won most."""
        moves = self.moves()
        return f"to {max(moves, key=lambda move: move.points).level!r}" if moves else "to other levels"

    def moves(self) -> tuple[LevelShift, ...]:
        """Return the levels that have moved most, those first, at most `MAX_NAMED`."""
        return () if self.counts is None else self.counts.moves()


def category_distances(current: Sample, reference: Sample) -> CategoryDistances:
    """Measure how far the levels of `current` are from those of `reference`; missing values are ignored."""
    if not current.n_known or not reference.n_known:
        return CategoryDistances(current, reference, 0.0, None)
    counts = LevelCounts.of(current, reference)
    return CategoryDistances(current, reference, counts.distance(), counts)


@dataclass(frozen=True)
class LevelCounts:
    """How often each level stands in either sample, shape (levels,), and what the rows of each are worth."""

    levels: tuple[str, ...]
    current: FloatArray
    reference: FloatArray
    copies: tuple[float, float]

    @classmethod
    def of(cls, current: Sample, reference: Sample) -> LevelCounts:
        """Count the levels of both samples."""
        names = {
            code: level
            for side in (reference, current)
            for code, level in zip(side.values.tolist(), side.levels or (), strict=False)
        }
        codes = np.union1d(current.values, reference.values)
        found = []
        for side in (current, reference):
            counts = np.zeros(len(codes))
            counts[np.searchsorted(codes, side.values)] = side.counts
            found.append(counts)
        levels = tuple(names.get(code, "?") for code in codes.tolist())
        return cls(levels, found[0], found[1], (current.copies, reference.copies))

    @property
    def sizes(self) -> tuple[float, float]:
        """Return the number of known values of either sample."""
        return float(self.current.sum()), float(self.reference.sum())

    def distance(self) -> float:
        """Return the total variation beyond what sampling gives: the root of the difference of their squares, 0 to 1."""
        n_now, n_then = self.sizes
        found = 0.5 * float(np.abs(self.current / n_now - self.reference / n_then).sum())
        return math.sqrt(max(0.0, found**2 - self._by_sampling() ** 2))

    def _by_sampling(self) -> float:
        """Return the expected total variation of two samples of these pooled counts."""
        n_now, n_then = self.sizes
        n_all = n_now + n_then
        total = self.current + self.reference
        deviations = _mean_deviation(total, n_now / n_all) * np.sqrt((n_all - total) / max(1.0, n_all - 1))
        worth = math.sqrt((self.copies[0] / n_now + self.copies[1] / n_then) / (1 / n_now + 1 / n_then))
        return 0.5 * worth * float(deviations.sum()) * n_all / (n_now * n_then)

    def moves(self) -> tuple[LevelShift, ...]:
        """Return the levels that have moved most."""
        n_now, n_then = self.sizes
        now, then = 100 * self.current / n_now, 100 * self.reference / n_then
        largest = np.argsort(-np.abs(now - then), kind="stable")[:MAX_NAMED]
        found = (LevelShift(self.levels[i], float(then[i]), float(now[i])) for i in largest.tolist())
        return tuple(move for move in found if move.points)

    def p_value(self) -> float:
        """Return the p-value of both tests together."""
        now, then = self.current / self.copies[0], self.reference / self.copies[1]
        is_exact = self.copies == (1.0, 1.0)
        return min(1.0, 2 * min(_p_value_by_level(now, then, is_exact=is_exact), _p_value_of_all(now, then)))


def _mean_deviation(totals: FloatArray, share: float) -> FloatArray:
    """Return the mean absolute deviation of binomial counts of these totals (De Moivre, 1730)."""
    from scipy.special import xlog1py, xlogy

    nu = np.floor(totals * share) + 1
    log_pmf = _log_choose(totals, np.minimum(nu, totals)) + xlogy(nu, share) + xlog1py(totals - nu, -share)
    found: FloatArray = np.where(nu <= totals, 2 * nu * (1 - share) * np.exp(log_pmf), 0.0)
    return found


def _log_choose(n: FloatArray | float, k: FloatArray) -> FloatArray:
    """Return the logarithm of the number of ways to choose k of n."""
    from scipy.special import gammaln

    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


# One level against all others


def _p_value_by_level(now: FloatArray, then: FloatArray, *, is_exact: bool) -> float:
    """Return the smallest p-value of a level, times the number of levels that could have had it."""
    n_now, n_then = float(now.sum()), float(then.sum())
    attainable = _smallest_attainable(now + then, n_now, n_then)
    candidates = np.argsort(-_deviances(now, then), kind="stable")[:MAX_EXACT_TESTS]
    found = 1.0
    for place in candidates.tolist():
        p = _fisher(now[place], n_now, then[place], n_then, is_exact=is_exact)
        found = min(found, p * max(1, int((attainable <= p).sum())))
    return found


def _deviances(now: FloatArray, then: FloatArray) -> FloatArray:
    """Return each level's log-likelihood ratio against all others."""
    from scipy.special import xlogy

    n_now, n_then = now.sum(), then.sum()
    total, n_all = now + then, n_now + n_then
    cells = [(now, n_now), (then, n_then)]
    found = np.zeros(len(now))
    for count, n in cells:
        expected = total * n / n_all
        found += xlogy(count, count / np.maximum(expected, 1e-300))
        found += xlogy(n - count, np.maximum(n - count, 0) / np.maximum(n - expected, 1e-300))
    deviances: FloatArray = 2 * found
    return deviances


def _smallest_attainable(totals: FloatArray, n_now: float, n_then: float) -> FloatArray:
    """Return the smallest two-sided p-value that a level of each pooled count can have: all of it on one side."""

    def all_in(n_side: float, n_other: float) -> FloatArray:
        inside = np.minimum(totals, n_side)
        outside = totals - inside
        ways = _log_choose(n_side, inside) + _log_choose(n_other, outside)
        return np.asarray(ways - _log_choose(n_side + n_other, totals))

    smaller = np.minimum(all_in(n_now, n_then), all_in(n_then, n_now))
    return np.asarray(np.minimum(1.0, 2 * np.exp(smaller)), dtype=np.float64)


def _fisher(k_now: float, n_now: float, k_then: float, n_then: float, *, is_exact: bool) -> float:
    """Return the two-sided p-value of a share, twice the smaller tail; by its saddlepoint where rows are worth parts of rows."""
    if not is_exact:
        from selfheal.domain.monitoring.shift import share_p_value

        return share_p_value(k_now, n_now, k_then, n_then)
    from scipy.stats import hypergeom

    among = (
        round(n_now + n_then),
        round(k_now + k_then),
        round(n_now),
    )  # a frozen distribution would cost ten times as much
    return float(min(1.0, 2 * min(hypergeom.sf(k_now - 1, *among), hypergeom.cdf(k_now, *among))))


# All levels


def _p_value_of_all(now: FloatArray, then: FloatArray) -> float:
    """Return the p-value of G with Williams' correction, rare levels merged."""
    from scipy.special import chdtrc, xlogy

    now, then = _merged(now, then)
    if len(now) < 2:
        return 1.0
    n_now, n_then = now.sum(), then.sum()
    total, n_all = now + then, n_now + n_then
    g = 2 * float((xlogy(now, now / (total * n_now / n_all)) + xlogy(then, then / (total * n_then / n_all))).sum())
    freedom = len(now) - 1
    correction = 1 + (n_all / n_now + n_all / n_then - 1) * (float((n_all / total).sum()) - 1) / (6 * n_all * freedom)
    return float(chdtrc(freedom, max(0.0, g) / correction))


def _merged(now: FloatArray, then: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Merge levels that are expected to have fewer than `MIN_EXPECTED` rows in the smaller sample with others about as common.

    Which levels are merged depends on the pooled counts alone.
    """
    total = now + then
    expected = total * min(now.sum(), then.sum()) / total.sum()
    is_rare = expected < MIN_EXPECTED
    group = np.arange(len(total)) + len(total)  # a common level is a group of its own
    class_of = np.floor(np.log2(total[is_rare])).astype(np.int64)  # a class has at most twice as many rows a level
    names, which = np.unique(class_of, return_inverse=True)
    joined, filled, number = np.zeros(len(names), dtype=np.int64), 0.0, 0
    for place, rows in enumerate(np.bincount(which, expected[is_rare], len(names)).tolist()):
        if filled >= MIN_EXPECTED:
            filled, number = 0.0, number + 1
        joined[place], filled = number, filled + rows
    if len(names) and filled < MIN_EXPECTED:  # the rest joins the class before, or the rarest of the common levels
        common = np.flatnonzero(~is_rare)
        rarest = group[common[np.argmin(total[common])]] if len(common) else number
        joined[joined == number] = number - 1 if number else rarest
    group[is_rare] = joined[which]
    group = np.unique(group, return_inverse=True)[1]
    return np.bincount(group, now).astype(np.float64), np.bincount(group, then).astype(np.float64)
