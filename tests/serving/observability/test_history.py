"""The monitor's results over time: what a tick's file says of labels, and that unknown is told as such."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfheal.adapters.postgres.tick_history import Step
from selfheal.adapters.postgres.ticks import tick_values
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
from selfheal.services.reports.files import save_tick
from serving.observability import history as module
from serving.observability.history import history, label_state
from tests import builders
from tests.times import T0
from tests.toy_use_case import contract


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


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tick = tick_with(label_delay=None)
    save_tick(tick, tmp_path)
    row = SimpleNamespace(**tick_values(tick.proxy, tick.drift, tick.performance, tick.triage, T0))
    step = Step(T0, T0, 1, 1, Verdict.STABLE, 0.0, {}, row)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "steps_between", lambda *_: [step])
    for nothing in ("promotions_since", "onsets_since"):
        monkeypatch.setattr(module, nothing, lambda *_: [])
    read: list[Path] = []
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    found = history(SimpleNamespace(contract=contract), T0, timedelta(days=1), 10, tmp_path)  # type: ignore[arg-type]
    assert found.labels is not None
    assert len(read) == 1
