"""Scenarios of change in lending, for demos, tests and benchmarks. Each is a pure function of rows, labels and a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import Scenario

if TYPE_CHECKING:
    import pandas as pd

Labels = npt.NDArray[np.int64]


def rate_shock(inputs: pd.DataFrame, labels: Labels, rng: np.random.Generator) -> tuple[pd.DataFrame, Labels]:
    """Simulate a jump of interest rates: the population *and* the causes of default change.

    Population: incomes fall by 30 %, balances (and with them utilization) rise by 60 %, debt service doubles.
    Relation: borrowers with real estate loans, safe until now, default by the weight of their debt service; half of the
    defaults that late payments used to announce are averted by forbearance.
    """
    changed = inputs.copy()
    changed["monthly_income"] = (inputs["monthly_income"] * 0.7).round()
    changed["revolving_utilization"] = inputs["revolving_utilization"] * 1.6
    changed["debt_ratio"] = inputs["debt_ratio"] * 2.0
    has_income = inputs["monthly_income"].fillna(0.0).to_numpy() > 0
    debt_service = np.where(has_income, changed["debt_ratio"], changed["debt_ratio"] / 5_000.0)
    exposure = np.minimum(debt_service, 2.0) * np.minimum(inputs["real_estate_loans"].to_numpy(), 3)
    log_odds = -4.0 + 2.2 * exposure
    is_squeezed = rng.random(len(inputs)) < 1.0 / (1.0 + np.exp(-log_odds))
    is_averted = rng.random(len(inputs)) < 0.5
    return changed, np.where(is_squeezed, 1, np.where(is_averted, 0, labels)).astype(np.int64)


def younger_applicants(inputs: pd.DataFrame, labels: Labels, rng: np.random.Generator) -> tuple[pd.DataFrame, Labels]:
    """Simulate a campaign that attracts younger people. Only the mix changes, not the relation of inputs and default."""
    weights = np.exp(-inputs["age"].to_numpy(dtype=np.float64) / 15.0)
    rows = rng.choice(len(inputs), size=len(inputs), p=weights / weights.sum())
    return inputs.iloc[rows].set_axis(inputs.index), labels[rows]


def income_in_cents(inputs: pd.DataFrame, labels: Labels, rng: np.random.Generator) -> tuple[pd.DataFrame, Labels]:
    """Simulate a sender that starts to report income in cents: the feed is broken, the population is unchanged."""
    return inputs.assign(monthly_income=inputs["monthly_income"] * 100.0), labels


SCENARIOS = (
    Scenario("rate_shock", "incomes fall, debts grow, and mortgage holders begin to default", rate_shock),
    Scenario("younger_applicants", "more young applicants; the relation to default is unchanged", younger_applicants),
    Scenario("income_in_cents", "a sender reports income in cents: a broken feed", income_in_cents),
)
