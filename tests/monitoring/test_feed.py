"""Rules of the feed check: each sign of a broken sender by itself, and what is a change of the world instead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from selfheal.monitoring.feed import MIN_ROWS, feed_problems
from tests.toy_use_case import contract

N_ROWS = 400


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return contract.feature_frame(contract.synthesize(2_000, 1))


@pytest.fixture
def current() -> pd.DataFrame:
    return contract.feature_frame(contract.synthesize(N_ROWS, 2))


def test_a_sound_feed_has_no_problems(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    assert feed_problems(current, reference, contract) == ()


def test_one_value_outside_the_limits_is_a_problem(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current.loc[7, "load_ratio"] = 5.5
    assert feed_problems(current, reference, contract) == ("load_ratio: 1 values outside 0 to 5",)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinity_is_outside_the_limits(value: float, current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current.loc[7, "load_ratio"] = value
    assert feed_problems(current, reference, contract) == ("load_ratio: 1 values outside 0 to 5",)


def test_a_jump_of_the_missing_rate_is_a_problem(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current.loc[: N_ROWS // 2, "temperature_c"] = np.nan
    (problem,) = feed_problems(current, reference, contract)
    assert problem.startswith("temperature_c: 5")
    assert problem.endswith("% missing, 6 % in the reference")


def test_a_column_that_is_missing_altogether_is_a_problem(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current["temperature_c"] = np.nan
    assert feed_problems(current, reference, contract) == ("temperature_c: 100 % missing, 6 % in the reference",)


def test_a_small_rise_of_the_missing_rate_is_none(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current.loc[: N_ROWS // 6, "temperature_c"] = np.nan
    assert feed_problems(current, reference, contract) == ()


def test_values_that_are_no_longer_missing_are_none(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    reference = reference.copy()
    reference.loc[:1_500, "temperature_c"] = np.nan
    assert feed_problems(current, reference, contract) == ()


def test_a_varying_column_that_became_constant_is_a_problem(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current["load_ratio"] = 0.7
    assert feed_problems(current, reference, contract) == ("load_ratio: always 0.7, of many values in the reference",)


def test_a_column_that_nearly_always_was_the_same_may_be_constant(
    current: pd.DataFrame, reference: pd.DataFrame
) -> None:
    reference = reference.assign(restarts=np.where(np.arange(len(reference)) < 20, 1.0, 0.0))
    assert feed_problems(current.assign(restarts=0.0), reference, contract) == ()


@pytest.mark.parametrize(("factor", "is_problem"), [(1 / 25, True), (1 / 15, False), (3.0, False), (25.0, True)])
def test_another_unit_is_a_problem_and_another_population_is_none(
    factor: float, is_problem: bool, current: pd.DataFrame, reference: pd.DataFrame
) -> None:
    scaled = reference.assign(load_ratio=reference["load_ratio"] / 8)  # keeps all of them within the limits
    now = current.assign(load_ratio=current["load_ratio"] / 8 * factor)
    problems = [problem for problem in feed_problems(now, scaled, contract) if "outside" not in problem]
    assert bool(problems) == is_problem
    if is_problem:
        assert "has the unit changed?" in problems[0]


def test_a_derived_feature_is_not_blamed(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    """It follows from the inputs, which are named instead."""
    assert feed_problems(current.assign(strain=1e9), reference, contract) == ()


def test_too_few_rows_say_nothing(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    broken = current.assign(load_ratio=9.0)
    assert feed_problems(broken.iloc[: MIN_ROWS - 1], reference, contract) == ()
    assert feed_problems(broken, reference.iloc[: MIN_ROWS - 1], contract) == ()
    assert feed_problems(broken.iloc[:MIN_ROWS], reference, contract) != ()


def test_every_problem_is_listed(current: pd.DataFrame, reference: pd.DataFrame) -> None:
    current["temperature_c"] = np.nan
    current["load_ratio"] = 9.0
    assert len(feed_problems(current, reference, contract)) == 3
