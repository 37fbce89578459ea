"""Monitoring window: which traffic a tick covers, and whether the traffic fills it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from selfheal.domain.records import ModelVersion

HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
"""The smallest difference of two stored times: a window begins after its start."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """How far a window reaches back: `lookback`, and up to `max_lookback` while it has fewer than `min_rows`."""

    lookback: timedelta
    max_lookback: timedelta
    min_rows: int


def window_start(champion: ModelVersion, newest_prediction_at: datetime, lookback: timedelta) -> datetime:
    """Return the start of the last `lookback` of traffic, but never before the champion went live.

    It is measured from the newest prediction and not from the clock, so that evaluating the same traffic twice gives the same
    window.
    """
    start = newest_prediction_at - lookback
    return start if champion.promoted_at is None else max(start, champion.promoted_at)


def longer_start(
    champion: ModelVersion, newest_prediction_at: datetime, limits: WindowLimits, nth_newest_at: datetime | None
) -> datetime:
    """Return the start of a window that the look-back alone does not fill.

    It reaches back until it has `min_rows`, and no further: which rows are in it depends on when they came, never on what
    they are, so each tick's tests keep their level, and the false-alarm budget holds (it is divided among ticks, however
    their windows overlap).

    Args:
        nth_newest_at: when the champion's prediction was made that is the `min_rows`-th from the newest; None if within
            `max_lookback` there are fewer.
    """
    earliest = window_start(champion, newest_prediction_at, limits.max_lookback)
    return earliest if nth_newest_at is None else max(earliest, nth_newest_at - TICK)


def filled_at(n_rows: int, watched_for: timedelta, limits: WindowLimits, now: datetime) -> datetime | None:
    """Return when the window will have `min_rows` at the present rate; None if it never will.

    Args:
        n_rows: rows that the longest possible window has now.
        watched_for: how long these took to come.
    """
    if n_rows >= limits.min_rows:
        return now
    if n_rows == 0 or watched_for <= timedelta(0):
        return None
    per_row = watched_for / n_rows
    if per_row * limits.min_rows > limits.max_lookback:
        return None
    return now + per_row * (limits.min_rows - n_rows)
