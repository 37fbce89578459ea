"""Drift thresholds for every column of one reference, from a budget of false alarms.

The budget is divided evenly (Bonferroni) among all ticks, and within a tick among the columns, channels (values, missing
rates), windows, and the one test of all columns together. The expected number of false alarms within the budget's time is then
at most 1, however ticks and windows overlap and columns depend on each other. Overlapping ticks make the true number smaller.

Clustered rows (a branch's applicants, a day's campaign) carry less information than as many independent rows. The reference,
whose rows are in chronological order, shows how much less: the design effect d (Kish, 1965) is the variance of the means of
blocks of neighbouring rows over that of as many independent rows, and n rows count as n / d. The tails of the tests used here
fall like exp(-n x^2 / 2), so this is equivalent to the threshold 2 (level / 2)^d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.monitoring.prepared_rows import PreparedRows

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray

N_WINDOWS = 2
"""Windows per tick: the whole look-back, and its newest rows."""

N_CHANNELS = 2
"""Channels per column: values and missing rates."""

BLOCK_ROWS = 50
MIN_BLOCKS = 10
"""Smallest number of blocks from which a design effect is estimated; with fewer, rows are assumed independent."""

MAX_LEVELS = 20
"""Levels of a category whose clustering is measured, the commonest."""

SURE_STANDARD_ERRORS = 3.0
"""Standard errors above 1 from which a design effect counts."""


@dataclass(frozen=True)
class Thresholds:
    """Significance thresholds for p-values, by column, for its values and for its missing rate."""

    level: float
    """The level of one test on independent rows, and of the one test of all columns together."""
    of_values: Mapping[str, float]
    of_missing_rates: Mapping[str, float]


def derive_thresholds(reference: pd.DataFrame | PreparedRows, columns: Sequence[str], n_ticks: float) -> Thresholds:
    """Derive the thresholds for comparisons with these rows, which are in chronological order.

    Args:
        n_ticks: number of ticks in which one false alarm is expected at most.
    """
    level = 1.0 / (n_ticks * (len(columns) * N_CHANNELS * N_WINDOWS + 1))
    rows = PreparedRows.of(reference)
    effects = {name: _design_effects(rows, name) for name in columns}
    return Thresholds(
        level=level,
        of_values={name: _threshold(level, of_values) for name, (of_values, _) in effects.items()},
        of_missing_rates={name: _threshold(level, of_missing) for name, (_, of_missing) in effects.items()},
    )


def _design_effects(reference: PreparedRows, name: str) -> tuple[float, float]:
    """Return the design effects of a column's values and of its missing rate."""

    def compute() -> tuple[float, float]:
        column = reference.values(name)
        of_values = _effect_of_levels(column) if reference.is_category(name) else design_effect(_ranks(column))
        return of_values, design_effect(np.isnan(column).astype(np.float64))

    return reference.once(("design effects", name), compute)


def design_effect(values: FloatArray) -> float:
    """Return how many rows of this column carry the information of one independent row; 1 unless they are clearly clustered.

    Args:
        values: in chronological order, shape (n,); missing ones are ignored.
    """
    known = values[~np.isnan(values)]
    n_blocks = len(known) // BLOCK_ROWS
    variance = float(known.var()) if len(known) else 0.0
    if n_blocks < MIN_BLOCKS or variance == 0.0:
        return 1.0
    means = known[: n_blocks * BLOCK_ROWS].reshape(n_blocks, BLOCK_ROWS).mean(axis=1)
    return _if_sure(BLOCK_ROWS * float(means.var(ddof=1)) / variance, n_blocks)


def _effect_of_levels(codes: FloatArray) -> float:
    """Return the design effect of a category: the mean of its levels' effects, weighted by their variances (Rao and Scott, 1984)."""
    known = codes[~np.isnan(codes)]
    n_blocks = len(known) // BLOCK_ROWS
    levels, counts = np.unique(known, return_counts=True)
    if n_blocks < MIN_BLOCKS or len(levels) < 2:
        return 1.0
    commonest = levels[np.argsort(-counts, kind="stable")[:MAX_LEVELS]]
    is_level = (known[:, None] == commonest).astype(np.float64)
    means = is_level[: n_blocks * BLOCK_ROWS].reshape(n_blocks, BLOCK_ROWS, -1).mean(axis=1)
    variance = float(is_level.var(axis=0).sum())
    return _if_sure(BLOCK_ROWS * float(means.var(axis=0, ddof=1).sum()) / variance, n_blocks)


def _if_sure(effect: float, n_blocks: int) -> float:
    """Return a design effect that is surely above 1; else 1."""
    is_sure = effect > 1 + SURE_STANDARD_ERRORS * math.sqrt(2 / (n_blocks - 1))
    return effect if is_sure else 1.0


def _threshold(level: float, effect: float) -> float:
    return 2.0 * float((level / 2) ** effect)


def _ranks(values: FloatArray) -> FloatArray:
    """Return the mid-ranks; missing values stay missing."""
    from scipy.stats import rankdata

    ranks: FloatArray = rankdata(values, nan_policy="omit")
    return ranks
