"""Whether the latest tick calls for a retraining, by which trigger, and when one that failed is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from selfheal.domain.records import Trigger, Verdict
from selfheal.kit.backoff import Backoff

OUTSIDE_FAILURE_BACKOFF = Backoff(initial_seconds=60.0, max_seconds=3_600.0)
"""Between two tries of an attempt that failed outside of the model: soon after a moment's outage, and no storm in a long
one, of which each try may be a whole training."""


@dataclass(frozen=True, slots=True)
class LatestTick:
    """The fields of the newest row of `monitoring_metrics` that the sensors need."""

    tick_id: str
    verdict: Verdict
    episode_id: str | None
    num_drifted_features: int


@dataclass(frozen=True, slots=True)
class RetrainingNeed:
    """A required retraining, or (with `trigger` None) the reason why none is required."""

    trigger: Trigger | None
    reason: str


def retraining_need(tick: LatestTick | None) -> RetrainingNeed:
    """Decide whether the tick requires a retraining.

    Only a harmful shift does, which includes a relation of score and outcome that has certainly changed: a benign one costs
    nothing, and training on a broken feed would learn its faults. Harm with drifted inputs is for the drift sensor; harm without
    is for the performance sensor (the relation has changed).
    """
    if tick is None:
        return RetrainingNeed(None, "no monitoring tick has seen the champion's traffic yet")
    if tick.verdict is not Verdict.HARMFUL_SHIFT:
        return RetrainingNeed(None, f"the latest verdict is {tick.verdict.value}")
    if tick.num_drifted_features:
        features = "feature" if tick.num_drifted_features == 1 else "features"
        return RetrainingNeed(Trigger.DRIFT, f"harmful shift with {tick.num_drifted_features} drifted {features}")
    return RetrainingNeed(Trigger.PERFORMANCE, "harmful shift although no feature has drifted")


def next_try_at(n_failures: int, last_failed_at: datetime | None, now: datetime) -> datetime | None:
    """Return until when to wait before an attempt is tried again; None: it may be tried now.

    Args:
        n_failures: tries of this attempt that failed for anything but the model and its rows.
        last_failed_at: when the last of them did. One from after `now` was before a clock was set back.
    """
    if n_failures == 0 or last_failed_at is None or last_failed_at > now:
        return None
    at = last_failed_at + timedelta(seconds=OUTSIDE_FAILURE_BACKOFF.seconds(n_failures))
    return None if at <= now else at
