"""Monitoring window: which traffic a tick covers."""

from __future__ import annotations

from datetime import datetime, timedelta

from selfheal.domain.records import ModelVersion


def window_start(champion: ModelVersion, newest_prediction_at: datetime, lookback_hours: int) -> datetime:
    """Return the start of the last `lookback_hours` of traffic, but never before the champion went live.

    It is measured from the newest prediction and not from the clock, so that evaluating the same traffic twice gives the same
    window.
    """
    start = newest_prediction_at - timedelta(hours=lookback_hours)
    return start if champion.promoted_at is None else max(start, champion.promoted_at)
