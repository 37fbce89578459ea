"""The calibration curve from a model's scores to the outcomes of its frozen reference, for any mix of inputs.

Belongs here: the curve and its uncertainty. Does not belong here: what follows for a window without labels (`estimation`) or for
labelled rows (`relation`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfheal.domain.clusters import Clusters, cluster_sums, within
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.newton import fit_logistic, probability
from selfheal.domain.monitoring.prepared_rows import PreparedRows

MIN_EVENTS = 20
"""Smallest effective number of calibration rows of either class, after weighting, that determines a calibration curve."""

CURVE_PENALTY = 1.0
"""Ridge penalty of the calibration curve's distance from the model's own scores, which hold unless rows contradict them."""

KNOT_LEVELS = (0.05, 0.35, 0.65, 0.95)
"""Quantiles of the scores at which the calibration curve may bend (Harrell, Regression Modeling Strategies, 2015, 2.4.6)."""

SMALLEST_PROBABILITY = 1e-4
"""Scores are clipped to this distance from 0 and 1 before taking log-odds, which would otherwise be infinite."""


@dataclass(frozen=True)
class Calibration:
    """The calibration log-odds(outcome) = log-odds(score) + curve(log-odds(score)), and the uncertainty of the curve.

    The curve is a restricted cubic spline, linear beyond its outer knots, so that it stays moderate where there are no rows.
    `coefficients` has shape (k,), `covariance` (k, k).
    """

    knots: FloatArray
    coefficients: FloatArray
    covariance: FloatArray

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Return the calibrated probability of class 1 for each score."""
        log_odds = log_odds_of(scores)
        return probability(log_odds + curve_basis(log_odds, self.knots) @ self.coefficients)


UNCALIBRATED = Calibration(knots=np.array([]), coefficients=np.zeros(2), covariance=np.zeros((2, 2)))
"""Scores unchanged, without uncertainty."""


@dataclass(frozen=True, eq=False)
class CurveRows:
    """Rows to fit a calibration curve on, with any weights; `clusters`: the entity of each, None if every row is its own."""

    labels: FloatArray
    log_odds: FloatArray
    knots: FloatArray
    basis: FloatArray
    clusters: Clusters = None

    @classmethod
    def of(cls, scores: FloatArray, labels: FloatArray, clusters: Clusters = None) -> CurveRows:
        """Prepare rows by their scores and outcomes, shape (n,)."""
        log_odds = log_odds_of(scores)
        knots = np.unique(np.quantile(log_odds, KNOT_LEVELS).round(6))
        return cls(labels, log_odds, knots, curve_basis(log_odds, knots), clusters)

    def fit(self, weights: FloatArray) -> Calibration:
        """Fit the curve to weighted rows.

        Its covariance is the sandwich estimator H^-1 (sum w^2 (y - p)^2 x x') H^-1 (Huber, 1967; White, 1982), for clustered rows
        with the parts w (y - p) x of each cluster added before they are squared (Liang and Zeger, 1986, Biometrika 73).
        """
        penalties = np.full(self.basis.shape[1], CURVE_PENALTY)
        penalties[0] = 0.0
        coefficients, hessian = fit_logistic(self.basis, self.labels, weights, self.log_odds, penalties)
        residuals = weights * (self.labels - probability(self.log_odds + self.basis @ coefficients))
        inverse = np.linalg.pinv(hessian)
        spread = self.basis * residuals[:, None]
        if self.clusters is not None:
            spread = cluster_sums(spread, self.clusters)
        return Calibration(self.knots, coefficients, inverse @ (spread.T @ spread) @ inverse)


def curve_rows(reference: PreparedRows) -> CurveRows:
    """Return the reference's rows, prepared once."""
    return reference.once(
        ("calibration",),
        lambda: CurveRows.of(reference.values("probability"), outcomes(reference), reference.clusters),
    )


def with_outcomes(reference: PreparedRows) -> PreparedRows:
    """Return the reference rows whose outcome is known: a part of the traffic may have no label."""
    if TRUE_LABEL not in reference or not np.isnan(reference.values(TRUE_LABEL)).any():
        return reference
    is_known = ~np.isnan(reference.values(TRUE_LABEL))
    return reference.once(
        ("with outcomes",),
        lambda: PreparedRows(
            reference.rows[is_known].reset_index(drop=True), clusters=within(reference.clusters, is_known)
        ),
    )


def outcomes(reference: PreparedRows) -> FloatArray:
    """Return the known outcomes of the reference rows; empty if it was frozen without outcomes."""
    return reference.values(TRUE_LABEL) if TRUE_LABEL in reference else np.array([])


def fewest_events(labels: FloatArray, weights: FloatArray) -> float:
    """Return the effective number of rows of the rarer class."""
    return min(effective_rows(weights[labels == 1]), effective_rows(weights[labels == 0]))


def effective_rows(weights: FloatArray) -> float:
    """Return the effective sample size (sum w)^2 / sum w^2 (Kish, 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def curve_basis(log_odds: FloatArray, knots: FloatArray) -> FloatArray:
    """Return the columns 1, x and, with three or more knots, the restricted cubic terms (Harrell, 2015, equation 2.25)."""
    columns = [np.ones_like(log_odds), log_odds]
    if len(knots) >= 3:
        last, before_last = knots[-1], knots[-2]

        def cubed(knot: float) -> FloatArray:
            return np.maximum(log_odds - knot, 0.0) ** 3

        for knot in knots[:-2]:
            share = (last - knot) / (last - before_last)
            bend = cubed(knot) - cubed(before_last) * share + cubed(last) * (share - 1)
            columns.append(bend / (last - knots[0]) ** 2)
    return np.column_stack(columns)


def log_odds_of(scores: FloatArray) -> FloatArray:
    """Return the log-odds of scores, which are kept from 0 and 1."""
    cut = np.clip(scores, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(cut / (1 - cut)), dtype=np.float64)
