"""Rules of explanations: the parts are the model's own log-odds, no other model gets any, and reasons name what is bad."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
)

from selfheal.credit_risk import contract as credit
from selfheal.domain.contract import TRUE_LABEL, AdverseReason, Feature, FloatArray, ModelContract
from selfheal.domain.model.explanation import (
    MAX_REASONS,
    MIN_REASON_LOG_ODDS,
    Baseline,
    Explainer,
    Explanation,
    Reason,
    build_explainer,
)
from selfheal.kit.errors import ConfigurationError, ModelNotExplainableError
from tests.toy_use_case import contract as toy

N_ROWS = 1_500
TEMPERATURE, LOAD, RESTARTS, STRAIN = range(4)


def sample(contract: ModelContract, n_rows: int = N_ROWS, seed: int = 1) -> tuple[FloatArray, Any]:
    """Feature matrix and labels."""
    rows = contract.synthesize(n_rows, seed)
    return contract.feature_frame(rows).to_numpy(dtype=np.float64), rows[TRUE_LABEL].to_numpy()


def fitted(contract: ModelContract, pipeline: Any = None) -> Any:
    return (pipeline or contract.build_estimator(0)).fit(*sample(contract))


def explainer_of(contract: ModelContract, pipeline: Any) -> Explainer:
    return build_explainer(pipeline, contract, sample(contract)[0])


def each_column_by_itself(**output: str) -> Pipeline:
    """Everything at once that keeps features apart: columns out of order, dropped, indicated, one-hot, sparse, splines."""
    columns = ColumnTransformer(
        [
            ("bins", KBinsDiscretizer(5, quantile_method="averaged_inverted_cdf"), [LOAD]),
            ("counts", OneHotEncoder(handle_unknown="ignore"), [RESTARTS]),
            ("temperature", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), [TEMPERATURE]),
            ("curve", make_pipeline(StandardScaler(), SplineTransformer(4, extrapolation="linear")), [STRAIN]),
        ],
        sparse_threshold=1.0,
    )
    return Pipeline([("columns", columns), ("classify", LogisticRegression())])


def as_frames() -> Any:
    """Frames between the steps, and a column of ones in place of the intercept."""
    steps = SimpleImputer(add_indicator=True), StandardScaler(), PolynomialFeatures(1)
    pipeline = make_pipeline(*steps, LogisticRegression(fit_intercept=False))
    return pipeline.set_output(transform="pandas")


CASES = {
    "credit": (credit, lambda: fitted(credit)),
    "toy": (toy, lambda: fitted(toy)),
    "columns apart": (toy, lambda: fitted(toy, each_column_by_itself())),
    "frames": (toy, lambda: fitted(toy, as_frames())),
}


@dataclasses.dataclass(frozen=True)
class Case:
    contract: ModelContract
    pipeline: Any
    explainer: Explainer


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    contract, make = CASES[request.param]
    pipeline = make()
    return Case(contract, pipeline, explainer_of(contract, pipeline))


@pytest.fixture(scope="module")
def borrower_model() -> Case:
    pipeline = fitted(credit)
    return Case(credit, pipeline, explainer_of(credit, pipeline))


def values_of(feature: Feature) -> st.SearchStrategy[float]:
    """Usual values, the limits of what is possible, anything between, and nothing at all where that may be."""
    usual = [feature.example, feature.lower, feature.upper]
    number = st.sampled_from(usual) | st.floats(feature.lower, feature.upper)
    number = number | st.floats(feature.lower, min(feature.upper, feature.lower + 10.0))
    number = number.map(np.floor) if feature.kind == "int" else number
    return number | st.just(np.nan) if feature.is_nullable else number


def rows_of(contract: ModelContract) -> st.SearchStrategy[FloatArray]:
    """Feature matrices of a few possible rows."""
    row = st.tuples(*(values_of(feature) for feature in contract.inputs))
    return st.lists(row, min_size=1, max_size=8).map(
        lambda rows: contract.matrix(dict(zip(contract.input_names, np.array(rows).T, strict=True)))
    )


# The parts are the whole


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_baseline_and_contributions_are_the_log_odds_of_the_model_for_every_row(case: Case, data: Any) -> None:
    matrix = data.draw(rows_of(case.contract))
    explanation = case.explainer.explain(matrix)
    parts = explanation.baseline_log_odds + explanation.contributions.sum(axis=1)
    assert explanation.is_exact.all()
    np.testing.assert_allclose(parts, case.pipeline.decision_function(matrix), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(explanation.log_odds, parts, rtol=1e-9, atol=1e-9)
    refusal, event = case.pipeline.predict_proba(matrix).T
    is_far_from_certain = np.minimum(refusal, event) > 1e-6  # nearer to 1 the probability itself has lost the digits
    logit = np.log(event[is_far_from_certain] / refusal[is_far_from_certain])
    np.testing.assert_allclose(parts[is_far_from_certain], logit, rtol=0, atol=1e-9)


def test_a_certain_model_has_finite_log_odds() -> None:
    pipeline = fitted(toy)
    hottest = toy.matrix(
        {"temperature_c": np.array([300.0]), "load_ratio": np.array([5.0]), "restarts": np.array([1e3])}
    )
    assert pipeline.predict_proba(hottest)[0, 1] == 1.0
    explanation = explainer_of(toy, pipeline).explain(hottest)
    assert np.isfinite(explanation.log_odds).all()
    assert explanation.is_exact.all()


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_moving_one_feature_moves_its_contribution_alone(case: Case, data: Any) -> None:
    before, other = data.draw(rows_of(case.contract)), data.draw(rows_of(case.contract))
    feature = data.draw(st.integers(0, before.shape[1] - 1))
    after = before.copy()
    after[:, feature] = other[0, feature]
    change = case.explainer.explain(after).contributions - case.explainer.explain(before).contributions
    np.testing.assert_allclose(np.delete(change, feature, axis=1), 0.0, atol=1e-12)


def test_every_feature_that_the_model_uses_contributes_under_its_own_name(case: Case) -> None:
    """Each feature by itself, moved through real values, moves the model's score by what its contribution moves."""
    matrix, _ = sample(case.contract, 50, seed=5)
    for feature, name in enumerate(case.explainer.feature_names):
        moved = matrix.copy()
        moved[:, feature] = np.roll(matrix[:, feature], 1)
        scores = case.pipeline.decision_function(moved) - case.pipeline.decision_function(matrix)
        change = case.explainer.explain(moved).contributions - case.explainer.explain(matrix).contributions
        np.testing.assert_allclose(change[:, feature], scores, atol=1e-9, err_msg=name)


def test_a_row_is_explained_alone_as_among_ten_thousand(borrower_model: Case) -> None:
    matrix, _ = sample(credit, 10_000)
    together = borrower_model.explainer.explain(matrix)
    reasons = together.adverse_reasons()
    for row in (0, 4_321, 9_999):
        alone = borrower_model.explainer.explain(matrix[[row]])
        np.testing.assert_array_equal(alone.contributions[0], together.contributions[row])
        np.testing.assert_array_equal(alone.reason_contributions[0], together.reason_contributions[row])
        assert alone.log_odds[0] == together.log_odds[row]
        assert [reason.code for reason in alone.adverse_reasons()[0]] == [reason.code for reason in reasons[row]]


def test_a_model_read_from_its_file_is_explained_as_the_one_that_was_saved(borrower_model: Case) -> None:
    file = skops.io.dumps(borrower_model.pipeline)
    loaded = skops.io.loads(file, trusted=skops.io.get_untrusted_types(data=file))
    matrix, _ = sample(credit, 100, seed=3)
    again = explainer_of(credit, loaded).explain(matrix)
    np.testing.assert_array_equal(again.contributions, borrower_model.explainer.explain(matrix).contributions)


# What it is measured against


def test_the_baseline_is_the_average_of_the_reference(case: Case) -> None:
    reference, _ = sample(case.contract, 700, seed=8)
    explainer = build_explainer(case.pipeline, case.contract, reference)
    explanation = explainer.explain(reference)
    assert explanation.baseline is Baseline.REFERENCE
    assert explanation.baseline_log_odds == pytest.approx(case.pipeline.decision_function(reference).mean(), abs=1e-9)
    np.testing.assert_allclose(explanation.contributions.mean(axis=0), 0.0, atol=1e-9)


@pytest.mark.parametrize("reference", [None, np.empty((0, 4))], ids=["none", "no rows"])
def test_without_a_reference_the_stand_in_is_the_baseline_and_the_explanation_says_so(
    reference: FloatArray | None,
) -> None:
    pipeline = fitted(toy)
    explanation = build_explainer(pipeline, toy, reference).explain(sample(toy)[0])
    assert explanation.baseline is Baseline.STAND_IN
    assert explanation.is_exact.all()


# Who gets none


def flags_heavy_load_after_restarts(matrix: FloatArray) -> FloatArray:
    """The load counts double, but only on machines that were restarted often: rare, and an interaction all the same."""
    heavy = matrix[:, LOAD] * np.where(matrix[:, RESTARTS] > 5, 2.0, 1.0)
    return np.column_stack([matrix[:, [RESTARTS]], heavy])


def less_the_mean_of_the_call(matrix: FloatArray) -> FloatArray:
    return np.asarray(np.nan_to_num(matrix) - np.nan_to_num(matrix).mean(axis=0))


class BiasedLogistic(LogisticRegression):  # type: ignore[misc]
    """A logistic regression whose probabilities are not those of its coefficients."""

    def predict_proba(self, matrix: FloatArray) -> FloatArray:
        given = super().predict_proba(matrix)[:, 1] ** 1.0001
        return np.column_stack([1.0 - given, given])


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [
        pytest.param(
            make_pipeline(SimpleImputer(), PolynomialFeatures(2), StandardScaler(), LogisticRegression()),
            "mixes temperature_c and load_ratio",
            id="interactions",
        ),
        pytest.param(
            make_pipeline(SimpleImputer(), StandardScaler(), PCA(2), LogisticRegression()), "mixes", id="components"
        ),
        pytest.param(
            make_pipeline(SimpleImputer(), Normalizer(), LogisticRegression()), "mixes temperature_c and", id="row norm"
        ),
        pytest.param(
            make_pipeline(KNNImputer(), StandardScaler(), LogisticRegression()),
            "mixes temperature_c and load_ratio",
            id="neighbours fill gaps",
        ),
        pytest.param(
            make_pipeline(FunctionTransformer(flags_heavy_load_after_restarts), LogisticRegression()),
            "mixes load_ratio and restarts",
            id="rare interaction",
        ),
        pytest.param(
            make_pipeline(FunctionTransformer(less_the_mean_of_the_call), LogisticRegression()),
            "looks at the other rows",
            id="scaled by the call",
        ),
        pytest.param(
            make_pipeline(SimpleImputer(), RandomForestClassifier(5)),
            "RandomForestClassifier, which is not",
            id="trees",
        ),
        pytest.param(HistGradientBoostingClassifier(max_iter=3), "which is not linear", id="boosting, no pipeline"),
        pytest.param(
            make_pipeline(SimpleImputer(), CalibratedClassifierCV(LogisticRegression(), cv=2)),
            "CalibratedClassifierCV, which is not linear",
            id="calibrated",
        ),
        pytest.param(
            make_pipeline(SimpleImputer(), StandardScaler(), SGDClassifier(loss="modified_huber", random_state=0)),
            "not the logistic function",
            id="another link",
        ),
        pytest.param(
            make_pipeline(SimpleImputer(), StandardScaler(), BiasedLogistic()), "not the logistic function", id="bent"
        ),
        pytest.param(LogisticRegression(), r"fails on trial rows \(ValueError\)", id="takes no gaps"),
    ],
)
def test_a_model_that_is_no_sum_over_features_is_refused_and_told_why(pipeline: Any, why: str) -> None:
    matrix, labels = sample(toy)
    pipeline.fit(np.nan_to_num(matrix) if isinstance(pipeline, LogisticRegression) else matrix, labels)
    with pytest.raises(ModelNotExplainableError, match=why):
        explainer_of(toy, pipeline)


def test_gaps_are_tried_even_if_no_row_at_hand_has_any() -> None:
    """Filling a gap is the only moment at which this imputer looks at the other columns."""
    without_gaps = dataclasses.replace(toy, synthesize=lambda n_rows, seed: toy.synthesize(n_rows, seed).fillna(60.0))
    pipeline = fitted(toy, make_pipeline(KNNImputer(), StandardScaler(), LogisticRegression()))
    with pytest.raises(ModelNotExplainableError, match="mixes temperature_c and load_ratio"):
        build_explainer(pipeline, without_gaps, sample(without_gaps)[0])


@pytest.mark.parametrize("labels", [(1, 2), (0, 1, 2)], ids=["other classes", "three classes"])
def test_a_model_of_other_classes_is_refused(labels: tuple[int, ...]) -> None:
    matrix, _ = sample(toy)
    pipeline = toy.build_estimator(0).fit(matrix, np.resize(labels, len(matrix)))
    with pytest.raises(ModelNotExplainableError, match="class 1 from class 0"):
        explainer_of(toy, pipeline)


def with_flag(matrix: FloatArray) -> FloatArray:
    """Flags rows that break two of the contract's formulas at once, which no single feature can do."""
    columns = dict(zip(credit.feature_names, matrix.T, strict=True))
    derived = credit.derive(columns)
    is_broken = [np.abs(columns[name] - derived[name]) > 1e-9 for name in ("log_utilization", "total_times_late")]
    return np.column_stack([np.nan_to_num(matrix) / 1e6, np.logical_and(*is_broken)])


def test_a_column_that_moves_only_when_several_features_do_is_found_too() -> None:
    pipeline = fitted(credit, make_pipeline(FunctionTransformer(with_flag), LogisticRegression()))
    explainer_of(credit, pipeline)  # the flag never rose in training, so it weighs nothing
    pipeline[-1].coef_[0, -1] = 1.0
    with pytest.raises(ModelNotExplainableError, match="mixes features"):
        explainer_of(credit, pipeline)


def test_an_interaction_that_weighs_nothing_hinders_nothing() -> None:
    pipeline = fitted(
        toy, make_pipeline(SimpleImputer(), PolynomialFeatures(2), StandardScaler(), LogisticRegression())
    )
    is_interaction = (pipeline[1].powers_ > 0).sum(axis=1) > 1
    pipeline[-1].coef_[0, is_interaction] = 0.0
    assert explainer_of(toy, pipeline).explain(sample(toy)[0]).is_exact.all()


def test_a_row_with_a_category_that_no_trial_row_had_is_marked_and_the_others_are_explained() -> None:
    """Trained on, but in neither the reference nor the stand-in: what its column depends on was never seen."""
    matrix, labels = sample(toy)
    matrix[:20, RESTARTS] = 777.0
    columns = ColumnTransformer(
        [("counts", OneHotEncoder(handle_unknown="ignore"), [RESTARTS]), ("load", "passthrough", [LOAD])]
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(matrix, labels)
    explanation = build_explainer(pipeline, toy, matrix[20:]).explain(matrix[10:30])
    assert explanation.is_exact.tolist() == [False] * 10 + [True] * 10


# Reasons


def borrower(**changes: float) -> FloatArray:
    """The feature matrix of one unremarkable borrower, changed."""
    usual = {
        "revolving_utilization": 0.1,
        "age": 52.0,
        "times_30_59_days_late": 0.0,
        "debt_ratio": 0.35,
        "monthly_income": 5_500.0,
        "open_credit_lines": 8.0,
        "times_90_days_late": 0.0,
        "real_estate_loans": 1.0,
        "times_60_89_days_late": 0.0,
        "dependents": 1.0,
    }
    return credit.matrix({name: np.array([value]) for name, value in (usual | changes).items()})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"times_90_days_late": 3.0, "times_30_59_days_late": 2.0, "revolving_utilization": 1.1},
            ["LATE_PAYMENTS", "UTILIZATION"],
        ),
        ({"revolving_utilization": 1.1}, ["UTILIZATION"]),
        ({"age": 22.0}, ["AGE"]),
        ({"monthly_income": 900.0}, ["INCOME"]),
        ({"times_30_59_days_late": 98.0, "times_60_89_days_late": 98.0, "times_90_days_late": 98.0}, ["LATE_PAYMENTS"]),
    ],
    ids=["late and maxed out", "maxed out", "young", "poor", "late codes"],
)
def test_the_first_reasons_name_what_is_bad(
    borrower_model: Case, changes: dict[str, float], expected: list[str]
) -> None:
    (reasons,) = borrower_model.explainer.explain(borrower(**changes)).adverse_reasons()
    assert [reason.code for reason in reasons][: len(expected)] == expected
    texts = {reason.code: reason.text for reason in credit.adverse_reasons}
    assert all(reason.text == texts[reason.code] for reason in reasons)


def test_a_row_that_is_better_than_the_baseline_everywhere_has_no_reason(borrower_model: Case) -> None:
    matrix, _ = sample(credit)
    best_of_each = borrower_model.explainer.explain(matrix).contributions.argmin(axis=0)
    row = matrix[best_of_each, np.arange(matrix.shape[1])]
    assert borrower_model.explainer.explain(row[np.newaxis]).adverse_reasons() == [()]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_reasons_are_the_strongest_sums_of_what_their_features_contribute(case: Case, data: Any) -> None:
    explanation = case.explainer.explain(data.draw(rows_of(case.contract)))
    for contributions, reasons in zip(explanation.contributions, explanation.adverse_reasons(), strict=True):
        sums: dict[str, float] = {}
        for reason, contribution in zip(case.contract.adverse_reasons, contributions.tolist(), strict=True):
            sums[reason.code] = sums.get(reason.code, 0.0) + contribution
        adverse = sorted((share for share in sums.values() if share > MIN_REASON_LOG_ODDS), reverse=True)
        assert [reason.contribution for reason in reasons] == pytest.approx(adverse[:MAX_REASONS], abs=1e-9)
        assert all(sums[reason.code] == pytest.approx(reason.contribution, abs=1e-9) for reason in reasons)


def explanation_with(contributions: FloatArray) -> Explanation:
    """Of toy rows with these contributions."""
    reasons = tuple(dict.fromkeys(toy.adverse_reasons))
    members = np.array([[float(own == reason) for reason in reasons] for own in toy.adverse_reasons])
    total = contributions.sum(axis=1)
    return Explanation(
        toy.feature_names,
        Baseline.REFERENCE,
        0.0,
        total,
        contributions,
        np.isfinite(total),
        reasons,
        contributions @ members,
    )


def test_features_of_one_reason_take_back_from_each_other_what_they_can() -> None:
    load_alone = np.array([[0.0, 0.9, 0.5, 0.0]])
    load_and_strain = np.array([[0.0, 0.9, 0.5, -0.7]])
    assert [r.code for r in explanation_with(load_alone).adverse_reasons()[0]] == ["LOAD", "restarts"]
    ((first, second),) = explanation_with(load_and_strain).adverse_reasons()
    assert (first.code, second.code) == ("restarts", "LOAD")
    assert second.contribution == pytest.approx(0.2)


def test_what_hardly_matters_is_no_reason() -> None:
    contributions = np.array([[MIN_REASON_LOG_ODDS, 0.0, 1.5 * MIN_REASON_LOG_ODDS, 0.0]])
    assert explanation_with(contributions).adverse_reasons() == [
        (Reason("restarts", "Restarts in the last day", 1.5 * MIN_REASON_LOG_ODDS),)
    ]


# Words


def test_the_shipped_contract_has_words_for_every_feature() -> None:
    for feature in (*credit.inputs, *credit.derived):
        assert feature.adverse_reason is not None, feature.name
        assert not {name for name in credit.feature_names if "_" in name and name in feature.adverse_reason.text}


def test_a_feature_without_a_reason_stands_for_itself() -> None:
    restarts = toy.adverse_reasons[RESTARTS]
    assert restarts == AdverseReason(code="restarts", text="Restarts in the last day")


def with_reason(reason: AdverseReason) -> ModelContract:
    return dataclasses.replace(toy, inputs=(dataclasses.replace(toy.inputs[0], adverse_reason=reason), *toy.inputs[1:]))


def test_a_code_with_two_texts_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="adverse reason 'LOAD' two texts"):
        with_reason(AdverseReason("LOAD", "something else"))


def test_words_do_not_change_the_hash() -> None:
    assert with_reason(AdverseReason("HEAT", "Heat of the bearing")).hash == toy.hash
