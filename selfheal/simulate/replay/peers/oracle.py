"""Oracles: what a policy could reach that knew the truth. The yardstick of regret, not a policy for use.

Where the change is known: from 200 arrived labels of the new regime on, and whenever they have doubled, a model is fitted to them with
their true values; at each of these moments, and at each change of regime, the version with the lowest true Brier score on the rows to
come goes into production, the old ones included. On a natural stream nobody knows the change: there the best of some fixed retraining
intervals, chosen in hindsight, stands in.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.simulate.replay.deployment import Deployment
from selfheal.simulate.replay.engine import Replay, replay
from selfheal.simulate.replay.models import Model, Rows, can_refit, refit
from selfheal.simulate.replay.peers.calendar import FixedInterval, Never
from selfheal.simulate.replay.policy import NO_ROWS, Action, Keep, Policy, Promote, Reject, View
from selfheal.simulate.replay.stream import UNKNOWN, IntArray

FIRST_LABELS = 200
"""Labels of a new regime from which the oracle retrains first."""

GROWTH = 2.0
MAX_ROWS = 20_000
"""Most rows that the oracle learns from, the newest, and most rows that it compares versions on, evenly spread."""

MIN_HORIZON = np.timedelta64(7, "D")
"""Shortest time ahead on which versions are compared: regimes of a season last an hour, and would be won by chance."""

ANY_NEW = -1
"""All regimes but the champion's together: while a world keeps changing, none has many rows of its own."""

HINDSIGHT_RETRAININGS = (3, 10, 30, 100)
"""How often a natural stream's champion is retrained at fixed intervals; the best of these, of weekly and of never is the oracle."""


class Oracle:
    """Knows the regime and the true label of each row, past and future."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self._deployment, self._seed = deployment, seed
        n_rows = len(deployment.stream)
        self._regime: IntArray = np.zeros(n_rows, np.int64) if deployment.regime is None else deployment.regime
        self._models: list[Model] = [deployment.champion]
        self._current, self._regime_now = 0, 0
        self._known: dict[int, list[IntArray]] = {}
        self._n_next: dict[int, float] = {}
        self._since = deployment.start

    def decide(self, view: View) -> Action:
        """Return a promotion if another version is the better one from now on."""
        self._note_arrivals(view)
        if view.n_rows >= len(self._regime):
            return Keep()
        regime, n_models = int(self._regime[view.n_rows]), len(self._models)
        learned = [] if regime == 0 else [self._learned(part) for part in (regime, ANY_NEW)]
        trained_on = max(learned, key=len, default=NO_ROWS)
        is_changed, self._regime_now = regime != self._regime_now, regime
        if not is_changed and not len(trained_on):
            return Keep()
        best = self._best_from(view.n_rows)
        if best == self._current:
            return Reject(trained_on) if len(trained_on) else Keep()
        self._current = best
        return Promote(self._models[best], trained_on, is_trained_now=best >= n_models)

    def _note_arrivals(self, view: View) -> None:
        rows = view.arrived(self._since)
        rows = rows[self._deployment.stream.true_label[rows] != UNKNOWN]
        self._since = view.now
        rows = rows[self._regime[rows] != 0]  # 0 is the champion's world
        for regime in np.unique(self._regime[rows]).tolist():
            self._known.setdefault(regime, []).append(rows[self._regime[rows] == regime])
        self._known.setdefault(ANY_NEW, []).append(rows)

    def _learned(self, regime: int) -> IntArray:
        """Fit a model to the regime's rows if enough have arrived; return the rows, or none."""
        rows = np.sort(np.concatenate([NO_ROWS, *self._known.get(regime, [])]))[-MAX_ROWS:]
        labels = self._deployment.stream.true_label[rows]
        if len(rows) < self._n_next.get(regime, FIRST_LABELS) or not can_refit(labels):
            return NO_ROWS
        self._n_next[regime] = GROWTH * len(rows) if len(rows) < MAX_ROWS else np.inf
        columns = {name: values[rows] for name, values in self._deployment.stream.columns.items()}
        self._models.append(refit(self._deployment.champion, Rows(columns, labels), self._seed))
        return rows

    def _best_from(self, row: int) -> int:
        """Return the version with the lowest true Brier score on the rows from here to the end of the regime."""
        rest = self._regime[row:]
        is_other = rest != rest[0]
        n_rows = int(np.argmax(is_other)) if is_other.any() else len(rest)
        times = self._deployment.stream.event_time
        n_rows = max(n_rows, int(np.searchsorted(times, times[row] + MIN_HORIZON)) - row)
        rows = row + np.unique(np.linspace(0, n_rows - 1, min(n_rows, MAX_ROWS)).astype(np.int64))
        labels = self._deployment.stream.true_label[rows]
        rows, labels = rows[labels != UNKNOWN], labels[labels != UNKNOWN]
        features = self._deployment.stream.features_at(rows)
        return int(np.argmin([_brier(model.score(features), labels.astype(np.float64)) for model in self._models]))


def best_fixed_interval(deployment: Deployment, interval: timedelta, seed: int) -> Replay:
    """Return the replay with the lowest Brier score among never, weekly and the intervals of `HINDSIGHT_RETRAININGS`."""
    every = [timedelta(days=deployment.days / n) for n in HINDSIGHT_RETRAININGS]
    policies: tuple[Policy, ...] = (Never(), FixedInterval(), *(FixedInterval(one) for one in every))
    replays = [replay(deployment, policy, interval=interval, seed=seed) for policy in policies]
    labels = deployment.stream.true_label
    is_known = labels != UNKNOWN
    known = labels[is_known].astype(np.float64)
    return min(replays, key=lambda found: _brier(found.probability[is_known], known))


def _brier(probability: FloatArray, labels: FloatArray) -> float:
    return float(np.mean((probability - labels) ** 2)) if len(labels) else np.inf
