"""Gate: the Brier score may not rise by more than allowed, nor by a share of the skill, nor over lost calibration."""

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
    from selfheal.domain.retraining.calibration import CalibrationLine
    from selfheal.domain.retraining.evaluation import Evaluation

NO_SKILL_LIMIT = math.inf
"""What `max_skill_loss_pct` was when the limit did not exist: neither skill nor calibration was judged."""


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the challenger's Brier score minus the champion's.

    A rise fails if it is larger than allowed. A smaller one fails where it is more than chance and costs too large a share of
    the champion's skill, where the challenger's probabilities are off and the champion's less so, or where probation, which
    goes on comparing the same two scores, would roll the challenger back on these very rows.
    """
    from selfheal.domain import probation
    from selfheal.domain.clusters import design_effect

    allowed, evaluation, new, old = limits["max_brier_degradation"], case.evaluation, case.challenger, case.champion
    if evaluation.champion is None:
        return no_champion(case, allowed)
    if new is None or old is None:
        return not_scored(case, allowed)
    change = new.brier - old.brier
    losses = [
        (scores.probabilities - evaluation.labels) ** 2 for scores in (evaluation.challenger, evaluation.champion)
    ]
    rises = losses[0] - losses[1]
    interval = _change_interval(rises, change, evaluation.clusters)
    measured = f"Brier score {old.brier:.4f} -> {new.brier:.4f} (+{allowed:g} allowed)"
    if limits["max_skill_loss_pct"] == NO_SKILL_LIMIT:
        status = GateStatus.PASS if change <= allowed else GateStatus.FAIL
        return Measurement(status, change, allowed, measured, evaluation.n_rows, interval)
    lines = _calibration_lines(evaluation)
    measured = f"{measured}; {lines[0] or 'its calibration is unknown'}"
    of_skill = _allowed_of_skill(evaluation, old.brier, limits["max_skill_loss_pct"])
    threshold, problems = allowed, []
    if change > of_skill and interval.low > 0:
        threshold = min(allowed, of_skill)
        share = f"{limits['max_skill_loss_pct']:g} % of the champion's skill"
        problems.append(f"the rise is more than chance, and {of_skill:.4f} is {share}")
    if change > 0 and _is_calibration_lost(*lines):
        problems.append("the rise comes with probabilities that are off, and further than the champion's")
    if change > 0 and probation.lower_bound(rises, effect=design_effect(rises, evaluation.clusters)) > 0:
        problems.append("probation would roll it back on these rows")
    status = GateStatus.FAIL if change > allowed or problems else GateStatus.PASS
    return Measurement(status, change, threshold, "; ".join([measured, *problems]), evaluation.n_rows, interval)


def _allowed_of_skill(evaluation: Evaluation, champion_brier: float, share_pct: float) -> float:
    """Return the rise that costs the share of the champion's skill: what it is better by than the base rate, at least 0."""
    base_rate = float(evaluation.labels.mean())
    return share_pct / 100 * max(0.0, base_rate * (1 - base_rate) - champion_brier)


def _calibration_lines(evaluation: Evaluation) -> tuple[CalibrationLine | None, CalibrationLine | None]:
    """Return the calibration lines of challenger and champion."""
    from selfheal.domain.retraining.calibration import calibration_line

    assert evaluation.champion is not None, "both models score all rows"
    new, old = (
        calibration_line(evaluation.labels, scores.probabilities)
        for scores in (evaluation.challenger, evaluation.champion)
    )
    return new, old


def _is_calibration_lost(new: CalibrationLine | None, old: CalibrationLine | None) -> bool:
    """Return whether the challenger's probabilities are off, by more than chance beyond the champion's; unknown is not."""
    from selfheal.domain.retraining.calibration import OFF_DEVIANCE, is_off

    return new is not None and is_off(new) and (old is None or new.deviance - old.deviance > OFF_DEVIANCE)


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
    limits=(Limit("max_brier_degradation"), Limit("max_skill_loss_pct", before=NO_SKILL_LIMIT)),
    description=(
        "The Brier score may rise by `MAX_BRIER_DEGRADATION` at most, beyond chance by `MAX_SKILL_LOSS_PCT` percent of the "
        "champion's skill, not over lost calibration, and not so that probation would roll it back."
    ),
    passes_if=(
        "the Brier score rises by no more, by no provable rise that costs so many percent of the champion's skill, by none "
        "that comes with lost calibration, and by none that probation would roll back on these rows"
    ),
    order=20,
    direction="at_most",
)
