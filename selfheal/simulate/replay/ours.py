"""The platform's own policy in a replay: the functions that its sensors and assets call, look by look.

Belongs here: the order of a look, and what the platform does in production by sensors and jobs. Does not belong here: any rule.
What is decided is decided by `selfheal.services`, on repositories in memory; `tests/simulate/replay/test_parity.py` and
`benchmarks.heal` hold the decisions beside those of Dagster on Postgres.

A look is, in this order: probation, if an evaluation is due; a monitoring tick, if there is new traffic; a retraining, if the
tick asks for one, or the weekly schedule does; its promotion, if the gates agree. At most one retraining a look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from selfheal.domain.records import Action as Decided
from selfheal.domain.records import Decision, ModelVersion, Severity, Trigger
from selfheal.kit.errors import InvalidDataError, ModelRefusedError, TrainingFailedError
from selfheal.kit.serialization import digest_of
from selfheal.services.probation import due_evaluation, watch_probation
from selfheal.services.promotion.going_live import promote, stage
from selfheal.services.retraining import decide_retraining, gather_training_set, judge, train_shadow
from selfheal.services.retraining_signals import current_need
from selfheal.services.tick import collect, compare, conclude, measure
from selfheal.simulate.replay.memory.platform import MemoryPlatform
from selfheal.simulate.replay.memory.traffic import as_datetime, row_of
from selfheal.simulate.replay.models import Model, Training, model_of
from selfheal.simulate.replay.policy import NO_ROWS, Action, Keep, Promote, Reject, RollBack, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from selfheal.services.repositories import LoopPlatform
    from selfheal.settings import Settings
    from selfheal.simulate.replay.memory.records import MemoryTick
    from selfheal.simulate.replay.stream import IntArray

ACTOR = {
    Trigger.DRIFT: "drift_sensor",
    Trigger.PERFORMANCE: "performance_sensor",
    Trigger.SCHEDULE: "weekly_retraining",
}
WEEKLY = timedelta(hours=2)
"""Time of the weekly retraining, from the beginning of Monday (UTC): that of the schedule `weekly_retraining`."""


@dataclass(frozen=True)
class Retrained:
    """What a retraining came to: the decision whether to train, and, if it did, the challenger and its verdict.

    `failure` is what kept it from a verdict, or the verdict from production.
    """

    considered: Decision
    verdict: Decision | None = None
    version: ModelVersion | None = None
    rows: pd.DataFrame | None = None
    failure: str | None = None


def install(platform: LoopPlatform, champion: Model, started: datetime) -> ModelVersion:
    """Put a trained champion into production, as a bootstrap at `started` would have; return it.

    Raises:
        ValueError: if the model is not of one of our own trainings.
    """
    if champion.training is None:
        raise ValueError("the first champion has to be of one of our own trainings")
    key = digest_of("champion", champion.training.rows.info.sha256, champion.seed)
    trained = _bootstrap_decision(platform, Decided.TRAIN, key, started)
    shadow = platform.registry.log_shadow(
        champion.training.trained,
        champion.training.rows,
        shadow_key=key,
        decision_id=platform.decisions.record(trained).decision_id,
        trigger_reason=Trigger.BOOTSTRAP.value,
        now=started,
    )
    verdict = replace(
        _bootstrap_decision(platform, Decided.PROMOTE, key, started),
        mlflow_run_id=shadow.mlflow_run_id,
        model_sha256=shadow.artifact_sha256,
    )
    staged = stage(platform, shadow, platform.decisions.record(verdict), started)
    platform.versions.go_live(staged.version, replaces=None, decision=verdict, now=started, probation_until=None)
    return platform.versions.champion()


def _bootstrap_decision(platform: LoopPlatform, action: Decided, key: str, started: datetime) -> Decision:
    return Decision(
        decision_id=digest_of("replay", action, key)[:16],
        created_at=started,
        model_name=platform.contract.name,
        trigger_reason=Trigger.BOOTSTRAP.value,
        action=action,
        reason="the champion that the replay begins with",
        actor="replay",
    )


def monitor(platform: LoopPlatform, now: datetime) -> list[str]:
    """Make a monitoring tick; return the messages of the critical alerts that it opened."""
    proxy = collect(platform, now)
    if proxy is None:
        return []
    drift = compare(platform, proxy.window)
    performance = measure(platform, proxy.window, is_for_verdict_only=True)
    _, opened = conclude(platform, proxy, drift, performance, now)
    return [alert.message for alert in opened if alert.severity is Severity.CRITICAL]


@dataclass(frozen=True)
class Request:
    """A retraining that is asked for: by the latest tick, or by the weekly schedule."""

    trigger: Trigger
    reason: str
    episode_id: str | None = None


def requests(platform: LoopPlatform, now: datetime, previous: datetime) -> Iterator[Request]:
    """Yield what asks for a retraining now. `previous` is the time of the look before."""
    need = current_need(platform)
    if need.trigger is not None:
        yield Request(need.trigger, need.reason, need.episode_id)
    if is_weekly_due(previous, now):
        yield Request(Trigger.SCHEDULE, "weekly schedule")


def is_weekly_due(previous: datetime, now: datetime) -> bool:
    """Return whether a Monday, 02:00 UTC, lies in (previous, now]."""
    monday = (now - timedelta(days=now.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    due = monday + WEEKLY if now >= monday + WEEKLY else monday + WEEKLY - timedelta(days=7)
    return previous < due


def retrain(platform: LoopPlatform, request: Request, now: datetime) -> Retrained:
    """Retrain as the retraining job does: decide, gather, train, judge, promote."""
    decision = decide_retraining(
        platform,
        request.trigger,
        episode_id=request.episode_id,
        actor=ACTOR[request.trigger],
        reason=request.reason,
        now=now,
    )
    if decision.action is not Decided.TRAIN:
        return Retrained(decision)
    try:
        rows = gather_training_set(platform, decision, None, now)
        shadow = train_shadow(platform, rows, now)
    except (TrainingFailedError, InvalidDataError) as error:
        return Retrained(decision, failure=str(error))
    verdict = judge(platform, shadow, rows, now)
    found = Retrained(decision, verdict.decision, rows=rows.frame)
    if not verdict.is_promotion:
        return found
    try:
        return replace(found, version=promote(platform, verdict, now))
    except ModelRefusedError as error:
        return replace(found, failure=str(error))


class Ours:
    """The platform's own policy, for one replay.

    Args:
        settings: that it decides by; `settings_of_replay` makes them.
        has_calendar: retrain weekly, too, as the schedule does in production; False shows what the monitor alone asks for.
    """

    def __init__(self, settings: Settings, *, has_calendar: bool = True) -> None:
        self._settings, self._has_calendar = settings, has_calendar
        self._platform: MemoryPlatform | None = None
        self._previous: datetime | None = None
        self._seen: tuple[Any, ...] = ()
        self._evaluated: str | None = None

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Return all that was decided so far, oldest first."""
        return () if self._platform is None else self._platform.decisions.all

    @property
    def ticks(self) -> tuple[MemoryTick, ...]:
        """Return all monitoring ticks so far."""
        return () if self._platform is None else self._platform.ticks.all

    def decide(self, view: View) -> Action:
        """Look once."""
        now = as_datetime(view.now)
        platform = self._opened(view)
        platform.traffic.view = view
        previous, self._previous = self._previous or as_datetime(view.started), now
        is_back = self._rolls_back(platform, now)
        alarm = "; ".join(self._monitored(platform, now)) or None
        action = self._retrained(platform, now, previous, alarm)
        if is_back:
            assert isinstance(action, Keep), "a version that has just come back has no labels to learn from"
            return RollBack(alarm="probation failed")
        return action

    def _retrained(self, platform: MemoryPlatform, now: datetime, previous: datetime, alarm: str | None) -> Action:
        for request in requests(platform, now, previous):
            if request.trigger is Trigger.SCHEDULE and not self._has_calendar:
                continue
            found = retrain(platform, request, now)
            if found.considered.action is Decided.TRAIN:
                return self._action_of(platform, found, alarm)
        return Keep(alarm)

    def _opened(self, view: View) -> MemoryPlatform:
        if self._platform is None:
            self._platform = MemoryPlatform(self._settings, view.contract)
            self._platform.note_live(install(self._platform, view.model, as_datetime(view.started)).version)
        return self._platform

    def _rolls_back(self, platform: MemoryPlatform, now: datetime) -> bool:
        """Evaluate the version on probation if that is due; return whether it was rolled back."""
        evaluation, _ = due_evaluation(platform, now)
        if evaluation is None or evaluation == self._evaluated:
            return False
        self._evaluated = evaluation
        watched = platform.versions.champion().version
        watch_probation(platform, now)
        return platform.versions.champion().version != watched

    def _monitored(self, platform: MemoryPlatform, now: datetime) -> list[str]:
        """Make a tick unless nothing is new since the last one, as the monitoring sensor does."""
        seen = (platform.versions.champion().version, *platform.traffic.latest_activity(now))
        if seen == self._seen:
            return []
        self._seen = seen
        return monitor(platform, now)

    def _action_of(self, platform: MemoryPlatform, found: Retrained, alarm: str | None) -> Action:
        used = _rows_of(found.rows)
        if found.version is not None:
            training = Training(platform.registry.trained(found.version), platform.registry.training_set(found.version))
            platform.note_live(found.version.version)
            return Promote(model_of(training, platform.contract, platform.settings.random_seed), used, alarm=alarm)
        if found.verdict is not None:
            return Reject(used, alarm)
        return Keep(alarm)


def _rows_of(frame: pd.DataFrame | None) -> IntArray:
    """Return the positions of the logged rows of a training set."""
    import numpy as np

    if frame is None:
        return NO_ROWS
    return np.array([row_of(one) for one in frame["prediction_id"].dropna()], dtype=np.int64)
