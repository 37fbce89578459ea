"""Stalls of the loop: read what `selfheal.domain.stalls` judges, and keep its alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from selfheal.adapters.postgres import alerts, decisions, model_versions, predictions
from selfheal.domain.retraining.conditions import evaluate_conditions, missing_labels
from selfheal.domain.stalls import (
    RAISED_HERE,
    RATE_PERIOD,
    BlockedRetraining,
    LabelArrival,
    LoopLimits,
    LoopSignals,
    Stall,
    WindowFill,
    alerts_of,
    is_due,
    stall_of_alert,
    stalls_of,
)
from selfheal.services.retraining_signals import current_need, retraining_limits, retraining_signals
from selfheal.services.tick import window_limits

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Row

    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform
    from selfheal.settings import Settings

LOOP = "loop"
"""The source of these alerts, as in `selfheal.adapters.postgres.alerts`."""


def find_stalls(platform: Platform, now: datetime, stopped_sensors: Sequence[str] = ()) -> tuple[Stall, ...]:
    """Return the stalls that the store shows (`stalls_of`); record nothing."""
    return stalls_of(loop_signals(platform, now, stopped_sensors), loop_limits(platform.settings), now)


def watch_stalls(
    platform: Platform, awake_since: datetime, now: datetime, stopped_sensors: Sequence[str] = ()
) -> tuple[Stall, ...]:
    """Open, update and resolve the alerts of stalls; return the stalls.

    Args:
        awake_since: when the caller's process started.
        stopped_sensors: names of the loop's sensors that somebody has stopped.
    """
    stalls = find_stalls(platform, now, stopped_sensors)
    current = {alert.kind: alert for alert in alerts_of(stalls)}
    for kind in RAISED_HERE:
        alert = current.get(kind)
        if alert is None:
            alerts.resolve_alert(platform.store, LOOP, kind, now)
        elif is_due(alert, now - awake_since):
            alerts.open_or_update_alert(platform.store, LOOP, None, alert, now)
    return stalls


def stalls_of_alerts(open_alerts: Sequence[Row[Any]]) -> tuple[Stall, ...]:
    """Return the stalls that open alerts are about, and the store does not show."""
    found = (stall_of_alert(alert.kind, alert.message) for alert in open_alerts)
    return tuple(stall for stall in found if stall is not None)


def loop_signals(platform: Platform, now: datetime, stopped_sensors: Sequence[str] = ()) -> LoopSignals:
    """Read what is known of the loop."""
    champion = model_versions.production_version(platform.store)
    if champion is None:
        judged = decisions.recent(platform.store, 1)
        why = judged[0].reason if judged else "nothing has been trained yet"
        return LoopSignals(None, why, stopped_sensors=tuple(stopped_sensors))
    newest_prediction, newest_label = predictions.latest_activity(platform.store, now)
    return LoopSignals(
        champion.version,
        window=None if newest_prediction is None else _window_fill(platform, champion, newest_prediction, now),
        labels=None if newest_prediction is None else _label_arrival(platform, newest_prediction, newest_label),
        retraining=_blocked_retraining(platform, champion, now),
        stopped_sensors=tuple(stopped_sensors),
    )


def loop_limits(settings: Settings) -> LoopLimits:
    """Return the limits of waiting, from the settings."""
    return LoopLimits(window_limits(settings), timedelta(hours=settings.label_silence_hours))


def _window_fill(platform: Platform, champion: ModelVersion, newest: datetime, now: datetime) -> WindowFill:
    longest = window_limits(platform.settings).max_lookback
    since = max(newest - longest, champion.promoted_at or champion.registered_at)
    window = predictions.window_of(platform.store, champion.version, since, newest)
    return WindowFill(0 if window is None else window.n_predictions, min(now, newest) - since)


def _label_arrival(platform: Platform, newest: datetime, newest_label: datetime | None) -> LabelArrival:
    first = predictions.summary_of_predictions(platform.store).first
    return LabelArrival(newest_label, newest if first is None else first, newest)


def _blocked_retraining(platform: Platform, champion: ModelVersion, now: datetime) -> BlockedRetraining | None:
    """Return the retraining that the newest tick calls for, if a condition is not met; else None."""
    need = current_need(platform)
    if need.trigger is None:
        return None
    signals, limits = retraining_signals(platform, need.trigger, need.episode_id), retraining_limits(platform.settings)
    unmet = tuple(one for one in evaluate_conditions(signals, limits, now) if not one.is_met)
    if not unmet:
        return None
    since = champion.promoted_at or champion.registered_at
    watched_from = max(since, now - RATE_PERIOD)
    n_recent = predictions.count_labels_received_after(platform.store, watched_from, since=since)
    days = max((now - watched_from) / timedelta(days=1), 1 / 24)
    return BlockedRetraining(
        need.reason, unmet, missing_labels(signals, limits), n_recent / days, bool(signals.is_feed_broken)
    )
