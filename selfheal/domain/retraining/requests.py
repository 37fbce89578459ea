"""Whether a retraining is called for, by which trigger, and when one that failed is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from selfheal.domain.records import Action, Decision, Trigger, Verdict
from selfheal.domain.retraining.conditions import MOST_GROWTH_AFTER_CHANGE, growth_after_change
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
    """A required retraining and the episode it belongs to, or (with `trigger` None) the reason why none is required."""

    trigger: Trigger | None
    reason: str
    episode_id: str | None = None


@dataclass(frozen=True, slots=True)
class UnansweredChange:
    """The newest verdict on the champion, which was reached on labels since a change and promoted nothing, and the labels now.

    `is_tried`: a training has begun since then, or may have.
    """

    verdict: Decision
    n_labels: int
    is_tried: bool = True

    @property
    def n_wanted(self) -> int:
        """Return how many labels since the change the verdict's evidence wants."""
        return round(self.verdict.n_labels * growth_after_change(self.verdict.gates))

    @property
    def is_due(self) -> bool:
        """Return whether they are there.

        A training that has been tried is not asked for without end: only until there are long enough of them. One that has not is,
        since labels may come many at a time.
        """
        is_recent = self.n_labels <= MOST_GROWTH_AFTER_CHANGE * self.n_wanted
        return self.n_labels >= self.n_wanted and (is_recent or not self.is_tried)


def unanswered_change(verdict: Decision | None, n_labels: int, *, is_tried: bool = True) -> UnansweredChange | None:
    """Return the change that this newest verdict on the champion has left unanswered, with the labels since then; else None."""
    if verdict is None or verdict.onset is None or verdict.action is Action.PROMOTE:
        return None
    return UnansweredChange(verdict, n_labels, is_tried)


def retraining_need(tick: LatestTick | None, change: UnansweredChange | None = None) -> RetrainingNeed:
    """Decide whether a retraining is required.

    A harmful shift requires one, which includes a relation of score and outcome that has certainly changed: a benign one costs
    nothing, and training on a broken feed would learn its faults. Harm with drifted inputs is for the drift sensor; harm without
    is for the performance sensor (the relation has changed). So is a change of which there were too few labels at the last
    verdict, and now are enough: whether the newest window shows harm is chance while it is small.
    """
    if tick is None:
        return RetrainingNeed(None, "no monitoring tick has seen the champion's traffic yet")
    if tick.verdict is Verdict.HARMFUL_SHIFT:
        if tick.num_drifted_features:
            features = "feature" if tick.num_drifted_features == 1 else "features"
            reason = f"harmful shift with {tick.num_drifted_features} drifted {features}"
            return RetrainingNeed(Trigger.DRIFT, reason, tick.episode_id)
        return RetrainingNeed(Trigger.PERFORMANCE, "harmful shift although no feature has drifted", tick.episode_id)
    if change is not None and change.is_due and tick.verdict is not Verdict.BROKEN_FEED:
        reason = (
            f"{change.n_labels:,} labels since a change of the relation between score and outcome, of which the last verdict had "
            f"{change.verdict.n_labels:,} and wanted {change.n_wanted:,}"
        )
        return RetrainingNeed(Trigger.PERFORMANCE, reason, change.verdict.episode_id)
    return RetrainingNeed(None, f"the latest verdict is {tick.verdict.value}")


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
