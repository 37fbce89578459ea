"""The reference is weighted to the window's mix, and what it does not cover is told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.contract import FloatArray
from selfheal.domain.monitoring.mixture import MAX_DENSITY_RATIO, Mixture, Overlap, _Input
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.shift import Sample

INPUTS = ["heat", "load"]


def rows_of(n_rows: int, seed: int, heat: float = 0.0) -> pd.DataFrame:
    load, hot = np.random.default_rng(seed).normal(size=(2, n_rows))
    return pd.DataFrame({"heat": hot + heat, "load": load})


def overlap_of(current: pd.DataFrame, reference: pd.DataFrame) -> Overlap:
    mixture = Mixture.of(PreparedRows(reference), INPUTS)
    return mixture.overlap([current[name].to_numpy(dtype=np.float64) for name in INPUTS])


def test_the_same_mix_keeps_nearly_all_reference_rows() -> None:
    overlap = overlap_of(rows_of(5_000, seed=2), rows_of(5_000, seed=1))
    assert overlap.weights.mean() == pytest.approx(1.0)
    assert overlap.weights.std() < 0.2
    assert overlap.uncovered_pct < 1.0
    assert overlap.gap < 0.0


def test_the_weighted_reference_has_the_windows_mix() -> None:
    reference, current = rows_of(6_000, seed=1), rows_of(3_000, seed=2, heat=0.7)
    weights = overlap_of(current, reference).weights
    assert np.average(reference["heat"], weights=weights) == pytest.approx(current["heat"].mean(), abs=0.1)
    assert np.average(reference["load"], weights=weights) == pytest.approx(current["load"].mean(), abs=0.1)
    assert weights.max() / weights.min() <= MAX_DENSITY_RATIO / 1e-3


def test_missing_values_are_part_of_the_mix() -> None:
    reference = rows_of(4_000, seed=1)
    reference.loc[reference.index % 5 == 0, "heat"] = np.nan
    weights = overlap_of(rows_of(1_000, seed=2).assign(heat=np.nan), reference).weights
    is_missing = reference["heat"].isna().to_numpy()
    assert weights[is_missing].sum() > 0.9 * weights.sum()


def test_a_value_that_the_reference_never_misses_makes_rows_uncovered_where_it_is_missing() -> None:
    current = rows_of(500, seed=2)
    current.loc[current.index % 2 == 0, "heat"] = np.nan
    assert overlap_of(current, rows_of(2_000, seed=1)).uncovered_pct >= 50


def test_values_beyond_the_range_of_the_reference_are_uncovered_however_far_they_are() -> None:
    reference = rows_of(2_000, seed=1)
    lowest, highest = reference["heat"].min(), reference["heat"].max()
    beyond = pd.DataFrame({"heat": [lowest - 1e-9, highest + 1e-9, 1e9, lowest, highest, 0.0] * 50, "load": 0.0})
    assert overlap_of(beyond, reference).uncovered_pct == pytest.approx(50)


def test_a_column_without_any_value_in_the_reference_covers_what_it_can() -> None:
    reference, current = rows_of(2_000, seed=1).assign(heat=np.nan), rows_of(500, seed=2)
    overlap = overlap_of(current, reference)
    assert np.isfinite(overlap.weights).all()
    assert overlap_of(current.assign(heat=np.nan), reference).uncovered_pct < 1.0


def ks_by_definition(then: FloatArray, weights: FloatArray, now: FloatArray) -> float:
    """The largest difference of both distribution functions, at and just below every value."""
    known, present = ~np.isnan(then), now[~np.isnan(now)]
    share = weights[known] / weights[known].sum()
    points = np.unique(np.concatenate([then[known], present]))
    at = [abs(share[then[known] <= x].sum() - (present <= x).mean()) for x in points]
    below = [abs(share[then[known] < x].sum() - (present < x).mean()) for x in points]
    return float(max(at + below))


@pytest.mark.parametrize("n_values", [2, 7, 10**6])
def test_the_distance_is_that_of_kolmogorov_and_smirnov_with_weights(n_values: int) -> None:
    rng = np.random.default_rng(n_values)
    then, now = (rng.integers(0, n_values, n).astype(np.float64) for n in (80, 50))
    now[:20] += rng.integers(-1, 2, 20) * 0.5
    then[:5], now[-3:] = np.nan, np.nan
    weights, column = rng.gamma(1.0, size=80), _Input(then, Sample.of(then))
    assert column.distance(column.place(now), weights) == pytest.approx(ks_by_definition(then, weights, now))


def with_levels(shares: dict[str, float], n_rows: int, seed: int) -> pd.DataFrame:
    drawn = np.random.default_rng(seed).choice(np.array(list(shares), dtype=object), n_rows, p=list(shares.values()))
    return rows_of(n_rows, seed).assign(heat=drawn)


def test_the_weighted_reference_has_the_windows_levels_and_does_not_cover_unknown_ones() -> None:
    reference = with_levels({"a": 0.7, "b": 0.25, "c": 0.05}, 6_000, seed=1)
    mixture = Mixture.of(PreparedRows(reference), INPUTS)
    moved = mixture.overlap(mixture.columns(with_levels({"a": 0.3, "b": 0.6, "c": 0.1}, 2_000, seed=2), INPUTS))
    of_b = moved.weights[(reference["heat"] == "b").to_numpy()].sum() / moved.weights.sum()
    assert of_b == pytest.approx(0.6, abs=0.05)
    assert moved.uncovered_pct < 2.0
    unknown = mixture.overlap(mixture.columns(with_levels({"a": 0.7, "new": 0.3}, 2_000, seed=3), INPUTS))
    assert unknown.uncovered_pct == pytest.approx(30.0, abs=4.0)
