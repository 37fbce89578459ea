"""When the relation between score and outcome changed: change points in a version's labelled rows, with intervals.

A row's residual is its label minus its probability. While the relation stays as it is, the mean residual is constant, also within
any group of rows, whatever the mix of inputs does; so is the mean of the residual times the log-odds (the slope of the calibration) and
times each input. Rows in order of time are taken together in blocks, and the split of the blocks is sought at which one of these means
differs most (CUSUM; Page, 1954; the maximum over coordinates: Cho and Fryzlewicz, 2015, JRSS B 77). What a steady relation gives is known
by permuting the blocks, which is exact for independent rows of any distribution: penalties made for normal values cut steady 0/1 series.
Later changes are sought after the last one found (binary segmentation; Vostrikova, 1981).

Belongs here: finding changes. Does not belong here: what is learned from which rows (`selfheal.domain.retraining`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.shift import standardised, standardised_ranks
from selfheal.domain.records import Onset

if TYPE_CHECKING:
    import pandas as pd

WINDOWS_ROWS = (20_000, 100_000)
"""Numbers of newest rows in which changes are sought, until one is found: a recent change in fine blocks, an older one in coarse ones."""

MIN_BLOCK_ROWS, MAX_BLOCKS = 20, 400
MIN_SEGMENT_BLOCKS = 3
"""Before and after a change: one block would be judged by its own noise."""

MAX_INPUTS = 16
"""Inputs that a residual is multiplied by: those that have most to do with the score."""

LEVEL = 0.002
"""Of one search: a steady relation is said to have changed so often."""

PERMUTATIONS, PERMUTATIONS_AT_ONCE = 999, 111
BOOTSTRAPS = 200
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Change:
    """A change before row `row`, which is between `low` and `high` with 95 % certainty; all are positions of rows.

    `shown_by` is the coordinate that shows it best: `outcome` (all rows), `score`, or the name of an input.
    """

    row: int
    low: int
    high: int
    p_value: float
    shown_by: str


def onset_of(rows: pd.DataFrame, inputs: Sequence[str], min_rows: int, seed: int) -> Onset | None:
    """Return the onset of today's world in labelled rows of one version: the latest change after which there are `min_rows` rows.

    If there are fewer after each, it is the latest change: what would be learned from older rows is over. None: none is shown.

    Args:
        rows: `created_at`, inputs, `probability` and `true_label`, oldest first.
        min_rows: that a training wants.
    """
    changes = find_changes(rows, inputs, seed)
    if not changes:
        return None
    change = next((one for one in reversed(changes) if len(rows) - one.row >= min_rows), changes[-1])
    times = rows["created_at"]
    before, low, high = (times.iloc[max(0, row - 1)].to_pydatetime() for row in (change.row, change.low, change.high))
    return Onset(before, low, high, change.p_value, change.shown_by, change.row, len(rows) - change.row)


def find_changes(rows: pd.DataFrame, inputs: Sequence[str], seed: int) -> tuple[Change, ...]:
    """Return the changes of the relation in labelled rows of one version, oldest first.

    Args:
        rows: inputs, `probability` and `true_label`, oldest first.
        inputs: names of numeric inputs.
        seed: of permutations and bootstrap.
    """
    for n_rows, shorter in zip(WINDOWS_ROWS, (0, *WINDOWS_ROWS), strict=False):
        if len(rows) > shorter and (found := _found_in(rows, max(0, len(rows) - n_rows), inputs, seed)):
            return found
    return ()


def _found_in(rows: pd.DataFrame, first: int, inputs: Sequence[str], seed: int) -> tuple[Change, ...]:
    """Return the changes in the rows from `first` on."""
    newest = rows.iloc[first:]
    size = max(MIN_BLOCK_ROWS, -(-len(newest) // MAX_BLOCKS))
    n_blocks = len(newest) // size
    if n_blocks < 2 * MIN_SEGMENT_BLOCKS:
        return ()
    start = len(newest) - n_blocks * size  # the newest block is whole
    names, values = _coordinates(newest, inputs)
    means = values[start:].reshape(n_blocks, size, -1).mean(axis=1)
    found = _changes(means, np.random.default_rng(seed))

    def row(block: int) -> int:
        return first + start + block * size

    return tuple(
        Change(row(block), row(low), row(high), p, names[coordinate]) for block, low, high, p, coordinate in found
    )


def _coordinates(rows: pd.DataFrame, inputs: Sequence[str]) -> tuple[list[str], FloatArray]:
    """Return the names and, shape (rows, coordinates), the values whose means are constant in a steady relation."""
    p = np.clip(rows["probability"].to_numpy(dtype=np.float64), EPSILON, 1 - EPSILON)
    residual = rows[TRUE_LABEL].to_numpy(dtype=np.float64) - p
    log_odds = standardised(np.log(p / (1 - p)))
    by_rank = {name: standardised_ranks(rows[name].to_numpy(dtype=np.float64)) for name in inputs}
    related = sorted(by_rank, key=lambda name: -abs(float(np.mean(by_rank[name] * log_odds))))[:MAX_INPUTS]
    factors = [np.ones(len(p)), log_odds, *(by_rank[name] for name in related)]
    return ["outcome", "score", *related], residual[:, None] * np.column_stack(factors)


Found = tuple[int, int, int, float, int]
"""Block of a change, the interval's blocks, p-value, coordinate."""


def _changes(means: FloatArray, rng: np.random.Generator) -> list[Found]:
    """Return the changes in blocks, each sought after the one before it."""
    found: list[Found] = []
    begin = 0
    while len(means) - begin >= 2 * MIN_SEGMENT_BLOCKS:
        change = _change(means[begin:], rng)
        if change is None:
            break
        block, low, high, p, coordinate = change
        found.append((begin + block, begin + low, begin + high, p, coordinate))
        begin += block
    return found


def _change(means: FloatArray, rng: np.random.Generator) -> Found | None:
    scale = np.sqrt(
        np.mean(np.diff(means, axis=0) ** 2, axis=0) / 2
    )  # of successive differences: a change hardly counts
    z = means / np.where(scale > 0, scale, 1.0)
    statistic = np.abs(_cusum(z))
    largest = float(statistic.max())
    n_beyond = n_done = 0
    most_beyond = LEVEL * (PERMUTATIONS + 1) - 1
    while n_done < PERMUTATIONS:
        n = min(PERMUTATIONS_AT_ONCE, PERMUTATIONS - n_done)
        permuted = rng.permuted(np.broadcast_to(np.arange(len(z)), (n, len(z))), axis=1)
        n_beyond += int((np.abs(_cusum(z[permuted])).max(axis=(1, 2)) >= largest).sum())
        n_done += n
        if n_beyond > most_beyond:
            return None
    place, coordinate = np.unravel_index(int(statistic.argmax()), statistic.shape)
    block = int(place) + MIN_SEGMENT_BLOCKS
    low, high = _interval(z, block, rng)
    return block, low, high, (n_beyond + 1) / (n_done + 1), int(coordinate)


def _cusum(z: FloatArray) -> FloatArray:
    """Return for each split the standardised difference of means, shape (..., splits, coordinates); z: (..., blocks, coordinates)."""
    n = z.shape[-2]
    before = np.cumsum(z, axis=-2)[..., MIN_SEGMENT_BLOCKS - 1 : n - MIN_SEGMENT_BLOCKS, :]
    k = np.arange(MIN_SEGMENT_BLOCKS, n - MIN_SEGMENT_BLOCKS + 1)[:, None]
    total = z.sum(axis=-2, keepdims=True)
    found: FloatArray = (before / k - (total - before) / (n - k)) * np.sqrt(k * (n - k) / n)
    return found


def _interval(z: FloatArray, block: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return the blocks between which the change lies: those whose fit is hardly worse than the best one's.

    How much worse the true one may be is known by a bootstrap of the blocks on either side (Hušková and Kirch, 2008, Journal of Time
    Series Analysis 29), along the direction of the change.
    """
    before, after = z[:block], z[block:]
    direction = after.mean(axis=0) - before.mean(axis=0)
    y = z @ (direction / np.linalg.norm(direction))
    parts = (y[:block], y[block:])
    limits = []
    for _ in range(BOOTSTRAPS):
        drawn = np.concatenate([rng.choice(part, len(part)) for part in parts])
        gain = _gain(drawn)
        limits.append(float(gain.max() - gain[block - 1]))
    gain = _gain(y)
    close = np.flatnonzero(gain >= gain.max() - np.quantile(limits, 0.95)) + 1
    return int(close[0]), int(close[-1])


def _gain(y: npt.NDArray[np.float64]) -> FloatArray:
    """Return by how much each split reduces the sum of squares, shape (n - 1,)."""
    n, k = len(y), np.arange(1, len(y))
    before, total = np.cumsum(y)[:-1], y.sum()
    found: FloatArray = (before / k - (total - before) / (n - k)) ** 2 * k * (n - k) / n
    return found
