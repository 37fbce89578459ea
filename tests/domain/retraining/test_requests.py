"""When a retraining is called for by a change that is still unanswered, and when one that failed outside of the model is repeated."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from selfheal.domain.records import Action, Decision, GateResult, GateStatus, Onset, Trigger, Verdict
from selfheal.domain.retraining.requests import LatestTick, next_try_at, retraining_need, unanswered_change
from tests.builders import decision
from tests.times import T0

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("n_failures", "waits"), [(1, 60 * SECOND), (2, 120 * SECOND), (3, 240 * SECOND), (7, HOUR), (1_000, HOUR)]
)
def test_each_failure_in_a_row_doubles_the_wait_up_to_an_hour(n_failures: int, waits: timedelta) -> None:
    assert next_try_at(n_failures, T0, T0) == T0 + waits
    assert next_try_at(n_failures, T0, T0 + waits - SECOND) == T0 + waits
    assert next_try_at(n_failures, T0, T0 + waits) is None


def test_what_has_not_failed_waits_for_nothing() -> None:
    assert next_try_at(0, None, T0) is None


def test_a_failure_before_the_clock_was_set_back_holds_nothing_up() -> None:
    assert next_try_at(1, T0 + 48 * HOUR, T0) is None


# A change that is still unanswered

CHANGED = Onset(T0, T0 - HOUR, T0 + HOUR, 0.001, "debt_ratio", 9_000, 640)
INCONCLUSIVE = GateResult("f1_improvement", GateStatus.INCONCLUSIVE, 27.0, 2.0, "a sentence", -28.0, 80.0, 640)
UNANSWERED = replace(
    decision(n_labels=640, action=Action.INCONCLUSIVE), onset=CHANGED, gates=(INCONCLUSIVE,), episode_id="of the change"
)
CALM = LatestTick("tick", Verdict.STABLE, None, 0)


@pytest.mark.parametrize(("n_labels", "is_called_for"), [(1_279, False), (1_280, True), (2_560, True), (2_561, False)])
def test_a_change_whose_last_verdict_wanted_more_labels_calls_for_a_retraining_once_they_are_there(
    n_labels: int, is_called_for: bool
) -> None:
    """Whatever the newest window shows; and not without end, if it cannot be made."""
    need = retraining_need(CALM, unanswered_change(UNANSWERED, n_labels))
    if not is_called_for:
        assert need.trigger is None
        return
    assert (need.trigger, need.episode_id) == (Trigger.PERFORMANCE, "of the change")
    assert need.reason == (
        f"{n_labels:,} labels since a change of the relation between score and outcome, of which the last verdict had 640 and wanted "
        "1,280"
    )


@pytest.mark.parametrize("n_labels", [2_561, 100_000])
def test_labels_that_come_many_at_a_time_call_for_a_retraining_that_has_not_been_tried(n_labels: int) -> None:
    assert retraining_need(CALM, unanswered_change(UNANSWERED, n_labels, is_tried=False)).trigger is not None
    assert retraining_need(CALM, unanswered_change(UNANSWERED, n_labels, is_tried=True)).trigger is None


def test_harm_calls_for_its_own_retraining_and_a_broken_feed_for_none() -> None:
    change = unanswered_change(UNANSWERED, 1_280)
    harm = retraining_need(LatestTick("tick", Verdict.HARMFUL_SHIFT, "of the harm", 2), change)
    assert (harm.trigger, harm.episode_id) == (Trigger.DRIFT, "of the harm")
    assert retraining_need(LatestTick("tick", Verdict.BROKEN_FEED, None, 0), change).trigger is None
    assert retraining_need(None, change).trigger is None


@pytest.mark.parametrize("verdict", [None, replace(UNANSWERED, action=Action.PROMOTE), replace(UNANSWERED, onset=None)])
def test_without_a_verdict_after_a_promotion_or_without_a_change_nothing_is_unanswered(
    verdict: Decision | None,
) -> None:
    assert unanswered_change(verdict, 1_280) is None
