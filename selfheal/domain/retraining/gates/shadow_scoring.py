"""Gate: the challenger must score the champion's newest live predictions before it serves any.

`selfheal.domain.retraining.shadow_scoring` compares the two models; this gate judges the result.
"""

from __future__ import annotations

from selfheal.domain.records import GateStatus
from selfheal.domain.retraining.gate_spec import GateCase, GateLimits, GateSpec, Measurement


def judge(case: GateCase, limits: GateLimits) -> Measurement:  # noqa: ARG001  (one signature for all gates)
    """Return the share of predictions on which both models agree; a row without a probability fails."""
    scoring = case.live
    if scoring is None:
        return Measurement(GateStatus.NOT_APPLICABLE, None, None, "no live traffic of a champion to score", 0)
    n_rows, agreement = scoring.n_rows, scoring.agreement
    if scoring.problem is not None:
        sentence = f"the challenger fails on the champion's {n_rows:,} newest predictions: {scoring.problem}"
        return Measurement(GateStatus.FAIL, None, None, sentence, n_rows)
    assert agreement is not None, "all rows are scored"
    sentence = f"scored the champion's {n_rows:,} newest predictions and agrees on {100 * agreement:.1f} %"
    return Measurement(GateStatus.PASS, agreement, None, sentence, n_rows, scoring.agreement_interval)


SPEC = GateSpec(
    name="shadow_scoring",
    rule=judge,
    limits=(),
    description="The challenger scores every one of the champion's newest live predictions.",
    passes_if="the challenger gives a probability for each of the champion's newest live predictions",
    rests_on="live_traffic",
    order=90,
    direction=None,
    is_counted=False,
    other_settings=("monitoring_max_rows",),
)
