"""Derived values pass the same check as inputs: what a column and an estimator can hold, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.domain.contract import Columns, DerivedFeature, Feature, FloatArray, Label, ModelContract
from selfheal.domain.derived_values import MAX_FLOAT, MAX_INT, DerivedValues, unusable

INF, NAN = math.inf, math.nan


def derived(kind: str = "float", *, is_nullable: bool = False, name: str = "cover") -> DerivedFeature:
    return DerivedFeature(name, kind, "", "income / spending", "", is_nullable)  # type: ignore[arg-type]


MIXED = (
    derived(),
    derived("int", name="total"),
    derived(is_nullable=True, name="rate"),
    derived("int", is_nullable=True),
)
VALUES = st.sampled_from([0.0, -1.0, 2.5, 7.0, MAX_INT, MAX_INT + 1.0, -MAX_INT - 1.0, MAX_FLOAT, 1e39, INF, -INF, NAN])


@pytest.mark.parametrize(
    ("feature", "value", "what"),
    [
        (derived(), 1e30, None),
        (derived(), -MAX_FLOAT, None),
        (derived(), 1e39, "too large"),
        (derived(), INF, "infinite"),
        (derived(), -INF, "infinite"),
        (derived(), NAN, "missing"),
        (derived(is_nullable=True), NAN, None),
        (derived(is_nullable=True), INF, "infinite"),
        (derived("int"), MAX_INT, None),
        (derived("int"), MAX_INT + 1, "too large"),
        (derived("int"), -MAX_INT - 1, "too large"),
        (derived("int"), 2.5, "no whole number"),
        (derived("int"), NAN, "missing"),
        (derived("int"), INF, "infinite"),
        (derived("int", is_nullable=True), NAN, None),
    ],
)
def test_a_value_is_unusable_if_its_column_or_an_estimator_cannot_hold_it(
    feature: DerivedFeature, value: float, what: str | None
) -> None:
    assert unusable(feature, value) == what
    check = DerivedValues([feature])
    assert check.usable(np.array([[value]])).tolist() == [what is None]


@given(rows=st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), max_size=5))
def test_the_quick_check_of_many_rows_agrees_with_the_rule_for_each_value(rows: list[tuple[float, ...]]) -> None:
    check, values = DerivedValues(MIXED), np.array(rows, dtype=np.float64).reshape(-1, 4).T
    expected = [all(unusable(f, v) is None for f, v in zip(MIXED, row, strict=True)) for row in rows]
    assert check.usable(values).tolist() == expected
    assert check.are_usable(values) is all(expected)


def test_a_contract_that_derives_nothing_has_no_unusable_row() -> None:
    check, nothing = DerivedValues(()), np.empty((0, 3))
    assert check.are_usable(nothing)
    assert check.usable(nothing).tolist() == [True] * 3


@pytest.mark.parametrize(
    ("feature", "value", "said"),
    [
        (derived("int"), 2.7e9, "it is 2,700,000,000, too large; a whole number within ±2,147,483,647 is needed"),
        (derived("int"), 0.5, "it is 0.5, no whole number; a whole number within"),
        (derived(), INF, "it is infinite; a number within ±3.4e+38 is needed"),
        (derived(), NAN, "it is missing; a number within"),
    ],
)
def test_a_problem_names_the_feature_the_value_and_the_remedy(feature: DerivedFeature, value: float, said: str) -> None:
    (problem,) = DerivedValues([feature]).problems(np.array([value]))
    assert problem["field"] == "cover"
    assert problem["message"].startswith(f"computed from this row (income / spending) {said}")
    assert problem["message"].endswith(": correct the inputs, or narrow their limits in the contract")


def test_what_is_left_out_of_a_frame_is_counted_by_feature_and_the_rest_keeps_its_index() -> None:
    def derive(columns: Columns) -> dict[str, FloatArray]:
        with np.errstate(all="ignore"):
            return {"cover": columns["income"] / columns["spending"], "total": columns["income"] * 1e7}

    amounts = (Feature(name, "float", 0, 1e6, "", name, 1) for name in ("income", "spending"))
    contract = ModelContract(
        "shop", "", Label("bought", ""), tuple(amounts), (derived(), derived("int", name="total")), derive
    )
    inputs = pd.DataFrame({"income": [1.0, 5.0, 300.0, 0.0, 400.0], "spending": [1.0, 0.0, 2.0, 0.0, 0.0]})
    inputs.index = pd.Index([10, 20, 30, 40, 50])
    usable, left_out = contract.without_unusable(contract.feature_frame(inputs))
    assert usable.index.tolist() == [10]
    assert left_out == "cover is infinite in 2, total is too large in 2, cover is missing in 1"
    assert contract.without_unusable(usable)[1] == ""
    matrix = contract.matrix({name: inputs[name].to_numpy() for name in inputs})
    assert contract.usable_matrix({name: inputs[name].to_numpy() for name in inputs}).tolist() == matrix[:1].tolist()
