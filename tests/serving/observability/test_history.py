"""The monitor's results over time: what a tick's file says of labels, and that unknown is told as such."""

from __future__ import annotations

from typing import Any

from selfheal.domain.records import (
    ClassCoverage,
    LabelCheck,
    LabelDelay,
    LabelQuarantine,
    ProxyMetrics,
    TickRecord,
    Triage,
    Verdict,
)
from serving.observability.history import label_state
from tests import builders
from tests.times import T0


def tick_with(**performance: Any) -> TickRecord:
    seen = builders.window()
    return TickRecord(
        Triage(seen, Verdict.STABLE, ("calm",), (), None),
        ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9),
        builders.drift_report(),
        builders.performance(**performance),
    )


def test_labels_are_told_by_class_with_the_age_from_which_they_are_complete() -> None:
    delay = LabelDelay(
        500, 400, 7_200.0, "95% of the labels of both classes come within 2 h",
        matured_after_by_class_s={"0": 7_200.0, "1": 600.0}, coverage=ClassCoverage(0.4, 1.0),
    )  # fmt: skip
    found = label_state(tick_with(label_delay=delay))
    assert found is not None
    assert (found.sentence, found.matured_after_seconds, found.withheld) == (delay.reason, 7_200.0, [])
    by_class = [(one.label, one.mostly_after_seconds, one.labelled_pct) for one in found.classes]
    assert by_class == [(0, 7_200.0, 40.0), (1, 600.0, 100.0)]


def test_what_is_withheld_is_told_with_its_reason() -> None:
    suspect = LabelQuarantine("q1", 1, T0, ("they contradict the scores",), label_source="bank")
    found = label_state(
        tick_with(withheld=("realised metrics are withheld",), label_check=LabelCheck(9, (), (suspect,)))
    )
    assert found is not None
    metrics, labels = found.withheld
    assert metrics == "realised metrics are withheld"
    assert "Labels of 'bank' received since 2026-" in labels
    assert "they contradict the scores" in labels


def test_a_tick_that_measured_no_labels_says_that_they_are_unknown_and_no_file_says_nothing() -> None:
    found = label_state(tick_with(label_delay=None))
    assert found is not None
    assert "unknown" in found.sentence
    assert {(one.mostly_after_seconds, one.labelled_pct) for one in found.classes} == {(None, None)}
    assert label_state(None) is None
