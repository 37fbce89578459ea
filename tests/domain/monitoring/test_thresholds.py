"""Rules of the thresholds: the budget is spent once, and rows that come in runs count for less."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring.shift import column_shift
from selfheal.domain.monitoring.thresholds import derive_thresholds, design_effect

N_TICKS = 90 * 288


def independent(n_rows: int = 4_000) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({"plain": rng.normal(size=n_rows), "tied": rng.integers(0, 3, n_rows).astype(float)})


def in_runs(n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Runs of 20 rows that share half of their variance."""
    return np.repeat(rng.normal(size=n_rows // 20), 20) + rng.normal(size=n_rows)


def test_the_budget_is_spent_once_by_all_ticks_columns_channels_and_windows() -> None:
    thresholds = derive_thresholds(independent(), ["plain", "tied"], N_TICKS)
    of_columns = sum(thresholds.of_values.values()) + sum(thresholds.of_missing_rates.values())
    assert (2 * of_columns + thresholds.level) * N_TICKS == pytest.approx(1.0)
    assert derive_thresholds(independent(), ["plain"], 2 * N_TICKS).level * 2 * N_TICKS * (2 * 2 + 1) == pytest.approx(
        1.0
    )


def test_independent_rows_have_no_design_effect() -> None:
    rng = np.random.default_rng(2)
    assert {design_effect(rng.normal(size=3_000)) for _ in range(50)} == {1.0}


def test_rows_in_runs_have_the_design_effect_of_their_correlation() -> None:
    """Kish: 1 + (run length - 1) * correlation within a run."""
    effects = [design_effect(in_runs(20_000, np.random.default_rng(seed))) for seed in range(10)]
    assert np.mean(effects) == pytest.approx(1 + 19 * 0.5, rel=0.1)


def test_where_rows_come_in_runs_false_alarms_stay_as_rare_as_announced() -> None:
    """At a budget of one alarm in 50 looks, 400 looks at such rows; without the design effect half of them are alarms."""
    rng = np.random.default_rng(3)
    reference = pd.DataFrame({"x": in_runs(12_000, rng)})
    threshold = derive_thresholds(reference, ["x"], n_ticks=50 / 5).of_values["x"]
    p_values = np.array([column_shift(in_runs(1_000, rng), reference["x"].to_numpy()).p_value for _ in range(400)])
    assert (p_values < threshold).mean() <= 0.05
    assert (p_values < 4 / 50).mean() > 0.3


@pytest.mark.parametrize("column", [np.full(3_000, np.nan), np.ones(3_000), np.array([]), np.arange(100.0)])
def test_what_says_nothing_about_runs_is_taken_as_independent(column: np.ndarray) -> None:
    assert design_effect(column) == 1.0
    assert derive_thresholds(pd.DataFrame({"x": column}), ["x"], N_TICKS).of_values["x"] == pytest.approx(
        1 / N_TICKS / 5
    )


def test_levels_that_come_in_runs_have_a_design_effect_and_a_lower_threshold() -> None:
    rng = np.random.default_rng(2)
    drawn = rng.choice(np.array(["a", "b", "c"], dtype=object), 4_000)
    runs = np.repeat(drawn[:200], 20)
    found = derive_thresholds(pd.DataFrame({"alone": drawn, "runs": runs}), ["alone", "runs"], 25_920)
    assert found.of_values["alone"] == pytest.approx(found.level)
    assert found.of_values["runs"] < found.level**5
