"""Rules of the evidence: bounds that hold where rows are few, a level that is never overspent, an honest count of rows."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.retraining import evidence
from selfheal.domain.retraining.evidence import (
    CHALLENGER_SAYS_SO,
    CHAMPION_SAYS_SO,
    counts_worth,
    f1,
    f1_difference,
    f1_difference_bounds,
    kind_counts,
    level_of_verdict,
    more_rows_for_certainty,
    posterior_differences,
    whole_verdicts,
)

COUNTS = st.lists(st.integers(0, 400), min_size=8, max_size=8).map(np.array)
level_at = partial(level_of_verdict, has_brier_risen=False)

TYPICAL = np.array([870, 25, 20, 18, 25, 8, 18, 16])
"""1,000 rows, 67 of them positive; the challenger finds 34 of those, the champion 24."""


def swapped(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same rows with the two models' names exchanged."""
    return counts[[0, 2, 1, 3, 4, 6, 5, 7]]


# Counting


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=60))
def test_f1_of_counts_is_f1_of_rows(rows: list[tuple[int, int, int]]) -> None:
    labels, challenger, champion = (np.array(column) for column in zip(*rows, strict=True))
    counts = kind_counts(labels, challenger, champion)
    for says_so, predicted in ((CHALLENGER_SAYS_SO, challenger), (CHAMPION_SAYS_SO, champion)):
        assert f1(counts, says_so) == pytest.approx(score_metrics(labels, predicted.astype(float), 0.5).f1)


def test_f1_where_nobody_has_or_predicts_a_positive_is_0_not_unknown() -> None:
    assert f1_difference(np.array([10, 0, 0, 0, 0, 0, 0, 0])) == 0.0


# The level over looks


@given(st.floats(1e-4, 0.4), st.integers(1, 3_000), st.integers(1, 10**9))
def test_no_number_of_looks_spends_more_than_the_level(level: float, n_looks: int, n_rows: int) -> None:
    for has_brier_risen in (False, True):
        looks = range(1, n_looks + 1)
        spent = [
            level_of_verdict(level, verdict_number, n_rows, has_brier_risen=has_brier_risen) for verdict_number in looks
        ]
        assert sum(spent) < level
        assert all(later < earlier for earlier, later in itertools.pairwise(spent))


@given(st.lists(st.tuples(st.integers(1, 3_000), st.booleans()), min_size=1, max_size=60))
def test_verdicts_on_any_numbers_of_rows_spend_no_part_of_the_level_twice(verdicts: list[tuple[int, bool]]) -> None:
    place, spent = 1.0, 0.0
    for n_rows, has_brier_risen in verdicts:
        spent += level_of_verdict(0.05, place, n_rows, has_brier_risen=has_brier_risen)
        place += whole_verdicts(n_rows)
    by_whole_ones = sum(level_at(0.05, number, 1_000) for number in range(1, math.floor(place) + 1))
    assert spent <= by_whole_ones + level_at(0.05, math.floor(place), 1_000) + 1e-12
    assert spent < 0.05


def test_what_a_verdict_on_few_rows_leaves_of_the_level_is_there_for_the_next() -> None:
    first = level_at(0.05, 1, 500)
    second = level_at(0.05, 1 + whole_verdicts(500), 1_000)
    assert first + second == pytest.approx(level_at(0.05, 1, 1_000) + level_at(0.05, 2, 1_000) / 4)


def test_the_whole_level_is_there_to_be_spent() -> None:
    assert sum(level_at(1.0, verdict_number, 1_000) for verdict_number in range(1, 100_000)) == pytest.approx(
        1.0, abs=1e-5
    )


def test_the_tenth_look_still_has_a_hundredth_of_the_first() -> None:
    assert level_at(0.05, 10, 5_000) == pytest.approx(level_at(0.05, 1, 5_000) / 100)


def test_few_rows_spend_little_and_more_than_enough_spend_no_more() -> None:
    spent = [level_at(0.05, 1, n_rows) for n_rows in (100, 500, 1_000, 50_000)]
    assert spent == pytest.approx([spent[2] / 100, spent[2] / 4, spent[2], spent[2]])


@given(st.integers(1, 100), st.integers(1, 10**6))
def test_a_risen_brier_score_never_adds_to_the_level(verdict_number: int, n_rows: int) -> None:
    risen = level_of_verdict(0.05, verdict_number, n_rows, has_brier_risen=True)
    assert (
        risen == level_at(0.05, verdict_number, n_rows)
        if n_rows >= 1_500
        else risen < level_at(0.05, verdict_number, n_rows)
    )


# The bounds


def test_the_draws_have_the_posterior_that_is_known_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a champion that never speaks F1 is 0; the challenger's is 2 q / (1 + q) with q = TP / (TP + FP + FN), a beta."""
    monkeypatch.setattr(evidence, "PRIOR_ROWS", 1e-12)
    counts = np.array([500, 0, 9, 0, 12, 0, 28, 0])
    draws = posterior_differences(counts, 200_000, seed=3)
    for share in (0.001, 0.05, 0.5, 0.95):
        q = beta.ppf(share, 28, 9 + 12)
        assert np.quantile(draws, share) == pytest.approx(2 * q / (1 + q), abs=0.005)
    q = beta.ppf(0.001, 28, 9 + 12)
    assert f1_difference_bounds(counts, 0.001, seed=3).low == pytest.approx(2 * q / (1 + q), abs=0.01)


@given(COUNTS, st.sampled_from([0.2, 0.05, 0.005]))
def test_the_bounds_are_of_a_difference_of_f1_and_in_order(counts: npt.NDArray[np.int64], level: float) -> None:
    bounds = f1_difference_bounds(counts, level, seed=1)
    assert -1.0 <= bounds.low <= bounds.high <= 1.0


def test_the_bounds_hold_the_difference_and_widen_as_the_level_falls() -> None:
    bounds = [f1_difference_bounds(TYPICAL, level, seed=1) for level in (0.05, 0.01, 0.0005, 0.00001)]
    lows, highs = [b.low for b in bounds], [b.high for b in bounds]
    assert lows == sorted(lows, reverse=True)
    assert highs == sorted(highs)
    assert lows[0] < f1_difference(TYPICAL) < highs[0]


def test_exchanging_the_models_turns_the_interval_round() -> None:
    one = f1_difference_bounds(TYPICAL, 0.01, seed=1)
    other = f1_difference_bounds(swapped(TYPICAL), 0.01, seed=1)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.01)


def test_the_same_seed_gives_the_same_bounds_to_the_last_bit() -> None:
    bounds = [f1_difference_bounds(TYPICAL, 0.01, seed) for seed in (1, 1, 2)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_a_level_that_no_number_of_draws_reaches_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_DRAWS", 20_000)
    bounds = f1_difference_bounds(TYPICAL, 1e-6, seed=1)
    assert (bounds.low, bounds.high) == (-1.0, 1.0)


def test_draws_in_portions_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "DRAWS_AT_ONCE", 7)
    draws = posterior_differences(TYPICAL, 100, seed=1)
    assert draws.shape == (100,)
    assert len(np.unique(draws)) == 100


def test_ten_false_alarms_fewer_and_no_hit_lost_are_no_proof() -> None:
    """A stricter threshold on 200 rows: it drops 10 false alarms and, of 5 hits, none. With one lost hit to four dropped
    false alarms F1 would be the same, and then none of ten is lost in 11 % of tries. Resampling rows cannot see that."""
    counts = np.array([167, 10, 0, 10, 8, 0, 0, 5])
    resampled = np.random.default_rng(1).multinomial(200, counts / 200, size=5_000)
    assert np.quantile(f1_difference(resampled), 0.01) > 0
    assert f1_difference_bounds(counts, 0.0304, seed=1).low < 0


@pytest.mark.parametrize(
    "kinds",
    [np.array([258, 6, 6, 8, 9, 3, 3, 7]), np.array([264, 6, 0, 10, 8, 2, 0, 10])],
    ids=["equal", "stricter threshold"],
)
def test_a_model_that_is_no_better_seldom_passes_for_better(kinds: npt.NDArray[np.int64]) -> None:
    """300 rows, about 20 positives, both models' true F1 equal. The level is 5 %: in 400 tries, 35 have a chance of 0.1 %."""
    assert f1_difference(kinds) == pytest.approx(0.0)
    draws = np.random.default_rng(5).multinomial(300, kinds / 300, size=400)
    passed = sum(f1_difference_bounds(counts, 0.05, seed=1).low > 0 for counts in draws if f1_difference(counts) > 0)
    assert passed < 35


# The rows it would take


def test_about_as_many_rows_as_are_asked_for_suffice() -> None:
    counts = np.array([174, 6, 5, 4, 5, 2, 4, 3])
    n_rows, difference = int(counts.sum()), float(f1_difference(counts))
    level = level_at(0.05, 1, n_rows)
    low = f1_difference_bounds(counts, level, seed=1).low
    assert low < 0 < difference
    more = more_rows_for_certainty(n_rows, difference, low, level, partial(level_at, 0.05, 2))
    assert more is not None

    def low_with(rows: float) -> float:
        tiled = np.rint(counts * rows / n_rows).astype(int)
        return f1_difference_bounds(tiled, level_at(0.05, 2, round(rows)), seed=1).low

    assert low_with(1.5 * (n_rows + more)) > 0
    assert low_with(0.6 * (n_rows + more)) < 0


def test_no_number_of_rows_makes_a_worse_model_better() -> None:
    for difference in (0.0, -0.1):
        assert more_rows_for_certainty(200, difference, -0.3, 0.01, lambda rows: 0.005) is None


def test_a_difference_that_would_take_too_many_rows_asks_for_none() -> None:
    assert more_rows_for_certainty(200, 1e-6, -0.1, 0.01, lambda rows: 0.01) is None


def test_at_the_edge_one_row_more_is_asked_for() -> None:
    assert more_rows_for_certainty(200, 0.1, 0.0, 0.01, lambda rows: 0.01) == 1


# Rows of one entity


def test_copies_of_rows_give_the_counts_of_the_rows() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.choice(8, 400, p=TYPICAL / TYPICAL.sum())
    copied = np.repeat(kinds, 5)
    found = counts_worth(copied, np.repeat(np.arange(400), 5))
    assert found == pytest.approx(np.bincount(kinds, minlength=8), rel=0.01)


def test_rows_that_are_their_own_count_as_whole_numbers() -> None:
    kinds = np.repeat(np.arange(8), TYPICAL)
    counts = counts_worth(kinds, None)
    assert counts.dtype == np.bincount(kinds).dtype
    assert list(counts) == list(TYPICAL)


@pytest.mark.parametrize("times", [1, 5])
def test_the_bound_of_f1_holds_where_entities_recur(times: int) -> None:
    """Two models of equal F1: the lower bound at 5 % may be above 0 in 5 % of tries; of rows as if alone it is in more than 15 %."""
    rng = np.random.default_rng(1)
    shares = (TYPICAL + swapped(TYPICAL)) / (2 * TYPICAL.sum())
    clusters = None if times == 1 else np.repeat(np.arange(1_000 // times), times)
    n_above = {"ours": 0, "rows": 0}
    for _ in range(300):
        kinds = np.repeat(rng.choice(8, 1_000 // times, p=shares), times)
        n_above["ours"] += f1_difference_bounds(counts_worth(kinds, clusters), 0.05, seed=1).low > 0
        n_above["rows"] += f1_difference_bounds(counts_worth(kinds, None), 0.05, seed=1).low > 0
    assert n_above["ours"] / 300 < 0.09
    assert times == 1 or n_above["rows"] / 300 > 0.15
