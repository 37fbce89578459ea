"""Rules of the demo's face: what is new is told once, foreign text is shown as it is, the last word is honest."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from selfheal.simulate.outcome import DemoOutcome
from selfheal.simulate.timeline import EVENTS_SHOWN, Timeline
from selfheal.simulate.traffic import TrafficStats

NASTY = "age in [30, 45) [/] [red]x[type=float] [/work]"
"""Text that rich would read as markup."""


def plain() -> tuple[Timeline, io.StringIO]:
    """A timeline that is not on a terminal."""
    file = io.StringIO()
    return Timeline(Console(file=file, width=300)), file


def on_terminal() -> tuple[Timeline, io.StringIO]:
    file = io.StringIO()
    return Timeline(Console(file=file, width=300, height=60, force_terminal=True, color_system=None)), file


def panel(timeline: Timeline) -> str:
    file = io.StringIO()
    Console(file=file, width=300).print(timeline)
    return file.getvalue()


def test_without_a_terminal_each_event_is_one_line() -> None:
    timeline, file = plain()
    with timeline:
        timeline.phase("calm traffic")
        timeline.event("version [bold]2[/] is served")
    assert file.getvalue() == "00:00 calm traffic\n00:00 version 2 is served\n"


def test_on_a_terminal_events_stay_above_the_panel() -> None:
    timeline, file = on_terminal()
    with timeline:
        timeline.event("something happened")
    assert "something happened" in file.getvalue()


def test_the_panel_holds_state_and_newest_events() -> None:
    timeline, _ = plain()
    for i in range(EVENTS_SHOWN + 1):
        timeline.event(f"event number {i:02}")
    timeline.traffic(TrafficStats(predictions=1_234, labels=56), version=3)
    shown = panel(timeline)
    assert "event number 00" not in shown
    assert f"event number {EVENTS_SHOWN:02}" in shown
    assert "1,234 predictions, 56 labels, none failed" in shown
    assert "version 3" in shown


def test_failures_are_shown() -> None:
    timeline, _ = plain()
    timeline.traffic(TrafficStats(predictions=5, failed_requests=2), version=1)
    assert "2 failed" in panel(timeline)


def test_the_same_state_is_told_once_and_a_change_again() -> None:
    timeline, file = plain()
    for verdict in ("stable", "stable", "harmful_shift", "harmful_shift", "stable"):
        timeline.show_verdict({"verdict": verdict, "reasons": "- one\n- two"})
    told = [line.split(maxsplit=1)[1] for line in file.getvalue().splitlines()]
    assert told == ["verdict: stable: one", "verdict: harmful shift: one", "verdict: stable: one"]


def test_the_same_warning_is_told_once() -> None:
    timeline, file = plain()
    for text in ("a run failed", "a run failed", "the platform has stopped"):
        timeline.warn(text)
    assert len(file.getvalue().splitlines()) == 2


def test_an_unknown_drift_ratio_is_not_shown_as_none() -> None:
    timeline, file = plain()
    timeline.show_drift({"drifted_features": "none"})
    timeline.show_drift({"drifted_features": "age", "feature_drift_ratio": 0.25})
    assert "drift: unknown (too few rows)" in file.getvalue()
    assert "drift: 25% of the features: age" in file.getvalue()


@pytest.mark.parametrize("show", ["verdict", "drift", "decision", "gates", "warning"])
def test_foreign_text_is_shown_as_it_is_and_not_read_as_markup(show: str) -> None:
    timeline, file = plain()
    if show == "verdict":
        timeline.show_verdict({"verdict": "harmful_shift", "reasons": f"- {NASTY}"})
    elif show == "drift":
        timeline.show_drift({"drifted_features": NASTY, "feature_drift_ratio": 0.1})
    elif show == "decision":
        timeline.show_decision({"action": "skip", "reason": NASTY, "attempt": 1})
    elif show == "gates":
        gates = [{"gate": "recall", "status": "FAIL", "sentence": NASTY}]
        timeline.show_gates({"action": "reject", "reason": NASTY, "gates": gates})
        assert file.getvalue().count(NASTY) == 2
    else:
        timeline.warn(NASTY)
    assert NASTY in file.getvalue()
    assert NASTY in panel(timeline)


def test_metadata_that_is_not_there_yet_does_no_harm() -> None:
    timeline, _ = plain()
    timeline.show_verdict({})
    timeline.show_drift({})
    timeline.show_decision({})
    timeline.show_gates({})
    assert panel(timeline)


def test_the_last_word_is_healed_only_if_it_is() -> None:
    timeline, file = plain()
    timeline.print_verdict(DemoOutcome(True, "real", 1, 2, 0.2, 0.45, 0.8, 0.9, 5_000, 0, 12.3, 45.6, 130.0))
    assert "Healed: the API serves a better version" in file.getvalue()
    assert "5,000 predictions, 0 failed requests; drift to alert 12.3 s, alert to served 45.6 s" in file.getvalue()
    assert "Not healed" not in file.getvalue()


def test_what_did_not_happen_is_not_made_up() -> None:
    timeline, file = plain()
    timeline.print_verdict(DemoOutcome(dataset="synthetic", version_before=1, predictions=10, failed_requests=1))
    assert "Not healed." in file.getvalue()
    assert "drift to alert - s, alert to served - s" in file.getvalue()
    assert "1 failed requests" in file.getvalue()
