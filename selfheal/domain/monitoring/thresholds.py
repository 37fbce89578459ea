"""Drift thresholds for every column of one reference, from a budget of false alarms.

The budget is shared evenly (Bonferroni) by all looks, and at each by the columns, channels (values, missing rates) and windows, and
the one test of all columns together: the expected number of false alarms in the budget's time is at most 1, however much looks
and windows overlap and columns depend on each other.
Looks that overlap make the true number smaller.

Rows that come in runs (a branch's applicants, a day's campaign) say less than as many independent rows. How much less is told
by the reference itself, whose rows are in their order in time: the variance of the means of blocks of neighbours, over
that of as many independent rows, is the design effect d (Kish, 1965), and n rows count as n / d. Tails of the tests used
here fall like exp(-n x^2 / 2), so that is the same as the threshold 2 (level / 2)^d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray

N_WINDOWS = 2
"""The whole look-back, and the newest rows of it."""

N_CHANNELS = 2
"""Values and missing rates."""

BLOCK_ROWS = 50
MIN_BLOCKS = 10
"""Fewer blocks tell nothing about runs; independence is assumed then."""

SURE_STANDARD_ERRORS = 3.0
"""A design effect counts once it is so far above 1."""


@dataclass(frozen=True)
class Thresholds:
    """When a p-value is too small: by column, for its values and for its missing rate."""

    level: float
    """Of one test on independent rows, and of the one test of all columns together."""
    of_values: Mapping[str, float]
    of_missing_rates: Mapping[str, float]


def derive_thresholds(reference: pd.DataFrame, columns: Sequence[str], n_ticks: float) -> Thresholds:
    """Derive the thresholds for comparisons with these rows, which are in the order in which they were made.

    Args:
        n_ticks: looks that share one false alarm.
    """
    level = 1.0 / (n_ticks * (len(columns) * N_CHANNELS * N_WINDOWS + 1))
    values = {name: reference[name].to_numpy(dtype=np.float64) for name in columns}
    return Thresholds(
        level=level,
        of_values={name: _threshold(level, design_effect(_ranks(column))) for name, column in values.items()},
        of_missing_rates={
            name: _threshold(level, design_effect(np.isnan(column).astype(np.float64)))
            for name, column in values.items()
        },
    )


def design_effect(values: FloatArray) -> float:
    """Rows of this column that say as much as one independent row; 1 unless they surely come in runs.

    Args:
        values: in order, shape (n,); missing ones are left out.
    """
    known = values[~np.isnan(values)]
    n_blocks = len(known) // BLOCK_ROWS
    variance = float(known.var()) if len(known) else 0.0
    if n_blocks < MIN_BLOCKS or variance == 0.0:
        return 1.0
    means = known[: n_blocks * BLOCK_ROWS].reshape(n_blocks, BLOCK_ROWS).mean(axis=1)
    effect = BLOCK_ROWS * float(means.var(ddof=1)) / variance
    is_sure = effect > 1 + SURE_STANDARD_ERRORS * math.sqrt(2 / (n_blocks - 1))
    return effect if is_sure else 1.0


def _threshold(level: float, effect: float) -> float:
    return 2.0 * float((level / 2) ** effect)


def _ranks(values: FloatArray) -> FloatArray:
    """Mid-ranks, missing values left where they are."""
    from scipy.stats import rankdata

    ranks: FloatArray = rankdata(values, nan_policy="omit")
    return ranks
