"""Deployments of 90 days without drift: how often is some reported?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2

from benchmarks.drift.population import (
    BEGAN,
    DAYS,
    DOMAIN_EVERY_TICKS,
    LEARNING_DAYS,
    LIMITS,
    MAX_LOOKBACK_TICKS,
    MIX_TILT,
    N_BINS,
    N_TICKS,
    NAMES,
    NIGHT_SHARE,
    RUN_ROWS,
    SAMPLE_ROWS,
    TICK,
    TICKS_PER_DAY,
    IntArray,
    World,
)
from benchmarks.measured import exactly, within
from selfheal.credit_risk import contract
from selfheal.domain.contract import FloatArray
from selfheal.domain.monitoring.drift import (
    LOOKBACK,
    NEWEST,
    RECENT_ROWS,
    DomainTest,
    compare_columns,
)
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.seasons import Calm, Move, Position, explain
from selfheal.domain.monitoring.shift import ks_distance, ks_p_value
from selfheal.domain.monitoring.thresholds import Thresholds, derive_thresholds
from selfheal.domain.records import SeasonMemory, Verdict


@dataclass
class FalseAlarms:
    """Alarms in simulated time, with two-sided 95 % bounds of a Poisson rate."""

    deployments: int = 0
    alarms: int = 0

    @property
    def per_90_days(self) -> float:
        """Return the mean number of alarms per deployment of 90 days."""
        return self.alarms / self.deployments

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the 95 % bounds of `per_90_days`."""
        low = float(chi2.ppf(0.025, 2 * self.alarms)) / 2 if self.alarms else 0.0
        return low / self.deployments, float(chi2.ppf(0.975, 2 * (self.alarms + 1))) / 2 / self.deployments


def simulate_deployment(
    world: World, rate_per_hour: int, rng: np.random.Generator
) -> tuple[dict[str, int], tuple[int, int]]:
    """Simulate 90 days; return alarms by method, and (alarms, checks) of the feed check, which runs every 6 hours."""
    reference = world.reference(rng)
    hours = np.arange(N_TICKS) * 24.0 / TICKS_PER_DAY
    daily = (1 + NIGHT_SHARE) / 2 + (1 - NIGHT_SHARE) / 2 * np.sin(2 * np.pi * (hours - 9) / 24)
    n_rows = rng.poisson(rate_per_hour * 24 / TICKS_PER_DAY * daily / daily.mean())
    ends = np.cumsum(n_rows)
    tick_of_run = np.searchsorted(ends, np.arange(0, ends[-1], RUN_ROWS), side="right")
    traffic = world.draw(int(ends[-1]), rng, MIX_TILT * np.sin(2 * np.pi * hours[tick_of_run] / 24))
    exactly("rows of traffic", len(traffic), int(ends[-1]))
    expected = rate_per_hour * 24 * DAYS
    within("rows of 90 days", len(traffic), expected - 6 * expected**0.5, expected + 6 * expected**0.5)
    stream = Stream(traffic, ends, rng)
    largest = max(len(stream.day(tick)) for tick in range(TICKS_PER_DAY, N_TICKS, TICKS_PER_DAY))
    within("rows of a day that are compared", largest, min(LIMITS.min_rows, rate_per_hour * 24 // 2), 1.2 * SAMPLE_ROWS)
    thresholds = derive_thresholds(reference, NAMES, LIMITS.n_ticks)
    alarms = our_alarms(world, reference, stream, thresholds)
    alarms[: LEARNING_DAYS * TICKS_PER_DAY] = False
    days = range(TICKS_PER_DAY, N_TICKS, TICKS_PER_DAY)
    default, ks_05 = zip(*(other_alarms(world.rows.iloc[stream.day(tick)], reference) for tick in days), strict=True)
    looks = range(TICKS_PER_DAY, N_TICKS, TICKS_PER_DAY // 4)
    n_feed = sum(bool(feed_problems(world.rows.iloc[stream.recent(tick)], reference, contract)) for tick in looks)
    found = {"ours": episodes(alarms), "evidently_default": episodes(default), "ks_05": episodes(ks_05)}
    return found, (n_feed, len(looks))


def our_alarms(world: World, reference: pd.DataFrame, stream: Stream, thresholds: Thresholds) -> npt.NDArray[np.bool_]:
    """Return at which ticks drift is reported, with what the version's own traffic has shown before.

    The domain classifier, which costs more than all columns, is asked every `DOMAIN_EVERY_TICKS`; its answer holds until the next.
    """
    columns = {name: world.rows[name].to_numpy(dtype=np.float64) for name in NAMES}
    known = {name: reference[name].to_numpy(dtype=np.float64) for name in NAMES}
    near: dict[int, dict[str, None]] = {}
    for name in NAMES:
        for tick in stream.near_alarm(columns[name], known[name], thresholds, name):
            near.setdefault(tick, {})[name] = None
    alarms = np.zeros(N_TICKS, dtype=np.bool_)
    calm = Calm(SeasonMemory(BEGAN))
    places = {name: stream.places(columns[name], known[name]) for name in NAMES}
    prepared, together = PreparedRows(reference), None
    for tick in range(N_TICKS):
        if tick % DOMAIN_EVERY_TICKS == 0:
            together = moved_together(world.rows.iloc[stream.day(tick)], prepared, thresholds.level)
        names = list(near.get(tick, ()))
        day, recent = (world.rows[names].iloc[which] for which in (stream.day(tick), stream.recent(tick)))
        compared = compare_columns(names, day, prepared, recent, thresholds, LIMITS) if names else ()
        moves = [move for one in compared for move in one.moves()] + ([] if together is None else [together])
        positions = [
            Position(name, window, float(shift[tick]), 1 / (3 * n_rows[tick]))
            for name, of_windows in places.items()
            for window, shift, n_rows in of_windows
            if n_rows[tick] >= LIMITS.min_rows
        ]
        found = explain(moves, calm, BEGAN + tick * TICK, positions)
        alarms[tick] = len(found.sentences) < len(moves)
        calm = Calm(found.memory or calm.memory, Verdict.BENIGN_SHIFT if alarms[tick] else Verdict.STABLE)
    return alarms


def moved_together(current: pd.DataFrame, reference: PreparedRows, level: float) -> Move | None:
    """Return the move of all columns together, if the domain classifier tells the rows from the reference as in a tick."""
    test = DomainTest(PreparedRows(current), reference, level, seed=1)
    if test.n_rows < LIMITS.min_rows:
        return None
    found = test.of(contract.feature_names)
    return test.move(found) if test.is_apart(found) else None


class Stream:
    """Traffic by tick: the sample of the last day's rows, or of as many days as give enough rows, and the newest rows."""

    def __init__(self, traffic: IntArray, ends: IntArray, rng: np.random.Generator) -> None:
        self._traffic = traffic
        self._ends = ends
        per_day = len(traffic) / DAYS
        is_sampled = rng.random(len(traffic)) < min(1.0, 0.9 * SAMPLE_ROWS / per_day)
        self._sampled = np.flatnonzero(is_sampled)
        self._sampled_ends = np.searchsorted(self._sampled, ends)
        ticks = np.arange(N_TICKS)
        filled = np.searchsorted(self._sampled_ends, self._sampled_ends - LIMITS.min_rows, side="right") - 1
        self._before = np.maximum(np.minimum(ticks - TICKS_PER_DAY, filled), ticks - MAX_LOOKBACK_TICKS)
        """The tick after which each tick's window begins; below 0: with the traffic."""

    def day(self, tick: int) -> IntArray:
        """Return the positions of the rows that represent the day before a tick."""
        first = self._sampled_ends[self._before[tick]] if self._before[tick] >= 0 else 0
        return self._traffic[self._sampled[first : self._sampled_ends[tick]]]

    def recent(self, tick: int) -> IntArray:
        """Return the positions of the newest rows of a tick's window."""
        first = self._ends[self._before[tick]] if self._before[tick] >= 0 else 0
        return self._traffic[max(first, self._ends[tick] - RECENT_ROWS) : self._ends[tick]]

    def counts(self, window: str, bins: IntArray, n_bins: int) -> FloatArray:
        """Return how many rows of each tick's window are in each bin, shape (ticks, bins).

        Args:
            bins: of each row of the population, below `n_bins`.
        """
        of_windows = self._of_days if window == LOOKBACK else self._of_recent
        return of_windows(bins, np.zeros(len(bins)), n_bins - 2)[0]

    def places(self, column: FloatArray, reference: FloatArray) -> list[tuple[str, FloatArray, IntArray]]:
        """Return each window's rank shift and number of known values, by tick."""
        known = np.sort(reference[~np.isnan(reference)])
        below, upto = np.searchsorted(known, column, "left"), np.searchsorted(known, column, "right")
        is_known = ~np.isnan(column)
        middle = np.where(is_known, (below + upto) / len(known) - 1, 0.0)
        found = []
        for window, rows, ends in (
            (LOOKBACK, self._traffic[self._sampled], self._sampled_ends),
            (NEWEST, self._traffic, self._ends),
        ):
            first = np.where(self._before >= 0, ends[self._before], 0)
            if window == NEWEST:
                first = np.maximum(first, ends - RECENT_ROWS)
            sums = np.concatenate([[0.0], np.cumsum(middle[rows])])
            counts = np.concatenate([[0], np.cumsum(is_known[rows])])
            n_rows = counts[ends] - counts[first]
            found.append((window, (sums[ends] - sums[first]) / np.maximum(n_rows, 1), n_rows))
        return found

    def near_alarm(self, column: FloatArray, reference: FloatArray, thresholds: Thresholds, name: str) -> Iterator[int]:
        """Yield the ticks at which a test of the column may be significant: all that are, and a few others."""
        known = np.sort(reference[~np.isnan(reference)])
        below, upto = np.searchsorted(known, column, "left"), np.searchsorted(known, column, "right")
        is_missing = np.isnan(column)
        middle = np.where(is_missing, 0.0, (below + upto) / len(known) - 1)  # twice the mid-rank, -1 to 1
        edges = np.unique(known[np.linspace(0, len(known) - 1, N_BINS).astype(np.int64)])
        bins = np.where(is_missing, len(edges) + 1, np.searchsorted(edges, column, "left"))
        in_reference = np.bincount(np.searchsorted(edges, known, "left"), minlength=len(edges) + 2) / len(known)
        expected = np.cumsum(in_reference[: len(edges) + 1])
        missing_share = float(np.isnan(reference).mean())
        threshold = thresholds.of_values[name] / 2
        slack = float(np.diff(expected).max()) if len(edges) >= N_BINS - 2 else 0.0
        for counts, ranks in (self._of_days(bins, middle, len(edges)), self._of_recent(bins, middle, len(edges))):
            n = counts[:, :-1].sum(axis=1)
            distances = np.abs(np.cumsum(counts[:, :-1], axis=1) / np.maximum(n, 1)[:, None] - expected).max(axis=1)
            rows = np.sqrt(n * len(known) / np.maximum(n + len(known), 1))
            shares = counts[:, -1] / np.maximum(counts.sum(axis=1), 1)
            missing_z = np.abs(shares - missing_share) * rows / np.sqrt(max(missing_share * (1 - missing_share), 1e-4))
            may_be = (np.minimum(distances + min(slack, 0.02), 1) * rows > np.sqrt(-np.log(threshold / 2) / 2)) | (
                np.abs(ranks / np.maximum(n, 1)) * np.sqrt(3) * rows > 3.5
            )
            may_be |= (missing_z > 3.5) & (np.abs(shares - missing_share) > 0.04)
            yield from np.flatnonzero(may_be & (counts.sum(axis=1) >= LIMITS.min_rows)).tolist()

    def _of_days(self, bins: IntArray, middle: FloatArray, n_edges: int) -> tuple[FloatArray, FloatArray]:
        rows = self._traffic[self._sampled]
        ticks = np.searchsorted(self._sampled_ends, np.arange(len(rows)), side="right")
        flat = np.bincount(ticks * (n_edges + 2) + bins[rows], minlength=N_TICKS * (n_edges + 2))
        counts = np.cumsum(flat.reshape(N_TICKS, n_edges + 2), axis=0, dtype=np.float64)
        ranks = np.cumsum(np.bincount(ticks, middle[rows], N_TICKS))
        is_cut = self._before >= 0
        return (
            counts - np.where(is_cut[:, None], counts[self._before], 0.0),
            ranks - np.where(is_cut, ranks[self._before], 0.0),
        )

    def _of_recent(self, bins: IntArray, middle: FloatArray, n_edges: int) -> tuple[FloatArray, FloatArray]:
        counts = np.zeros((N_TICKS, n_edges + 2))
        sums = np.concatenate([[0.0], np.cumsum(middle[self._traffic])])
        ranks = sums[self._ends] - sums[np.maximum(0, self._ends - RECENT_ROWS)]
        full = np.flatnonzero(self._ends >= RECENT_ROWS)
        for part in np.array_split(full, 20):  # in parts, because 13 million rows at once are too many
            rows = self._traffic[self._ends[part][:, None] - RECENT_ROWS + np.arange(RECENT_ROWS)]
            flat = np.arange(len(part))[:, None] * (n_edges + 2) + bins[rows]
            counts[part] = np.bincount(flat.ravel(), minlength=len(part) * (n_edges + 2)).reshape(len(part), -1)
        return counts, ranks


def other_alarms(current: pd.DataFrame, reference: pd.DataFrame) -> tuple[bool, bool]:
    """Return whether Evidently's defaults, and whether KS at 5 %, report drift in any column."""
    is_default = any(evidently_default(current[name], reference[name]) for name in NAMES)
    values = ((current[name].to_numpy(), reference[name].to_numpy()) for name in NAMES)
    return is_default, any(ks_05(*pair) for pair in values)


def evidently_default(current: pd.Series, reference: pd.Series, *, is_category: bool = False) -> bool:
    """Return whether Evidently reports drift of this column by its default method and threshold."""
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    now, then = current.dropna(), reference.dropna()
    if now.empty or then.empty:
        return False
    kind = ColumnType.Categorical if is_category else ColumnType.Numerical
    return bool(get_stattest(then, now, kind, None)(then, now, kind, None).drifted)


def ks_05(current: FloatArray, reference: FloatArray) -> bool:
    """Return whether the KS test rejects at 5 %."""
    n_current, n_reference = int((~np.isnan(current)).sum()), int((~np.isnan(reference)).sum())
    return n_current > 0 and ks_p_value(ks_distance(current, reference), n_current, n_reference) < 0.05


def episodes(alarms: Any) -> int:
    """Return the number of runs of consecutive alarms."""
    flags = np.concatenate([[False], np.asarray(alarms, dtype=bool)])
    return int((flags[1:] & ~flags[:-1]).sum())
