"""What two builds' records differ in, and which differences are other decisions."""

from __future__ import annotations

from benchmarks.look import differences, is_decisive


def test_a_field_is_counted_once_a_window_whichever_columns_differ_in_it() -> None:
    ours = [{"drift": {"columns": [{"p_value": 0.1, "is_drifted": False}, {"p_value": 0.2, "is_drifted": False}]}}] * 2
    theirs = [
        {"drift": {"columns": [{"p_value": 0.3, "is_drifted": False}, {"p_value": 0.4, "is_drifted": True}]}},
        {"drift": {"columns": [{"p_value": 0.1, "is_drifted": False}, {"p_value": 0.4, "is_drifted": False}]}},
    ]
    assert differences(ours, theirs) == {"drift.columns.is_drifted": 1, "drift.columns.p_value": 2}
    assert differences(ours, ours) == {}


def test_a_missing_field_or_element_differs() -> None:
    assert differences([{"a": [1]}], [{"a": []}]) == {"a": 1}
    assert differences([{"a": 1, "b": None}], [{"b": None}]) == {"a": 1}


def test_a_verdict_and_a_columns_drift_are_decisions_and_a_distance_is_not() -> None:
    assert is_decisive("triage.verdict")
    assert is_decisive("drift.columns.is_missing_rate_drifted")
    assert not is_decisive("drift.domain_auc")
