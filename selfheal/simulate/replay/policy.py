"""The interface of a policy: what it may see at a moment of a deployment, and what it may answer.

Belongs here: the protocol, the view and the actions. Does not belong here: any policy (`peers`), and the clock (`engine`).
A view is cut at its moment: no array of it reaches a row or a label that was not there yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import FloatArray, ModelContract
from selfheal.simulate.replay.models import Model, Rows
from selfheal.simulate.replay.stream import UNKNOWN, BoolArray, IntArray, LabelArray, Stream, TimeArray

SCAN_ROWS = 8_192
"""Rows of a portion when the newest labelled rows are searched backwards."""

Number = TypeVar("Number", bound=np.generic)

NO_ROWS: IntArray = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Log:
    """What the engine has written so far, whole arrays of the stream's length.

    `label_time` is when a label arrives given what was served (`engine.Selection`); `by_arrival` are the rows that can have a
    label in the order of their arrival, and `arrivals` their times.
    """

    stream: Stream
    probability: FloatArray
    version: npt.NDArray[np.int32]
    label_time: TimeArray
    by_arrival: IntArray
    arrivals: TimeArray


@dataclass(frozen=True, eq=False)
class View:
    """What is known at `now`: rows before it with their scores, and the labels that have arrived.

    Args:
        now: the simulated time (UTC).
        started: the deployment's start.
        n_rows: the number of rows that have been predicted.
        model: the version in production, `version` (0: the first champion), in production since `model_since`.
        learned_from: the first champion's training rows, oldest first.
        last_promotion: None before the first.
        log: the engine's; use the properties below, which end at `now`.
    """

    now: np.datetime64
    started: np.datetime64
    n_rows: int
    model: Model
    version: int
    model_since: np.datetime64
    learned_from: Rows
    last_promotion: np.datetime64 | None
    log: Log = field(repr=False)

    @property
    def contract(self) -> ModelContract:
        """Return the stream's contract."""
        return self.log.stream.contract

    @property
    def columns(self) -> dict[str, FloatArray]:
        """Return the raw inputs of the rows predicted so far, by name."""
        return {
            name: values[: self.n_rows] for name, values in self.log.stream.columns.items()
        }  # read-only, as they are

    @property
    def event_time(self) -> TimeArray:
        """Return when each row was predicted."""
        return self.log.stream.event_time[: self.n_rows]

    @property
    def entity(self) -> IntArray:
        """Return whom each row is about."""
        return self.log.stream.entity[: self.n_rows]

    @property
    def probability(self) -> FloatArray:
        """Return the probability that was answered for each row."""
        return _read_only(self.log.probability[: self.n_rows])

    @property
    def served_by(self) -> npt.NDArray[np.int32]:
        """Return the version that answered each row (0: the first champion)."""
        return _read_only(self.log.version[: self.n_rows])

    def row_at(self, time: np.datetime64) -> int:
        """Return the position of the first row at or after a time, at most `n_rows`."""
        return int(np.searchsorted(self.event_time, time))

    def labels(self, start: int = 0, stop: int | None = None) -> LabelArray:
        """Return the labels of the rows `start` to `stop`; `UNKNOWN` where none has arrived."""
        part = slice(start, self.n_rows if stop is None else min(stop, self.n_rows))
        return np.where(self.log.label_time[part] <= self.now, self.log.stream.label[part], UNKNOWN).astype(np.int8)

    def labels_at(self, rows: IntArray) -> LabelArray:
        """Return the labels of the rows at these positions; `UNKNOWN` where none has arrived."""
        is_known = (self.log.label_time[rows] <= self.now) & (rows < self.n_rows)
        return np.where(is_known, self.log.stream.label[rows], UNKNOWN).astype(np.int8)

    def newest_labelled(self, n_rows: int) -> IntArray:
        """Return the positions of the newest rows with a label, at most `n_rows`, oldest first."""
        found: list[IntArray] = []
        n_found, stop = 0, self.n_rows
        while stop > 0 and n_found < n_rows:
            start = max(0, stop - SCAN_ROWS)
            found.append(start + np.flatnonzero(self.log.label_time[start:stop] <= self.now))
            n_found += len(found[-1])
            stop = start
        return np.concatenate([NO_ROWS, *reversed(found)])[-n_rows:] if n_rows else NO_ROWS

    def arrived(self, since: np.datetime64) -> IntArray:
        """Return the rows whose label arrived after `since` and until now, in the order of arrival."""
        start, stop = np.searchsorted(self.log.arrivals, [since, self.now], side="right")
        rows = self.log.by_arrival[start:stop]
        return rows[~np.isnat(self.log.label_time[rows])]

    def rows(self, positions: IntArray) -> Rows:
        """Return labelled rows to learn from.

        Raises:
            ValueError: if one of them has no label yet.
        """
        labels = self.labels_at(positions)
        if (labels == UNKNOWN).any():
            raise ValueError(f"{int((labels == UNKNOWN).sum())} of {len(positions)} rows have no label at {self.now}")
        return Rows({name: values[positions] for name, values in self.log.stream.columns.items()}, labels)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Both models' scores of the same labelled rows; `challenger` and `champion` are probabilities, shape (n,)."""

    labels: LabelArray
    challenger: FloatArray
    challenger_threshold: float
    champion: FloatArray
    champion_threshold: float


def promote_always(_comparison: Comparison) -> bool:
    """Return True: no rows are needed to judge."""
    return True


@dataclass(frozen=True)
class Keep:
    """Change nothing. `alarm` says what is wrong; None: nothing."""

    alarm: str | None = None


@dataclass(frozen=True, eq=False)
class Retrain:
    """Fit a model to the rows at these positions, and promote it if `promote_if` agrees on the rows of `evaluation`.

    `n_original` rows of the first champion's training set, the newest, come before them.
    """

    training: IntArray
    evaluation: IntArray = field(default_factory=lambda: NO_ROWS)
    n_original: int = 0
    promote_if: Callable[[Comparison], bool] = promote_always
    alarm: str | None = None


@dataclass(frozen=True, eq=False)
class Promote:
    """Put a model into production that the policy has trained itself, from the labels of `labels_used`."""

    model: Model
    labels_used: IntArray = field(default_factory=lambda: NO_ROWS)
    is_trained_now: bool = True
    alarm: str | None = None


@dataclass(frozen=True, eq=False)
class Reject:
    """A model that the policy has trained itself does not go into production."""

    labels_used: IntArray = field(default_factory=lambda: NO_ROWS)
    alarm: str | None = None


@dataclass(frozen=True)
class RollBack:
    """Put the version before this one back into production."""

    alarm: str | None = None


Action: TypeAlias = Keep | Retrain | Promote | Reject | RollBack


class Policy(Protocol):
    """Decides, at each interval, what happens to the version in production.

    A policy may keep what it has seen; it is used for one replay. It decides by the view alone, and the same views give the same
    actions. An oracle is the only one that also knows the deployment's truth.
    """

    def decide(self, view: View) -> Action:
        """Return what to do now."""


def _read_only(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    values.flags.writeable = False
    return values


def f1_gain_rule(min_gain_pct: float) -> Callable[[Comparison], bool]:
    """Return the usual rule of thumb: promote if F1 is better by so many percent of the champion's, as a point estimate."""

    def is_better(comparison: Comparison) -> bool:
        challenger = f1_score(comparison.labels, comparison.challenger >= comparison.challenger_threshold)
        champion = f1_score(comparison.labels, comparison.champion >= comparison.champion_threshold)
        return challenger > 0 and challenger >= champion * (1 + min_gain_pct / 100)

    return is_better


def f1_score(labels: LabelArray, is_flagged: BoolArray) -> float:
    """Return F1 = 2 TP / (2 TP + FP + FN), in [0, 1]; 0 without a positive or flagged row.

    >>> import numpy as np
    >>> f1_score(np.array([1, 1, 0], dtype=np.int8), np.array([True, False, True]))
    0.5
    """
    n_true = int((is_flagged & (labels == 1)).sum())
    total = int(is_flagged.sum()) + int((labels == 1).sum())
    return 2 * n_true / total if total else 0.0


def split_newest(rows: IntArray, share: float) -> tuple[IntArray, IntArray]:
    """Return the earlier rows and the newest `share` of them."""
    n_newest = round(len(rows) * share)
    return rows[: len(rows) - n_newest], rows[len(rows) - n_newest :]
