"""Gate: the Brier score may not rise by more than the maximum, so that probabilities stay calibrated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from selfheal.domain.records import GateStatus, Interval
from selfheal.domain.retraining.gate_spec import (
    GateCase,
    GateLimits,
    GateSpec,
    Limit,
    Measurement,
    no_champion,
    not_scored,
)

if TYPE_CHECKING:
    from selfheal.domain.clusters import Clusters
    from selfheal.domain.contract import FloatArray


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the challenger's Brier score minus the champion's."""
    allowed, evaluation, new, old = limits["max_brier_degradation"], case.evaluation, case.challenger, case.champion
    if evaluation.champion is None:
        return no_champion(case, allowed)
    if new is None or old is None:
        return not_scored(case, allowed)
    change = new.brier - old.brier
    status = GateStatus.PASS if change <= allowed else GateStatus.FAIL
    sentence = f"Brier score {old.brier:.4f} -> {new.brier:.4f} (+{allowed:g} allowed)"
    losses = [
        (scores.probabilities - evaluation.labels) ** 2 for scores in (evaluation.challenger, evaluation.champion)
    ]
    interval = _change_interval(losses[0] - losses[1], change, evaluation.clusters)
    return Measurement(status, change, allowed, sentence, evaluation.n_rows, interval)


def _change_interval(differences: FloatArray, change: float, clusters: Clusters) -> Interval:
    """Return the 95 % interval of a mean difference; the mean alone for a single row or equal differences."""
    import numpy as np

    from selfheal.domain.clusters import design_effect
    from selfheal.domain.monitoring.intervals import Z

    n_independent = len(differences) / design_effect(differences, clusters)
    half = Z * float(np.std(differences, ddof=1)) / math.sqrt(n_independent) if len(differences) > 1 else 0.0
    return Interval(change - half, change + half)


SPEC = GateSpec(
    name="brier_degradation",
    rule=judge,
    limits=(Limit("max_brier_degradation"),),
    description="The Brier score may rise by `MAX_BRIER_DEGRADATION` at most.",
    passes_if="the Brier score rises by no more",
    order=20,
    direction="at_most",
)
