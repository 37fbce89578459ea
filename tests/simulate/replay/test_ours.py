"""The platform's own policy: what the sensors and jobs do, in the order of a look."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.domain.records import Trigger
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import default_settings
from selfheal.simulate.replay.engine import What, replay
from selfheal.simulate.replay.ours import WEEKLY, Ours, is_weekly_due
from selfheal.simulate.replay.replay_settings import settings_of_replay
from tests.simulate.replay.small import CHANGED, deployment

SIX_HOURS = timedelta(hours=6)
WORLD = replace(CHANGED, name="ours", per_day=300.0, days_after=6.0)


def ours(**overrides: Any) -> Ours:
    return Ours(settings_of_replay(default_settings(), SIX_HOURS, 1, overrides))


def test_a_harmful_change_is_healed_and_the_same_seed_heals_it_alike() -> None:
    lived = deployment(WORLD)
    policies = [ours(promotion_cooldown_days=1) for _ in range(2)]
    first, second = (replay(lived, policy, interval=SIX_HOURS, seed=1) for policy in policies)
    assert What.ALARM in {event.what for event in first.events}
    assert What.PROMOTED in {event.what for event in first.events}
    assert first.events == second.events
    assert policies[0].decisions == policies[1].decisions
    assert first.probability.tobytes() == second.probability.tobytes()
    assert 0 < first.labels_used <= len(lived.stream)


def test_a_policy_decides_by_the_settings_it_is_given() -> None:
    lived = deployment(WORLD)
    found = replay(lived, policy := ours(min_samples_for_decision=2_000), interval=SIX_HOURS, seed=1)
    assert What.TRAINED not in {event.what for event in found.events}
    assert any("wanted" in decision.reason for decision in policy.decisions)


def test_without_the_calendar_only_what_the_monitor_asks_for_is_trained() -> None:
    whole, alone = ours(), Ours(settings_of_replay(default_settings(), SIX_HOURS, 1), has_calendar=False)
    for policy in (whole, alone):
        replay(deployment(WORLD), policy, interval=SIX_HOURS, seed=1)
    assert Trigger.SCHEDULE in {one.trigger_reason for one in whole.decisions}
    triggers = {one.trigger_reason for one in alone.decisions}
    assert Trigger.SCHEDULE not in triggers
    assert triggers & {Trigger.DRIFT, Trigger.PERFORMANCE}


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.integers(1, 400))  # noqa: DTZ001
def test_the_week_is_over_once_between_two_looks_that_enclose_monday_at_two(time: datetime, hours: int) -> None:
    now = time.replace(tzinfo=UTC)
    previous = now - timedelta(hours=hours)
    seconds = range(int(previous.timestamp()) // 3_600 + 1, int(now.timestamp()) // 3_600 + 1)
    moments = [datetime.fromtimestamp(3_600 * one, UTC) for one in seconds]
    expected = any(one.weekday() == 0 and one.hour == WEEKLY.seconds // 3_600 for one in moments)
    assert is_weekly_due(previous, now) is expected


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"hope": 1}, "there is no setting HOPE"),
        ({"PROMOTION_COOLDOWN_DAYS": "soon"}, "PROMOTION_COOLDOWN_DAYS=soon is not possible"),
        ({"min_coverage_pct": 400}, "MIN_COVERAGE_PCT=400 is not possible"),
    ],
)
def test_a_setting_that_does_not_exist_or_allow_a_value_is_named(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        settings_of_replay(default_settings(), SIX_HOURS, 1, overrides)


def test_looks_further_apart_than_a_day_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least once a day"):
        settings_of_replay(default_settings(), timedelta(hours=25), 1)


def test_the_false_alarm_budget_is_shared_out_among_the_looks_that_there_are() -> None:
    base = default_settings()
    assert settings_of_replay(base, SIX_HOURS, 1).ticks_per_budget() == base.false_alarm_budget_days * 4
