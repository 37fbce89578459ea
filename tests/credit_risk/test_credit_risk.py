"""Rules of the shipped use case: its derived features, its names, its scenarios. Synthetic rows only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from selfheal.credit_risk import LATE_COUNTS, contract, derive
from selfheal.domain.contract import TRUE_LABEL, Columns, Feature, Scenario

KAGGLE_HEADER = (
    "SeriousDlqin2yrs",
    "RevolvingUtilizationOfUnsecuredLines",
    "age",
    "NumberOfTime30-59DaysPastDueNotWorse",
    "DebtRatio",
    "MonthlyIncome",
    "NumberOfOpenCreditLinesAndLoans",
    "NumberOfTimes90DaysLate",
    "NumberRealEstateLoansOrLines",
    "NumberOfTime60-89DaysPastDueNotWorse",
    "NumberOfDependents",
)

Values = dict[str, float]


def inputs(**changes: float) -> Columns:
    """One unremarkable borrower."""
    values: Values = {
        "revolving_utilization": 0.5,
        "age": 45,
        "times_30_59_days_late": 0,
        "debt_ratio": 0.4,
        "monthly_income": 5_000.0,
        "open_credit_lines": 8,
        "times_90_days_late": 0,
        "real_estate_loans": 1,
        "times_60_89_days_late": 0,
        "dependents": 1,
    }
    return {name: np.array([value], dtype=np.float64) for name, value in (values | changes).items()}


def derived(**changes: float) -> Values:
    return {name: float(values[0]) for name, values in derive(inputs(**changes)).items()}


# Derived features


def test_exactly_the_declared_features_are_derived() -> None:
    assert tuple(derived()) == tuple(feature.name for feature in contract.derived)
    assert len(contract.feature_names) == 16


def test_late_payments_of_all_lengths_are_added() -> None:
    found = derived(times_30_59_days_late=1, times_60_89_days_late=2, times_90_days_late=4)
    assert found["total_times_late"] == 7
    assert found["is_late_code"] == 0


@pytest.mark.parametrize("code", [96, 98])
@pytest.mark.parametrize("name", LATE_COUNTS)
def test_a_code_is_flagged_and_not_counted(name: str, code: int) -> None:
    others = dict.fromkeys(LATE_COUNTS, 2.0)
    found = derived(**(others | {name: code}))
    assert found["is_late_code"] == 1
    assert found["total_times_late"] == 4


def test_codes_in_all_counts_leave_no_late_payment() -> None:
    found = derived(**dict.fromkeys(LATE_COUNTS, 98.0))
    assert (found["is_late_code"], found["total_times_late"]) == (1, 0)


def test_95_is_still_a_count() -> None:
    found = derived(times_90_days_late=95)
    assert (found["is_late_code"], found["total_times_late"]) == (0, 95)


def test_a_missing_income_is_flagged_and_the_debt_ratio_is_the_debt() -> None:
    found = derived(monthly_income=np.nan, debt_ratio=1_200.0)
    assert found["is_income_missing"] == 1
    assert found["monthly_debt"] == 1_200.0
    assert np.isnan(found["income_per_person"])


def test_an_income_of_zero_is_not_missing_but_the_debt_ratio_is_the_debt() -> None:
    found = derived(monthly_income=0.0, debt_ratio=1_200.0)
    assert found["is_income_missing"] == 0
    assert found["monthly_debt"] == 1_200.0
    assert found["income_per_person"] == 0.0


def test_with_an_income_the_debt_is_its_share_of_it() -> None:
    found = derived(monthly_income=5_000.0, debt_ratio=0.4, dependents=3)
    assert found["is_income_missing"] == 0
    assert found["monthly_debt"] == pytest.approx(2_000.0)
    assert found["income_per_person"] == 1_250.0


def test_missing_dependents_count_as_none() -> None:
    assert derived(dependents=np.nan)["income_per_person"] == 5_000.0


@pytest.mark.parametrize("utilization", [0.0, 1.0, 22_198.0])
def test_utilization_is_put_on_a_log_scale(utilization: float) -> None:
    assert derived(revolving_utilization=utilization)["log_utilization"] == pytest.approx(np.log(1 + utilization))


def test_a_derived_feature_is_missing_only_where_it_is_declared_so() -> None:
    rows = contract.feature_frame(contract.synthesize(2_000, 1))
    for feature in contract.derived:
        assert feature.is_nullable == bool(rows[feature.name].isna().any()), feature.name


def test_a_whole_derived_feature_has_no_fractions() -> None:
    rows = contract.feature_frame(contract.synthesize(2_000, 1))
    for feature in contract.derived:
        assert feature.kind == "float" or (rows[feature.name] % 1 == 0).all(), feature.name


def test_deriving_changes_no_input() -> None:
    columns = inputs(monthly_income=np.nan, dependents=np.nan, times_90_days_late=98)
    before = {name: values.copy() for name, values in columns.items()}
    derive(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(values, before[name])


# Names and limits


@pytest.mark.parametrize("spelling", [str, lambda name: name.replace("-", "_")], ids=["dash", "underscore"])
def test_the_columns_of_kaggles_file_stand_for_the_ten_inputs(spelling: Callable[[str], str]) -> None:
    label, *names = (spelling(name) for name in KAGGLE_HEADER)
    assert contract.is_label_name(label)
    assert {contract.canonical_name(name) for name in names} == set(contract.input_names)


@pytest.mark.parametrize("feature", contract.inputs, ids=lambda feature: feature.name)
def test_each_input_explains_itself_and_its_example_is_allowed(feature: Feature) -> None:
    assert feature.lower <= feature.example <= feature.upper
    assert feature.description
    assert feature.unit
    assert feature.kind == "float" or feature.example % 1 == 0


def test_segments_are_cut_from_features_of_the_contract() -> None:
    assert {segment.feature for segment in contract.segments} <= set(contract.feature_names)


def test_the_grid_names_parameters_of_the_estimator() -> None:
    assert set(contract.param_grid) <= set(contract.build_estimator(0).get_params())


# Scenarios


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return contract.synthesize(4_000, 11)


def applied(scenario: Scenario, rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    labels = rows[TRUE_LABEL].to_numpy(dtype=np.int64)
    changed, changed_labels = scenario.apply(rows[list(contract.input_names)], labels, np.random.default_rng(seed))
    return changed.assign(**{TRUE_LABEL: changed_labels})


every_scenario = pytest.mark.parametrize("scenario", contract.scenarios, ids=lambda scenario: scenario.name)


@every_scenario
def test_a_scenario_leaves_what_it_was_given_untouched(scenario: Scenario, rows: pd.DataFrame) -> None:
    inputs, labels = rows[list(contract.input_names)].copy(), rows[TRUE_LABEL].to_numpy(dtype=np.int64)
    scenario.apply(inputs, labels, np.random.default_rng(1))
    pd.testing.assert_frame_equal(inputs, rows[list(contract.input_names)])
    np.testing.assert_array_equal(labels, rows[TRUE_LABEL])


@every_scenario
def test_a_scenario_does_the_same_with_the_same_seed(scenario: Scenario, rows: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(applied(scenario, rows, 1), applied(scenario, rows, 1))


@every_scenario
def test_a_scenario_changes_the_rows_and_keeps_their_shape(scenario: Scenario, rows: pd.DataFrame) -> None:
    changed = applied(scenario, rows, 1)
    assert not changed.equals(rows)
    assert changed.shape == rows.shape
    assert list(changed.columns) == list(rows.columns)
    assert changed.index.equals(rows.index)
    assert set(changed[TRUE_LABEL]) == {0, 1}


@every_scenario
def test_a_scenario_stays_within_what_the_contract_allows(scenario: Scenario, rows: pd.DataFrame) -> None:
    """Else the API would refuse its rows, and the simulation would show something else than it says."""
    changed = applied(scenario, rows, 1)
    for feature in contract.inputs:
        present = changed[feature.name].dropna()
        assert present.between(feature.lower, feature.upper).all(), feature.name
        assert feature.kind == "float" or (present % 1 == 0).all(), feature.name
        assert feature.is_nullable or changed[feature.name].notna().all(), feature.name


def test_a_rate_shock_changes_population_and_relation(rows: pd.DataFrame) -> None:
    changed = applied(contract.scenario("rate_shock"), rows, 1)
    assert changed["monthly_income"].median() < 0.75 * rows["monthly_income"].median()
    np.testing.assert_allclose(changed["revolving_utilization"], 1.6 * rows["revolving_utilization"])
    np.testing.assert_allclose(changed["debt_ratio"], 2.0 * rows["debt_ratio"])
    has_loans = rows["real_estate_loans"] >= 2
    assert changed[TRUE_LABEL][has_loans].mean() > 2 * rows[TRUE_LABEL][has_loans].mean()
    is_late = (rows["times_90_days_late"] > 0) & (rows["real_estate_loans"] == 0)
    assert changed[TRUE_LABEL][is_late].mean() < 0.8 * rows[TRUE_LABEL][is_late].mean()


def test_another_seed_gives_a_rate_shock_other_labels(rows: pd.DataFrame) -> None:
    shock = contract.scenario("rate_shock")
    assert not applied(shock, rows, 1)[TRUE_LABEL].equals(applied(shock, rows, 2)[TRUE_LABEL])


def test_younger_applicants_change_the_mix_and_nothing_else(rows: pd.DataFrame) -> None:
    changed = applied(contract.scenario("younger_applicants"), rows, 1)
    assert changed["age"].median() < rows["age"].median() - 8
    known = set(map(tuple, rows.fillna(-1).to_numpy().tolist()))
    assert set(map(tuple, changed.fillna(-1).to_numpy().tolist())) <= known


def test_income_in_cents_changes_the_unit_and_nothing_else(rows: pd.DataFrame) -> None:
    changed = applied(contract.scenario("income_in_cents"), rows, 1)
    np.testing.assert_allclose(changed["monthly_income"], 100 * rows["monthly_income"])
    pd.testing.assert_frame_equal(changed.drop(columns="monthly_income"), rows.drop(columns="monthly_income"))
