"""When the relation between score and outcome changed: change points in a version's labelled rows, with intervals.

A row's residual is its label minus its probability. While the relation stays as it is, the mean residual is constant, also within
any group of rows, whatever the mix of inputs does; so is the mean of the residual times the log-odds (the slope of the calibration) and
times each input. Rows in order of time are taken together in blocks, and the split of the blocks is sought at which these means differ most
together, by Hotelling's T^2 of the standardised CUSUMs (Srivastava and Worsley, 1986, JASA 81), or one of them alone does: a change of a
part of the rows shows in many of them a little, one of the meaning of an input in one. Splits near either end have the largest values
by chance, so that they and those in the middle have a p-value of T^2 each (of all three: minP; Westfall and Young, 1993). What a
steady relation gives is known by permuting the blocks, which is exact for independent rows of any distribution: penalties made for
normal values cut steady 0/1 series. Later changes are sought after the last one found (binary segmentation; Vostrikova, 1981).

Belongs here: finding changes. Does not belong here: what is learned from which rows (`selfheal.domain.retraining`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.levels import is_text, numbers
from selfheal.domain.monitoring.shift import standardised, standardised_ranks
from selfheal.domain.monitoring.window import TICK
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

EDGE_SHARE = 0.1
"""Of the blocks: splits that leave fewer on a side are at the edges."""

RIDGE = 0.1
"""Share of the identity in the covariance of the coordinates, which few blocks do not determine."""

LEVEL = 0.002
"""Of one search: a steady relation is said to have changed so often."""

N_STATISTICS = 3
PERMUTATIONS, PERMUTATIONS_AT_ONCE = 1_998, 111
"""So many that the smallest p-value, corrected for the statistics, is below `LEVEL`."""

BOOTSTRAPS = 222
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
    low, high = (times.iloc[max(0, row - 1)].to_pydatetime() for row in (change.low, change.high))
    # what lies between the last row of before and the first one since belongs to neither; rows of one moment are on one side
    at = times.iloc[change.row].to_pydatetime() - TICK
    return Onset(at, min(low, at), max(at, high), change.p_value, change.shown_by, change.row, len(rows) - change.row)


def find_changes(rows: pd.DataFrame, inputs: Sequence[str], seed: int) -> tuple[Change, ...]:
    """Return the changes of the relation in labelled rows of one version, oldest first.

    Args:
        rows: inputs, `probability` and `true_label`, oldest first.
        inputs: names of inputs.
        seed: of permutations and bootstrap.
    """
    for n_rows, shorter in zip(WINDOWS_ROWS, (0, *WINDOWS_ROWS), strict=False):
        if len(rows) > shorter and (found := _found_in(rows, max(0, len(rows) - n_rows), inputs, seed)):
            return found
    return ()


@dataclass(frozen=True, slots=True)
class Blocks:
    """Means of coordinates in blocks of neighbouring rows, shape (blocks, coordinates); the first block begins at row `start`."""

    names: list[str]
    means: FloatArray
    start: int
    size: int


def blocks_of(rows: pd.DataFrame, inputs: Sequence[str]) -> Blocks | None:
    """Return the rows in blocks, of which the newest is whole; None if there are too few for a change to be sought."""
    size = max(MIN_BLOCK_ROWS, -(-len(rows) // MAX_BLOCKS))
    n_blocks = len(rows) // size
    if n_blocks < 2 * MIN_SEGMENT_BLOCKS:
        return None
    start = len(rows) - n_blocks * size
    names, values = _coordinates(rows, inputs)
    return Blocks(names, values[start:].reshape(n_blocks, size, -1).mean(axis=1), start, size)


def _found_in(rows: pd.DataFrame, first: int, inputs: Sequence[str], seed: int) -> tuple[Change, ...]:
    """Return the changes in the rows from `first` on."""
    blocks = blocks_of(rows.iloc[first:], inputs)
    if blocks is None:
        return ()
    found = _changes(blocks.means, np.random.default_rng(seed))

    def row(block: int) -> int:
        return first + blocks.start + block * blocks.size

    return tuple(
        Change(row(block), row(low), row(high), p, blocks.names[coordinate])
        for block, low, high, p, coordinate in found
    )


def _coordinates(rows: pd.DataFrame, inputs: Sequence[str]) -> tuple[list[str], FloatArray]:
    """Return the names and, shape (rows, coordinates), the values whose means are constant in a steady relation."""
    p = np.clip(rows["probability"].to_numpy(dtype=np.float64), EPSILON, 1 - EPSILON)
    residual = rows[TRUE_LABEL].to_numpy(dtype=np.float64) - p
    log_odds = standardised(np.log(p / (1 - p)))
    by_rank = {name: standardised_ranks(_ordered(rows[name], log_odds)) for name in inputs}
    related = sorted(by_rank, key=lambda name: -abs(float(np.mean(by_rank[name] * log_odds))))[:MAX_INPUTS]
    factors = [np.ones(len(p)), log_odds, *(by_rank[name] for name in related)]
    return ["outcome", "score", *related], residual[:, None] * np.column_stack(factors)


def _ordered(column: pd.Series, log_odds: FloatArray) -> FloatArray:
    """Return a column as numbers; levels, which have no order, in that of their mean scores."""
    values = numbers(column)
    if not is_text(column.dtype):
        return values
    which = np.unique(values, return_inverse=True)[1]
    means = np.bincount(which, log_odds) / np.bincount(which)
    return np.where(np.isnan(values), np.nan, means[which])


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
    z = _standardised(means)
    whitening = _whitening(z)
    y, unwhitening = z @ whitening, np.asarray(np.linalg.inv(whitening))
    squared, apart = _squared_cusum(y), np.abs(cusum(z))
    observed, permuted = _largest(y, unwhitening), np.zeros((0, N_STATISTICS))
    while len(permuted) < PERMUTATIONS:
        n = min(PERMUTATIONS_AT_ONCE, PERMUTATIONS - len(permuted))
        order = rng.permuted(np.broadcast_to(np.arange(len(y)), (n, len(y))), axis=1)
        permuted = np.concatenate([permuted, _largest(y[order], unwhitening)])
        if ((permuted >= observed).sum(axis=0) + 1 > LEVEL * (PERMUTATIONS + 1)).all():
            return None
    p_values = _p_values(observed, permuted)
    if p_values.min() > LEVEL:
        return None
    split = _split(squared, apart.max(axis=-1), p_values)
    low, high = _interval(y, squared, split, rng)
    return split + MIN_SEGMENT_BLOCKS, low, high, float(p_values.min()), int(apart[split].argmax())


def _split(squared: FloatArray, alone: FloatArray, p_values: FloatArray) -> int:
    """Return the split of a change: of all means together where they show it, else of the one that does."""
    is_middle = _is_middle(len(squared))
    shown = np.where(is_middle, p_values[0], p_values[1]) <= LEVEL
    return int(np.where(shown, squared, -1.0).argmax()) if shown.any() else int(alone.argmax())


def _standardised(means: FloatArray) -> FloatArray:
    spread = means.std(axis=0)
    return np.asarray((means - means.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _whitening(z: FloatArray) -> FloatArray:
    """Return the matrix after which all directions of the blocks vary alike, but for `RIDGE`.

    The covariance is that of all blocks, a change included: it is then the same for every permutation, so that their test is exact.
    At one split the statistic grows with the one that the covariance within both sides gives.
    """
    covariance = (1 - RIDGE) * (z.T @ z) / len(z) + RIDGE * np.eye(z.shape[1])
    return np.asarray(np.linalg.cholesky(np.linalg.inv(covariance)))


def _squared_cusum(y: FloatArray) -> FloatArray:
    """Return for each split Hotelling's T^2, shape (..., splits); y: whitened, shape (..., blocks, coordinates)."""
    return np.asarray((cusum(y) ** 2).sum(axis=-1))


def _is_middle(n_splits: int) -> npt.NDArray[np.bool_]:
    """Return of each split whether it leaves at least `EDGE_SHARE` of the blocks on either side."""
    n_blocks = n_splits + 2 * MIN_SEGMENT_BLOCKS - 1
    k = np.arange(MIN_SEGMENT_BLOCKS, n_blocks - MIN_SEGMENT_BLOCKS + 1)
    return (k >= EDGE_SHARE * n_blocks) & (k <= (1 - EDGE_SHARE) * n_blocks)


def _largest(y: FloatArray, unwhitening: FloatArray) -> FloatArray:
    """Return the largest T^2 among the splits in the middle and among those at the edges, and the largest CUSUM of one mean, shape (..., 3).

    Args:
        y: whitened blocks, shape (..., blocks, coordinates).
        unwhitening: the matrix back to standardised ones.
    """
    sums = cusum(y)
    squared, is_middle = (sums**2).sum(axis=-1), _is_middle(sums.shape[-2])
    parts = [np.where(which, squared, 0.0).max(axis=-1) for which in (is_middle, ~is_middle)]
    return np.stack([*parts, np.abs(sums @ unwhitening).max(axis=(-2, -1))], axis=-1)


def _p_values(observed: FloatArray, permuted: FloatArray) -> FloatArray:
    """Return each statistic's p-value, corrected for there being several (minP: Westfall and Young, 1993); shape (statistics,).

    Args:
        observed: the statistics, shape (statistics,).
        permuted: those of permutations, shape (n, statistics).
    """
    every = np.concatenate([observed[None], permuted])
    alone = np.stack([_shares_as_large(values) for values in every.T], axis=-1)
    smallest = alone.min(axis=-1)
    return np.array([float((smallest <= p).mean()) for p in alone[0]])


def _shares_as_large(values: FloatArray) -> FloatArray:
    """Return for each value the share of all values that are at least as large."""
    return np.asarray((len(values) - np.searchsorted(np.sort(values), values, side="left")) / len(values))


def cusum(z: FloatArray) -> FloatArray:
    """Return for each split the standardised difference of means, shape (..., splits, coordinates); z: (..., blocks, coordinates)."""
    n = z.shape[-2]
    before = np.cumsum(z, axis=-2)[..., MIN_SEGMENT_BLOCKS - 1 : n - MIN_SEGMENT_BLOCKS, :]
    k = np.arange(MIN_SEGMENT_BLOCKS, n - MIN_SEGMENT_BLOCKS + 1)[:, None]
    total = z.sum(axis=-2, keepdims=True)
    found: FloatArray = (before / k - (total - before) / (n - k)) * np.sqrt(k * (n - k) / n)
    return found


def _interval(y: FloatArray, squared: FloatArray, split: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return the blocks between which the change lies: those splits whose statistic is hardly below the largest.

    By how much that of the true one may be below is known by a bootstrap of the blocks on either side (Hušková and Kirch, 2008,
    Journal of Time Series Analysis 29).

    Args:
        y: whitened blocks.
        squared: the statistic of each split.
        split: of the change.
    """
    block, below = split + MIN_SEGMENT_BLOCKS, []
    for n in [PERMUTATIONS_AT_ONCE] * (BOOTSTRAPS // PERMUTATIONS_AT_ONCE):
        drawn = np.concatenate(
            [rng.integers(0, block, (n, block)), rng.integers(block, len(y), (n, len(y) - block))], axis=1
        )
        again = _squared_cusum(y[drawn])
        below.append(again.max(axis=-1) - again[:, split])
    close = np.flatnonzero(squared >= squared[split] - np.quantile(np.concatenate(below), 0.95)) + MIN_SEGMENT_BLOCKS
    return int(close[0]), int(close[-1])
