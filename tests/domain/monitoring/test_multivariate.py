"""Rules of the domain classifier: it sees what no column shows by itself, and guesses where there is nothing to see."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring import multivariate
from selfheal.domain.monitoring.multivariate import MATERIAL_AUC, DomainCheck, domain_check

COLUMNS = ["a", "b", "c"]


def rows(n_rows: int, correlation: float, seed: int) -> pd.DataFrame:
    """Three standard normal columns, two of which are correlated."""
    rng = np.random.default_rng(seed)
    a, noise, c = rng.normal(size=(3, n_rows))
    return pd.DataFrame({"a": a, "b": correlation * a + np.sqrt(1 - correlation**2) * noise, "c": c})


def check(current: pd.DataFrame, reference: pd.DataFrame) -> DomainCheck:
    return domain_check(current, reference, COLUMNS, seed=1)


def test_a_broken_relation_between_columns_is_seen_though_each_is_as_before() -> None:
    found = check(rows(1_500, 0.0, 1), rows(3_000, 0.9, 2))
    assert found.auc > 0.7
    assert found.p_value < 1e-9


def test_rows_of_the_same_world_are_not_told_apart() -> None:
    """30 looks: small p-values are no more frequent than they say, and none comes near an alarm."""
    p_values = [check(rows(400, 0.5, seed), rows(800, 0.5, 1_000 + seed)).p_value for seed in range(30)]
    assert min(p_values) > 1e-4
    assert sum(p < 0.1 for p in p_values) <= 6


def test_missing_values_and_constant_columns_are_looked_at_as_they_are() -> None:
    reference = rows(600, 0.5, 1).assign(c=1.0)
    current = rows(600, 0.5, 2).assign(c=1.0)
    assert check(current, reference).auc < MATERIAL_AUC
    current.loc[::2, "b"] = np.nan
    assert check(current, reference).p_value < 1e-9


def test_the_same_rows_give_the_same_answer() -> None:
    assert check(rows(300, 0.5, 1), rows(600, 0.4, 2)) == check(rows(300, 0.5, 1), rows(600, 0.4, 2))


ERROR = math.sqrt((300 + 300 + 1) / (12 * 300 * 300))
"""Standard error of one AUC on 300 rows of either side."""


@pytest.mark.parametrize(
    ("first", "n_fits", "auc"), [(0.4, 1, 0.4), (0.5 + 1.9 * ERROR, 1, 0.5 + 1.9 * ERROR), (0.6, 2, 0.65)]
)
def test_a_first_half_that_is_not_told_apart_is_the_result(
    first: float, n_fits: int, auc: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most looks are at calm traffic and fit one classifier; a promising half is confirmed by the other."""
    aucs = iter([first, 0.7])
    monkeypatch.setattr(multivariate, "_auc", lambda *_, **__: next(aucs))
    found = check(rows(600, 0.5, 1), rows(600, 0.5, 2))
    assert found.auc == pytest.approx(auc)
    assert found.p_value == pytest.approx(min(1.0, 2 * NormalDist().cdf((0.5 - auc) / ERROR)))
    assert len(list(aucs)) == 2 - n_fits


def test_a_few_trees_suffice_where_they_find_nothing_and_all_give_what_they_gave_in_one_go() -> None:
    def auc(correlation: float, promising: float) -> float:
        halves = [(now.to_numpy(), then.to_numpy()) for now, then in _halves(correlation)]
        return multivariate._auc(halves[0], halves[1], 1, promising)

    whole = auc(0.0, 0.0)
    assert whole > 0.6
    assert auc(0.0, 0.51) == whole, "promising: the other trees follow"
    few = auc(0.0, 0.99)
    assert few != whole, "not promising: they do not"
    assert few > 0.5


def _halves(correlation: float) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    return [(rows(400, correlation, seed), rows(400, 0.9, seed + 10)) for seed in (1, 2)]


def levels(n_rows: int, n_levels: int, is_related: bool, seed: int) -> pd.DataFrame:
    """Two categories, each of equally common levels; related, an odd level of one comes with an odd level of the other."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, n_levels, (2, n_rows))
    b = 2 * (b // 2) + a % 2 if is_related else b
    names = np.array([f"level {number}" for number in range(n_levels)], dtype=object)
    return pd.DataFrame({"a": names[a], "b": names[b]}, dtype="object")


def test_categories_that_have_lost_their_relation_are_seen_though_each_is_as_before() -> None:
    """Of 40 levels no range of codes is the odd ones: read as numbers, the columns are as before (an AUC of 0.49)."""
    found = domain_check(levels(1_500, 40, False, 1), levels(3_000, 40, True, 2), ["a", "b"], seed=1)
    assert found.auc > 0.6
    assert found.p_value < 1e-9


@pytest.mark.parametrize("n_levels", [4, 40, 1_000])
def test_categories_of_the_same_world_are_not_told_apart(n_levels: int) -> None:
    looks = [
        domain_check(levels(600, n_levels, True, seed), levels(900, n_levels, True, 100 + seed), ["a", "b"], seed)
        for seed in range(5)
    ]
    assert min(look.p_value for look in looks) > 1e-3


def test_levels_are_told_apart_by_commonness_and_the_rarest_are_one() -> None:
    n_codes = multivariate.MAX_LEVELS + 100
    now = np.repeat(np.arange(n_codes) * 1e9, np.arange(n_codes, 0, -1))
    places, missing = multivariate._by_commonness(now, np.array([np.nan, 0.0]))
    assert np.unique(places).tolist() == list(range(multivariate.MAX_LEVELS))
    assert (places[0], places[-1]) == (0, multivariate.MAX_LEVELS - 1)
    assert np.isnan(missing[0])
    assert missing[1] == 0
