"""A verdict that was reached before is judged again by its own gates and limits, whatever gates there are now."""

from __future__ import annotations

import math

import pytest

from selfheal.domain.retraining.gate_spec import GateSpec, Limit
from selfheal.domain.retraining.gates import GATES, checked
from selfheal.domain.retraining.judging import gates_of_verdict
from selfheal.kit.errors import PermanentError
from tests.domain.retraining.test_gates import SEGMENTS, SHADOW_SCORING, SIX

NAMES = (*SIX, SEGMENTS, SHADOW_SCORING)
LIMITS = {
    "min_f1_improvement_pct": 2.0,
    "max_brier_degradation": 0.01,
    "min_samples": 200,
    "min_coverage_pct": 30.0,
    "min_recall": 0.3,
    "min_auc": 0.72,
    "level": 0.05,
    "segments": "report",
    "recurring_rows": "one_unit",
    "seed": 20,
}
"""As a verdict stored them that was reached when F1 was what had to improve, and the Brier score had one limit."""
ADDED = {
    "primary_metric": "f1",
    "max_f1_degradation_pct": 100.0,
    "cost_of_false_alarm": 1.0,
    "cost_of_miss": 1.0,
    "max_skill_loss_pct": math.inf,
}
"""What limits that were added since were then."""


def with_gate(name: str, *limits: Limit) -> tuple[GateSpec, ...]:
    """The gates, and one more or another of the same name."""
    gate = GateSpec(name, lambda case, limits: None, limits, "", "")  # type: ignore[arg-type, return-value]
    return checked([*(other for other in GATES if other.name != name), gate])


def test_a_gate_that_was_added_since_has_no_part_in_a_verdict() -> None:
    gates, limits = gates_of_verdict(LIMITS, NAMES, with_gate("calm", Limit("max_calm")))
    assert tuple(gate.name for gate in gates) == (*SIX, SEGMENTS)
    assert limits == LIMITS | ADDED


def test_a_gate_whose_limit_a_verdict_stored_has_a_part_even_if_its_result_was_taken_out() -> None:
    gates, _ = gates_of_verdict(LIMITS, [name for name in NAMES if name != "recall"])
    assert "recall" in {gate.name for gate in gates}


def test_a_gate_on_the_traffic_of_then_is_not_evaluated_again() -> None:
    gates, _ = gates_of_verdict(LIMITS, NAMES)
    assert SHADOW_SCORING not in {gate.name for gate in gates}


def test_a_limit_that_was_added_to_a_gate_since_counts_as_it_did_before() -> None:
    added = Limit("max_recall", before=1.0)
    gates, limits = gates_of_verdict(LIMITS, NAMES, with_gate("recall", Limit("min_recall"), added))
    assert "recall" in {gate.name for gate in gates}
    assert limits == {**LIMITS, **ADDED, "max_recall": 1.0}
    stored = {**LIMITS, "max_recall": 0.9}
    assert gates_of_verdict(stored, NAMES, with_gate("recall", Limit("min_recall"), added))[1] == stored | ADDED


def test_a_limit_of_which_nothing_is_known_makes_a_verdict_unverifiable() -> None:
    with pytest.raises(PermanentError, match="those of another release, without max_recall, so it cannot be computed"):
        gates_of_verdict(LIMITS, NAMES, with_gate("recall", Limit("min_recall"), Limit("max_recall")))
    with pytest.raises(PermanentError, match="without seed"):
        gates_of_verdict({name: value for name, value in LIMITS.items() if name != "seed"}, NAMES)


def test_a_verdict_of_a_gate_that_is_not_here_is_unverifiable_and_names_it() -> None:
    with pytest.raises(PermanentError, match="there is no gate calm here, so it cannot be computed again"):
        gates_of_verdict({**LIMITS, "max_calm": 0.5}, (*NAMES, "calm"))


def test_a_verdict_of_an_earlier_release_took_rows_for_independent() -> None:
    stored = {name: value for name, value in LIMITS.items() if name != "recurring_rows"}
    assert gates_of_verdict(stored, NAMES)[1] == {**stored, **ADDED, "recurring_rows": "independent"}
