"""Gate: the challenger's recall reaches the minimum, independently of the champion."""

from __future__ import annotations

from selfheal.domain.records import GateStatus
from selfheal.domain.retraining.gate_spec import GateCase, GateLimits, GateSpec, Limit, Measurement, not_scored


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the challenger's recall; without a true event it is unknown."""
    from selfheal.domain.monitoring.intervals import recall_interval

    wanted, new = limits["min_recall"], case.challenger
    if new is None:
        return not_scored(case, wanted)
    if new.n_positive == 0:
        sentence = "no positive label among the evaluation rows: recall is unknown"
        return Measurement(GateStatus.INCONCLUSIVE, None, wanted, sentence, 0)
    status = GateStatus.PASS if new.recall >= wanted else GateStatus.FAIL
    sentence = f"recall {new.recall:.3f} of {new.n_positive:,} true events, {wanted:g} wanted"
    interval = recall_interval(case.evaluation.labels, case.evaluation.challenger.predictions, case.evaluation.clusters)
    return Measurement(status, new.recall, wanted, sentence, new.n_positive, interval)


SPEC = GateSpec(
    name="recall",
    rule=judge,
    limits=(Limit("min_recall"),),
    description="The challenger finds at least the share `MIN_RECALL` of the true events.",
    passes_if="the challenger finds that share of the true events",
    order=50,
)
