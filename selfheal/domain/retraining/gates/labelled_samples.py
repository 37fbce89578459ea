"""Gate: there are enough labelled evaluation rows."""

from __future__ import annotations

from selfheal.domain.records import GateStatus
from selfheal.domain.retraining.gate_spec import GateCase, GateLimits, GateSpec, Limit, Measurement, labels_for


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the number of evaluation rows; too few are inconclusive, and the sentence says how many labels are missing."""
    n_rows, wanted = case.evaluation.n_rows, limits["min_samples"]
    missing = wanted - n_rows
    sentence = f"{n_rows:,} labelled evaluation rows, {wanted:,} wanted"
    if missing > 0:
        sentence += f": {missing:,} more needed, {labels_for(missing)}"
    status = GateStatus.PASS if missing <= 0 else GateStatus.INCONCLUSIVE
    return Measurement(status, float(n_rows), float(wanted), sentence, n_rows)


SPEC = GateSpec(
    name="labelled_samples",
    rule=judge,
    limits=(Limit("min_samples", setting="min_samples_for_decision"),),
    description="Both models are judged on at least `MIN_SAMPLES_FOR_DECISION` labelled rows.",
    passes_if="there are so many evaluation rows",
    order=30,
    unit="rows",
)
