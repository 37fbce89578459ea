"""`selfheal status`: one screen of 80 columns that says the same with and without colour."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from selfheal.cli.status import status_screen
from selfheal.domain.records import Tone
from selfheal.services.status import TONE_WORDS
from tests.times import T0

HOSTILE = "[/] [red]not markup[/red] \x1b[31mnor an escape"

MODEL = {
    "name": "machine_failure",
    "version": 2,
    "in_production_since": T0,
    "trigger": "drift",
    "replaced_version": 1,
    "probation_until": None,
    "probation": "on probation against version 1: 3 d left",
}
TICK = {
    "at": T0,
    "verdict": "benign_shift",
    "reasons": "the inputs have shifted; nothing is lost",
    "window_hours": 24.0,
    "predictions": 1_234,
    "labels": 617,
    "label_coverage_pct": 50.0,
    "feature_drift_ratio": 0.25,
    "drifted_features": "load_ratio",
}
QUALITY = [
    {
        "metric": "f1",
        "realised": 0.62,
        "realised_interval": {"low": 0.55, "high": 0.68},
        "estimated": None,
        "estimated_interval": None,
        "in_evaluation": 0.61,
    }
]
ALERT = {
    "alert_id": "0190c0de-0000-7000-8000-000000000001",
    "kind": "dataset_drift",
    "severity": "critical",
    "message": "25 % of the features have drifted",
    "created_at": T0,
    "acknowledged_at": None,
    "acknowledged_by": None,
}
DECISION = {
    "decision_id": "d1",
    "created_at": T0,
    "trigger_reason": "drift",
    "action": "promote",
    "reason": "all applicable gates passed",
    "actor": "drift_sensor",
}
GATE = {"name": "f1_improvement", "status": "PASS", "sentence": "F1 0.2 -> 0.6"}


def found(**changes: Any) -> dict[str, Any]:
    return {
        "at": T0 + timedelta(minutes=5),
        "sentence": "The traffic has shifted, without harm so far.",
        "tone": "warning",
        "model": MODEL,
        "traffic": {"predictions_per_second": 2.5, "newest_prediction_at": T0},
        "latest_tick": TICK,
        "stalls": [],
        "labels": "95% of the labels of both classes come within 3 hours; 12 replaced ones are left out",
        "quality": QUALITY,
        "open_alerts": [ALERT],
        "decisions": [DECISION],
        "latest_verdict": DECISION | {"gates": [GATE]},
    } | changes


def screen(values: dict[str, Any], *, is_old: bool = False, **options: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=80, **options).print(status_screen(values, is_old=is_old), highlight=False)
    return file.getvalue()


def test_the_screen_answers_what_people_ask_first() -> None:
    shown = " ".join(screen(found()).split())
    for answer in (
        "WATCH The traffic has shifted, without harm so far.",
        "machine_failure version 2, for 5 min, in place of version 1",
        "on probation against version 1: 3 d left",
        "2.5 predictions a second",
        "benign shift, 5 min ago: the inputs have shifted",
        "25% of the features: load_ratio",
        "1,234 predictions in 1 d, 617 of them labelled (50 %)",
        "of both classes come within 3 hours; 12 replaced ones are left out",
        "0.620 (0.550 to 0.680)",
        "critical dataset drift, 5 min ago, not acknowledged",
        "selfheal alerts acknowledge 0190c0de-0000-7000-8000-000000000001",
        "promote (5 min ago, drift by drift_sensor): all applicable gates passed",
        "f1 improvement pass F1 0.2 -> 0.6",
    ):
        assert answer in shown, answer


def test_what_the_loop_waits_for_has_a_line_each() -> None:
    stalls = [{"state": "back-off", "alert_kind": "retraining_waits", "sentence": f"900 labels {HOSTILE}"}]
    shown = screen(found(stalls=stalls))
    assert "What the loop waits for:" in shown
    assert "  back-off: 900 labels" in shown
    assert "\x1b" not in shown
    assert "waits for" not in screen(found())


def test_no_line_is_wider_than_80_columns() -> None:
    assert max(len(line) for line in screen(found()).splitlines()) <= 80


def test_with_and_without_colour_the_words_are_the_same() -> None:
    plain = screen(found())
    coloured = screen(found(), force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    assert "\x1b[" not in screen(found(), force_terminal=True, color_system=None, no_color=True).replace("\x1b[1m", "")


@pytest.mark.parametrize("tone", list(Tone))
def test_the_tone_is_a_word(tone: Tone) -> None:
    assert screen(found(tone=tone.value)).startswith(TONE_WORDS[tone].upper())


def test_what_is_not_known_is_said_and_not_left_out() -> None:
    unknown = TICK | {"feature_drift_ratio": None, "label_coverage_pct": None}
    assert "drift unknown: too few rows" in " ".join(screen(found(latest_tick=unknown)).split())
    assert "verdict none yet" in " ".join(screen(found(latest_tick=None)).split())
    empty = found(
        model=None, traffic=None, latest_tick=None, quality=None, open_alerts=[], decisions=[], latest_verdict=None
    )
    assert "No alert is open." in screen(empty)
    assert "Nothing has been decided yet." in screen(empty)


def test_text_from_outside_is_shown_as_it_is() -> None:
    hostile = found(
        open_alerts=[ALERT | {"message": HOSTILE}],
        decisions=[DECISION | {"reason": HOSTILE}],
        latest_verdict=DECISION | {"reason": HOSTILE, "gates": [GATE | {"sentence": HOSTILE}]},
        latest_tick=TICK | {"reasons": HOSTILE},
    )
    shown = screen(hostile)
    assert shown.count("[red]not markup[/red]") == 5
    assert "\x1b" not in shown, "no sequence that moves the cursor or hides text"


def test_a_screen_that_cannot_be_renewed_says_so() -> None:
    assert screen(found(), is_old=True).startswith("Postgres does not answer.")
