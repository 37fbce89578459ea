"""Rules of drift detection: what is flagged, what is not, and what is not judged at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from selfheal.monitoring.drift import (
    PROBABILITY,
    DriftLimits,
    DriftResult,
    detect_drift,
    ks_distance,
    proportion_p_value,
)
from selfheal.monitoring.report import save_html
from selfheal.records import ColumnDrift
from tests.builders import window
from tests.toy_use_case import contract, overheating

LIMITS = DriftLimits(n_ticks=90 * 288, min_effect=0.1, min_rows=200)


def scored(inputs: pd.DataFrame) -> pd.DataFrame:
    """All features and some probability that depends on them."""
    features = contract.feature_frame(inputs)
    return features.assign(probability=1 / (1 + np.exp(2.0 - features["load_ratio"] - features["restarts"] / 2)))


def detected(current: pd.DataFrame, reference: pd.DataFrame, baseline: pd.DataFrame | None = None) -> DriftResult:
    return detect_drift(
        window(),
        current,
        reference,
        features=contract.feature_names,
        reference_version=3,
        limits=LIMITS,
        baseline=baseline,
        feed_problems=("told by the feed check",),
    )


def by_name(result: DriftResult) -> dict[str, ColumnDrift]:
    return {column.column: column for column in result.report.columns}


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return scored(contract.synthesize(4_000, 1))


def test_other_rows_of_the_same_world_have_not_drifted(reference: pd.DataFrame) -> None:
    report = detected(scored(contract.synthesize(1_000, 2)), reference, baseline=reference).report
    assert report.is_sufficient
    assert report.drifted_features == ()
    assert report.feature_drift_ratio == 0.0
    assert not report.dataset_drift_detected
    assert report.baseline_drifted_features == ()
    assert [column.column for column in report.columns] == [*contract.feature_names, PROBABILITY]
    assert (report.n_current, report.n_reference, report.reference_version) == (1_000, 4_000, 3)
    assert report.feed_problems == ("told by the feed check",)


def test_what_has_shifted_is_flagged_each_in_its_channel(reference: pd.DataFrame, tmp_path: Path) -> None:
    """Shifted values, a risen missing rate, a column without any value: one comparison, since Evidently is slow."""
    rows = contract.synthesize(1_000, 2)
    rng = np.random.default_rng(3)
    hot, _ = overheating(rows[list(contract.input_names)], np.zeros(1_000, dtype=np.int64), rng)
    current = scored(hot)
    current.loc[rng.random(1_000) < 0.3, "load_ratio"] = np.nan
    current["restarts"] = np.nan
    result = detected(current, reference, baseline=reference)
    columns = by_name(result)

    temperature = columns["temperature_c"]
    assert temperature.is_drifted
    assert not temperature.is_missing_rate_drifted
    assert temperature.p_value < temperature.threshold == pytest.approx(1 / (90 * 288 * 5 * 2))
    expected = ks_2samp(current["temperature_c"].dropna(), reference["temperature_c"].dropna(), method="asymp")
    assert temperature.effect == pytest.approx(expected.statistic)

    load = columns["load_ratio"]
    assert load.is_missing_rate_drifted
    assert not load.is_drifted
    assert (load.current_missing_pct, load.reference_missing_pct) == (pytest.approx(30, abs=5), 0.0)

    restarts = columns["restarts"]
    assert restarts.is_missing_rate_drifted
    assert (restarts.is_drifted, restarts.p_value, restarts.effect) == (False, 1.0, 0.0)

    report = result.report
    assert set(report.drifted_features) == set(contract.feature_names)
    assert report.feature_drift_ratio == 1.0
    assert report.dataset_drift_detected
    assert report.baseline_drifted_features == ("temperature_c", "strain")
    page = save_html(result.snapshot, tmp_path / "reports", "page", keep=1)
    assert page.read_text().lstrip().startswith("<")
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["page.html"]


def test_too_few_rows_are_not_judged(reference: pd.DataFrame) -> None:
    few = scored(contract.synthesize(LIMITS.min_rows - 1, 2))
    result = detected(few.assign(temperature_c=200.0), reference, baseline=reference)
    assert result.snapshot is None
    assert not result.report.is_sufficient
    assert result.report.columns == ()
    assert result.report.feature_drift_ratio is None
    assert not result.report.dataset_drift_detected
    assert result.report.baseline_drifted_features == ()


def test_where_nothing_can_be_compared_only_missing_rates_speak(reference: pd.DataFrame) -> None:
    nothing = pd.DataFrame(np.nan, index=range(300), columns=[*contract.feature_names, PROBABILITY])
    result = detected(nothing, reference)
    assert result.snapshot is None
    assert all(column.is_missing_rate_drifted and not column.is_drifted for column in result.report.columns)
    unchanged = detected(nothing, nothing)
    assert unchanged.report.drifted_features == ()


def test_the_budget_is_shared_by_ticks_columns_and_both_channels() -> None:
    assert LIMITS.significance(17) * (90 * 288) * 17 * 2 == pytest.approx(1.0)
    more_often = dataclasses.replace(LIMITS, n_ticks=2 * LIMITS.n_ticks)
    assert more_often.significance(17) == pytest.approx(LIMITS.significance(17) / 2)


numbers = st.lists(st.floats(-1e6, 1e6) | st.integers(0, 3).map(float), min_size=1, max_size=60).map(np.array)


@pytest.mark.filterwarnings("ignore:divide by zero")  # scipy's p-value of a single row, which is not asked for
@given(numbers, numbers)
def test_the_ks_distance_is_scipys(a: np.ndarray, b: np.ndarray) -> None:
    assert ks_distance(a, b) == pytest.approx(ks_2samp(a, b, method="asymp").statistic, abs=1e-12)
    assert ks_distance(a, b) == ks_distance(b, a)


@given(numbers, numbers)
def test_missing_values_do_not_count_in_the_ks_distance(a: np.ndarray, b: np.ndarray) -> None:
    missing = np.full(7, np.nan)
    assert ks_distance(np.concatenate([missing, a]), np.concatenate([b, missing])) == ks_distance(a, b)
    assert ks_distance(missing, b) == 0.0


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_the_p_value_of_two_shares_is_symmetric_and_a_probability(n_a: int, n_b: int, data: st.DataObject) -> None:
    k_a, k_b = data.draw(st.integers(0, n_a)), data.draw(st.integers(0, n_b))
    p_value = proportion_p_value(k_a, n_a, k_b, n_b)
    assert 0.0 <= p_value <= 1.0
    assert p_value == pytest.approx(proportion_p_value(k_b, n_b, k_a, n_a))
    assert p_value == pytest.approx(proportion_p_value(n_a - k_a, n_a, n_b - k_b, n_b))


def test_the_p_value_of_two_shares_is_that_of_the_corrected_chi_square_test() -> None:
    from scipy.stats import chi2_contingency

    for k_a, n_a, k_b, n_b in ((30, 1_000, 90, 4_000), (5, 200, 700, 4_000), (100, 300, 20, 400)):
        expected = chi2_contingency([[k_a, n_a - k_a], [k_b, n_b - k_b]], correction=True).pvalue
        assert proportion_p_value(k_a, n_a, k_b, n_b) == pytest.approx(expected)


def test_two_equal_shares_are_never_told_apart() -> None:
    assert proportion_p_value(0, 100, 0, 5_000) == proportion_p_value(100, 100, 50, 50) == 1.0
    assert proportion_p_value(0, 0, 3, 5) == 1.0
