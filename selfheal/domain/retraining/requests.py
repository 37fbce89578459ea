"""Whether the latest tick calls for a retraining, and by which trigger. Pure: the sensors ask it."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal.domain.records import Trigger, Verdict


@dataclass(frozen=True, slots=True)
class LatestTick:
    """What the sensors need of the newest row of `monitoring_metrics`."""

    tick_id: str
    verdict: Verdict
    episode_id: str | None
    num_drifted_features: int


@dataclass(frozen=True, slots=True)
class RetrainingNeed:
    """A call for a retraining, or (with `trigger` None) why there is none."""

    trigger: Trigger | None
    reason: str


def retraining_need(tick: LatestTick | None) -> RetrainingNeed:
    """Only a harmful shift can be healed by training: a benign one costs nothing, a broken feed would be learned.

    Harm with drifted inputs is the drift sensor's, harm without is the performance sensor's (the relation has changed).
    """
    if tick is None:
        return RetrainingNeed(None, "no monitoring tick has seen the champion's traffic yet")
    if tick.verdict is not Verdict.HARMFUL_SHIFT:
        return RetrainingNeed(None, f"the latest verdict is {tick.verdict.value}")
    if tick.num_drifted_features:
        features = "feature" if tick.num_drifted_features == 1 else "features"
        return RetrainingNeed(Trigger.DRIFT, f"harmful shift with {tick.num_drifted_features} drifted {features}")
    return RetrainingNeed(Trigger.PERFORMANCE, "harmful shift although no feature has drifted")
