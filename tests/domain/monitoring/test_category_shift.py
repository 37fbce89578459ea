"""The test of a category: false alarms as rare as it says for any number of levels, its distance unbiased, its levels named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, fisher_exact

from selfheal.domain.monitoring.category_shift import (
    CategoryDistances,
    LevelCounts,
    _fisher,
    _mean_deviation,
    _merged,
)
from selfheal.domain.monitoring.prepared_rows import PreparedRows, sample_of
from selfheal.domain.monitoring.shift import column_shift, ks_distance
from selfheal.domain.records import LevelShift

Shares = dict[str, float]


def column(shares: Shares, n_rows: int, seed: int = 0) -> pd.Series:
    rng = np.random.default_rng(seed)
    return pd.Series(rng.choice(np.array(list(shares), dtype=object), n_rows, p=list(shares.values())), dtype="object")


def apart(current: pd.Series, reference: pd.Series) -> CategoryDistances:
    now, then = (PreparedRows(pd.DataFrame({"x": side})) for side in (current, reference))
    found = now.distances("x", then)
    assert isinstance(found, CategoryDistances)
    return found


def zipf(n_levels: int, power: float = 1.0) -> Shares:
    weights = 1 / np.arange(1, n_levels + 1) ** power
    return dict(zip((f"level {i}" for i in range(n_levels)), (weights / weights.sum()).tolist(), strict=True))


def counts(now: list[int], then: list[int], copies: tuple[float, float] = (1.0, 1.0)) -> LevelCounts:
    return LevelCounts(tuple("abcdefghij"[: len(now)]), np.array(now, float), np.array(then, float), copies)


FOUR = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
MORE_D = {"a": 0.4 * 85 / 90, "b": 0.3 * 85 / 90, "c": 0.2 * 85 / 90, "d": 0.15}


@pytest.mark.parametrize(
    ("shares", "n_now", "n_then"),
    [
        pytest.param({"a": 0.99, "b": 0.01}, 300, 3_000, id="rare flag"),
        pytest.param(FOUR, 300, 3_000, id="four levels"),
        pytest.param(zipf(300), 500, 3_000, id="300 levels, most of them rare"),
        pytest.param(zipf(5_000, 0.5), 500, 3_000, id="more levels than rows"),
    ],
)
def test_p_values_of_one_population_are_no_smaller_than_they_say(shares: Shares, n_now: int, n_then: int) -> None:
    rng, n_tries = np.random.default_rng(3), 400
    p_values = []
    for _ in range(n_tries):
        now, then = (rng.multinomial(n, list(shares.values())).astype(float) for n in (n_now, n_then))
        present = now + then > 0
        names = tuple(np.array(list(shares))[present].tolist())
        p_values.append(LevelCounts(names, now[present], then[present], (1.0, 1.0)).p_value())
    for level in (0.2, 0.05, 0.01):
        n_below = int((np.array(p_values) < level).sum())
        assert n_below <= n_tries * level + 4 * np.sqrt(n_tries * level), (level, n_below)


def test_a_single_level_is_tested_exactly() -> None:
    for table in ([[3, 97], [1, 999]], [[40, 60], [200, 800]]):
        one_sided = min(fisher_exact(table, side).pvalue for side in ("less", "greater"))
        (k, rest), (m, others) = table
        assert _fisher(k, k + rest, m, m + others, is_exact=True) == pytest.approx(2 * one_sided, rel=1e-9)


def test_a_share_that_rises_from_10_to_15_percent_is_material_and_named() -> None:
    found = apart(column(MORE_D, 1_000, 1), column(FOUR, 6_000, 2))
    assert found.p_value < 1e-3
    assert 0.02 < found.effect < 0.09
    assert found.direction == "to 'd'"
    assert found.moves()[0].level == "d"


def test_levels_that_nobody_had_and_levels_that_are_gone_are_named() -> None:
    found = apart(column({"a": 0.6, "new": 0.4}, 500), column({"a": 0.5, "gone": 0.5}, 5_000))
    moves = {move.level: move for move in found.moves()}
    assert moves["new"].reference_pct == 0.0
    assert moves["gone"].current_pct == 0.0
    assert found.p_value < 1e-50


def test_the_distance_of_one_population_is_about_0_however_many_levels_it_has() -> None:
    for shares in (FOUR, zipf(300), zipf(5_000, 0.5)):
        found = [apart(column(shares, 500, seed), column(shares, 3_000, seed + 100)) for seed in range(5)]
        assert np.median([one.effect for one in found]) < 0.1
    rare = zipf(3_000, 0.3)
    raw = LevelCounts.of(*(sample_of(side, PreparedRows(side.to_frame("x")).values("x")) for side in sides(rare)))
    shares_apart = 0.5 * np.abs(raw.current / raw.current.sum() - raw.reference / raw.reference.sum()).sum()
    assert shares_apart > 0.3, "the plain distance would be material"


def sides(shares: Shares) -> tuple[pd.Series, pd.Series]:
    return column(shares, 500, 1), column(shares, 3_000, 2)


def test_the_distance_is_the_share_of_rows_with_another_level() -> None:
    assert counts([600, 400], [5_000, 5_000]).distance() == pytest.approx(0.1, abs=0.01)
    assert counts([100, 0], [0, 100]).distance() > 0.9


def test_many_small_moves_are_found_that_no_single_level_shows() -> None:
    rng = np.random.default_rng(4)
    before = np.full(200, 1 / 200)
    after = before * np.repeat([1.4, 0.6], 100)
    now, then = rng.multinomial(1_500, after).astype(float), rng.multinomial(8_000, before).astype(float)
    found = LevelCounts(tuple(map(str, range(200))), now, then, (1.0, 1.0))
    assert found.p_value() < 1e-6


def test_a_new_level_among_thousands_of_rare_ones_is_found() -> None:
    reference, current = column(zipf(5_000, 0.3), 5_000, 1), column(zipf(5_000, 0.3), 500, 2)
    current.iloc[:20] = "the same new one"
    assert apart(current, reference).p_value < 1e-9
    assert apart(current.iloc[20:], reference).p_value > 1e-3


def test_rows_that_recur_count_as_fewer() -> None:
    alone, copied = counts([60, 40], [500, 500]), counts([60, 40], [500, 500], (4.0, 4.0))
    assert copied.p_value() > alone.p_value()
    assert copied.distance() < alone.distance()


def test_merged_levels_are_expected_often_enough_and_no_row_is_lost() -> None:
    rng = np.random.default_rng(5)
    for shares in (zipf(300), zipf(2_000, 0.5), FOUR):
        now, then = (rng.multinomial(n, list(shares.values())).astype(float) for n in (400, 3_000))
        present = now + then > 0
        merged = _merged(now[present], then[present])
        assert [side.sum() for side in merged] == [400, 3_000]
        assert ((merged[0] + merged[1]) * 400 / 3_400).min() >= 5


def test_without_a_value_on_one_side_nothing_has_moved() -> None:
    nothing = pd.Series([None, None], dtype="object")
    found = apart(nothing, column(FOUR, 100))
    assert (found.effect, found.p_value, found.moves()) == (0.0, 1.0, ())


def test_whoever_asks_for_a_shift_gets_that_of_levels() -> None:
    samples = [
        PreparedRows(side.to_frame("x")).sample("x") for side in (column({"a": 1.0}, 50), column({"b": 1.0}, 50))
    ]
    assert column_shift(*samples).effect > 0.9
    assert ks_distance(*samples) > 0.9
    assert samples[0].levels == ("a",)
    assert LevelShift("a", 0.0, 100.0) in apart(column({"a": 1.0}, 50), column({"b": 1.0}, 50)).moves()


def test_a_campaign_of_one_level_explains_no_move_to_another() -> None:
    """What seasons remember is of one direction: the level that has won most is one."""
    reference = column(FOUR, 5_000)
    directions = [
        apart(column({"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.2} | {winner: 0.4}, 500), reference).direction
        for winner in ("c", "d")
    ]
    assert directions == ["to 'c'", "to 'd'"]


@pytest.mark.parametrize(("total", "share"), [(1, 0.1), (7, 0.3), (40, 0.07), (2_000, 0.143)])
def test_the_mean_deviation_of_a_binomial_count_is_exact(total: int, share: float) -> None:
    counts_of_level = np.arange(total + 1)
    expected = float((binom.pmf(counts_of_level, total, share) * np.abs(counts_of_level - total * share)).sum())
    assert _mean_deviation(np.array([float(total)]), share)[0] == pytest.approx(expected, rel=1e-9)
