"""Does a series grow? The slope of a straight line with an interval that autocorrelation does not narrow.

Belongs here: the statistics, all of it pure. Does not belong here: taking the samples (`benchmarks.soak`).

A sample of memory or of rows resembles the one before it. The usual interval takes each as new evidence and is far too narrow.
Here the variance of the slope is Newey and West's (1987) with Bartlett weights, prewhitened by an AR(1) as Andrews and Monahan
(1992) propose; the AR(1) coefficient is corrected for the bias that fitting a line to a short series brings (Kendall, 1954).
Student's t has as many degrees of freedom as independent samples would tell as much.

A process that was started again goes on with another level: each start is a segment with a mean of its own, and all segments
share the slope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

SECONDS_PER_DAY = 86_400
CONFIDENCE = 0.95
MIN_SAMPLES = 12
"""Fewer say nothing about how much each resembles the one before."""

MOST_AUTOCORRELATION = 0.98
MIN_SEGMENT = 4
"""Samples; a shorter life than that is left out."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trend:
    """Growth in percent of the mean level a day: `low` and `high` bound it with 95 % confidence."""

    low: float
    mean: float
    high: float
    n_samples: int

    def as_list(self) -> list[float]:
        """Return `low`, `mean` and `high`, in percent a day."""
        return [self.low, self.mean, self.high]


def trend(times_s: Sequence[float], values: Sequence[float], segments: Sequence[int] | None = None) -> Trend | None:
    """Return how a series grows; None if it is too short to tell.

    Args:
        times_s: seconds, ascending within a segment; in even steps, but for gaps between segments.
        values: one for each time; not negative.
        segments: which life of the process each sample is of; None: all are of one.

    >>> trend([10.0 * i for i in range(20)], [5.0] * 20)
    Trend(low=0.0, mean=0.0, high=0.0, n_samples=20)
    """
    number = np.zeros(len(times_s), dtype=np.int64) if segments is None else np.asarray(segments, dtype=np.int64)
    kept = [one for one in np.unique(number) if (number == one).sum() >= MIN_SEGMENT]
    is_kept = np.isin(number, kept)
    number, n_samples = number[is_kept], int(is_kept.sum())
    level = float(np.mean(np.asarray(values, dtype=np.float64)[is_kept])) if n_samples else 0.0
    x = _centred(np.asarray(times_s, dtype=np.float64)[is_kept], number)
    y = _centred(np.asarray(values, dtype=np.float64)[is_kept], number)
    spread = float(x @ x)
    if n_samples - len(kept) < MIN_SAMPLES or spread == 0:
        return None
    if level == 0:
        return Trend(0.0, 0.0, 0.0, n_samples)
    slope = float(x @ y) / spread
    residuals = y - slope * x
    rho = _autocorrelation(residuals, number)
    error = math.sqrt(_long_run_sum_of_squares(x * residuals, number)) / spread
    n_independent = n_samples * (1 - max(0.0, rho)) / (1 + max(0.0, rho))
    quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, max(2.0, n_independent - len(kept) - 1)))
    scale = 100 * SECONDS_PER_DAY / level
    return Trend(scale * (slope - quantile * error), scale * slope, scale * (slope + quantile * error), n_samples)


def _centred(values: Floats, number: npt.NDArray[np.int64]) -> Floats:
    centred = values.copy()
    for one in np.unique(number):
        centred[number == one] -= values[number == one].mean()
    return centred


def _autocorrelation(values: Floats, number: npt.NDArray[np.int64]) -> float:
    """Lag-1 autocorrelation, corrected for the bias of a fitted line; 0 for a constant series."""
    is_same = number[1:] == number[:-1]
    square = float(values @ values)
    if square == 0 or not is_same.any():
        return 0.0
    share = len(values) / is_same.sum()
    raw = float((values[1:] * values[:-1])[is_same].sum()) / square * share
    n_per_segment = len(values) / len(np.unique(number))
    return min(MOST_AUTOCORRELATION, raw + (2 + 4 * raw) / n_per_segment) if raw > 0 else raw


def _long_run_sum_of_squares(scores: Floats, number: npt.NDArray[np.int64]) -> float:
    """Return the variance of the sum of the scores: Newey and West's, of what an AR(1) leaves, and back."""
    rho = _autocorrelation(scores, number)
    rho = max(-MOST_AUTOCORRELATION, min(MOST_AUTOCORRELATION, rho))
    is_same = number[1:] == number[:-1]
    whitened = scores.copy()
    whitened[1:] -= np.where(is_same, rho * scores[:-1], 0.0)
    starts = np.concatenate([[True], ~is_same])
    whitened[starts] *= math.sqrt(1 - rho**2)
    n_lags = math.floor(4 * (len(scores) / 100) ** (2 / 9))
    total = float(whitened @ whitened)
    for lag in range(1, n_lags + 1):
        is_within = number[lag:] == number[:-lag]
        weight = 1 - lag / (n_lags + 1)
        total += 2 * weight * float((whitened[lag:] * whitened[:-lag])[is_within].sum())
    return max(total, float(whitened @ whitened) / len(scores)) / (1 - rho) ** 2
