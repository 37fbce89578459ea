"""Rule of the benchmark of the gates: it numbers the verdicts on a champion as the platform does."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from benchmarks.gates import numbers_of_verdicts
from selfheal.domain.records import Action, Decision, GateResult, GateStatus, Trigger
from selfheal.domain.retraining.gates.f1_improvement import SPEC
from selfheal.domain.retraining.judging import added_up

ROWS = (200, 250, 900, 1_000, 2_000)


def verdict(n_rows: int) -> Decision:
    """A verdict of the F1 gate on so many rows."""
    gate = GateResult(SPEC.name, GateStatus.INCONCLUSIVE, 0.0, 2.0, "the difference may be chance", None, None, n_rows)
    return Decision(
        decision_id=f"on {n_rows}",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        model_name="credit",
        trigger_reason=Trigger.PERFORMANCE,
        action=Action.INCONCLUSIVE,
        reason=gate.sentence,
        actor="test",
        gates=(gate,),
    )


def test_a_verdict_has_the_number_that_the_platform_gives_it_after_those_before() -> None:
    verdicts = [verdict(n_rows) for n_rows in ROWS]
    expected = [1 + added_up(verdicts[:place]) for place in range(len(ROWS))]
    assert numbers_of_verdicts(ROWS) == pytest.approx(expected)
    assert expected[1] < 1.05
    assert expected[-1] - expected[-2] == 1
