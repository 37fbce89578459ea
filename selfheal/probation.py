"""The rule of probation: is the promoted version worse than the one it replaced, on rows it has served since? Pure."""

from __future__ import annotations

import math
from datetime import datetime
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from selfheal.contract import FloatArray
from selfheal.records import ModelVersion, ProbationReport

HARM_LEVEL = 0.005
"""One-sided level of the bound that rolls a version back; labels are looked at several times while they come in."""


def judge_probation(
    version: ModelVersion,
    labels: npt.NDArray[np.int64],
    probabilities: FloatArray,
    previous_probabilities: FloatArray | None,
    min_labels: int,
    now: datetime,
) -> ProbationReport:
    """Compares both versions' squared errors on the same labelled rows, pair by pair.

    Args:
        labels, probabilities, previous_probabilities: shape (n,), the rows the new version served; the old version's
            scores are None where there is no old version, or no row.
    """
    on_probation = version.probation_until is not None and now < version.probation_until
    change = low = None
    if version.previous_version is None:
        reason = "no earlier version to compare with"
    elif len(labels) < max(2, min_labels):
        reason = f"{len(labels):,} labels so far, {min_labels:,} wanted"
    elif previous_probabilities is None:
        reason = f"version {version.previous_version} cannot score these rows"
    else:
        paired = (probabilities - labels) ** 2 - (previous_probabilities - labels) ** 2
        change = float(paired.mean())
        error = float(paired.std(ddof=1)) / math.sqrt(len(paired))
        low = change - NormalDist().inv_cdf(1 - HARM_LEVEL) * error
        word = "worse" if change > 0 else "better"
        reason = f"Brier score {abs(change):.4f} {word} than version {version.previous_version} on {len(labels):,} rows"
    return ProbationReport(
        model_name=version.model_name,
        version=version.version,
        previous_version=version.previous_version,
        n_labels=len(labels),
        brier_change=change,
        brier_change_low=low,
        is_on_probation=on_probation,
        is_harmful=on_probation and low is not None and low > 0,
        reason=reason,
    )
