"""Density-ratio weights: give the reference the window's mix of inputs, and tell how much of the window it covers.

A logistic regression between reference and window estimates each row's density ratio (Bickel et al., 2009). Its inputs are each
value's rank in the reference, the rank's square, and whether the value is missing. Ranks limit the influence of long tails;
squares let a column move towards its middle or its ends. A category enters as one column for each of its commonest levels, and
one for levels that the reference does not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from selfheal.domain.levels import numbers
from selfheal.domain.monitoring.newton import fit_logistic
from selfheal.domain.monitoring.shift import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from selfheal.domain.contract import FloatArray
    from selfheal.domain.monitoring.prepared_rows import PreparedRows

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

MAX_DENSITY_RATIO = 20.0
"""Largest density ratio, window to reference, of a covered row: a rarer kind has almost no rows to be calibrated on."""

MIXTURE_PENALTY = 10.0
"""Ridge penalty of each coefficient of the mixture model, in rows. With fewer than a few hundred rows its coefficients are
mostly noise, and noise in the weights wastes calibration rows."""

KS_AT_1_PCT = 1.63
"""Divided by the root of the number of rows: the KS distance that one sample in a hundred exceeds (Kolmogorov, 1933)."""

MAX_LEVELS = 20
"""Levels of a category that have a column of their own."""

SMALLEST_SPREAD = 1e-9
"""Standard deviation up to which a column does not vary."""


@dataclass(frozen=True)
class Overlap:
    """Weights that give the reference the window's mix of inputs, and how much of the window they cover.

    `weights` has shape (reference rows,) and mean 1. `uncovered_pct` is the percentage of the window's rows that are rarer in
    the reference than `MAX_DENSITY_RATIO` allows or beyond the range of an input. `gap` is the largest KS distance of an input
    after weighting, less what chance explains.
    """

    weights: FloatArray
    uncovered_pct: float
    gap: float


class _Placed(NamedTuple):
    """Values of one input, each by its place among the distinct values of the reference.

    `place` is the first distinct value not below, or their number; `is_hit` whether the two are equal; `centred` the mid-rank in
    the reference, -0.5 to 0.5, and 0 where the value is missing.
    """

    place: IntArray
    is_hit: BoolArray
    is_missing: BoolArray
    centred: FloatArray


class _Input:
    """One input of the reference, in which the values of any window are placed."""

    def __init__(self, values: FloatArray, sample: Sample) -> None:
        self._distinct, self._n_known = sample.values, sample.n_known
        self._below = np.concatenate([[0], np.cumsum(sample.counts)])
        self._has_missing = sample.n_missing > 0
        self.placed = self.place(values)

    def place(self, values: FloatArray) -> _Placed:
        """Place values, shape (n,)."""
        n_distinct = len(self._distinct)
        is_missing = np.isnan(values)
        place = np.searchsorted(self._distinct, values)  # missing ones come last
        is_hit = np.zeros(len(values), dtype=np.bool_)
        if n_distinct:
            is_hit = self._distinct[np.minimum(place, n_distinct - 1)] == values
        ranks = self._below[place] + self._below[place + is_hit]
        centred = np.where(is_missing, 0.0, ranks / (2 * max(1, self._n_known)) - 0.5)
        return _Placed(place, is_hit, is_missing, centred)

    def beyond(self, window: _Placed) -> BoolArray:
        """Return which values lie beyond the reference's range, or are missing where the reference never misses one.

        Ranks do not show how far a value lies beyond the range: the largest value and a thousand times that have equal ranks.
        """
        outside = ((window.place == 0) & ~window.is_hit) | (window.place == len(self._distinct))
        if not self._n_known:
            outside[:] = False
        return np.where(window.is_missing, not self._has_missing, outside)

    def distance(self, window: _Placed, weights: FloatArray) -> float:
        """Return the KS distance of the window from the weighted reference rows; missing values are ignored."""
        n_distinct = len(self._distinct)
        n_now = len(window.place) - int(np.count_nonzero(window.is_missing))
        if not (n_distinct and n_now):
            return 0.0
        weighted = np.cumsum(np.bincount(self.placed.place, weights, n_distinct + 1)[:n_distinct])
        then = weighted / weighted[-1]
        known = ~window.is_missing
        at = np.bincount(window.place[known], minlength=n_distinct + 1)[:n_distinct]
        hits = np.bincount(window.place[window.is_hit], minlength=n_distinct)
        upto = np.cumsum(at)
        at_values = np.abs(then - upto / n_now)
        just_below = np.abs(np.concatenate([[0.0], then[:-1]]) - (upto - hits) / n_now)
        return float(max(at_values.max(), just_below.max()))


@dataclass(frozen=True)
class _KnownLevels:
    """The levels of a category in the reference: all of them, and the commonest, which have columns of their own."""

    known: FloatArray
    commonest: FloatArray

    @classmethod
    def of(cls, sample: Sample) -> _KnownLevels:
        return cls(sample.values, sample.values[np.argsort(-sample.counts, kind="stable")[:MAX_LEVELS]])

    def columns(self, codes: FloatArray) -> list[FloatArray]:
        """Return whether each row has each of the commonest levels, and whether it has an unknown one; missing as it is."""
        found = [(codes == code).astype(np.float64) for code in self.commonest]
        found.append((~np.isin(codes, self.known)).astype(np.float64))
        for column in found:
            column[np.isnan(codes)] = np.nan
        return found


class Mixture:
    """The reference's side of the regression, for any number of windows."""

    def __init__(self, inputs: Sequence[_Input], n_rows: int, levels: Mapping[str, _KnownLevels]) -> None:
        self._inputs = tuple(inputs)
        self._n_rows = n_rows
        self._levels = levels

    @classmethod
    def of(cls, reference: PreparedRows, inputs: Sequence[str]) -> Mixture:
        """Prepare these inputs of the reference."""
        levels = {name: _KnownLevels.of(reference.sample(name)) for name in inputs if reference.is_category(name)}
        prepared = []
        for name in inputs:
            if name in levels:
                prepared += [_Input(one, Sample.of(one)) for one in levels[name].columns(reference.values(name))]
            else:
                prepared.append(_Input(reference.values(name), reference.sample(name)))
        return cls(prepared, len(reference), levels)

    def columns(self, window: pd.DataFrame, inputs: Sequence[str]) -> list[FloatArray]:
        """Return the columns of a window as `overlap` and `distance` take them, each of shape (n,)."""
        found: list[FloatArray] = []
        for name in inputs:
            values = numbers(window[name])
            found += self._levels[name].columns(values) if name in self._levels else [values]
        return found

    def overlap(self, window: Sequence[FloatArray]) -> Overlap:
        """Weight the reference to the mix of a window.

        Args:
            window: `columns` of it.
        """
        placed = [one.place(values) for one, values in zip(self._inputs, window, strict=True)]
        n_then, n_now = self._n_rows, len(window[0])
        design = self._design(placed, n_now)
        penalties = np.full(design.shape[1], MIXTURE_PENALTY)
        penalties[0] = 0.0
        offset = np.full(len(design), math.log(n_now / n_then))
        is_current = np.repeat([0.0, 1.0], [n_then, n_now])
        coefficients, _ = fit_logistic(design, is_current, 1.0, offset, penalties)
        ratio = np.exp(np.clip(design @ coefficients, -50.0, 50.0))
        weights = np.minimum(ratio[:n_then], MAX_DENSITY_RATIO)
        is_uncovered = ratio[n_then:] > MAX_DENSITY_RATIO
        for one, now in zip(self._inputs, placed, strict=True):
            is_uncovered |= one.beyond(now)
        largest = max(one.distance(now, weights) for one, now in zip(self._inputs, placed, strict=True))
        return Overlap(
            weights=weights / weights.mean(),
            uncovered_pct=100.0 * float(is_uncovered.mean()),
            gap=largest - KS_AT_1_PCT / math.sqrt(n_now),
        )

    def distance(self, window: Sequence[FloatArray], weights: FloatArray) -> float:
        """Return the largest KS distance of an input between a window and the reference with other weights.

        Args:
            window: `columns` of it.
        """
        pairs = zip(self._inputs, window, strict=True)
        return max(one.distance(one.place(values), weights) for one, values in pairs)

    def _design(self, placed: Sequence[_Placed], n_now: int) -> FloatArray:
        """Return the standardised columns of reference and window rows, after a column of ones; omit what does not vary."""
        n_then, n_used = self._n_rows, 0
        columns = np.empty((3 * len(self._inputs), n_then + n_now))
        for one, now in zip(self._inputs, placed, strict=True):
            centred, squared, missing = columns[n_used : n_used + 3]
            centred[:n_then], centred[n_then:] = one.placed.centred, now.centred
            np.square(centred, out=squared)
            n_used += 2
            if one.placed.is_missing.any() or now.is_missing.any():
                missing[:n_then], missing[n_then:] = one.placed.is_missing, now.is_missing
                n_used += 1
        used = columns[:n_used]
        means, spreads = used.mean(axis=1), used.std(axis=1)
        varies = spreads > SMALLEST_SPREAD
        if not varies.all():
            used, means, spreads = used[varies], means[varies], spreads[varies]
        used -= means[:, None]
        used /= spreads[:, None]
        design = np.empty((n_then + n_now, len(used) + 1))
        design[:, 0] = 1.0
        design[:, 1:] = used.T
        return design
