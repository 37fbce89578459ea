"""Ridge-penalised weighted logistic regression by Newton's method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray

MAX_NEWTON_STEPS = 50
MAX_STEP = 3.0
"""Largest change of a coefficient in one step: Newton's method overshoots far from the solution."""

CONVERGED = 1e-8
"""Largest change of a coefficient in the last step."""


def fit_logistic(
    design: FloatArray, labels: FloatArray, weights: FloatArray | float, offset: FloatArray, penalties: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fit a ridge-penalised weighted logistic regression; return the coefficients, shape (k,), and the Hessian, (k, k).

    Args:
        design: shape (n, k).
        labels: 0 or 1, shape (n,).
        weights: shape (n,), or one for all rows.
        offset: log-odds to which the regression adds, shape (n,).
        penalties: of the squared coefficients, shape (k,).
    """
    coefficients = np.zeros(design.shape[1])
    ridge = np.diag(penalties)
    hessian, weighted = ridge, np.empty_like(design)
    for _ in range(MAX_NEWTON_STEPS):
        expected = probability(offset + design @ coefficients)
        gradient = design.T @ (weights * (labels - expected)) - penalties * coefficients
        np.multiply(design, (weights * expected * (1 - expected))[:, None], out=weighted)
        hessian = weighted.T @ design + ridge
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        step *= min(1.0, MAX_STEP / max(1e-12, float(np.abs(step).max())))
        coefficients = coefficients + step
        if np.abs(step).max() < CONVERGED:
            break
    return coefficients, hessian


def probability(log_odds: FloatArray) -> FloatArray:
    """Apply the logistic function, in the precision of its argument."""
    from scipy.special import expit

    found: FloatArray = expit(log_odds)
    return found
