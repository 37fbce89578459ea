"""Rules of the two tests of a column: their distances are the known ones, and their p-values hold far out in the tail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom, ks_2samp, mannwhitneyu

from selfheal.domain.monitoring.shift import (
    NO_SHIFT,
    Sample,
    Shift,
    column_shift,
    ks_distance,
    ks_p_value,
    share_p_value,
)

numbers = st.lists(
    st.floats(-1e6, 1e6).map(lambda value: round(value, 6)) | st.integers(0, 3).map(float), min_size=1, max_size=60
).map(np.array)


@pytest.mark.filterwarnings("ignore:divide by zero")  # scipy's p-value of a single row, which is not asked for
@given(numbers, numbers)
def test_the_distances_are_scipys(a: np.ndarray, b: np.ndarray) -> None:
    shift = column_shift(a, b)
    assert shift.ks_distance == ks_distance(a, b)
    assert shift.ks_distance == pytest.approx(ks_2samp(a, b, method="asymp").statistic, abs=1e-12)
    assert shift.rank_shift == pytest.approx(2 * mannwhitneyu(a, b).statistic / len(a) / len(b) - 1, abs=1e-12)
    assert 0.0 <= shift.p_value <= 1.0
    assert 0.0 <= shift.effect <= 1.0 + 1e-12


@given(numbers, numbers)
def test_missing_values_do_not_count(a: np.ndarray, b: np.ndarray) -> None:
    missing = np.full(7, np.nan)
    assert column_shift(np.concatenate([missing, a]), np.concatenate([b, missing])) == column_shift(a, b)
    assert column_shift(missing, b) == column_shift(a, missing) == NO_SHIFT
    assert ks_distance(missing, b) == 0.0


@given(numbers)
def test_what_is_the_same_has_not_shifted(a: np.ndarray) -> None:
    shift = column_shift(a, a)
    assert (shift.effect, shift.p_value) == (pytest.approx(0.0, abs=1e-12), 1.0)


@given(numbers, numbers)
def test_only_the_order_of_values_counts(a: np.ndarray, b: np.ndarray) -> None:
    """A tail of any length drowns nothing. (On ranks: of values themselves, floats make ties.)"""
    _, ranks = np.unique(np.concatenate([a, b]), return_inverse=True)
    stretched = np.exp(ranks / 10.0)
    assert column_shift(stretched[: len(a)], stretched[len(a) :]) == pytest.approx(column_shift(a, b))


def test_both_tests_count_towards_the_p_value() -> None:
    rng = np.random.default_rng(1)
    reference = rng.normal(size=4_000)
    moved, wider = rng.normal(0.25, 1, 400), rng.normal(0, 2, 400)
    by_ranks = mannwhitneyu(moved, reference).pvalue
    assert column_shift(moved, reference).p_value == pytest.approx(2 * by_ranks, rel=0.1)
    assert by_ranks < ks_2samp(moved, reference).pvalue
    by_shape = ks_p_value(column_shift(wider, reference).ks_distance, 400, 4_000)
    assert column_shift(wider, reference).p_value == pytest.approx(2 * by_shape)
    assert by_shape < 1e-6 < mannwhitneyu(wider, reference).pvalue


@pytest.mark.parametrize(("k_current", "n_current"), [(40, 480), (60, 480), (5, 480), (0, 500), (75, 1_000), (1, 20)])
def test_the_p_value_of_rare_values_is_the_exact_one(k_current: int, n_current: int) -> None:
    """Where a normal tail is wrong by orders of magnitude: 5 % against the hypergeometric distribution."""
    k_reference, n_reference = 300, 6_000
    n_rows, n_rare = n_current + n_reference, k_current + k_reference
    upper = hypergeom.sf(k_current - 1, n_rows, n_rare, n_current)
    lower = hypergeom.cdf(k_current, n_rows, n_rare, n_current)
    exact = min(1.0, 2 * min(upper, lower))
    ours = share_p_value(k_current, n_current, k_reference, n_reference)
    assert np.log(ours) == pytest.approx(np.log(exact), abs=0.6)


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_the_p_value_of_two_shares_is_a_probability_and_does_not_depend_on_what_is_counted(
    n_a: int, n_b: int, data: st.DataObject
) -> None:
    k_a, k_b = data.draw(st.integers(0, n_a)), data.draw(st.integers(0, n_b))
    p_value = share_p_value(k_a, n_a, k_b, n_b)
    assert 0.0 <= p_value <= 1.0
    assert p_value == pytest.approx(share_p_value(n_a - k_a, n_a, n_b - k_b, n_b))


def test_two_equal_shares_are_never_told_apart() -> None:
    assert share_p_value(0, 100, 0, 5_000) == share_p_value(100, 100, 50, 50) == 1.0
    assert share_p_value(0, 0, 3, 5) == 1.0


@pytest.mark.parametrize("share_of_zeros", [0.0, 0.95])
def test_columns_that_have_not_moved_are_rarely_called_moved(share_of_zeros: float) -> None:
    """2,000 tries at 1 %: beyond 36 (4.4 standard errors) only by a fault; ties must not raise the rate."""
    rng = np.random.default_rng(7)
    column = np.where(rng.random(8_000) < share_of_zeros, 0.0, rng.integers(1, 5, 8_000))
    column = column if share_of_zeros else rng.normal(size=8_000)
    n_called = 0
    for _ in range(2_000):
        rows = rng.permutation(column)
        n_called += column_shift(rows[:300], rows[300:1_500]).p_value < 0.01
    assert n_called <= 36


# The same value, computed by two machines


def test_the_few_scores_of_coarse_inputs_have_not_moved_because_they_were_rounded_otherwise() -> None:
    scores = np.random.default_rng(1).choice([0.1, 0.25, 1 / 3, 0.7], 2_000)
    for rounded in (np.nextafter(scores, 1.0), np.nextafter(scores, 0.0), scores * (1 + 1e-15)):
        assert column_shift(rounded, scores) == Shift(0.0, 0.0, 1.0)
        assert ks_distance(rounded, scores) == 0.0


def test_values_that_differ_by_more_than_rounding_are_different() -> None:
    for low, high in (
        (1.0, 1.0 + 1e-12),
        (1e12, 1e12 + 1),
        (0.0, 1e-300),
        (-1.0, 1.0),
        (-np.inf, np.inf),
        (1e308, np.inf),
    ):
        assert ks_distance(np.full(5, high), np.full(5, low)) == 1.0


def test_infinity_is_one_value() -> None:
    assert ks_distance(np.array([np.inf, -np.inf]), np.array([-np.inf, np.inf])) == 0.0


def test_the_order_of_the_rows_says_nothing() -> None:
    rng = np.random.default_rng(2)
    current, reference = rng.normal(size=700), rng.normal(0.1, size=900).round(1)
    shuffled = column_shift(rng.permutation(current), rng.permutation(reference))
    assert shuffled == column_shift(current, reference), "to the bit"


# Rows of one entity


def test_copies_of_rows_are_no_more_evidence_than_the_rows() -> None:
    rng = np.random.default_rng(1)
    current, reference = rng.normal(0.2, size=100), rng.normal(size=2_000)
    once = column_shift(current, reference)
    copied = column_shift(Sample.of(np.repeat(current, 5), 5.0), Sample.of(reference))
    assert copied.ks_distance == pytest.approx(once.ks_distance)
    assert copied.p_value == pytest.approx(once.p_value, rel=0.15)
    assert column_shift(np.repeat(current, 5), reference).p_value < once.p_value / 10


def test_calm_rows_that_recur_seldom_seem_to_have_shifted() -> None:
    rng = np.random.default_rng(2)
    reference = rng.normal(size=5_000)
    found = [Sample.of(np.repeat(rng.normal(size=200), 5), 5.0) for _ in range(400)]
    assert np.mean([column_shift(sample, reference).p_value < 0.05 for sample in found]) < 0.08
