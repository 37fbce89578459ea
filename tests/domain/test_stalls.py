"""Rules of the states in which the loop cannot go on by itself: what is said of each, and which alert it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from selfheal.domain.monitoring.window import WindowLimits
from selfheal.domain.records import Condition, Trigger
from selfheal.domain.retraining.class_counts import EVALUATION, TRAIN, PartCounts
from selfheal.domain.retraining.conditions import (
    RetrainingLimits,
    RetrainingSignals,
    evaluate_conditions,
    missing_labels,
)
from selfheal.domain.stalls import (
    BY_CONDITION,
    LABELS_SILENT,
    NO_VERSION,
    RAISED_HERE,
    RETRAINING_BLOCKED,
    RETRAINING_WAITS,
    STALL_STATES,
    BlockedRetraining,
    LabelArrival,
    LoopLimits,
    LoopSignals,
    WindowFill,
    alerts_of,
    is_due,
    stall_of_alert,
    stalls_of,
)
from tests.builders import decision, model_version
from tests.times import T0

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIMITS = LoopLimits(WindowLimits(DAY, 30 * DAY, 200), 7 * DAY)
WELL = LoopSignals(
    1,
    window=WindowFill(200, 30 * DAY),
    labels=LabelArrival(T0 - 7 * DAY, T0 - 90 * DAY, T0),
)


def told(signals: LoopSignals) -> list[tuple[str, str]]:
    return [(stall.state, stall.sentence) for stall in stalls_of(signals, LIMITS, T0)]


def test_a_loop_that_goes_on_is_in_no_such_state() -> None:
    assert told(WELL) == []
    assert alerts_of(()) == ()


def test_every_condition_of_a_retraining_is_a_state_with_an_alert() -> None:
    """A new condition without a row in the table would stall the loop unseen."""
    signals = RetrainingSignals(Trigger.DRIFT, model_version(), None, 0, 0)
    limits = RetrainingLimits(7 * DAY, 667, 30.0, 10)
    names = {one.name for one in evaluate_conditions(signals, limits, T0)}
    assert names == set(BY_CONDITION)


def test_each_state_has_a_name_and_one_alert_of_its_own_or_of_the_same_retraining() -> None:
    assert len({state.name for state in STALL_STATES}) == len(STALL_STATES)
    others = [state.alert_kind for state in STALL_STATES if state.condition is None]
    assert len(set(others)) == len(others)
    assert {state.alert_kind for state in STALL_STATES if state.condition} == {RETRAINING_WAITS, RETRAINING_BLOCKED}
    assert {state.alert_kind for state in STALL_STATES} >= set(RAISED_HERE)


# The window


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (WindowFill(48, DAY), "has 48 predictions, 200 are wanted; at the present rate of 48.0 a day there are 200 on"),
        (
            WindowFill(150, 30 * DAY),
            "at the present rate of 5.0 a day it never has as many; raise MONITORING_MAX_LOOKBACK",
        ),
    ],
)
def test_a_window_that_is_not_filled_says_by_when_it_is(fill: WindowFill, said: str) -> None:
    ((state, sentence),) = told(replace(WELL, window=fill))
    assert state == "window not filled"
    assert said in sentence


def test_a_window_that_has_not_had_its_time_is_no_stall() -> None:
    assert told(replace(WELL, window=WindowFill(3, DAY - HOUR))) == []
    assert told(replace(WELL, window=None)) == []


# Labels


def test_labels_that_stop_are_measured_by_the_predictions_that_go_on() -> None:
    assert WELL.labels is not None
    late = replace(WELL.labels, newest_label_at=T0 - 7 * DAY - HOUR)
    ((state, sentence),) = told(replace(WELL, labels=late))
    assert (state, sentence[:40]) == ("no labels", "the last one came 2026-02-23 11:00 UTC, ")
    assert told(replace(WELL, labels=replace(late, newest_prediction_at=T0 - HOUR))) == [], "traffic stopped, too"
    ((_, never),) = told(replace(WELL, labels=replace(late, newest_label_at=None)))
    assert never.startswith("there was never one, and predictions go on")
    assert told(replace(WELL, labels=LabelArrival(None, T0 - DAY, T0))) == []


# A retraining that cannot start


def blocked(*conditions: str, **changes: Any) -> LoopSignals:
    unmet = tuple(Condition(name, False, f"reason of {name}") for name in conditions)
    values: dict[str, Any] = {"reason": "harm", "unmet": unmet, "n_missing_labels": 300, "labels_per_day": 96.0}
    return replace(WELL, retraining=BlockedRetraining(**(values | changes)))


def test_each_unmet_condition_is_a_line_and_all_of_them_are_one_alert() -> None:
    signals = blocked("cooldown", "labelled_samples", "label_coverage", "back_off")
    stalls = stalls_of(signals, LIMITS, T0)
    assert [stall.state for stall in stalls] == ["cooldown", "too few labels", "label coverage too low", "back-off"]
    (alert,) = alerts_of(stalls)
    assert alert.kind == RETRAINING_WAITS
    assert alert.message.startswith("A retraining is called for and waits: reason of cooldown; reason of labelled")
    assert alert.message.count("at the present rate of 96.0 labels a day") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "the 300 missing ones are there on 2026-03-05"),
        ({"labels_per_day": 0.0}, "no label has come in 7 d"),
        ({"n_missing_labels": None}, "it is not known when, since there is none of a class"),
        ({"labels_per_day": 0.01}, "it takes more than 10 years"),
    ],
)
def test_by_when_the_labels_are_there_follows_from_the_present_rate(changes: dict[str, Any], said: str) -> None:
    ((_, sentence),) = told(blocked("back_off", **changes))
    assert sentence.startswith("reason of back_off; ")
    assert said in sentence
    ((_, of_cooldown),) = told(blocked("cooldown", **changes))
    assert of_cooldown == "reason of cooldown", "no label ends it"


def test_what_only_a_person_can_end_is_an_alert_of_its_own() -> None:
    waits, stays = alerts_of(stalls_of(blocked("cooldown", "attempts", "champion"), LIMITS, T0))
    assert (waits.kind, stays.kind) == (RETRAINING_WAITS, RETRAINING_BLOCKED)
    assert stays.message == ("A retraining is called for and will not start: reason of attempts; reason of champion.")


def test_a_broken_feed_is_the_ticks_alert_and_no_second_one() -> None:
    assert told(blocked("sound_feed", is_feed_broken=True)) == []
    assert told(blocked("sound_feed")) == [("feed not checked", "reason of sound_feed")]
    assert stall_of_alert("broken_feed", "broken") is not None
    assert stall_of_alert(RETRAINING_WAITS, "waits") is None, "that one is computed"
    assert stall_of_alert("feature_drift", "drifted") is None, "it stops nothing"


# Starts


def test_after_a_start_clients_come_back_and_a_first_version_is_trained_before_there_is_an_alert() -> None:
    (absent,) = alerts_of(stalls_of(LoopSignals(None, "nothing has been trained yet"), LIMITS, T0))
    assert WELL.labels is not None
    (silent,) = alerts_of(stalls_of(replace(WELL, labels=replace(WELL.labels, newest_label_at=None)), LIMITS, T0))
    assert (absent.kind, silent.kind) == (NO_VERSION, LABELS_SILENT)
    assert [is_due(absent, timedelta(minutes=n)) for n in (15, 16)] == [False, True]
    assert [is_due(silent, timedelta(minutes=n)) for n in (60, 61)] == [False, True]


# How many labels are missing

LABEL_LIMITS = RetrainingLimits(cooldown=DAY, min_labels=667, min_coverage_pct=30.0, max_attempts=3)


def missing(**changes: Any) -> int | None:
    values: dict[str, Any] = {
        "trigger": Trigger.DRIFT,
        "champion": model_version(),
        "is_feed_broken": False,
        "n_labels": 1_450,
        "n_predictions": 1_450,
    }
    return missing_labels(RetrainingSignals(**(values | changes)), LABEL_LIMITS)


def test_missing_labels_are_those_of_the_condition_that_wants_most() -> None:
    assert missing() == 0
    assert missing(n_labels=600) == 67
    assert missing(last_attempt=decision(), n_known_labels=1_400) == 300
    assert missing(last_attempt=decision(), n_known_labels=0) == 0


def test_missing_labels_of_a_class_follow_from_its_share() -> None:
    """2 more positives among the newest 30 %, of labels of which 2 % are positive: some 330 more."""
    parts = (PartCounts(TRAIN, 1_015, 21), PartCounts(EVALUATION, 435, 8))
    assert missing(parts=parts) == pytest.approx(2 / 0.02 / 0.3, abs=2)
    assert missing(parts=(parts[0], replace(parts[1], n_positive=10))) == 0
    assert missing(parts=(replace(parts[0], n_positive=0), replace(parts[1], n_positive=0))) is None
