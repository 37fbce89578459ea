"""Prior shift: what a window's labels will show if the base rate has moved and each class still has the inputs that it had.

Unlabelled rows cannot tell it from covariate shift, under which the probability given the inputs remains: a riskier mix and a higher
base rate move the inputs alike. Where the inputs allow both, an estimate that is to hold has to hold under either.

Belongs here: the new base rate by maximum likelihood (the EM of Saerens, Latinne and Decaestecker, 2002, Neural Computation 14, by
Newton's method) on calibrated scores (Alexandari, Kundaje and Shrikumar, 2020), its uncertainty by a bootstrap over the traffic and
the reference's rows, and whether it explains the inputs. Does not belong here: the estimate itself (`estimation`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selfheal.domain.monitoring.newton import probability
from selfheal.domain.monitoring.outcome_curve import SMALLEST_PROBABILITY, log_odds_of

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray
    from selfheal.domain.monitoring.intervals import IntArray

MIN_Z = 0.67
"""Standard errors from which the base rate counts as moved. Half of the calm windows pass, and some get a wider interval;
a stricter limit would leave the interval too narrow in windows whose base rate has moved by a few standard errors."""

N_STEPS, CONVERGED = 20, 1e-7
"""Newton steps for the likelihood, which is concave in the rate, and how small the last one is."""

N_BINS = 32
"""Bins of equally many scores, each with the mean of its log-odds, in which the bootstrap draws rows."""


@dataclass(frozen=True, eq=False)
class PriorShift:
    """A moved base rate: `base_rate` in the window, `reference_rate` before, and `z`, by how many standard errors it moved."""

    base_rate: float
    reference_rate: float
    z: float

    @property
    def log_odds_shift(self) -> float:
        """Return what to add to each row's log-odds."""
        moved, before = log_odds_of(np.array([self.base_rate, self.reference_rate]))
        return float(moved - before)

    def class_weights(self, labels: FloatArray) -> FloatArray:
        """Return the reference rows' weights under the new base rate, with mean about 1."""
        of_events, of_others = (
            self.base_rate / self.reference_rate,
            (1 - self.base_rate) / (1 - self.reference_rate),
        )
        return np.where(labels == 1, of_events, of_others)


class Side(NamedTuple):
    """Rows on one side of a curve: log-odds before it, shape (n,), and its columns (n, k).

    `n_independent` is what the rows are worth where entities recur; their own number if none does.
    """

    offsets: FloatArray
    basis: FloatArray
    n_independent: float


@dataclass(frozen=True, eq=False)
class Curve:
    """A calibration curve on the rows of the window and of the reference; `coefficients` has shape (k,), `covariance` (k, k)."""

    coefficients: FloatArray
    covariance: FloatArray
    window: Side
    reference: Side


def prior_shift(curve: Curve) -> PriorShift:
    """Return the most likely base rate of the window and how certainly it moved.

    The standard error is that of the difference between both rates, by the delta method: it has the Fisher information of the
    window's rows, the curve's covariance and the variance of the reference's mean score, which move the two rates apart.
    """
    offsets, basis, n_then = curve.reference
    before = probability(offsets + basis @ curve.coefficients)
    rate = float(before.mean())
    slope = rate * (1 - rate)  # of `rate` by its log-odds
    to_rate = (before * (1 - before)) @ basis / len(before) / slope  # of the log-odds of `rate` by the coefficients
    offsets, basis, n_now = curve.window
    ratios = np.exp(offsets + basis @ curve.coefficients - log_odds_of(np.array(rate)))
    found = float(_most_likely(ratios[None, :], np.full((1, len(ratios)), 1 / len(ratios)), rate)[0])
    mixed = 1 + found * (ratios - 1)
    information = float((((ratios - 1) / mixed) ** 2).mean())
    if information == 0:
        return PriorShift(rate, rate, 0.0)
    sensitivity = ratios / mixed**2 / len(ratios) / information
    gradient = sensitivity @ (basis - to_rate) - slope * to_rate
    of_reference = float(before.var()) / n_then / slope**2  # of the log-odds of `rate`
    variance = (
        1 / (n_now * information)
        + float(gradient @ curve.covariance @ gradient)
        + (float(sensitivity.sum()) + slope) ** 2 * of_reference
    )
    return PriorShift(found, rate, (found - rate) / math.sqrt(variance))


def drawn_curves(curve: Curve, shift: PriorShift, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Return coefficients, shape (n_draws, k), of curves that lead to the window's outcomes under prior shift.

    Each has a curve from its distribution, and the level of the base rate that is most likely on window and reference rows drawn
    again from their bins.
    """
    curves = rng.multivariate_normal(curve.coefficients, curve.covariance, size=n_draws, method="eigh")
    drawn = []
    for side in (curve.window, curve.reference):
        sizes, offsets, basis = _binned(side.offsets, side.basis)
        n_drawn = max(1, round(side.n_independent))
        counts = rng.multinomial(n_drawn, sizes / sizes.sum(), size=n_draws)
        drawn.append((counts / n_drawn, offsets + curves @ basis.T))
    (in_window, window), (in_reference, reference) = drawn
    before = log_odds_of((in_reference * probability(reference)).sum(axis=1))
    found = _most_likely(np.exp(window - before[:, None]), in_window, shift.base_rate)
    shifted = curves.copy()
    shifted[:, 0] += log_odds_of(found) - before
    return shifted


def _most_likely(ratios: FloatArray, weights: FloatArray, start: float) -> FloatArray:
    """Return for each row of `ratios` (likelihoods, event to other) the rate with the largest mean log(1 + rate (ratio - 1))."""
    excess = ratios - 1
    rates = np.full(len(ratios), start)
    for _ in range(N_STEPS):
        terms = excess / (1 + rates[:, None] * excess)
        slope, curvature = (weights * terms).sum(axis=1), (weights * terms**2).sum(axis=1)
        step = slope / np.maximum(curvature, 1e-300)
        # From a rate to an end at most half of the way, so that no step leaves the range.
        moved = np.clip(rates + step, rates / 2, (1 + rates) / 2)
        is_found = float(np.abs(moved - rates).max()) < CONVERGED
        rates = moved
        if is_found:
            break
    return np.asarray(np.clip(rates, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY), dtype=np.float64)


def _binned(offsets: FloatArray, basis: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return each bin's number of rows, and its means of offsets and columns."""
    parts = [part for part in np.array_split(np.argsort(offsets, kind="stable"), N_BINS) if len(part)]
    sizes = np.array([len(part) for part in parts], dtype=np.int64)
    return (
        sizes,
        np.array([offsets[part].mean() for part in parts]),
        np.array([basis[part].mean(axis=0) for part in parts]),
    )
