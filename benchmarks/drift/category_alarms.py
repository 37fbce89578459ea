"""Deployments of 90 days with categories and flags, without drift: how often is some reported?

The mix is constant, so that seasons have nothing to explain and every alarm from the second day on counts; what comes and goes with
the hour is part of `benchmarks.drift.false_alarms`. Each tick's tests are computed from counts; the platform's own comparison
decides where one comes near its threshold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import chdtrc, rel_entr

from benchmarks.drift.category_table import CUTS, FLAGS, NAMES, CategoryWorld, contract
from benchmarks.drift.false_alarms import Stream, episodes, evidently_default
from benchmarks.drift.population import DAYS, LIMITS, N_TICKS, NIGHT_SHARE, TICKS_PER_DAY, IntArray
from benchmarks.measured import within
from selfheal.domain.contract import FloatArray
from selfheal.domain.monitoring.category_shift import MIN_EXPECTED
from selfheal.domain.monitoring.drift import LOOKBACK, NEWEST, PROBABILITY, DomainTest, compare_columns
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.thresholds import Thresholds, derive_thresholds

NEAR_DEVIANCE = 16.0
"""Deviance of a level from which the platform decides: a p-value of about 6e-5, and no threshold here is above 1e-5."""

NEAR_P = 1e-3
"""P-value of all levels from which it does."""

LEVELS_AT_ONCE = 50
"""Of all ticks: 10 MB a table of counts."""


def simulate_deployment(
    world: CategoryWorld, rate_per_hour: int, rng: np.random.Generator
) -> tuple[dict[str, int], tuple[int, int]]:
    """Simulate 90 days; return alarms by method, and (alarms, checks) of the feed check, which runs every day."""
    reference = world.reference(rng)
    hours = np.arange(N_TICKS) * 24.0 / TICKS_PER_DAY
    daily = (1 + NIGHT_SHARE) / 2 + (1 - NIGHT_SHARE) / 2 * np.sin(2 * np.pi * (hours - 9) / 24)
    ends = np.cumsum(rng.poisson(rate_per_hour * 24 / TICKS_PER_DAY * daily / daily.mean()))
    expected = rate_per_hour * 24 * DAYS
    within("rows of 90 days", int(ends[-1]), expected - 6 * expected**0.5, expected + 6 * expected**0.5)
    stream = Stream(world.draw(int(ends[-1]), rng), ends, rng)
    days = range(TICKS_PER_DAY, N_TICKS, TICKS_PER_DAY)
    windows = {tick: world.rows.iloc[stream.day(tick)] for tick in days}
    others = [
        any(evidently_default(rows[name], reference[name], is_category=name != PROBABILITY) for name in NAMES)
        for rows in windows.values()
    ]
    n_feed = sum(bool(feed_problems(world.rows.iloc[stream.recent(tick)], reference, contract)) for tick in days)
    found = {"ours": episodes(alarms(world, reference, stream)), "evidently_default": episodes(others)}
    return found, (n_feed, len(days))


def alarms(world: CategoryWorld, reference: pd.DataFrame, stream: Stream) -> npt.NDArray[np.bool_]:
    """Return at which ticks drift is reported; the domain classifier is asked once per day, and its answer holds until the next."""
    prepared = PreparedRows(reference)
    thresholds = derive_thresholds(prepared, NAMES, LIMITS.n_ticks)
    found = np.zeros(N_TICKS, dtype=np.bool_)
    for tick, names in near_alarm(world.rows, reference, stream, thresholds).items():
        day, recent = (PreparedRows(world.rows[names].iloc[which]) for which in (stream.day(tick), stream.recent(tick)))
        compared = compare_columns(names, day, prepared, recent, thresholds, LIMITS)
        found[tick] = any(True for one in compared for _ in one.moves())
    for tick in range(TICKS_PER_DAY, N_TICKS, TICKS_PER_DAY):
        test = DomainTest(PreparedRows(world.rows.iloc[stream.day(tick)]), prepared, thresholds.level, seed=1)
        if test.n_rows >= LIMITS.min_rows and test.is_apart(test.of(contract.feature_names)):
            found[tick : tick + TICKS_PER_DAY] = True
    found[:TICKS_PER_DAY] = False
    return found


def near_alarm(
    rows: pd.DataFrame, reference: pd.DataFrame, stream: Stream, thresholds: Thresholds
) -> dict[int, list[str]]:
    """Return the ticks, from the second day on, at which a test may be significant, with the columns that have it."""
    near: dict[int, list[str]] = {}
    for name in CUTS:
        for tick in sorted(set(_near_of_levels(rows[name], reference[name], stream))):
            near.setdefault(tick, []).append(name)
    for name in (*FLAGS, PROBABILITY):
        values, known = (side[name].to_numpy(dtype=np.float64) for side in (rows, reference))
        for tick in sorted(set(stream.near_alarm(values, known, thresholds, name))):
            near.setdefault(tick, []).append(name)
    return {tick: names for tick, names in near.items() if tick >= TICKS_PER_DAY}


def _near_of_levels(column: pd.Series, reference: pd.Series, stream: Stream) -> Iterator[int]:
    """Yield the ticks at which a test of a category may be significant, by its levels or its missing rate."""
    then = reference.value_counts()
    levels = [*then.index, *sorted(set(column.dropna().unique()) - set(then.index))]  # the commonest first
    known = then.reindex(levels, fill_value=0).to_numpy(dtype=np.float64)
    places = pd.Categorical(column, categories=levels).codes.astype(np.int64)
    is_missing = (places < 0).astype(np.int64)
    missing_share = float(reference.isna().mean())
    for window in (LOOKBACK, NEWEST):
        n, n_missing = stream.counts(window, is_missing, 2).T
        n_rows = np.maximum(n + n_missing, 1)
        is_near = _by_level(stream, window, places, known, n)
        is_near |= _of_all(stream, window, places, known, n)
        error = np.sqrt(max(missing_share * (1 - missing_share), 1e-4) * (1 / n_rows + 1 / len(reference)))
        is_near |= np.abs(n_missing / n_rows - missing_share) > 3.5 * error
        yield from np.flatnonzero(is_near & (n + n_missing >= LIMITS.min_rows)).tolist()


def _by_level(stream: Stream, window: str, places: IntArray, known: FloatArray, n: FloatArray) -> npt.NDArray[np.bool_]:
    """Return at which ticks a level's deviance against all others is large."""
    is_near = np.zeros(N_TICKS, dtype=np.bool_)
    for first in range(0, len(known), LEVELS_AT_ONCE):
        some = known[first : first + LEVELS_AT_ONCE]
        bins = np.where((places >= first) & (places < first + len(some)), places - first, len(some))
        counts = stream.counts(window, bins, len(some) + 1)[:, :-1]
        deviance = _terms(counts, n, some, known.sum()) + _terms(
            n[:, None] - counts, n, known.sum() - some, known.sum()
        )
        is_near |= (deviance > NEAR_DEVIANCE).any(axis=1)
    return is_near


def _of_all(stream: Stream, window: str, places: IntArray, known: FloatArray, n: FloatArray) -> npt.NDArray[np.bool_]:
    """Return at which ticks the deviance of all levels together is large, rare ones merged as for the usual number of rows."""
    expected = known * min(float(np.median(n[n > 0])), known.sum()) / known.sum()
    group = np.floor(np.cumsum(np.minimum(expected, MIN_EXPECTED)) / MIN_EXPECTED - 1e-9).astype(np.int64)
    group = np.unique(group, return_inverse=True)[1]
    n_groups, of_group = int(group.max()) + 1, np.bincount(group, known)
    deviance = np.zeros(N_TICKS)
    for first in range(0, n_groups, LEVELS_AT_ONCE):
        some = of_group[first : first + LEVELS_AT_ONCE]
        place = np.where(places < 0, -1, group[places])
        bins = np.where((place >= first) & (place < first + len(some)), place - first, len(some))
        deviance += _terms(stream.counts(window, bins, len(some) + 1)[:, :-1], n, some, known.sum()).sum(axis=1)
    return np.asarray(chdtrc(max(1, n_groups - 1), deviance) < NEAR_P)


def _terms(now: FloatArray, n_now: FloatArray, then: FloatArray, n_then: float) -> FloatArray:
    """Return each cell's part of the deviance, shape (ticks, levels)."""
    n = np.maximum(n_now, 1)[:, None]
    share = (now + then) / (n + n_then)
    return np.asarray(2 * (rel_entr(now, n * share) + rel_entr(then, n_then * share)))
