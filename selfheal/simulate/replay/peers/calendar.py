"""Policies of the calendar: never retrain, or retrain at fixed intervals on a rolling window and always promote."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from selfheal.simulate.replay.policy import Action, Keep, Retrain, View
from selfheal.simulate.replay.stream import IntArray

DAY = np.timedelta64(1, "D")

MAX_WINDOW_ROWS = 8_000


def rolling_window(view: View) -> tuple[IntArray, int]:
    """Return the newest labelled rows, and how many of the first champion's rows fill up the window.

    The window has as many rows as the first champion learned from, at most `MAX_WINDOW_ROWS`.
    """
    n_window = min(len(view.learned_from), MAX_WINDOW_ROWS)
    rows = view.newest_labelled(n_window)
    return rows, n_window - len(rows)


class Never:
    """Keep the first champion for ever."""

    def decide(self, _view: View) -> Action:
        """Return that nothing changes."""
        return Keep()


@dataclass
class FixedInterval:
    """Retrain on the rolling window every so often, and promote the result whatever it is worth."""

    every: timedelta = timedelta(days=7)
    _last: np.datetime64 | None = field(default=None, init=False)

    def decide(self, view: View) -> Action:
        """Return a retraining if the interval is over and there is a new label."""
        since = view.started if self._last is None else self._last
        if view.now - since < np.timedelta64(self.every):
            return Keep()
        self._last = view.now
        rows, n_original = rolling_window(view)
        return Retrain(rows, n_original=n_original) if len(rows) else Keep()
