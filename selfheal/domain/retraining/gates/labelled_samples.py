"""Gate: there are enough labelled evaluation rows."""

from __future__ import annotations

import math
from typing import Literal

from selfheal.domain.records import GateStatus
from selfheal.domain.retraining.gate_spec import (
    RECURRING_ROWS,
    GateCase,
    GateLimits,
    GateSpec,
    Limit,
    Measurement,
    labels_for,
)


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the number of evaluation rows; too few are inconclusive, and the sentence says how many labels are missing.

    Rows of one entity count as the independent rows that they are worth.
    """
    n_rows, wanted = math.floor(case.evaluation.n_independent_rows), limits["min_samples"]
    missing = wanted - n_rows
    sentence = f"{n_rows:,} labelled evaluation rows{case.evaluation.worth}, {wanted:,} wanted"
    if missing > 0:
        sentence += f": {missing:,} more needed, {labels_for(missing, case.evaluation.share)}"
    status = GateStatus.PASS if missing <= 0 else GateStatus.INCONCLUSIVE
    return Measurement(status, float(n_rows), float(wanted), sentence, n_rows)


SPEC = GateSpec(
    name="labelled_samples",
    rule=judge,
    limits=(
        Limit("min_samples", setting="min_samples_for_decision"),
        Limit(
            RECURRING_ROWS,
            setting="gate_recurring_rows",
            default="one_unit",
            type=Literal["one_unit", "independent"],
            description="rows of one entity count as one unit, or as independent rows",
            before="independent",
        ),
    ),
    description="Both models are judged on at least `MIN_SAMPLES_FOR_DECISION` labelled rows; `GATE_RECURRING_ROWS` says how "
    "rows of one entity count.",
    passes_if="there are so many evaluation rows",
    order=30,
    unit="rows",
)
