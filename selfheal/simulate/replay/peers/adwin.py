"""ADWIN on the error (Bifet and Gavalda, 2007, SIAM International Conference on Data Mining), and a refit on its window.

The detector is river's. Errors are fed in the order in which labels arrive. A change for the better is no alarm, and a value that is
not finite is never fed: one NaN makes river's estimate NaN for good, and no change is found again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.models import can_refit
from selfheal.simulate.replay.policy import NO_ROWS, Action, Keep, Retrain, View
from selfheal.simulate.replay.stream import IntArray

DELTA = 0.002
"""River's default confidence."""


@dataclass
class AdwinRetrain:
    """Refit on ADWIN's window when the error rises, and promote."""

    delta: float = DELTA
    _detector: Any = field(default=None, init=False)
    _since: np.datetime64 | None = field(default=None, init=False)
    _arrived: IntArray = field(default_factory=lambda: NO_ROWS, init=False)
    _is_pending: bool = field(default=False, init=False)

    def decide(self, view: View) -> Action:
        """Return an alarm if the error rose, with a refit as soon as the window has enough rows of both classes."""
        if self._detector is None:
            self._restart()
        has_risen = self._feed(view)
        self._is_pending = self._is_pending or has_risen
        alarm = f"the error rose to {self._detector.estimation:.3f}" if has_risen else None
        if not self._is_pending:
            return Keep()
        rows = np.sort(self._arrived[-int(self._detector.width) :])
        if not can_refit(view.labels_at(rows)):
            return Keep(alarm)
        self._restart()
        return Retrain(rows, alarm=alarm)

    def _feed(self, view: View) -> bool:
        """Feed the errors of the labels that arrived; return whether the error has risen."""
        rows = view.arrived(view.started if self._since is None else self._since)
        rows = rows[view.served_by[rows] == view.version]  # errors of a version before say nothing of this one
        self._since = view.now
        self._arrived = np.concatenate([self._arrived, rows])
        is_flagged = view.probability[rows] >= view.model.threshold
        errors = (is_flagged != (view.labels_at(rows) == 1)).astype(np.float64)
        return sum(rises_with(self._detector, error) for error in errors.tolist()) > 0  # each one is fed

    def _restart(self) -> None:
        self._detector, self._is_pending = new_adwin(self.delta), False
        self._arrived = NO_ROWS


def new_adwin(delta: float = DELTA) -> Any:
    """Return river's ADWIN.

    Raises:
        ConfigurationError: if river is not installed.
    """
    try:
        from river.drift import ADWIN
    except ImportError as error:
        raise ConfigurationError(
            "the policy 'adwin' needs river; install it with `pip install 'selfheal[replay]'`, or leave the policy out"
        ) from error
    return ADWIN(delta=delta)


def rises_with(detector: Any, value: float) -> bool:
    """Feed one value; return whether a change was found after which the mean is higher. A value that is not finite is ignored."""
    if not math.isfinite(value):
        return False
    before = detector.estimation
    detector.update(value)
    return bool(detector.drift_detected and detector.estimation > before)
