"""What a declaration of each kind must say, and what of a contract depends on the kinds of its features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline

from selfheal.credit_risk import contract as credit_risk
from selfheal.domain.contract import UNSEEN_LEVELS, DerivedFeature, Feature, Label, ModelContract, Segment
from selfheal.domain.derivation import inputs_of_derived
from selfheal.domain.derived_values import DerivedValues
from selfheal.domain.levels import code_of
from selfheal.domain.model.examination import examine
from selfheal.domain.model.plain_scoring import plain_scoring
from selfheal.domain.retraining.evaluation import segment_bands
from selfheal.domain.row_size import row_problem
from selfheal.kit.errors import ConfigurationError, ModelRefusedError
from tests import toy_use_case
from tests.docs.pages import fenced
from tests.kinds_use_case import PLANS, contract


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
        (Feature("a", "text", 0, 1, "", "", 1), "kind is 'text', use 'float' or 'int' or 'bool' or 'category'"),  # type: ignore[arg-type]
        (Feature("a", "category", description="", example=3), "example is 3, use a text in quotes"),
        (Feature("a", "category", 0, 1, description="", example="x"), "category, which has no limits: leave out lower"),
        (Feature("a", "category", description="", example=" "), "level ' ' of 'a' is blank"),
        (Feature("a", "category", description="", example="x", levels=("x" * 129,)), "has 129 characters: send a name"),
        (
            Feature("a", "category", description="", example="x", levels=("\u00e9", "e\u0301")),
            "declares the level 'é' more",
        ),
        (
            Feature("a", "int", 0, 1, "", "", 1, levels=("x",)),
            "has levels, but is of kind 'int'; declare it as a 'category'",
        ),
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
    other = replace(contract, inputs=(*contract.inputs[:2], as_int, *contract.inputs[3:]))
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


def test_a_category_enters_the_matrix_as_a_code_and_a_derivation_as_a_text() -> None:
    rows = contract.synthesize(40, 1)  # type: ignore[misc]
    frame = contract.feature_frame(rows)
    assert frame["plan"].tolist() == rows["plan"].tolist()
    assert (frame["term"] == "free").tolist() == (rows["plan"] == "month-to-month").tolist()
    matrix = contract.matrix({name: rows[name].to_numpy() for name in contract.input_names})
    np.testing.assert_array_equal(matrix, contract.matrix_of(frame))
    place = contract.feature_names.index("region")
    assert np.isnan(matrix[:, place]).tolist() == rows["region"].isna().tolist()
    assert contract.category_positions == [4, 5, 7]
    assert set(np.unique(matrix[:, 7])) == {code_of("free"), code_of("bound")}


@pytest.mark.parametrize("level", [3, "", "x" * 129, "a\nb"])
def test_a_derivation_that_gives_no_level_fails_with_the_value(level: object) -> None:
    wrong = replace(
        contract, derive=lambda columns: contract.derive(columns) | {"term": [level] * len(columns["plan"])}
    )
    rows = contract.synthesize(4, 1)  # type: ignore[misc]
    with pytest.raises(ValueError, match="for the category 'term'; give a short text, or None"):
        wrong.feature_frame(rows)


def test_a_missing_derived_level_is_unusable_unless_it_may_be_missing() -> None:
    nothing = replace(
        contract, derive=lambda columns: contract.derive(columns) | {"term": [None] * len(columns["plan"])}
    )
    frame = nothing.feature_frame(contract.synthesize(4, 1))  # type: ignore[misc]
    kept, said = nothing.without_unusable(frame)
    assert (len(kept), said) == (0, "term is missing in 4")
    nullable = replace(nothing, derived=(nothing.derived[0], replace(nothing.derived[1], is_nullable=True)))
    assert len(nullable.without_unusable(frame)[0]) == 4


def test_what_a_derived_level_depends_on_is_found() -> None:
    assert inputs_of_derived(contract) == {"is_new": frozenset({"tenure_months"}), "term": frozenset({"plan"})}


def test_probe_rows_of_a_category_have_known_and_unseen_levels_and_missing_ones() -> None:
    probe = contract.probe_rows()
    assert {*PLANS, *UNSEEN_LEVELS} <= set(probe["plan"])
    assert None in probe["region"].tolist()
    assert None not in probe["plan"].tolist()


def test_declared_levels_are_no_part_of_the_hash_unless_a_derivation_makes_something_of_them() -> None:
    plan, region = contract.inputs[4:]
    reordered = replace(plan, levels=plan.levels[::-1], example="one year")
    for same in ((reordered, region), (plan, replace(region, levels=("Région 1",)))):
        assert replace(contract, inputs=(*contract.inputs[:4], *same)).hash == contract.hash
    without = replace(plan, levels=())
    assert replace(contract, inputs=(*contract.inputs[:4], without, region)).hash != contract.hash


def test_a_segment_has_a_band_for_each_common_level_of_a_category() -> None:
    with pytest.raises(
        ConfigurationError, match=r"cuts the category 'plan' by numbers; use edges=\(\): a band per level"
    ):
        replace(contract, segments=(Segment("plan", (1.0,), "by plan"),))
    segments = replace(contract, segments=(Segment("plan", (), "by plan"), Segment("region", (), "by region"))).segments
    rows = contract.feature_frame(contract.synthesize(900, 1))  # type: ignore[misc]
    bands = segment_bands(rows, segments)
    assert [name for name in bands if name.startswith("plan")] == [f"plan is {plan!r}" for plan in sorted(PLANS)]
    assert len(bands) == len(PLANS) + 10
    assert bands["plan is 'one year'"].tolist() == (rows["plan"] == "one year").tolist()
    assert min(int(band.sum()) for band in bands.values()) >= 30


def test_the_default_estimator_learns_common_levels_and_takes_any_other() -> None:
    rows = contract.synthesize(1_500, 1)  # type: ignore[misc]
    fitted = contract.estimator(0).fit(contract.matrix_of(contract.feature_frame(rows)), rows["true_label"])
    names = [str(name) for name in fitted[0].named_transformers_["levels"].get_feature_names_out()]
    assert len([name for name in names if name.startswith("x0")]) == len(PLANS)
    assert "x1_infrequent_sklearn" in names
    examine(fitted, contract)


def test_a_model_that_reads_codes_as_numbers_is_refused() -> None:
    rows = contract.synthesize(1_500, 1)  # type: ignore[misc]
    trees = Pipeline([("classify", HistGradientBoostingClassifier(max_iter=10, random_state=0))])
    trees.fit(contract.matrix_of(contract.feature_frame(rows)), rows["true_label"])
    with pytest.raises(
        ModelRefusedError, match=r"'(plan|region)' that it has never seen different scores .* encode the columns"
    ):
        examine(trees, contract)


def test_a_model_that_knows_no_unseen_level_is_refused() -> None:
    rows = contract.synthesize(1_500, 1)  # type: ignore[misc]
    strict = contract.estimator(0).set_params(columns__levels__handle_unknown="error")
    strict.fit(contract.matrix_of(contract.feature_frame(rows)), rows["true_label"])
    with pytest.raises(ValueError, match="unknown categories"):
        examine(strict, contract)


def test_the_served_scoring_of_categories_is_that_of_the_pipeline_alone_and_in_any_batch() -> None:
    rows = contract.synthesize(1_500, 1)  # type: ignore[misc]
    matrix = contract.matrix_of(contract.feature_frame(rows))
    fitted = contract.estimator(0).fit(matrix, rows["true_label"])
    score = plain_scoring(fitted, contract.probe_matrix())
    expected = score(matrix)
    np.testing.assert_allclose(expected, fitted.predict_proba(matrix)[:, 1], rtol=0, atol=1e-12)
    for size in (1, 7, 256):
        np.testing.assert_array_equal(score(matrix[:size]), expected[:size])
    assert score.__qualname__.startswith("_composed"), "scored without scikit-learn's checks"


def test_the_estimator_on_the_page_encodes_categories() -> None:
    (source,) = [block for block in fenced("docs/bring_your_own_model.md", "python") if "OrdinalEncoder" in block]
    names: dict[str, Any] = {}
    exec(source, names)
    rows = contract.synthesize(1_500, 1)  # type: ignore[misc]
    fitted = names["build_estimator"](0).fit(contract.matrix_of(contract.feature_frame(rows)), rows["true_label"])
    examine(fitted, contract)


def test_a_frame_has_flags_as_numbers_whatever_a_derivation_gives() -> None:
    """A column of numpy's flags and one of numbers together would be of objects, as levels are."""
    frame = contract.feature_frame(contract.synthesize(20, 1))  # type: ignore[misc]
    assert dict(frame.dtypes) == contract.dtypes
