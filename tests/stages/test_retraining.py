"""From a request to a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from selfheal.errors import IntegrityError, InvalidDataError
from selfheal.platform import Platform, open_platform
from selfheal.promotion import promote
from selfheal.records import (
    Action,
    Trigger,
)
from selfheal.registry import PRODUCTION_ALIAS
from selfheal.settings import Settings
from selfheal.stages.retraining import gather_training_set, judge, train_shadow
from selfheal.store import decisions, models
from selfheal.store.predictions import labelled_rows
from selfheal.store.spoiled import spoiled_periods
from tests.candidates import passed, twin_of_champion
from tests.stages.steps import decide, retrain, tick, unmet
from tests.times import T0
from tests.traffic import SECOND, serve, toy_rows

HOUR = timedelta(hours=1)
N_ROWS = 1_500


def test_a_retraining_that_may_not_start_is_recorded_with_every_reason(make_settings: Callable[..., Settings]) -> None:
    platform = open_platform(make_settings(promotion_cooldown_days=7.0))
    promote(platform, passed(platform, twin_of_champion(platform)), T0 + SECOND)
    serve(platform, toy_rows(100), start=T0 + HOUR, labelled_share=0.1)
    decision = decide(platform, Trigger.DRIFT, T0 + 2 * HOUR, "e1")
    assert decision.action is Action.SKIP
    assert unmet(decision) == {"cooldown", "labelled_samples", "label_coverage", "sound_feed"}
    assert "cooling down from the last promotion until 2026-03-09" in decision.reason
    assert "10 labelled predictions, 667 wanted" in decision.reason
    assert decisions.recent(platform.store, limit=1) == [decision]
    assert decide(platform, Trigger.DRIFT, T0 + 3 * HOUR, "e1") == decision, "the same state is recorded once"
    assert len(decisions.recent(platform.store, actions=[Action.SKIP])) == 1
    platform.close()


def test_a_broken_feed_is_not_trained_on(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND, feed_problems=("load_ratio: always 1",))
    for trigger in (Trigger.DRIFT, Trigger.SCHEDULE, Trigger.MANUAL):
        decision = decide(platform, trigger, sent.last_at + HOUR, "e1")
        assert decision.action is Action.SKIP
        assert unmet(decision) == {"sound_feed"}


def test_what_a_broken_feed_sent_is_never_learned_from_and_what_came_before_and_after_is(platform: Platform) -> None:
    sound = serve(platform, toy_rows(N_ROWS))
    tick(platform, sound.last_at + SECOND, feed_checked_since=sound.created_at[-500])
    assert spoiled_periods(platform.store, 1) == []

    broken = serve(platform, toy_rows(300, 2), start=sound.last_at + HOUR)
    problem = {"feed_problems": ("load_ratio: always 1",)}
    tick(platform, broken.last_at + SECOND, feed_checked_since=broken.created_at[50], **problem)
    still_broken = serve(platform, toy_rows(300, 3), start=broken.last_at + HOUR)
    tick(platform, still_broken.last_at + SECOND, feed_checked_since=still_broken.created_at[100], **problem)
    tick(platform, still_broken.last_at + SECOND, feed_checked_since=still_broken.created_at[100], **problem)

    repaired = serve(platform, toy_rows(800, 4), start=still_broken.last_at + HOUR)
    tick(platform, repaired.last_at + SECOND, feed_checked_since=repaired.created_at[200])
    decision = decide(platform, Trigger.MANUAL, repaired.last_at + HOUR)
    assert decision.action is Action.TRAIN
    times = labelled_rows(platform.store, max_rows=10_000, sound_only=True)["created_at"].tolist()
    assert times == [*sound.created_at[:-1], *repaired.created_at[201:]]
    assert len(gather_training_set(platform, decision, None).frame) == len(times)
    assert len(labelled_rows(platform.store, max_rows=10_000)) == N_ROWS + 300 + 300 + 800


def test_a_second_bootstrap_is_skipped(platform: Platform) -> None:
    decision = decide(platform, Trigger.BOOTSTRAP, T0 + HOUR)
    assert decision.action is Action.SKIP
    assert decision.reason == "version 1 is in production already"


def test_nothing_but_a_bootstrap_starts_without_a_champion(empty_platform: Platform) -> None:
    decision = decide(empty_platform, Trigger.SCHEDULE, T0)
    assert decision.action is Action.SKIP
    assert "champion" in unmet(decision)
    assert decide(empty_platform, Trigger.BOOTSTRAP, T0).action is Action.TRAIN


def test_a_rejected_shadow_leaves_production_untouched_and_the_next_attempt_waits_for_labels(
    platform: Platform,
) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    now = sent.last_at + HOUR
    tick(platform, now)
    before = models.list_versions(platform.store)
    verdict = retrain(platform, decide(platform, Trigger.DRIFT, now, "e1"), now)
    assert verdict.decision.action is Action.REJECT
    assert "f1_improvement" in verdict.decision.failed_gates
    assert models.list_versions(platform.store) == before, "it is not even registered"
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1

    again = decide(platform, Trigger.DRIFT, now + HOUR, "e1")
    assert again.action is Action.SKIP
    assert unmet(again) == {"back_off"}
    assert again.attempt == 2
    serve(platform, toy_rows(N_ROWS // 4, seed=3), start=now)
    assert decide(platform, Trigger.DRIFT, now + 2 * HOUR, "e1").action is Action.TRAIN


def test_the_same_training_is_run_and_judged_once_even_after_its_promotion(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS, scenario="overheating"))
    now = sent.last_at + HOUR
    tick(platform, now)
    decision = decide(platform, Trigger.MANUAL, now)
    rows = gather_training_set(platform, decision, None)
    shadow = train_shadow(platform, rows, now)
    verdict = judge(platform, shadow, rows, now)
    assert train_shadow(platform, rows, now + HOUR) == shadow
    assert judge(platform, shadow, rows, now + HOUR).decision == verdict.decision
    promote(platform, verdict, now)
    assert judge(platform, shadow, rows, now + HOUR).decision == verdict.decision, "it was compared with version 1"


def test_rows_gathered_for_a_decision_nobody_recorded_are_not_trained_on(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS))
    tick(platform, sent.last_at + SECOND)
    rows = gather_training_set(platform, decide(platform, Trigger.MANUAL, sent.last_at + HOUR), None)
    forged = replace(rows, info=replace(rows.info, decision_id="nobody"))
    with pytest.raises(IntegrityError, match="names decision nobody, which is not recorded"):
        train_shadow(platform, forged, sent.last_at + HOUR)


def test_too_few_rows_of_a_class_are_no_training_set(platform: Platform) -> None:
    sent = serve(platform, toy_rows(N_ROWS).assign(true_label=0))
    tick(platform, sent.last_at + SECOND)
    decision = decide(platform, Trigger.MANUAL, sent.last_at + HOUR)
    with pytest.raises(InvalidDataError, match="only 0 of one class"):
        gather_training_set(platform, decision, None)


# Probation
