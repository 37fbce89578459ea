"""The shipped use case: will a borrower be 90 days late within two years (*Give Me Some Credit*).

Only this package may name a credit feature. `USE_CASE` names `contract`; the synthetic stand-in and the scenarios are in modules
beside it. The estimator is the platform's default, because utilization, debt ratio and income have long tails (a utilization of
22,000, with a median of 0.16) that would dominate a linear model over their values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.credit_risk.scenarios import SCENARIOS
from selfheal.domain.contract import (
    AdverseReason,
    Columns,
    DerivedFeature,
    Feature,
    FloatArray,
    Label,
    ModelContract,
    Segment,
)

if TYPE_CHECKING:
    import pandas as pd

LATE_COUNTS = ("times_30_59_days_late", "times_60_89_days_late", "times_90_days_late")

LATE_CODE_FROM = 96
"""The bureau writes 96 and 98 in the late-payment counts as codes ("not reported"); the largest true count is 17."""

# Reasons given to a borrower. Each text names every factor behind it, as the law requires (including age), and does not state
# the factor's direction, as the law permits. Features that compensate each other share one reason: income per person falls with
# the dependents, so the contribution of one means nothing without the other's.
UTILIZATION = AdverseReason("UTILIZATION", "Balances on cards and credit lines in proportion to their limits")
LATE_PAYMENTS = AdverseReason("LATE_PAYMENTS", "Record of late payments in the last two years: how many and how late")
DEBT = AdverseReason("DEBT", "Monthly debt payments, by themselves and in proportion to income")
INCOME = AdverseReason("INCOME", "Monthly income for the number of dependents, or income not stated")
OPEN_LINES = AdverseReason("OPEN_LINES", "Number of open loans and credit lines")
REAL_ESTATE = AdverseReason("REAL_ESTATE", "Number of mortgages and other real estate loans")
AGE = AdverseReason("AGE", "Age of the borrower")


def derive(columns: Columns) -> dict[str, FloatArray]:
    """Return the six derived features (formulas in `contract.derived`)."""
    income, debt_ratio = columns["monthly_income"], columns["debt_ratio"]
    counts = np.stack([columns[name] for name in LATE_COUNTS])
    is_code = counts >= LATE_CODE_FROM
    has_income = np.nan_to_num(income, nan=0.0) > 0
    return {
        "total_times_late": np.where(is_code, 0.0, counts).sum(axis=0),
        "is_late_code": is_code.any(axis=0).astype(np.float64),
        "is_income_missing": np.isnan(income).astype(np.float64),
        "monthly_debt": np.where(has_income, debt_ratio * np.nan_to_num(income, nan=0.0), debt_ratio),
        "income_per_person": income / (1.0 + np.nan_to_num(columns["dependents"], nan=0.0)),
        "log_utilization": np.log1p(columns["revolving_utilization"]),
    }


def synthesize(n_rows: int, seed: int) -> pd.DataFrame:
    """Return a seeded stand-in for the real file (see `selfheal.credit_risk.synthetic`)."""
    from selfheal.credit_risk.synthetic import synthesize as synthesize_credit_risk

    return synthesize_credit_risk(n_rows, seed)


contract = ModelContract(
    name="credit_risk",
    description="Probability that a borrower becomes 90 days late on a payment within two years.",
    label=Label(
        name="serious_delinquency",
        description="1 if the borrower was 90 days late or worse within two years, else 0",
        aliases=("SeriousDlqin2yrs",),
    ),
    inputs=(
        Feature(
            name="revolving_utilization",
            kind="float",
            lower=0.0,
            upper=1_000_000.0,
            unit="ratio",
            description="Balance on cards and credit lines over their limits (real estate and car loans left out)",
            example=0.77,
            aliases=("RevolvingUtilizationOfUnsecuredLines",),
            adverse_reason=UTILIZATION,
        ),
        Feature(
            name="age",
            kind="int",
            lower=0,
            upper=130,
            unit="years",
            description="Age of the borrower; the source has one 0, an unknown",
            example=45,
            aliases=("Age",),
            adverse_reason=AGE,
        ),
        Feature(
            name="times_30_59_days_late",
            kind="int",
            lower=0,
            upper=98,
            unit="count in 2 years",
            description="Times 30 to 59 days past due but no worse; 96 and 98 are codes",
            example=2,
            aliases=("NumberOfTime30-59DaysPastDueNotWorse",),
            adverse_reason=LATE_PAYMENTS,
        ),
        Feature(
            name="debt_ratio",
            kind="float",
            lower=0.0,
            upper=10_000_000.0,
            unit="ratio",
            description="Monthly debt payments, alimony and living costs over monthly income; in dollars if income is missing",
            example=0.8,
            aliases=("DebtRatio",),
            adverse_reason=DEBT,
        ),
        Feature(
            name="monthly_income",
            kind="float",
            lower=0.0,
            upper=100_000_000.0,
            unit="dollars per month",
            description="Gross monthly income",
            example=9_120.0,
            is_nullable=True,
            aliases=("MonthlyIncome",),
            adverse_reason=INCOME,
        ),
        Feature(
            name="open_credit_lines",
            kind="int",
            lower=0,
            upper=1_000,
            unit="count",
            description="Open loans (such as car loans and mortgages) and lines of credit (such as cards)",
            example=13,
            aliases=("NumberOfOpenCreditLinesAndLoans",),
            adverse_reason=OPEN_LINES,
        ),
        Feature(
            name="times_90_days_late",
            kind="int",
            lower=0,
            upper=98,
            unit="count in 2 years",
            description="Times 90 days or more past due; 96 and 98 are codes",
            example=0,
            aliases=("NumberOfTimes90DaysLate",),
            adverse_reason=LATE_PAYMENTS,
        ),
        Feature(
            name="real_estate_loans",
            kind="int",
            lower=0,
            upper=1_000,
            unit="count",
            description="Mortgages and real estate loans, home equity lines included",
            example=6,
            aliases=("NumberRealEstateLoansOrLines",),
            adverse_reason=REAL_ESTATE,
        ),
        Feature(
            name="times_60_89_days_late",
            kind="int",
            lower=0,
            upper=98,
            unit="count in 2 years",
            description="Times 60 to 89 days past due but no worse; 96 and 98 are codes",
            example=0,
            aliases=("NumberOfTime60-89DaysPastDueNotWorse",),
            adverse_reason=LATE_PAYMENTS,
        ),
        Feature(
            name="dependents",
            kind="int",
            lower=0,
            upper=100,
            unit="count",
            description="Dependents in the family, the borrower left out",
            example=2,
            is_nullable=True,
            aliases=("NumberOfDependents",),
            adverse_reason=INCOME,
        ),
    ),
    derived=(
        DerivedFeature(
            name="total_times_late",
            kind="int",
            unit="count in 2 years",
            formula="sum of the three late-payment counts, codes 96 and 98 as 0",
            reason="the number of lapses of any length tells more than each rare count by itself",
            adverse_reason=LATE_PAYMENTS,
        ),
        DerivedFeature(
            name="is_late_code",
            kind="int",
            unit="0 or 1",
            formula="1 if any late-payment count is 96 or more",
            reason="such borrowers default in more than half of the cases; as counts the codes would be nonsense",
            adverse_reason=LATE_PAYMENTS,
        ),
        DerivedFeature(
            name="is_income_missing",
            kind="int",
            unit="0 or 1",
            formula="1 if monthly_income is missing",
            reason="a fifth of incomes are missing, and not at random",
            adverse_reason=INCOME,
        ),
        DerivedFeature(
            name="monthly_debt",
            kind="float",
            unit="dollars per month",
            formula="debt_ratio x monthly_income; debt_ratio itself if income is missing or 0",
            reason="without an income the source's debt ratio is the debt in dollars: this puts all rows in one unit",
            adverse_reason=DEBT,
        ),
        DerivedFeature(
            name="income_per_person",
            kind="float",
            unit="dollars per month",
            formula="monthly_income / (1 + dependents), missing dependents as 0",
            reason="the same income carries one person further than five",
            is_nullable=True,
            adverse_reason=INCOME,
        ),
        DerivedFeature(
            name="log_utilization",
            kind="float",
            unit="log(1 + ratio)",
            formula="log(1 + revolving_utilization)",
            reason="utilization runs to 22,000; on this scale its shifts stay visible",
            adverse_reason=UTILIZATION,
        ),
    ),
    derive=derive,
    synthesize=synthesize,
    default_csv="cs-training.csv",
    segments=(
        Segment("age", (30, 45, 60), "age band in years"),
        Segment("is_income_missing", (0.5,), "income stated or missing"),
    ),
    scenarios=SCENARIOS,
)
