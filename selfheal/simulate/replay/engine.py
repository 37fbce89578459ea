"""The simulated clock: a policy on a deployment, moment by moment, rows scored in blocks.

Belongs here: the order of events. At each moment the rows before it have been served by the version in production, and the labels that
arrived until then are known; then the policy decides, and what it promotes serves the rows from this moment on. Training takes no
simulated time. The same deployment, policy and interval give the same replay bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import FloatArray
from selfheal.kit.errors import ConfigurationError, TrainingFailedError
from selfheal.simulate.replay.deployment import Deployment, Selection
from selfheal.simulate.replay.models import Model, Rows, refit
from selfheal.simulate.replay.policy import (
    Action,
    Comparison,
    Keep,
    Log,
    Policy,
    Promote,
    Reject,
    Retrain,
    RollBack,
    View,
)
from selfheal.simulate.replay.stream import BoolArray, IntArray, LabelArray, TimeArray

INTERVAL = timedelta(hours=6)
"""Default time between two decisions."""

BLOCK_ROWS = 8_192
"""Rows scored at once, beyond those that are due: few calls, and little lost when a version is replaced."""


NO_VERSION = -1
"""No version to roll back to."""


class What(StrEnum):
    """What can happen in a replay."""

    ALARM = "alarm"
    TRAINED = "trained"
    TRAINING_FAILED = "training_failed"
    REJECTED = "rejected"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Event:
    """Something that happened at `time`; `row` is the first row served afterwards, `version` the one it is about."""

    time: np.datetime64
    row: int
    what: What
    version: int
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Replay:
    """What a policy did in a deployment.

    Args:
        probability: that was served for each row.
        version: index into `models` of who served it.
        models: all versions, the champion first.
        events: in their order.
        n_decisions: how often the policy was asked.
        labels_used: number of distinct rows whose label some training or judgement used.
    """

    deployment: Deployment
    probability: FloatArray
    version: npt.NDArray[np.int32]
    models: tuple[Model, ...]
    events: tuple[Event, ...]
    n_decisions: int
    labels_used: int

    @property
    def is_flagged(self) -> BoolArray:
        """Return which rows were flagged, by the threshold of the version that served them."""
        thresholds = np.array([model.threshold for model in self.models])
        return np.asarray(self.probability >= thresholds[self.version])

    def scores(self, version: int, start: int, stop: int) -> FloatArray:
        """Return what a version would have answered for the rows `start` to `stop`."""
        return self.models[version].score(self.deployment.stream.features(start, stop))


IsEnough: TypeAlias = Callable[[Replay, np.datetime64], bool]
"""Says of a replay so far, at a moment, that nothing more is asked of its policy."""


def replay(
    deployment: Deployment,
    policy: Policy,
    *,
    interval: timedelta = INTERVAL,
    seed: int = 0,
    is_enough: IsEnough | None = None,
) -> Replay:
    """Replay a deployment under a policy.

    Args:
        interval: time between two decisions.
        seed: of the models that are fitted.
        is_enough: asked after each decision; once it says so, the version in production serves the rest of the rows and the
            policy is not asked again. None: the policy is asked to the end.

    Raises:
        ConfigurationError: if the interval is not positive.
    """
    if interval <= timedelta(0):
        raise ConfigurationError(
            f"the interval between decisions is {interval}; choose a positive one, such as 6 hours"
        )
    clock = _Clock(deployment, seed)
    moments = moments_of(deployment, interval)
    stops = np.searchsorted(deployment.stream.event_time, moments)
    n_decisions = 0
    for now, stop in zip(moments, stops.tolist(), strict=True):
        clock.serve(stop)
        clock.carry_out(policy.decide(clock.view(now)), now)
        n_decisions += 1
        if is_enough is not None and is_enough(clock.result(n_decisions), now):
            break
    clock.serve(len(deployment.stream))
    return clock.result(n_decisions)


def moments_of(deployment: Deployment, interval: timedelta) -> TimeArray:
    """Return when a policy is asked: after each interval, and at the end."""
    step = np.timedelta64(interval)
    moments: TimeArray = np.arange(deployment.start + step, deployment.end + step, step)
    moments[-1] = min(moments[-1], deployment.end)
    return moments


class _Clock:
    """The state of a replay: rows served so far, versions, and what happened."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        stream = deployment.stream
        self._deployment, self._seed = deployment, seed
        label_time = stream.label_time.copy()
        by_arrival = np.argsort(label_time, kind="stable")
        by_arrival = by_arrival[: int((~np.isnat(label_time)).sum())]  # NaT is sorted to the end
        self._log = Log(
            stream,
            np.full(len(stream), np.nan),
            np.zeros(len(stream), dtype=np.int32),
            label_time,
            by_arrival,
            stream.label_time[by_arrival],
        )
        self._models = [deployment.champion]
        self._current, self._before = 0, NO_VERSION
        self._since = deployment.start
        self._n_served = self._n_scored = 0
        self._last_promotion: np.datetime64 | None = None
        self._events: list[Event] = []
        self._is_used = np.zeros(len(stream), dtype=np.bool_)

    def serve(self, stop: int) -> None:
        """Serve the rows until `stop` with the version in production."""
        if stop > self._n_scored:
            ahead = min(max(stop, self._n_scored + BLOCK_ROWS), len(self._log.stream))
            rows = slice(self._n_scored, ahead)
            self._log.probability[rows] = self._models[self._current].score(
                self._log.stream.features(rows.start, rows.stop)
            )
            self._n_scored = ahead
        rows = slice(self._n_served, stop)
        self._log.version[rows] = self._current
        if self._deployment.selection is not Selection.ALL:
            self._withhold(rows)
        self._n_served = max(stop, self._n_served)

    def _withhold(self, rows: slice) -> None:
        threshold = self._models[self._current].threshold
        is_allowed = self._deployment.selection.allows(self._log.probability[rows], threshold)
        self._log.label_time[rows][~is_allowed] = np.datetime64("NaT")

    def view(self, now: np.datetime64) -> View:
        """Return what a policy may see now."""
        return View(
            now,
            self._deployment.start,
            self._n_served,
            self._models[self._current],
            self._current,
            self._since,
            self._deployment.learned_from,
            self._last_promotion,
            self._log,
        )

    def carry_out(self, action: Action, now: np.datetime64) -> None:
        """Do what a policy decided."""
        if action.alarm is not None:
            self._note(now, What.ALARM, self._current, action.alarm)
        match action:
            case Keep():
                pass
            case Retrain():
                self._retrain(action, now)
            case Promote():
                self._use(action.labels_used)
                if action.is_trained_now:
                    self._note(now, What.TRAINED, len(self._models))
                self._promote(action.model, now)
            case Reject():
                self._use(action.labels_used)
                self._note(now, What.TRAINED, self._current)
                self._note(now, What.REJECTED, self._current)
            case RollBack():
                self._roll_back(now)

    def _retrain(self, action: Retrain, now: np.datetime64) -> None:
        view = self.view(now)
        rows = _with_original(view.rows(action.training), view.learned_from, action.n_original)
        self._use(action.training)
        self._use(action.evaluation)
        try:
            challenger = refit(self._deployment.champion, rows, self._seed)
        except TrainingFailedError as error:
            self._note(now, What.TRAINING_FAILED, self._current, str(error))
            return
        self._note(now, What.TRAINED, len(self._models))
        if action.promote_if(self._comparison(challenger, view, action.evaluation)):
            self._promote(challenger, now)
        else:
            self._note(now, What.REJECTED, self._current)

    def _comparison(self, challenger: Model, view: View, rows: IntArray) -> Comparison:
        labels: LabelArray = view.rows(rows).labels
        features = self._log.stream.features_at(rows)
        champion = self._models[self._current]
        scores = [model.score(features) if len(rows) else np.empty(0) for model in (challenger, champion)]
        return Comparison(labels, scores[0], challenger.threshold, scores[1], champion.threshold)

    def _promote(self, model: Model, now: np.datetime64) -> None:
        self._models.append(model)
        self._before = self._current
        self._last_promotion = now
        self._switch_to(len(self._models) - 1, now)
        self._note(now, What.PROMOTED, self._current)

    def _roll_back(self, now: np.datetime64) -> None:
        if self._before == NO_VERSION:
            return
        self._note(now, What.ROLLED_BACK, self._current)
        self._switch_to(self._before, now)
        self._before = NO_VERSION

    def _switch_to(self, version: int, now: np.datetime64) -> None:
        self._current, self._since = version, now
        self._n_scored = self._n_served  # what was scored ahead was scored by another version

    def _use(self, rows: IntArray) -> None:
        self._is_used[rows] = True

    def _note(self, now: np.datetime64, what: What, version: int, reason: str = "") -> None:
        self._events.append(Event(now, self._n_served, what, version, reason))

    def result(self, n_decisions: int) -> Replay:
        """Return what happened."""
        return Replay(
            self._deployment,
            self._log.probability,
            self._log.version,
            tuple(self._models),
            tuple(self._events),
            n_decisions,
            int(self._is_used.sum()),
        )


def _with_original(rows: Rows, learned_from: Rows, n_original: int) -> Rows:
    if not n_original:
        return rows
    newest = np.arange(max(0, len(learned_from) - n_original), len(learned_from))
    return learned_from.at(newest).followed_by(rows)
