"""Rules of silence: what is no alert matters as much as what is. A night switched off, a restart, a fresh installation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from selfheal.adapters.postgres import alerts
from selfheal.domain.monitoring.silence import (
    LONGEST_GRACE,
    MONITOR_SILENT,
    SHORTEST_SILENCE,
    Pulse,
    Sight,
    Watched,
    monitor_alert,
    pulse,
    traffic_alert,
    traffic_pulse,
)
from selfheal.domain.records import Severity
from selfheal.services.platform import Platform
from selfheal.services.tick import check_traffic
from tests.times import T0
from tests.traffic import serve, toy_rows

INTERVAL = timedelta(seconds=300)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
BEATING, UNKNOWN, SILENT = Pulse.BEATING, Pulse.UNKNOWN, Pulse.SILENT


def pulses(sights: Sequence[tuple[float, str | None, float | None]], interval: timedelta = INTERVAL) -> list[Pulse]:
    """The states after looks at (minute, newest tick, minute since when traffic waits)."""
    states: list[Pulse] = []
    memory: Watched | None = None
    for minute, tick_id, unseen_minute in sights:
        unseen = None if unseen_minute is None else T0 + unseen_minute * MINUTE
        state, memory = pulse(memory, Sight(tick_id, unseen), interval, T0 + minute * MINUTE)
        states.append(state)
    return states


def test_a_monitor_that_does_not_look_for_three_intervals_while_traffic_waits_is_silent() -> None:
    assert pulses([(0, "a", 0), (10, "a", 0), (15, "a", 0), (16, "a", 0)]) == [UNKNOWN, UNKNOWN, UNKNOWN, SILENT]


def test_a_monitor_that_never_looked_is_silent_too() -> None:
    assert pulses([(0, None, -1), (16, None, -1)]) == [UNKNOWN, SILENT]


def test_steady_traffic_always_waits_a_little_and_each_tick_is_a_heartbeat() -> None:
    looks = [(minute, f"tick {minute // 5}", minute - 1) for minute in range(0, 60, 5)]
    assert set(pulses(looks)[1:]) == {BEATING}


def test_without_traffic_a_monitor_that_does_not_look_is_well() -> None:
    assert pulses([(0, "a", None), (600, "a", None), (6_000, None, None)]) == [BEATING] * 3


def test_the_first_request_after_a_quiet_night_is_no_alert() -> None:
    assert pulses([(0, "a", None), (600, "a", 599), (605, "b", None)]) == [BEATING, UNKNOWN, BEATING]


def test_after_a_restart_what_waited_meanwhile_is_no_alert_until_the_monitor_had_its_time() -> None:
    assert pulses([(0, "a", -600), (5, "b", None)]) == [UNKNOWN, BEATING]
    assert pulses([(0, "a", -600), (16, "a", -600)]) == [UNKNOWN, SILENT]


def test_it_ends_with_the_next_tick_though_traffic_waits_again() -> None:
    assert pulses([(0, "a", 0), (20, "a", 0), (22, "b", 21)]) == [UNKNOWN, SILENT, BEATING]


def test_a_clock_that_is_set_back_neither_raises_nor_mutes_it_for_long() -> None:
    assert pulses([(0, "a", 0), (-120, "a", 0), (-110, "a", 0), (-104, "a", 0)]) == [UNKNOWN, UNKNOWN, UNKNOWN, SILENT]


def test_with_an_interval_of_seconds_a_slow_start_of_a_run_is_no_silence() -> None:
    seconds = timedelta(seconds=10)
    assert pulses([(0, "a", 0), (1, "a", 0)], seconds) == [UNKNOWN, UNKNOWN]
    assert pulses([(0, "a", 0), (SHORTEST_SILENCE / MINUTE + 0.1, "a", 0)], seconds)[-1] is SILENT


def test_the_alert_says_since_when_and_what_to_look_at() -> None:
    alert = monitor_alert(T0, T0 + HOUR)
    assert (alert.kind, alert.severity, alert.metrics) == (
        MONITOR_SILENT,
        Severity.CRITICAL,
        {"waiting_seconds": 3_600},
    )
    assert "2026-03-02 12:00 UTC" in alert.message
    assert "Dagster" in alert.message


@pytest.mark.parametrize(
    ("newest_ago", "awake_for", "expected"),
    [
        (None, 9 * DAY, UNKNOWN),  # a fresh installation
        (HOUR, 9 * DAY, BEATING),
        (DAY, 9 * DAY, BEATING),
        (DAY + MINUTE, 9 * DAY, SILENT),
        (9 * DAY, MINUTE, UNKNOWN),  # a platform that was switched off for a week
        (9 * DAY, LONGEST_GRACE, UNKNOWN),
        (9 * DAY, LONGEST_GRACE + MINUTE, SILENT),
        (-HOUR, 9 * DAY, BEATING),  # another host's clock is ahead
    ],
)
def test_no_traffic_is_an_alert_once_it_lasts_though_there_had_been_some(
    newest_ago: timedelta | None, awake_for: timedelta, expected: Pulse
) -> None:
    newest = None if newest_ago is None else T0 - newest_ago
    assert traffic_pulse(newest, T0 - awake_for, DAY, T0) is expected


def test_a_short_limit_shortens_the_grace() -> None:
    assert traffic_pulse(T0 - HOUR, T0 - 11 * MINUTE, 10 * MINUTE, T0) is SILENT


def test_the_text_does_not_change_from_tick_to_tick() -> None:
    first, second = (traffic_alert(T0, DAY, T0 + ago) for ago in (25 * HOUR, 25 * HOUR + MINUTE))
    assert first == second
    assert "24 h" in first.message


@pytest.mark.integration
def test_traffic_that_stops_raises_one_alert_which_ends_by_itself(platform: Platform) -> None:
    def open_kinds() -> list[tuple[str, str]]:
        return [(row.kind, row.source) for row in alerts.list_alerts(platform.store, only_open=True)]

    assert check_traffic(platform, T0, T0 + 9 * DAY) is UNKNOWN, "there never was any"
    sent = serve(platform, toy_rows(20))
    for hours in (25, 26, 50):
        assert check_traffic(platform, T0, sent.last_at + hours * HOUR) is SILENT
    assert open_kinds() == [("traffic_silent", "traffic")]
    restarted_at = sent.last_at + 60 * HOUR
    assert check_traffic(platform, restarted_at, restarted_at + MINUTE) is UNKNOWN
    assert open_kinds() == [("traffic_silent", "traffic")], "a restart is no sign of life"
    again = serve(platform, toy_rows(5, seed=2), start=restarted_at + MINUTE)
    assert check_traffic(platform, T0, again.last_at + MINUTE) is BEATING
    assert open_kinds() == []
    assert len(alerts.list_alerts(platform.store)) == 1
