"""Fits of corrections of log-odds to labelled rows, by maximum likelihood: base rate, line (Platt), beta calibration.

Each is fitted to rows that the model did not learn from. None where the likelihood has no maximum, or where the correction would
turn the ranking round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.model.correction import SMALLEST, Correction
from selfheal.domain.retraining.calibration import fitted_line, fitted_shift, log_odds, most_likely

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray
    from selfheal.domain.retraining.fitting import IntArray


def prior_shift_correction(labels: IntArray, probabilities: FloatArray) -> Correction | None:
    """Return what to add to the log-odds: all that a moved base rate changes where each class has the inputs that it had.

    With labels this is the likelihood of the outcomes, which needs no assumption on the inputs (Saerens, Latinne and Decaestecker,
    2002, Neural Computation 14, is the same without labels).
    """
    found = fitted_shift(labels, log_odds(probabilities))
    return None if found is None else Correction(found[0])


def platt_correction(labels: IntArray, probabilities: FloatArray) -> Correction | None:
    """Return the line of the log-odds (Platt, 1999; Cox, 1958)."""
    found = fitted_line(labels, log_odds(probabilities))
    return None if found is None or found[1] <= 0 else Correction(found[0], found[1], found[1])


def beta_correction(labels: IntArray, probabilities: FloatArray) -> Correction | None:
    """Return the beta calibration (Kull, Silva Filho and Flach, 2017); a negative factor is set to 0 and the others fitted again."""
    p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    design = np.column_stack([np.ones_like(p), np.log(p), -np.log1p(-p)])
    if np.ptp(p) < SMALLEST:
        return None
    kept = [0, 1, 2]
    found = most_likely(labels, design, np.array([0.0, 1.0, 1.0]))
    if found is not None and found[1:].min() < 0:
        kept = [0, 1 + int(np.argmax(found[1:]))]
        found = most_likely(labels, design[:, kept], np.array([0.0, 1.0]))
    if found is None:
        return None
    coefficients = np.zeros(3)
    coefficients[kept] = found
    return None if coefficients[1:].min() < 0 else Correction(*map(float, coefficients))
