"""Gate: the challenger's area under the ROC curve reaches the minimum, independently of the champion."""

from __future__ import annotations

from selfheal.domain.records import GateStatus
from selfheal.domain.retraining.gate_spec import GateCase, GateLimits, GateSpec, Limit, Measurement, not_scored


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the challenger's area under the ROC curve; with labels of one class only it is unknown."""
    from selfheal.domain.monitoring.intervals import auc_interval

    evaluation, wanted, new = case.evaluation, limits["min_auc"], case.challenger
    if new is None:
        return not_scored(case, wanted)
    if new.auc_roc is None:
        sentence = "only one class among the evaluation rows: AUC-ROC is unknown"
        return Measurement(GateStatus.INCONCLUSIVE, None, wanted, sentence, evaluation.n_rows)
    status = GateStatus.PASS if new.auc_roc >= wanted else GateStatus.FAIL
    sentence = f"AUC-ROC {new.auc_roc:.3f}, {wanted:g} wanted"
    interval = auc_interval(evaluation.labels, evaluation.challenger.probabilities, evaluation.clusters)
    return Measurement(status, new.auc_roc, wanted, sentence, evaluation.n_rows, interval)


SPEC = GateSpec(
    name="auc_roc",
    rule=judge,
    limits=(Limit("min_auc"),),
    description="The challenger's AUC-ROC reaches `MIN_AUC`.",
    passes_if="its area under the ROC curve is that large",
    order=60,
)
