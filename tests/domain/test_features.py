"""What a declaration of each kind must say, and what of a contract depends on the kinds of its features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfheal.credit_risk import contract as credit_risk
from selfheal.domain.contract import DerivedFeature, Feature, Label, ModelContract
from selfheal.domain.derived_values import DerivedValues
from selfheal.domain.row_size import row_problem
from selfheal.kit.errors import ConfigurationError
from tests import toy_use_case
from tests.kinds_use_case import contract


def of_one(feature: Feature) -> ModelContract:
    return ModelContract("one", "One input.", Label("y", "the event"), (feature,))


def test_the_hash_of_a_contract_of_numbers_is_that_of_the_releases_before() -> None:
    assert credit_risk.hash == "9fe41d01d54d538b3ef7d8e20b194aae24309d1ddacf2ea84ed2c4623a2bbe63"
    assert toy_use_case.contract.hash == "42d5c3a1d507c954886bbcc6f1ba6613a24bb37e2145f15c4a9b7ef78ad41a05"


def test_a_bool_needs_neither_limits_nor_a_unit() -> None:
    feature = of_one(Feature("is_new", "bool", description="New", example=True)).inputs[0]
    assert (feature.lower, feature.upper, feature.unit) == (0, 1, "true or false")


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (Feature("a", "bool", description="", example=1), "example is 1, use True or False"),
        (Feature("a", "bool", description="", example="yes"), "example is 'yes', use True or False"),  # type: ignore[arg-type]
        (Feature("a", "bool", 0, 2, description="", example=True), "true or false: leave out lower and upper"),
        (Feature("a", "int", 0, 1, "", "", True), "example is True, use a number"),
        (Feature("a", "int", description="", example=1), "lower, upper, unit missing"),
        (Feature("a", "bool"), "description, example missing"),
        (Feature("a", "text", 0, 1, "", "", 1), "kind is 'text', use 'float' or 'int' or 'bool'"),  # type: ignore[arg-type]
    ],
)
def test_what_a_declaration_lacks_is_said_with_the_remedy(feature: Feature, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        of_one(feature)


def test_probe_rows_of_a_bool_are_both_of_its_values_and_nothing_else() -> None:
    probe = contract.probe_rows()
    assert set(probe["is_paperless"]) == {0.0, 1.0}
    assert set(probe["has_partner"][~np.isnan(probe["has_partner"])]) == {0.0, 1.0}
    assert np.isnan(probe["has_partner"]).any()


def test_the_hash_changes_with_a_kind_of_the_same_limits() -> None:
    as_int = Feature("is_paperless", "int", 0, 1, "", "", 1)
    other = replace(contract, inputs=(*contract.inputs[:2], as_int, contract.inputs[3]))
    assert other.hash != contract.hash


@pytest.mark.parametrize("value", [-1.0, 0.5, 2.0, np.inf, -np.inf])
@pytest.mark.parametrize("is_nullable", [False, True])
def test_a_derived_bool_is_1_or_0(value: float, is_nullable: bool) -> None:
    flag = DerivedFeature("is_new", "bool", "", "tenure < 6", "", is_nullable)
    checked = DerivedValues((flag, DerivedFeature("ratio", "float", "", "", "")))
    values = np.array([[1.0, value, 0.0], [3.0, 4.0, 5.0]])
    assert checked.usable(values).tolist() == [True, False, True]
    assert not checked.are_usable(values)
    assert checked.are_usable(values[:, [0, 2]])
    assert checked.summary(values) == "is_new is neither 1 nor 0 in 1"
    assert "1 for true or 0 for false is needed" in checked.problems(values[:, 1])[0]["message"]


@pytest.mark.parametrize("is_nullable", [False, True])
def test_a_derived_bool_may_be_missing_if_it_is_nullable(is_nullable: bool) -> None:
    checked = DerivedValues((DerivedFeature("is_new", "bool", "", "", "", is_nullable),))
    values = np.array([[1.0, np.nan]])
    assert checked.are_usable(values) is is_nullable
    assert checked.usable(values).tolist() == [True, is_nullable]


def test_a_row_of_postgres_holds_more_bools_than_numbers() -> None:
    assert row_problem(["int"] * 1_600) is not None
    assert row_problem(["bool"] * 1_590) is None
    assert row_problem(["bool"] * 1_600) is not None
