"""Gate: enough of the champion's predictions are labelled to represent all of them."""

from __future__ import annotations

import math

from selfheal.domain.records import GateStatus
from selfheal.domain.retraining.gate_spec import GateCase, GateLimits, GateSpec, Limit, Measurement


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the share of labelled predictions in percent; too low a share is inconclusive."""
    evaluation, wanted = case.evaluation, limits["min_coverage_pct"]
    pct = evaluation.label_coverage_pct
    if pct is None:
        sentence = "the rows are not logged predictions"
        return Measurement(GateStatus.NOT_APPLICABLE, None, wanted, sentence, evaluation.n_rows)
    sentence = f"{pct:.0f} % of the predictions are labelled, {wanted:g} % wanted"
    if pct >= wanted:
        return Measurement(GateStatus.PASS, pct, wanted, sentence, evaluation.n_labels)
    missing = evaluation.n_labels * (wanted / pct - 1) if pct > 0 else math.inf
    if 0 < missing < math.inf:
        sentence += f": about {math.ceil(missing):,} more labels"
    return Measurement(GateStatus.INCONCLUSIVE, pct, wanted, sentence, evaluation.n_labels)


SPEC = GateSpec(
    name="label_coverage",
    rule=judge,
    limits=(Limit("min_coverage_pct"),),
    description="At least `MIN_COVERAGE_PCT` percent of the predictions are labelled.",
    passes_if="so many percent of the champion's predictions are labelled",
    order=40,
    unit="percent",
)
