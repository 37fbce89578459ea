"""When a deployment is healed: by what the versions in production cost on the rows that are still to come.

The labels of one day are mostly chance (a Brier score of 144 rows has a standard error of 0.02, a recoverable gap is often 0.005), so
the loss of the day is not what its rows happened to show: each version in production is scored on the rows ahead, up to 30 days of the
same world, served by it or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.simulate.replay.deployment import Deployment, Kind
from selfheal.simulate.replay.engine import Replay
from selfheal.simulate.replay.stream import UNKNOWN, IntArray, TimeArray

STEP = np.timedelta64(6, "h")
STEP_HOURS = 6.0

LONGEST_AHEAD, SHORTEST_AHEAD = np.timedelta64(30, "D"), np.timedelta64(7, "D")
"""Rows ahead end with the world they are of, but not before the shorter time: seasons change every hour."""

DIGITS = 9
"""Decimals of a Brier score: far below what rows can show, and half as long a line of results."""

HEALED_SHARE_OF_GAP = 0.2
"""Healed: the loss stays within this share of the recoverable gap."""


@dataclass(frozen=True)
class Healing:
    """Hours from the change to healing, censored at the end of the deployment if `is_healed` is False."""

    hours: float
    is_healed: bool


def expected_brier(replay: Replay) -> tuple[float | None, ...]:
    """Return the Brier score, on the rows ahead, of the version in production at each `STEP` from the change on.

    None where no row ahead has a known outcome; empty for a natural stream, whose change nobody knows.
    """
    if replay.deployment.kind is Kind.NATURAL:
        return ()
    moments, starts, stops = _steps(replay.deployment)
    last = len(replay.version) - 1
    versions = replay.version[np.minimum(np.searchsorted(replay.deployment.stream.event_time, moments), last)]
    found = np.full(len(moments), np.nan)
    for version in np.unique(versions).tolist():
        is_here = versions == version
        found[is_here] = _means(replay, version, starts[is_here], stops[is_here])
    return _without_nan(found)


def attainable_brier(replay: Replay) -> tuple[float | None, ...]:
    """Return the lowest Brier score, on the rows ahead of each `STEP`, of all versions that a replay ever had, the oracle's for instance.

    Before the oracle has healed it is no better than never; what is to be reached is what it comes to serve.
    """
    if replay.deployment.kind is Kind.NATURAL:
        return ()
    _, starts, stops = _steps(replay.deployment)
    return _without_nan(np.min([_means(replay, v, starts, stops) for v in range(len(replay.models))], axis=0))


def healing(
    policy: Sequence[float | None], never: Sequence[float | None], attainable: Sequence[float | None], hours: float
) -> Healing:
    """Return the first hour from which the loss stays within 20 % of the recoverable gap of what is attainable.

    The gap is the mean of never's loss minus the attainable one over all steps.

    Args:
        policy, never: `expected_brier` in the same deployment.
        attainable: `attainable_brier` of the oracle there.
        hours: from the change to the end, where healing that has not come is censored.
    """
    losses = np.array([policy, never, attainable], dtype=np.float64)  # None becomes NaN
    losses = losses[:, ~np.isnan(losses).any(axis=0)]
    if not losses.shape[1]:
        return Healing(hours, is_healed=False)
    limit = HEALED_SHARE_OF_GAP * float(np.mean(losses[1] - losses[2]))
    is_far = np.flatnonzero(losses[0] - losses[2] > limit)
    first = int(is_far[-1]) + 1 if len(is_far) else 0
    if first == losses.shape[1]:
        return Healing(hours, is_healed=False)
    return Healing(first * STEP_HOURS, is_healed=True)


def _steps(deployment: Deployment) -> tuple[TimeArray, IntArray, IntArray]:
    """Return each step from the change on, with the first and the last row, exclusive, ahead of it."""
    origin = deployment.start if deployment.change is None else deployment.change
    moments = np.arange(origin, deployment.end, STEP)
    return moments, *_ahead(deployment, moments)


def _without_nan(values: FloatArray) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else round(float(value), DIGITS) for value in values)


def _ahead(deployment: Deployment, moments: TimeArray) -> tuple[IntArray, IntArray]:
    """Return the first and the last row, exclusive, ahead of each moment; near the end, the rows of the last week."""
    times = deployment.stream.event_time
    n_rows = len(times)
    starts = np.searchsorted(times, np.minimum(moments, max(deployment.end - SHORTEST_AHEAD, moments[0])))
    regime_ends = _run_ends(deployment, n_rows)[np.minimum(starts, n_rows - 1)]
    shortest = np.searchsorted(times, moments + SHORTEST_AHEAD)
    longest = np.searchsorted(times, moments + LONGEST_AHEAD)
    return starts, np.minimum(np.maximum(regime_ends, shortest), longest)


def _run_ends(deployment: Deployment, n_rows: int) -> IntArray:
    """Return, for each row, the position after the last row of its unbroken run of one regime."""
    if deployment.regime is None:
        return np.full(n_rows, n_rows)
    changes = np.flatnonzero(np.diff(deployment.regime)) + 1
    ends = np.concatenate([changes, [n_rows]])
    return np.asarray(ends[np.searchsorted(changes, np.arange(n_rows), side="right")])


def _means(replay: Replay, version: int, starts: IntArray, stops: IntArray) -> FloatArray:
    first, last = int(starts.min()), int(stops.max())
    if first >= last:
        return np.full(len(starts), np.nan)
    labels = replay.deployment.stream.true_label[first:last]
    is_known = labels != UNKNOWN
    losses = np.where(is_known, np.square(replay.scores(version, first, last) - labels), 0.0)
    sums, counts = (np.concatenate([[0.0], np.cumsum(values)]) for values in (losses, is_known))
    a, b = starts - first, np.maximum(stops, starts) - first
    n_known = counts[b] - counts[a]
    return np.asarray(np.where(n_known > 0, (sums[b] - sums[a]) / np.maximum(n_known, 1), np.nan))
