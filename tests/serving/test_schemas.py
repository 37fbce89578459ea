"""The request model follows the contract: names, aliases, types, limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfheal.contract import Feature, ModelContract
from selfheal.credit_risk import contract as credit_risk
from serving.problems import NOT_WHOLE, ProblemError
from serving.requests import RefusedRow, RequestParser
from serving.schemas import example_row, row_model
from tests import toy_use_case

CONTRACTS = (credit_risk, toy_use_case.contract)
CreditRow = row_model(credit_risk)

KAGGLE_ROW = {
    "RevolvingUtilizationOfUnsecuredLines": 0.766126609,
    "age": 45,
    "NumberOfTime30-59DaysPastDueNotWorse": 2,
    "DebtRatio": 0.802982129,
    "MonthlyIncome": 9120,
    "NumberOfOpenCreditLinesAndLoans": 13,
    "NumberOfTimes90DaysLate": 0,
    "NumberRealEstateLoansOrLines": 6,
    "NumberOfTime60-89DaysPastDueNotWorse": 0,
    "NumberOfDependents": 2,
}
CANONICAL_ROW = dict(zip(credit_risk.input_names, KAGGLE_ROW.values(), strict=True))


CREDIT = RequestParser(credit_risk)
OTHER_FIELDS = {"request_source", "prediction_id", "explain"}


def values(row: dict[str, Any]) -> dict[str, Any]:
    return CreditRow.model_validate(row).model_dump(exclude=OTHER_FIELDS)


def test_a_row_with_kaggles_column_names_is_accepted() -> None:
    assert values(KAGGLE_ROW) == values(CANONICAL_ROW) == CANONICAL_ROW


def test_kaggles_column_names_may_be_spelled_with_underscores() -> None:
    assert values({name.replace("-", "_"): value for name, value in KAGGLE_ROW.items()}) == CANONICAL_ROW


def test_our_own_names_may_be_spelled_with_hyphens() -> None:
    assert values({name.replace("_", "-"): value for name, value in CANONICAL_ROW.items()}) == CANONICAL_ROW


def test_a_feature_under_two_names_at_once_is_refused() -> None:
    with pytest.raises(ValidationError, match="NumberOfDependents"):
        CreditRow.model_validate(CANONICAL_ROW | {"NumberOfDependents": 3})


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_the_contracts_own_example_is_accepted(contract: ModelContract) -> None:
    assert row_model(contract).model_validate(example_row(contract)).model_dump(exclude=OTHER_FIELDS) == (
        example_row(contract)
    )


@pytest.mark.parametrize(
    ("contract", "feature"),
    [(contract, feature) for contract in CONTRACTS for feature in contract.inputs],
    ids=lambda value: value.name,
)
def test_the_limits_themselves_are_accepted_and_nothing_beyond(contract: ModelContract, feature: Feature) -> None:
    model, row = row_model(contract), example_row(contract)
    for limit in (feature.lower, feature.upper):
        assert getattr(model.model_validate(row | {feature.name: limit}), feature.name) == limit
    step = 1 if feature.kind == "int" else 1e-3
    for beyond in (feature.lower - step, feature.upper + step):
        with pytest.raises(ValidationError, match=feature.name):
            model.model_validate(row | {feature.name: beyond})


@pytest.mark.parametrize("in_batch", [False, True])
@given(st.floats(min_value=0, max_value=98) | st.sampled_from([45.0, 45.00000001, 1 - 2**-53, 5e-324]))
def test_a_count_is_a_whole_number(in_batch: bool, value: float) -> None:
    """Exactly: one that is off by a rounding is refused too, and would else be logged as another number."""
    row = CANONICAL_ROW | {"times_90_days_late": value}
    if in_batch:
        (parsed,) = CREDIT.batch(json.dumps({"instances": [row]}).encode())
        wrong = parsed.problems if isinstance(parsed, RefusedRow) else []
    else:
        try:
            CREDIT.row(json.dumps(row).encode())
            wrong = []
        except ProblemError as problem:
            wrong = problem.extra["errors"]
    expected = [] if value.is_integer() else [{"field": "times_90_days_late", "message": NOT_WHOLE}]
    assert wrong == expected


@pytest.mark.parametrize("feature", credit_risk.inputs, ids=lambda feature: feature.name)
def test_only_a_nullable_feature_may_be_missing(feature: Feature) -> None:
    without = {name: value for name, value in CANONICAL_ROW.items() if name != feature.name}
    if feature.is_nullable:
        assert values(without)[feature.name] is None
        assert values(without | {feature.name: None})[feature.name] is None
    else:
        for row in (without, without | {feature.name: None}):
            with pytest.raises(ValidationError, match=feature.name):
                values(row)
