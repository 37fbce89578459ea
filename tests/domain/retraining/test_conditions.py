"""Rules of the conditions: each one by itself keeps a retraining from starting, and who asks decides which count."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from selfheal.domain.records import Condition, GateResult, GateStatus, Onset, Trigger, Verdict
from selfheal.domain.retraining.class_counts import EVALUATION, TRAIN, PartCounts
from selfheal.domain.retraining.conditions import (
    MaturedLabels,
    RetrainingLimits,
    RetrainingSignals,
    evaluate_conditions,
    is_allowed,
    names_of_unmet,
    unmet,
    wanted_by_back_off,
)
from selfheal.domain.retraining.requests import LatestTick, retraining_need
from tests.builders import decision, model_version
from tests.times import T0

LIMITS = RetrainingLimits(cooldown=timedelta(days=7), min_labels=667, min_coverage_pct=30.0, max_attempts=3)
NOW = T0 + timedelta(days=7)
DAY = timedelta(days=1)
ATTEMPTED = (decision(n_labels=12_048),)
"""How many labels it had then decides nothing: they may have been counted from another moment."""

ENOUGH = (PartCounts(TRAIN, 700, 10), PartCounts(EVALUATION, 300, 290))

MATURED = MaturedLabels(1_000, 667, None, "known")

AUTOMATIC = (Trigger.DRIFT, Trigger.PERFORMANCE, Trigger.SCHEDULE)


def signals(**changes: Any) -> RetrainingSignals:
    """Everything just suffices."""
    values: dict[str, Any] = {
        "trigger": Trigger.DRIFT,
        "champion": model_version(),
        "is_feed_broken": False,
        "n_labels": 1_000,
        "n_predictions": 3_000,
        "attempts": ATTEMPTED,
        "n_known_labels": 800,
        "parts": ENOUGH,
    }
    known = {**values, **changes}
    values["matured"] = MaturedLabels(known["n_predictions"], known["n_labels"], None, "at least 95% are labelled")
    values["last_attempt"] = next(iter(known["attempts"][-1:]), None)
    return RetrainingSignals(**(values | changes))


def conditions(now: Any = NOW, **changes: Any) -> tuple[Condition, ...]:
    return evaluate_conditions(signals(**changes), LIMITS, now)


@pytest.mark.parametrize("trigger", AUTOMATIC)
def test_where_all_conditions_are_met_a_retraining_may_start(trigger: Trigger) -> None:
    found = conditions(trigger=trigger)
    assert is_allowed(found)
    assert len(found) == 10
    assert unmet(found) == ""


@pytest.mark.parametrize("trigger", AUTOMATIC)
@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("champion", {"champion": None}, "run `selfheal bootstrap` first"),
        (
            "champion",
            {"is_contract_its_own": False},
            "was trained under another contract, so that nothing can be compared",
        ),
        (
            "cooldown",
            {"now": NOW - timedelta(seconds=1)},
            "cooling down until 2026-03-09 12:00 UTC, since version 2 went live",
        ),
        (
            "labelled_samples",
            {"n_labels": 666, "n_predictions": 1_000, "attempts": (), "matured": MATURED},
            "666 labelled predictions, 667",
        ),
        (
            "class_counts",
            {"parts": (ENOUGH[0], PartCounts(EVALUATION, 435, 8))},
            "of 1,135 labelled rows, the 435 rows to be judged on (the newest) need 2 more of class 1 (there are 8)",
        ),
        (
            "class_counts",
            {"parts": (PartCounts(TRAIN, 700, 691), ENOUGH[1])},
            "the 700 rows to fit and tune on need 1 more of class 0 (there are 9): at least 10 of each are needed",
        ),
        ("label_coverage", {"n_predictions": 3_400}, "29 % of the matured predictions are labelled, 30 % wanted"),
        ("sound_feed", {"is_feed_broken": True}, "repair it before training on it"),
        ("sound_labels", {"suspect_labels": "labels are withheld"}, "labels are withheld"),
        ("sound_feed", {"is_feed_broken": None}, "too little of the champion's traffic"),
        ("attempts", {"attempts": ATTEMPTED * 3}, "3 of 3 attempts of this episode are used"),
        ("back_off", {"n_known_labels": 801}, "1,000 labels, the next attempt waits for 1,001: a quarter more"),
    ],
)
def test_each_unmet_condition_alone_blocks(name: str, changes: dict[str, Any], reason: str, trigger: Trigger) -> None:
    found = conditions(trigger=trigger, **changes)
    assert [condition.name for condition in found if not condition.is_met] == [name]
    assert not is_allowed(found)
    assert reason in unmet(found)


CHANGED = Onset(NOW - DAY, NOW - 2 * DAY, NOW - DAY / 2, 0.001, "debt_ratio", 9_000, 400)
AFTER_CHANGE = replace(LIMITS, min_labels_after_change=400)


def test_after_a_change_fewer_labels_suffice_and_the_sentence_says_since_when_they_count() -> None:
    for n_labels, is_met in ((399, False), (400, True)):
        found = evaluate_conditions(signals(onset=CHANGED, n_labels=n_labels, attempts=()), AFTER_CHANGE, NOW)
        (labels,) = (one for one in found if one.name == "labelled_samples")
        assert labels.is_met is is_met
        assert labels.reason == (
            f"{n_labels} labelled predictions since the relation between score and outcome changed at 2026-03-08 12:00 UTC (between "
            "03-07 12:00 and 03-09 00:00, p = 0.001; best seen by debt_ratio), 400 wanted"
        )
    assert evaluate_conditions(signals(n_labels=400), AFTER_CHANGE, NOW)[2].is_met is False, (
        "without a change as before"
    )


def test_after_a_change_the_attempt_of_another_episode_is_waited_for_and_does_not_count_against_the_cap() -> None:
    of_another = decision(n_labels=900)
    found = evaluate_conditions(
        signals(onset=CHANGED, attempts=(), last_attempt=of_another, n_known_labels=900), AFTER_CHANGE, NOW
    )
    assert [one.name for one in found if not one.is_met] == ["back_off"]
    assert "0 of 3 attempts" in "; ".join(one.reason for one in found)


@pytest.mark.parametrize(
    ("status", "gain", "low", "wanted", "times"),
    [
        (GateStatus.FAIL, -3.0, -20.0, 1_800, "2"),
        (GateStatus.INCONCLUSIVE, 10.0, -20.0, 1_800, "2"),
        (GateStatus.INCONCLUSIVE, 10.0, -2.0, 1_296, "1.4"),
        (GateStatus.INCONCLUSIVE, 10.0, -0.1, 1_125, "1.2"),
    ],
)
def test_after_a_change_an_attempt_waits_for_the_labels_by_which_its_gain_would_be_shown(
    status: GateStatus, gain: float, low: float, wanted: int, times: str
) -> None:
    judged = replace(
        decision(n_labels=900), gates=(GateResult("f1_improvement", status, gain, 2.0, "a sentence", low, 30.0, 900),)
    )
    for n_labels, is_met in ((wanted - 1, False), (wanted, True)):
        again = signals(onset=CHANGED, n_labels=n_labels, last_attempt=judged, n_known_labels=900)
        (back_off,) = (one for one in evaluate_conditions(again, AFTER_CHANGE, NOW) if one.name == "back_off")
        assert back_off.is_met is is_met
        assert back_off.reason == (
            f"{n_labels:,} labels, the next attempt waits for {wanted:,}: since a change {times} times the 900 of them that the last "
            "one had"
        )


def test_after_a_change_an_attempt_that_failed_is_followed_by_one_on_twice_its_labels() -> None:
    again = signals(onset=CHANGED, n_labels=1_799, last_attempt=decision(n_labels=900), n_known_labels=900)
    assert wanted_by_back_off(again) == 1_800


def test_every_unmet_condition_is_told() -> None:
    found = conditions(now=T0, n_labels=5, attempts=(), is_feed_broken=None)
    assert [condition.name for condition in found if not condition.is_met] == [
        "cooldown",
        "labelled_samples",
        "matured_samples",
        "label_coverage",
        "sound_feed",
    ]
    assert unmet(found).count("; ") == 4


def test_without_predictions_nothing_is_covered() -> None:
    found = {condition.name: condition for condition in conditions(n_predictions=0, n_labels=0, attempts=())}
    assert not found["label_coverage"].is_met


def test_the_bootstrap_does_not_count_for_the_cooldown() -> None:
    bootstrapped = model_version(trigger_reason=Trigger.BOOTSTRAP.value, previous_version=None)
    assert is_allowed(conditions(now=T0, champion=bootstrapped))


def test_a_bootstrap_version_that_a_rollback_brought_back_cools_down_from_then() -> None:
    back = model_version(version=1, trigger_reason=Trigger.BOOTSTRAP.value, previous_version=2)
    found = conditions(now=NOW - timedelta(seconds=1), champion=back)
    assert [condition.name for condition in found if not condition.is_met] == ["cooldown"]
    assert is_allowed(conditions(champion=back))


# Matured labels


def test_labels_of_predictions_that_have_not_matured_do_not_count() -> None:
    """A thousand labels, but those of one class come first: only what had the time to get either counts."""
    young = MaturedLabels(1_200, 666, T0, "95% of the labels of both classes come within 30 days")
    found = conditions(matured=young, attempts=())
    assert [condition.name for condition in found if not condition.is_met] == ["matured_samples"]
    assert "666 labels of matured predictions, 667 wanted (95% of the labels of both classes come" in unmet(found)
    assert is_allowed(conditions(matured=replace(young, n_labels=667), attempts=()))


def test_while_maturity_is_not_identifiable_nothing_is_learned_and_the_sentence_says_why() -> None:
    unknown = "not identifiable: labels are still coming in at 2 hours"
    found = {c.name: c for c in conditions(matured=None, maturity=unknown)}
    assert [name for name, one in found.items() if not one.is_met] == ["matured_samples"]
    assert "when labels have matured is not identifiable: labels are still" in found["matured_samples"].reason


def test_coverage_and_back_off_are_of_matured_predictions_where_these_are_known() -> None:
    """Of all predictions 1 in 100 is labelled; of those that had the time, all."""
    matured = MaturedLabels(800, 800, T0, "known")
    found = conditions(n_labels=1_000, n_predictions=100_000, matured=matured)
    assert [condition.name for condition in found if not condition.is_met] == ["back_off"], "800 as at the last attempt"
    assert "100 % of the matured predictions are labelled" in {c.name: c for c in found}["label_coverage"].reason
    scarce = replace(matured, n_predictions=10_000)
    assert "label_coverage" in names_of_unmet(conditions(matured=scarce, n_labels=1_000, n_predictions=1_000))


def test_the_names_of_what_is_unmet_stay_while_the_sentences_change() -> None:
    early, later = (conditions(n_labels=n, n_predictions=10 * n, attempts=()) for n in (100, 101))
    assert unmet(early) != unmet(later)
    assert names_of_unmet(early) == names_of_unmet(later) == ("labelled_samples", "matured_samples", "label_coverage")


def test_the_next_attempt_waits_for_a_quarter_more_labels_than_the_last_one_had() -> None:
    assert is_allowed(conditions(n_known_labels=800, n_labels=1_000))
    assert not is_allowed(conditions(n_known_labels=800, n_labels=999))


def test_an_attempt_that_had_none_of_these_labels_asks_for_no_more_of_them() -> None:
    """As after a rollback: the labels are counted from then on, and the attempt had 12,048 of before."""
    found = conditions(n_known_labels=0, n_labels=700, n_predictions=700)
    assert is_allowed(found)
    assert {c.name: c for c in found}["back_off"].reason == "none of the 700 labels was there at the last attempt"


def test_a_person_need_not_wait_for_cooldown_coverage_or_attempts() -> None:
    found = conditions(trigger=Trigger.MANUAL, now=T0, n_predictions=100_000, attempts=ATTEMPTED * 9)
    assert is_allowed(found)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("champion", {"champion": None}),
        ("labelled_samples", {"n_labels": 666, "matured": MATURED}),
        ("class_counts", {"parts": (PartCounts(TRAIN, 700, 0), ENOUGH[1])}),
        ("sound_feed", {"is_feed_broken": True}),
    ],
)
def test_a_person_cannot_overrule_these(name: str, changes: dict[str, Any]) -> None:
    found = conditions(trigger=Trigger.MANUAL, **changes)
    assert [condition.name for condition in found if not condition.is_met] == [name]


def test_a_bootstrap_needs_only_that_there_is_no_champion() -> None:
    nothing = {"trigger": Trigger.BOOTSTRAP, "n_labels": 0, "n_predictions": 0, "is_feed_broken": None, "attempts": ()}
    assert is_allowed(conditions(champion=None, **nothing))
    found = conditions(**nothing)
    assert not is_allowed(found)
    assert unmet(found) == "version 2 is in production already"


def test_a_bootstrap_with_too_few_rows_of_a_class_is_not_started() -> None:
    short = (PartCounts(TRAIN, 300, 300), PartCounts(EVALUATION, 200, 100))
    found = conditions(trigger=Trigger.BOOTSTRAP, champion=None, parts=short)
    assert unmet(found).startswith("of 500 labelled rows, the 300 rows to fit and tune on need 10 more of class 0")
    assert is_allowed(conditions(trigger=Trigger.BOOTSTRAP, champion=None))


def test_where_waiting_cannot_bring_a_class_the_remedy_is_the_setting() -> None:
    full = (PartCounts(TRAIN, 35_000, 20), PartCounts(EVALUATION, 15_000, 5))
    assert "TRAINING_MAX_ROWS=50,000 are used: raise it" in unmet(conditions(parts=full))
    assert "TRAINING_MAX_ROWS" not in unmet(conditions(parts=(full[0], replace(full[1], n_rows=14_999))))


# What the sensors ask for


def tick(verdict: Verdict, num_drifted_features: int = 0) -> LatestTick:
    return LatestTick("tick", verdict, "episode", num_drifted_features)


def test_harm_with_drifted_features_is_the_drift_sensors() -> None:
    assert retraining_need(tick(Verdict.HARMFUL_SHIFT, 3)).trigger is Trigger.DRIFT


def test_harm_without_drifted_features_is_the_performance_sensors() -> None:
    assert retraining_need(tick(Verdict.HARMFUL_SHIFT)).trigger is Trigger.PERFORMANCE


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.HARMFUL_SHIFT])
def test_only_a_harmful_shift_calls_for_a_retraining(verdict: Verdict) -> None:
    wish = retraining_need(tick(verdict, 3))
    assert wish.trigger is None
    assert verdict.value in wish.reason


def test_without_a_look_nothing_is_wished_for() -> None:
    assert retraining_need(None).trigger is None
