"""Evidently's default alarm, then the usual rule of thumb: retrain, promote if F1 is 2 % better, wait seven days.

The tests are Evidently's own (`get_stattest`: by the reference's size and the number of values), with their default thresholds and
the default share of drifted columns; nothing is rendered. A daily job compares the last 24 hours, but at least 200 rows, with the
version's reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.simulate.replay.models import Model
from selfheal.simulate.replay.peers.calendar import DAY, rolling_window
from selfheal.simulate.replay.policy import Action, Keep, Retrain, View, f1_gain_rule, split_newest

DRIFT_SHARE = 0.5
"""Share of drifted columns from which Evidently calls the data set drifted, its default."""

MIN_ROWS, MIN_LABELS = 200, 200
COOLDOWN_DAYS = 7
EVALUATION_SHARE = 0.3
MIN_F1_GAIN_PCT = 2.0


@dataclass
class EvidentlyAlarm:
    """Retrain when Evidently's preset calls the last day drifted."""

    _next_check: np.datetime64 | None = field(default=None, init=False)

    def decide(self, view: View) -> Action:
        """Return an alarm if the last day has drifted, with a retraining if the cooldown is over."""
        if self._next_check is not None and view.now < self._next_check:
            return Keep()
        self._next_check = view.now + DAY
        first = min(view.row_at(view.now - DAY), view.n_rows - MIN_ROWS)
        if first < 0:
            return Keep()
        share = drifted_share({name: values[first:] for name, values in view.columns.items()}, view.model)
        if share < DRIFT_SHARE:
            return Keep()
        alarm = f"{share:.0%} of the columns drifted"
        is_cooling = view.last_promotion is not None and view.now - view.last_promotion < COOLDOWN_DAYS * DAY
        rows, n_original = rolling_window(view)
        if is_cooling or len(rows) < MIN_LABELS:
            return Keep(alarm)
        learn, judge = split_newest(rows, EVALUATION_SHARE)
        return Retrain(learn, judge, n_original, f1_gain_rule(MIN_F1_GAIN_PCT), alarm)


def drifted_share(current: dict[str, FloatArray], model: Model) -> float:
    """Return the share of the inputs that drifted from the model's reference by Evidently's default tests."""
    found = [_is_drifted(model.reference.columns[name], current[name]) for name in model.contract.input_names]
    return sum(found) / len(found)


def _is_drifted(reference: FloatArray, current: FloatArray) -> bool:
    import pandas as pd
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    then, now = (pd.Series(values[np.isfinite(values)]) for values in (reference, current))
    if not len(then) or not len(now):
        return False
    test: Any = get_stattest(then, now, ColumnType.Numerical, None)
    return bool(test(then, now, ColumnType.Numerical, None).drifted)
