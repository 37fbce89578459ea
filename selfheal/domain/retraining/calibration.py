"""Calibration of probabilities: a test for it, and a correction that leaves the kind of model unchanged.

Belongs here: checks and corrections of a fitted model's probabilities on rows it did not learn from. Does not belong here: the
calibration used by monitoring (`selfheal.domain.monitoring.estimation`), which corrects estimates, not the model.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.domain.model.correction import SMALLEST, Correction
from selfheal.domain.records import Calibration

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray
    from selfheal.domain.retraining.fitting import IntArray

LEVEL = 0.01
"""Significance level of the calibration test; a model is recalibrated only if its p-value is below."""

MIN_SLOPE_ERROR, MIN_INTERCEPT_ERROR = 0.05, 0.05
"""Smallest error that is corrected: 5 % of the log-odds (slope), or 0.05 added to them (intercept)."""

OFF_INTERCEPT, OFF_SLOPE = 0.5, 0.25
"""Errors from which on a challenger's calibration is off: odds wrong 1.65 times, which costs about a fifth of the skill on the
shipped data, or log-odds stretched by a quarter."""

OFF_DEVIANCE = -2 * math.log(0.001)
"""Deviance from which on an error of calibration is more than chance: the 99.9 % quantile of chi-squared, 2 degrees of freedom."""

NEWTON_STEPS, HALVINGS = 50, 30


def check_calibration(labels: IntArray, probabilities: FloatArray) -> Calibration:
    """Estimate intercept a and slope b of logit P(y = 1) = a + b logit p, with their joint test and Spiegelhalter's z.

    Calibrated probabilities have a = 0 and b = 1 (Cox, 1958, Biometrika 45). With b < 1 they are too extreme, with b > 1 too
    moderate, with a > 0 too low. `p_value` is the likelihood ratio test of both at once (2 degrees of freedom). z is standard normal if p is
    calibrated (Spiegelhalter, 1986, Statistics in Medicine 5):

        z = sum (y - p)(1 - 2p) / sqrt( sum (1 - 2p)^2 p (1 - p) )

    If the line cannot be fitted (one class, equal probabilities, classes that the scores separate), a, b and the test are None.

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> p = rng.uniform(0.05, 0.95, 20_000)
    >>> found = check_calibration((rng.random(20_000) < p).astype(int), p)
    >>> abs(found.slope - 1) < 0.05, abs(found.intercept) < 0.05, abs(found.spiegelhalter_z) < 3
    (True, True, True)
    """
    p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    variance = float(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    z = float(((labels - p) * (1 - 2 * p)).sum()) / math.sqrt(variance) if variance > 0 else None
    logits = log_odds(probabilities)
    line = fitted_line(labels, logits)
    if line is None:
        return Calibration(len(labels), None, None, None, z)
    gained = _log_likelihood(labels, line[0] + line[1] * logits) - _log_likelihood(labels, logits)
    return Calibration(len(labels), *line, p_value=math.exp(-max(0.0, gained)), spiegelhalter_z=z)


def needs_recalibration(check: Calibration) -> bool:
    """Return whether the error is significant and material. A slope of 0 or less cannot be corrected: the ranking is wrong."""
    if check.intercept is None or check.slope is None or check.p_value is None or check.slope <= 0:
        return False
    is_material = abs(check.slope - 1) > MIN_SLOPE_ERROR or abs(check.intercept) > MIN_INTERCEPT_ERROR
    return check.p_value < LEVEL and is_material


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """Calibration of probabilities on labelled rows: intercept (with slope 1) and slope, each with its standard error.

    `deviance` is twice the log-likelihood that the best line gains over the probabilities as they are: chi-squared with 2 degrees
    of freedom if they are calibrated.
    """

    intercept: float
    intercept_error: float
    slope: float
    slope_error: float
    deviance: float

    def __str__(self) -> str:
        """Return it as a sentence of a gate shows it."""
        return (
            f"calibration intercept {self.intercept:+.2f} (error {self.intercept_error:.2f}), "
            f"slope {self.slope:.2f} (error {self.slope_error:.2f})"
        )


def calibration_line(labels: IntArray, probabilities: FloatArray) -> CalibrationLine | None:
    """Return the calibration line with its errors; None where it cannot be fitted (one class, equal or separating scores).

    The intercept is that of logit P(y = 1) = a + logit p (calibration in the large), the slope that of the line with both free
    (Cox, 1958, Biometrika 45; Van Calster et al., 2016, J. Clin. Epidemiol. 74). Errors are those of the information matrix.
    """
    logits = log_odds(probabilities)
    line, shift = fitted_line(labels, logits), fitted_shift(labels, logits)
    if line is None or shift is None:
        return None
    design = np.column_stack([np.ones_like(logits), logits])
    p = _expit(design @ np.array(line))
    slope_variance = float(np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))[1, 1])
    gained = _log_likelihood(labels, line[0] + line[1] * logits) - _log_likelihood(labels, logits)
    return CalibrationLine(*shift, line[1], math.sqrt(slope_variance), 2 * max(0.0, gained))


def is_off(line: CalibrationLine) -> bool:
    """Return whether intercept or slope is off by more than is material, and the line by more than chance (`OFF_DEVIANCE`)."""
    is_material = abs(line.intercept) > OFF_INTERCEPT or abs(line.slope - 1) > OFF_SLOPE
    return is_material and line.deviance > OFF_DEVIANCE


def correction_of(check: Calibration) -> Correction:
    """Return the correction that a fitted calibration line is."""
    assert check.intercept is not None and check.slope is not None, "only a line that was fitted corrects"
    return Correction(check.intercept, check.slope, check.slope)


def folded_into_linear_step(pipeline: Pipeline, line: Correction, x: FloatArray) -> Pipeline | None:
    """Return a copy of a pipeline with a line of the log-odds folded into its logistic step; None if it has no such step.

    a + b (intercept + coefficients . z) is again a logistic model: same class, same explanation, same speed. The result is
    tested on the rows `x`, not inferred from the name of the step.
    """
    assert line.is_line, "only a line of the log-odds can be folded in"
    copy = deepcopy(pipeline)
    last: Any = copy.steps[-1][1] if hasattr(copy, "steps") else None
    coefficients, intercept = getattr(last, "coef_", None), getattr(last, "intercept_", None)
    if coefficients is None or intercept is None or np.shape(coefficients)[:1] != (1,) or np.size(intercept) != 1:
        return None
    last.coef_ = coefficients * line.of_event
    last.intercept_ = intercept * line.of_event + line.intercept
    wanted = line(pipeline.predict_proba(x)[:, 1])
    found = copy.predict_proba(x)[:, 1]
    return copy if np.allclose(found, wanted, rtol=1e-6, atol=1e-9) else None


def fitted_line(labels: IntArray, logits: FloatArray) -> tuple[float, float] | None:
    """Return intercept and slope of the most likely line; None without a maximum."""
    if np.ptp(logits) < 1e-9:
        return None
    found = most_likely(labels, np.column_stack([np.ones_like(logits), logits]), np.array([0.0, 1.0]))
    return None if found is None else (float(found[0]), float(found[1]))


def most_likely(labels: IntArray, design: FloatArray, start: FloatArray) -> FloatArray | None:
    """Return the coefficients of the most likely log-odds `design @ coefficients`; None without a maximum.

    Newton's method; steps are halved until they go uphill.

    Args:
        labels: 0 or 1, shape (n,).
        design: shape (n, k).
        start: the coefficients to start from, shape (k,).
    """
    if len(set(labels.tolist())) < 2:
        return None
    line = start
    for _ in range(NEWTON_STEPS):
        p = _expit(design @ line)
        hessian = design.T @ (design * (p * (1 - p))[:, None])
        try:
            step = np.linalg.solve(hessian, design.T @ (labels - p))
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(step).all():
            return None
        here = _log_likelihood(labels, design @ line)
        for _ in range(HALVINGS):
            if _log_likelihood(labels, design @ (line + step)) >= here:
                break
            step = step / 2
        line = line + step
        if np.abs(step).max() < 1e-10:
            return line
    return None


def fitted_shift(labels: IntArray, logits: FloatArray) -> tuple[float, float] | None:
    """Return the best constant to add to the log-odds, and its standard error; None without a finite one."""
    if len(set(labels.tolist())) < 2:
        return None
    shift = 0.0
    for _ in range(NEWTON_STEPS):
        p = _expit(logits + shift)
        information = float((p * (1 - p)).sum())
        if information <= 0:
            return None
        step = float((labels - p).sum()) / information
        shift += float(np.clip(step, -1.0, 1.0))  # the likelihood is concave, but a whole step from afar may overshoot
        if abs(step) < 1e-10:
            return shift, 1 / math.sqrt(information)
    return None


def _log_likelihood(labels: IntArray, logits: FloatArray) -> float:
    return float((labels * logits - np.logaddexp(0.0, logits)).sum())


def log_odds(probabilities: FloatArray) -> FloatArray:
    """Return the log-odds of probabilities, which are finite (`SMALLEST`)."""
    p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)


def _expit(logits: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)), dtype=np.float64)
