"""Paired comparison of two models' F1: its bounds, its level over verdicts (alpha spending), and the rows it would take.

Two models on the same rows give 8 kinds of row, by true label and both predictions. F1 depends only on how often each kind
occurs. The shares of the kinds have Jeffreys' prior, a Dirichlet of 1/2 each. Draws from the posterior, by independent gamma
variates, give the posterior of the difference (Goutte and Gaussier, 2005, ECIR). Its quantiles are the bounds. They hold as
confidence bounds at small levels and with few positives. Resampling rows does not, because it ignores kinds of row that did
not occur. `benchmarks.gates` measures both. Rows of one entity count as the independent rows that they are worth (`counts_worth`).
The gates decide; this module only computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from selfheal.domain.clusters import Clusters, design_effect
from selfheal.domain.contract import FloatArray
from selfheal.domain.records import Interval

IntArray = npt.NDArray[np.int64]
DifferenceOfKinds: TypeAlias = Callable[[npt.NDArray[np.number]], FloatArray]
"""Challenger minus champion, or the reverse, shape (...,), from counts of kinds, shape (..., 8)."""

KINDS = np.arange(8)
IS_POSITIVE, CHALLENGER_SAYS_SO, CHAMPION_SAYS_SO = (np.asarray(KINDS & bit, dtype=bool) for bit in (4, 2, 1))
"""The kinds of row: a kind's number is 4 x label + 2 x challenger's prediction + champion's prediction."""

PRIOR_ROWS = 0.5
"""Rows added to each kind: Jeffreys' prior for the shares of a multinomial."""

SPENDING_SUM = math.pi**2 / 6
"""The sum of 1 / verdict_number^2 over all whole verdicts (Euler)."""

FULL_LEVEL_ROWS, FULL_LEVEL_ROWS_BRIER_ROSE = 1_000, 1_500
"""Rows from which a verdict spends its whole share of the level; more if the challenger's Brier score is higher."""

MIN_DRAWS, MAX_DRAWS, TAIL_DRAWS = 20_000, 4_000_000, 50
"""Bounds of the number of draws, which leaves about `TAIL_DRAWS` beyond the bound. The largest takes about 2 s and suffices
for the first hundred verdicts."""

MAX_ROWS_ASKED_FOR = 10_000_000
"""Largest number of rows that is suggested; a difference that needs more is not worth them."""

DRAWS_AT_ONCE = 100_000
"""Draws computed at once, which bounds their memory."""


def whole_verdicts(n_rows: float, full: int = FULL_LEVEL_ROWS) -> float:
    """Return how much of a whole verdict one on `n_rows` rows is: (n_rows / full)^2, and 1 from `full` rows on.

    >>> [whole_verdicts(n_rows) for n_rows in (250, 500, 1_000, 2_000)]
    [0.0625, 0.25, 1.0, 1.0]
    """
    return min(1.0, n_rows / full) ** 2


def level_of_verdict(level: float, verdict_number: float, n_rows: float, *, has_brier_risen: bool) -> float:
    """Return the part of the total `level` that one verdict spends (alpha spending).

    The whole verdict number j has the share level x 6 / (pi j)^2, and the shares add up to `level`. A verdict on fewer than
    `FULL_LEVEL_ROWS` rows spends (n_rows / `FULL_LEVEL_ROWS`)^2 of one (`whole_verdicts`), and the next one goes on from there,
    so that no part is spent twice. By the union bound, the probability of an error at any verdict is at most `level`, for any
    number of verdicts and any dependence between them (Foster and Stine, 2008, JRSS B 70; Tian and Ramdas, 2021, Stat. Methods
    Med. Res. 30).

    Each verdict has more rows than the one before, so later verdicts need less of the level. With slower decay the first
    verdict detects less and a better model waits longer; with faster decay a small gain is detected later. A verdict on few
    rows spends less, because what passes there is too often luck and may be a much worse model. The Brier score of the same
    rows is additional evidence: it measures the error of each probability, whereas F1 counts predictions beyond the threshold,
    so a worse model that is lucky in F1 is seldom lucky in both.

    Args:
        level: the probability of an error over all verdicts.
        verdict_number: 1 and what the earlier verdicts on this champion add up to, in whole verdicts.
        n_rows: the number of independent rows it rests on.
        has_brier_risen: whether the challenger's Brier score on these rows is above the champion's.

    >>> [round(level_of_verdict(0.05, number, 1_500, has_brier_risen=True), 4) for number in (1, 2, 10)]
    [0.0304, 0.0076, 0.0003]
    >>> [round(level_of_verdict(0.05, 1, n_rows, has_brier_risen=False), 4) for n_rows in (200, 500, 1_000)]
    [0.0012, 0.0076, 0.0304]
    >>> [round(level_of_verdict(0.05, 1, n_rows, has_brier_risen=True), 4) for n_rows in (200, 500, 1_000)]
    [0.0005, 0.0034, 0.0135]
    >>> round(level_of_verdict(0.05, 1.25, 1_000, has_brier_risen=False), 4)  # after one on 500 rows
    0.0247
    """
    spends = whole_verdicts(n_rows, FULL_LEVEL_ROWS_BRIER_ROSE if has_brier_risen else FULL_LEVEL_ROWS)
    current = math.floor(verdict_number)
    of_current = min(spends, current + 1 - verdict_number)
    shares = of_current / current**2 + (spends - of_current) / (current + 1) ** 2
    return level / SPENDING_SUM * shares


def kinds_of(labels: IntArray, challenger_says: IntArray, champion_says: IntArray) -> IntArray:
    """Return each row's kind, 0 to 7 (`KINDS`); the arguments are arrays of 0 and 1, shape (n,)."""
    return labels * 4 + challenger_says * 2 + champion_says


def kind_counts(labels: IntArray, challenger_says: IntArray, champion_says: IntArray) -> IntArray:
    """Return how many rows there are of each of the 8 kinds; the arguments are arrays of 0 and 1, shape (n,)."""
    return np.bincount(kinds_of(labels, challenger_says, champion_says), minlength=8)


def counts_worth(kinds: IntArray, clusters: Clusters) -> IntArray | FloatArray:
    """Return the counts of the 8 kinds, each divided by the design effect of the difference of F1 (Rao and Scott, 1992).

    The difference is linearised: a row of a kind counts by its derivative, (2 hit - F1 (positives + predicted)) over their mean
    number per row, of the challenger less that of the champion. With `clusters` None these are the counts themselves.

    Args:
        kinds: each row's kind, 0 to 7, shape (n,).
    """
    counts = np.bincount(kinds, minlength=8)
    if clusters is None:
        return counts
    return np.asarray(counts / design_effect(derivatives(counts)[kinds], clusters), dtype=np.float64)


def derivatives(counts: npt.NDArray[np.number]) -> FloatArray:
    """Return what one more row of each kind changes in the difference of F1; shape (8,)."""
    found = np.zeros(8)
    for says_so, sign in ((CHALLENGER_SAYS_SO, 1.0), (CHAMPION_SAYS_SO, -1.0)):
        total = float(counts[IS_POSITIVE].sum() + counts[says_so].sum())
        if total > 0:
            sides = IS_POSITIVE.astype(np.float64) + says_so
            found += sign * (2.0 * (IS_POSITIVE & says_so) - float(f1(counts, says_so)) * sides) / total
    return found


def f1(counts: npt.NDArray[np.number], says_so: npt.NDArray[np.bool_]) -> FloatArray:
    """Return F1, shape (...,), from counts of kinds, shape (..., 8), of the model whose positives are `says_so`.

    Without any positive, true or predicted, it is 0.
    """
    hits = counts[..., IS_POSITIVE & says_so].sum(axis=-1)
    total = counts[..., IS_POSITIVE].sum(axis=-1) + counts[..., says_so].sum(axis=-1)
    return np.asarray(2 * hits / np.maximum(total, np.finfo(np.float64).tiny), dtype=np.float64)


def f1_difference(counts: npt.NDArray[np.number]) -> FloatArray:
    """Return F1 of challenger minus champion, from counts of kinds, shape (..., 8)."""
    return f1(counts, CHALLENGER_SAYS_SO) - f1(counts, CHAMPION_SAYS_SO)


def f1_difference_bounds(counts: IntArray | FloatArray, level: float, seed: int) -> Interval:
    """Return a lower and an upper bound of the true difference of F1, as `posterior_bounds`."""
    return posterior_bounds(counts, level, seed, f1_difference)


def posterior_bounds(
    counts: IntArray | FloatArray, level: float, seed: int, difference: DifferenceOfKinds, extreme: float = 1.0
) -> Interval:
    """Return a lower and an upper bound of the true difference, each missed with probability `level` (one-sided).

    The same counts, level and seed give the same bounds. If the level is too small even for `MAX_DRAWS`, the bounds are
    `-extreme` and `extreme`, between which every difference lies: nothing is known.
    """
    n_draws = int(np.clip(math.ceil(TAIL_DRAWS / level), MIN_DRAWS, MAX_DRAWS))
    n_beyond = math.floor(level * (n_draws + 1))
    if n_beyond == 0:
        return Interval(-extreme, extreme)
    differences = posterior_differences(counts, n_draws, seed, difference)
    differences.partition((n_beyond - 1, n_draws - n_beyond))
    return Interval(float(differences[n_beyond - 1]), float(differences[n_draws - n_beyond]))


def posterior_differences(
    counts: IntArray | FloatArray, n_draws: int, seed: int, difference: DifferenceOfKinds = f1_difference
) -> FloatArray:
    """Return draws of the difference, shape (n_draws,).

    The shares of the kinds are gamma variates divided by their sum; `difference` may not depend on the sum.
    """
    rng = np.random.default_rng(seed)
    shape = counts + PRIOR_ROWS
    found = np.empty(n_draws)
    for start in range(0, n_draws, DRAWS_AT_ONCE):
        stop = min(start + DRAWS_AT_ONCE, n_draws)
        found[start:stop] = difference(rng.standard_gamma(shape, size=(stop - start, len(shape))))
    return found


def more_rows_for_certainty(
    n_rows: float, difference: float, low: float, level: float, next_level: Callable[[float], float]
) -> int | None:
    """Return how many rows beyond `n_rows` (at least 1) raise the lower bound above 0 at the next verdict.

    The difference is assumed constant. The bound's distance shrinks with the root of the number of rows and grows with the
    normal quantile of the level. None if the difference is not above 0, or if it would take more than `MAX_ROWS_ASKED_FOR`.

    Args:
        n_rows: the rows now.
        difference: the difference measured on them.
        low: the bound now, at `level`.
        level: the level of this verdict.
        next_level: the level of the next verdict, by its number of rows.

    >>> more_rows_for_certainty(200, 0.1, -0.1, 0.01, lambda n_rows: 0.01)
    601
    >>> more_rows_for_certainty(200, 0.1, -0.1, 0.01, lambda n_rows: 0.005)
    781
    """
    if difference <= 0:
        return None
    spread = (difference - low) / -NormalDist().inv_cdf(level) * math.sqrt(n_rows)

    def is_certain(rows: float) -> bool:
        return difference + NormalDist().inv_cdf(next_level(rows)) * spread / math.sqrt(rows) > 0

    if is_certain(n_rows + 1):
        return 1
    if not is_certain(MAX_ROWS_ASKED_FOR):
        return None
    too_few, enough = math.floor(n_rows) + 1, MAX_ROWS_ASKED_FOR
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_certain(middle) else (middle, enough)
    return enough - math.floor(n_rows)
