"""Rules of the monitoring window: which traffic a tick covers, and what becomes of it where traffic is slow."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest

from selfheal.domain.monitoring.drift import DriftLimits, compare_columns
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.thresholds import derive_thresholds
from selfheal.domain.monitoring.window import WindowLimits, filled_at, longer_start, window_start
from tests.builders import model_version
from tests.times import T0
from tests.traffic import toy_rows

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIMITS = WindowLimits(lookback=DAY, max_lookback=30 * DAY, min_rows=200)
LONG_LIVE = model_version(promoted_at=T0 - 90 * DAY)


def test_the_window_is_the_last_hours_of_traffic() -> None:
    champion = model_version(promoted_at=T0 - 9 * DAY)
    assert window_start(champion, T0, DAY) == T0 - DAY


def test_the_window_does_not_reach_back_before_the_promotion() -> None:
    champion = model_version(promoted_at=T0 - 2 * HOUR)
    assert window_start(champion, T0, DAY) == T0 - 2 * HOUR
    assert window_start(model_version(promoted_at=None), T0, DAY) == T0 - DAY
    assert longer_start(champion, T0, LIMITS, None) == T0 - 2 * HOUR


def test_a_longer_window_begins_right_before_the_row_that_fills_it() -> None:
    start = longer_start(LONG_LIVE, T0, LIMITS, T0 - 4 * DAY)
    assert T0 - 4 * DAY - timedelta(milliseconds=1) < start < T0 - 4 * DAY


def test_a_window_that_nothing_fills_reaches_back_to_its_bound() -> None:
    assert longer_start(LONG_LIVE, T0, LIMITS, None) == T0 - 30 * DAY


@pytest.mark.parametrize(
    ("n_rows", "watched_for", "expected"),
    [
        (200, DAY, T0),
        (48, DAY, T0 + DAY * (152 / 48)),
        (200 - 1, 30 * DAY, None),
        (20, 3 * DAY, T0 + 27 * DAY),
        (0, DAY, None),
        (5, timedelta(0), None),
    ],
)
def test_when_a_window_is_filled_follows_from_the_rate(n_rows: int, watched_for: timedelta, expected: object) -> None:
    assert filled_at(n_rows, watched_for, LIMITS, T0) == expected


def test_windows_by_rows_keep_the_alarm_budget() -> None:
    """48 predictions a day for 90 days, a tick at each fifth of them, its window the newest 200 rows: 19 of 20 ticks overlap.

    The budget allows one alarm in 90 days of ticks every five minutes; that many fewer ticks make it rarer.
    """
    limits = DriftLimits(n_ticks=90 * 288.0, min_effect=0.05, min_rows=200)
    names = ("temperature_c", "load_ratio", "restarts")
    reference = toy_rows(3_000, seed=1)
    prepared = PreparedRows(reference)
    thresholds = derive_thresholds(reference, names, limits.n_ticks)
    traffic, shifted = toy_rows(48 * 90, seed=2), toy_rows(200, seed=3)
    shifted["load_ratio"] = shifted["load_ratio"] * 0.6

    def alarms(rows: pd.DataFrame, start: int) -> int:
        now = rows.iloc[start : start + 200]
        return sum(one.drift().is_drifted for one in compare_columns(names, now, prepared, now, thresholds, limits))

    assert sum(alarms(traffic, start) for start in range(0, len(traffic) - 200, 10)) == 0
    assert alarms(shifted, 0) == 1, "the same window finds a shift"
