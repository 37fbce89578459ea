"""Rules of the conditions: each one by itself keeps a retraining from starting, and who asks decides which count."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from selfheal.records import Condition, Trigger, Verdict
from selfheal.retraining.conditions import (
    RetrainingLimits,
    RetrainingSignals,
    evaluate_conditions,
    is_allowed,
    unmet,
)
from selfheal.retraining.requests import LatestTick, wish_for_retraining
from tests.builders import decision, model_version
from tests.times import T0

LIMITS = RetrainingLimits(cooldown=timedelta(days=7), min_labels=667, min_coverage_pct=30.0, max_attempts=3)
NOW = T0 + timedelta(days=7)
ATTEMPTED_AT_800 = (decision(n_labels=800),)

AUTOMATIC = (Trigger.DRIFT, Trigger.PERFORMANCE, Trigger.SCHEDULE)


def signals(**changes: Any) -> RetrainingSignals:
    """Everything just suffices."""
    values: dict[str, Any] = {
        "trigger": Trigger.DRIFT,
        "champion": model_version(),
        "latest_verdict": Verdict.HARMFUL_SHIFT,
        "n_labels": 1_000,
        "n_predictions": 3_000,
        "attempts": ATTEMPTED_AT_800,
    }
    return RetrainingSignals(**(values | changes))


def conditions(now: Any = NOW, **changes: Any) -> tuple[Condition, ...]:
    return evaluate_conditions(signals(**changes), LIMITS, now)


@pytest.mark.parametrize("trigger", AUTOMATIC)
def test_where_all_conditions_are_met_a_retraining_may_start(trigger: Trigger) -> None:
    found = conditions(trigger=trigger)
    assert is_allowed(found)
    assert len(found) == 7
    assert unmet(found) == ""


@pytest.mark.parametrize("trigger", AUTOMATIC)
@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("champion", {"champion": None}, "run `selfheal bootstrap` first"),
        (
            "cooldown",
            {"now": NOW - timedelta(seconds=1)},
            "cooling down from the last promotion until 2026-03-09 12:00",
        ),
        (
            "labelled_samples",
            {"n_labels": 666, "n_predictions": 1_000, "attempts": ()},
            "666 labelled predictions, 667",
        ),
        ("label_coverage", {"n_predictions": 3_400}, "29 % of the predictions are labelled, 30 % wanted"),
        ("sound_feed", {"latest_verdict": Verdict.BROKEN_FEED}, "repair it before training on it"),
        ("sound_feed", {"latest_verdict": None}, "has not been looked at yet"),
        ("attempts", {"attempts": ATTEMPTED_AT_800 * 3}, "3 of 3 attempts of this episode are used"),
        ("back_off", {"attempts": (decision(n_labels=801),)}, "1,000 labels, the next attempt waits for 1,001"),
    ],
)
def test_each_unmet_condition_alone_blocks(name: str, changes: dict[str, Any], reason: str, trigger: Trigger) -> None:
    found = conditions(trigger=trigger, **changes)
    assert [condition.name for condition in found if not condition.is_met] == [name]
    assert not is_allowed(found)
    assert reason in unmet(found)


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.BROKEN_FEED])
def test_only_a_broken_feed_is_not_sound(verdict: Verdict) -> None:
    assert is_allowed(conditions(latest_verdict=verdict))


def test_every_unmet_condition_is_told() -> None:
    found = conditions(now=T0, n_labels=5, attempts=(), latest_verdict=None)
    assert [condition.name for condition in found if not condition.is_met] == [
        "cooldown",
        "labelled_samples",
        "label_coverage",
        "sound_feed",
    ]
    assert unmet(found).count(";") == 3


def test_without_predictions_nothing_is_covered() -> None:
    found = {condition.name: condition for condition in conditions(n_predictions=0, n_labels=0, attempts=())}
    assert not found["label_coverage"].is_met


def test_the_bootstrap_does_not_count_for_the_cooldown() -> None:
    bootstrapped = model_version(trigger_reason=Trigger.BOOTSTRAP.value)
    assert is_allowed(conditions(now=T0, champion=bootstrapped))


def test_the_next_attempt_waits_for_a_quarter_more_labels_than_the_last_one_had() -> None:
    attempts = (decision(n_labels=2_000), decision(n_labels=800))
    assert is_allowed(conditions(attempts=attempts, n_labels=1_000))
    assert not is_allowed(conditions(attempts=attempts, n_labels=999))


def test_a_person_need_not_wait_for_cooldown_coverage_or_attempts() -> None:
    found = conditions(trigger=Trigger.MANUAL, now=T0, n_predictions=100_000, attempts=(decision(n_labels=1_000),) * 9)
    assert is_allowed(found)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("champion", {"champion": None}),
        ("labelled_samples", {"n_labels": 666}),
        ("sound_feed", {"latest_verdict": Verdict.BROKEN_FEED}),
    ],
)
def test_a_person_cannot_overrule_these(name: str, changes: dict[str, Any]) -> None:
    found = conditions(trigger=Trigger.MANUAL, **changes)
    assert [condition.name for condition in found if not condition.is_met] == [name]


def test_a_bootstrap_needs_only_that_there_is_no_champion() -> None:
    nothing = {"trigger": Trigger.BOOTSTRAP, "n_labels": 0, "n_predictions": 0, "latest_verdict": None, "attempts": ()}
    assert is_allowed(conditions(champion=None, **nothing))
    found = conditions(**nothing)
    assert not is_allowed(found)
    assert unmet(found) == "version 2 is in production already"


# What the sensors ask for


def tick(verdict: Verdict, num_drifted_features: int = 0) -> LatestTick:
    return LatestTick("tick", verdict, "episode", num_drifted_features)


def test_harm_with_drifted_features_is_the_drift_sensors() -> None:
    assert wish_for_retraining(tick(Verdict.HARMFUL_SHIFT, 3)).trigger is Trigger.DRIFT


def test_harm_without_drifted_features_is_the_performance_sensors() -> None:
    assert wish_for_retraining(tick(Verdict.HARMFUL_SHIFT)).trigger is Trigger.PERFORMANCE


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.HARMFUL_SHIFT])
def test_only_a_harmful_shift_calls_for_a_retraining(verdict: Verdict) -> None:
    wish = wish_for_retraining(tick(verdict, 3))
    assert wish.trigger is None
    assert verdict.value in wish.reason


def test_without_a_look_nothing_is_wished_for() -> None:
    assert wish_for_retraining(None).trigger is None
