"""Histogram that show two samples beside each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.domain.monitoring.histogram import MAX_BINS, bars_of, distribution

numbers = st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")) | st.integers(0, 3).map(float), max_size=80).map(
    np.array
)


@given(current=numbers, reference=numbers)
def test_both_sides_are_in_the_same_bars_and_nothing_is_left_out(current: np.ndarray, reference: np.ndarray) -> None:
    bars = distribution(current, reference)
    if bars is None:
        assert not np.isfinite(current).any()
        assert not np.isfinite(reference).any()
        return
    assert len(bars.labels) == len(bars.current_pct) == len(bars.reference_pct) <= MAX_BINS + 1
    for side, values in ((bars.current_pct, current), (bars.reference_pct, reference)):
        expected = 100.0 if np.isfinite(values).any() else 0.0
        assert sum(side) == pytest.approx(expected, abs=0.01 * len(side))
    assert all(-1 <= place <= len(bars.labels) for place, _ in bars.ticks)


def test_the_bars_of_a_skewed_column_grow_by_ratios() -> None:
    rng = np.random.default_rng(3)
    skewed = np.exp(rng.normal(0, 3, 5_000))
    bars = distribution(skewed, skewed)
    assert bars is not None
    assert max(bars.reference_pct) < 15, "equal steps would put nearly all into one bar"


def test_few_values_have_a_bar_each_and_whole_numbers_no_half_ones() -> None:
    few = distribution(np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.5]))
    assert few is not None
    assert (few.labels, few.current_pct) == (("0", "0.5", "1"), (33.33, 0.0, 66.67))
    ages = distribution(np.arange(18.0, 97.0), np.arange(18.0, 97.0))
    assert ages is not None
    assert ages.labels[0] == "19 to 22"
    assert len(set(ages.reference_pct[1:-1])) == 1, "each bar holds as many whole numbers"


def test_a_category_has_a_bar_per_level_the_commonest_first_and_one_for_the_rest() -> None:
    now, then = pd.Series(["b"] * 3 + ["new"], dtype="object"), pd.Series(["a", "b", None, "b"], dtype="object")
    bars = bars_of(now, then, "category")
    assert bars is not None
    assert bars.labels == ("b", "a", "new")
    assert bars.current_pct == (75.0, 0.0, 25.0)
    assert bars.reference_pct == pytest.approx((66.67, 33.33, 0.0))
    many = pd.Series([f"level {i}" for i in range(40)], dtype="object")
    bars = bars_of(many, many, "category")
    assert bars is not None
    assert (len(bars.labels), bars.labels[-1], bars.current_pct[-1]) == (13, "28 other levels", 70.0)
    assert bars_of(pd.Series([None], dtype="object"), pd.Series([], dtype="object"), "category") is None


def test_the_bars_of_a_bool_are_named() -> None:
    bars = bars_of(pd.Series([1.0, 0.0, np.nan]), pd.Series([1.0]), "bool")
    assert bars is not None
    assert bars.labels == ("false", "true")
