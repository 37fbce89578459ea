"""Correction of a model's log-odds: another intercept and slopes, the ranking unchanged.

Belongs here: what a correction is and does. Does not belong here: fitting one (`selfheal.domain.retraining.corrections`), and the
model that has one (`selfheal.domain.model.recalibrated`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray

SMALLEST = 1e-12
"""Probabilities are moved inside [this, 1 - this], so that log-odds are finite."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A map of probabilities: log-odds = intercept + of_event ln p - of_other ln(1 - p).

    (0, 1, 1) changes nothing. Factors of 1 move the base rate; equal ones are a line in the log-odds (Platt, 1999); others are
    beta calibration (Kull, Silva Filho and Flach, 2017, Electronic Journal of Statistics 11). With factors of 0 or more no two
    rows change places.
    """

    intercept: float
    of_event: float = 1.0
    of_other: float = 1.0

    @property
    def is_line(self) -> bool:
        """Return whether it is a line in the log-odds."""
        return self.of_event == self.of_other

    def __call__(self, probabilities: FloatArray) -> FloatArray:
        """Return the corrected probabilities, each a function of its own row alone."""
        from scipy.special import expit, xlog1py, xlogy

        p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
        return np.asarray(expit(self.intercept + xlogy(self.of_event, p) - xlog1py(self.of_other, -p)))

    def after(self, first: Correction) -> Correction:
        """Return this line applied to what another correction gives, as one correction."""
        assert self.is_line, "only a line of a correction is a correction again"
        slope = self.of_event
        return Correction(self.intercept + slope * first.intercept, slope * first.of_event, slope * first.of_other)
