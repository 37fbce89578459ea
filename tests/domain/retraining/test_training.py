"""Rules of training: on training rows only, honest probabilities, the same with the same seed, and clear when it fails."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.model.explanation import build_explainer
from selfheal.domain.model.file import load_trusted
from selfheal.domain.model.plain_scoring import plain_scoring, served_scoring
from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.retraining.class_counts import EVALUATION, TRAIN
from selfheal.domain.retraining.dataset import (
    ORIGIN,
    ORIGINAL,
    SPLIT,
    WEIGHT,
    OriginalRows,
    TrainingSet,
)
from selfheal.domain.retraining.fitting import Parallelism, build_pipeline
from selfheal.domain.retraining.reference import MIN_REFERENCE_ROWS
from selfheal.domain.retraining.search import SCORING
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.domain.retraining.training import (
    FOLDED,
    FOLDS,
    NOT_NEEDED,
    WRAPPED,
    TrainedModel,
    _out_of_fold,
    _rows,
    train,
)
from selfheal.kit.errors import ConfigurationError, TrainingFailedError
from selfheal.services.verification.reproduction import _drawn_again
from tests.domain.retraining.rows import FEATURES, labelled, shifted, split
from tests.toy_use_case import contract, keyed


def with_last_step(estimator: Any, **grid: Any) -> ModelContract:
    """The toy use case with another classifier, whose grid is `grid`."""

    def build_estimator(seed: int) -> Pipeline:
        return Pipeline(
            [("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler()), ("classify", estimator)]
        )

    return replace(contract, build_estimator=build_estimator, param_grid={f"classify__{k}": v for k, v in grid.items()})


@pytest.fixture(scope="module")
def halves() -> TrainingSet:
    return split(labelled(1_500))


@pytest.fixture(scope="module")
def trained(halves: TrainingSet) -> TrainedModel:
    return train(halves, contract, seed=3)


def probabilities(model: TrainedModel, rows: pd.DataFrame) -> np.ndarray:
    return served_scoring(model.pipeline, contract)(rows[FEATURES].to_numpy(dtype=np.float64))


def test_the_same_rows_and_seed_give_the_same_model(halves: TrainingSet, trained: TrainedModel) -> None:
    again = train(halves, contract, seed=3)
    assert again.threshold == trained.threshold
    assert again.params == trained.params
    assert again.metrics == trained.metrics
    np.testing.assert_array_equal(probabilities(again, halves.frame), probabilities(trained, halves.frame))
    pd.testing.assert_frame_equal(again.reference, trained.reference)


def test_evaluation_rows_decide_neither_model_nor_threshold_nor_parameters(
    halves: TrainingSet, trained: TrainedModel
) -> None:
    frame = halves.frame.copy()
    is_evaluation = frame[SPLIT] == EVALUATION
    frame.loc[is_evaluation, TRUE_LABEL] = 1 - frame.loc[is_evaluation, TRUE_LABEL]
    frame.loc[is_evaluation, FEATURES] = frame.loc[is_evaluation, FEATURES] * 3.0
    other = train(TrainingSet(frame, halves.info), contract, seed=3)
    assert other.threshold == trained.threshold
    assert other.params == trained.params
    np.testing.assert_array_equal(probabilities(other, halves.frame), probabilities(trained, halves.frame))
    assert other.metrics != trained.metrics


def test_metrics_are_measured_on_evaluation_rows(halves: TrainingSet, trained: TrainedModel) -> None:
    later = halves.part(EVALUATION)
    expected = score_metrics(later[TRUE_LABEL].to_numpy(), probabilities(trained, later), trained.threshold)
    assert trained.metrics == expected


def test_the_reference_is_of_all_traffic_where_a_part_has_no_label() -> None:
    """Labels of light loads only: as from approved applicants. The reference shows both, its outcomes where they are known."""
    rows = labelled(3_000)
    times = pd.date_range("2026-03-02", periods=len(rows), freq="min", tz="UTC")
    is_known = (rows["load_ratio"] < 0.9).to_numpy()
    logged = rows.assign(created_at=times, prediction_id=[str(n) for n in range(len(rows))], model_version=1)
    known = split(logged[is_known])
    model = train(known, contract, seed=3, unlabelled=logged[~is_known])
    reference = model.reference
    assert reference["load_ratio"].max() > 1.0
    assert reference[TRUE_LABEL].notna().mean() == pytest.approx(is_known.mean(), abs=0.05)
    assert (reference.loc[reference[TRUE_LABEL].isna(), "load_ratio"] >= 0.9).all()
    assert reference["probability"].between(0, 1).all()
    alone = train(known, contract, seed=3)
    assert alone.reference["load_ratio"].max() < 0.9
    labelled_part = reference[reference[TRUE_LABEL].notna()].reset_index(drop=True)
    pd.testing.assert_frame_equal(labelled_part, alone.reference, check_dtype=False)
    pd.testing.assert_frame_equal(_drawn_again(reference, alone, contract), reference)
    few = train(known, contract, seed=3, unlabelled=logged[~is_known].iloc[:20])
    pd.testing.assert_frame_equal(few.reference, alone.reference)


def test_the_threshold_is_tuned_on_probabilities_of_folds_that_did_not_see_the_row(
    halves: TrainingSet, trained: TrainedModel
) -> None:
    learn = halves.part(TRAIN)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=3)
    x, y = learn[FEATURES].to_numpy(dtype=np.float64), learn[TRUE_LABEL].to_numpy()
    out_of_fold = cross_val_predict(trained.pipeline, x, y, cv=folds, method="predict_proba")[:, 1]
    assert trained.threshold == f1_optimal_threshold(y, out_of_fold)


def test_the_parameters_come_from_the_grid_and_are_told(trained: TrainedModel) -> None:
    assert trained.params["classify__C"] in contract.param_grid["classify__C"]
    assert trained.params["threshold"] == trained.threshold
    assert trained.params["seed"] == 3


def test_the_reference_is_the_newest_rows_with_honest_probabilities(halves: TrainingSet, trained: TrainedModel) -> None:
    reference = trained.reference
    assert len(reference) == MIN_REFERENCE_ROWS
    newest = halves.frame.iloc[-MIN_REFERENCE_ROWS:].reset_index(drop=True)
    pd.testing.assert_frame_equal(reference[[*FEATURES, TRUE_LABEL]], newest[[*FEATURES, TRUE_LABEL]])
    n_evaluation = halves.info.n_evaluation
    np.testing.assert_array_equal(
        reference["probability"].iloc[-n_evaluation:], probabilities(trained, halves.part(EVALUATION))
    )
    seen = newest.iloc[:-n_evaluation]  # training rows: their probability must not come from the model that saw them
    assert (reference["probability"].iloc[:-n_evaluation].to_numpy() != probabilities(trained, seen)).mean() > 0.9


# The threshold


def test_the_threshold_lies_halfway_between_two_scores() -> None:
    assert f1_optimal_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)
    assert f1_optimal_threshold(np.array([1, 1]), np.array([0.6, 0.9])) == pytest.approx(0.3)


# Original rows


@pytest.fixture(scope="module")
def mixed() -> TrainingSet:
    """A few hundred recent rows beside original ones of the same relation."""
    found = split(labelled(600), original=OriginalRows(shifted(1_000, 5), "version 1"))
    assert found.info.n_original == 1_000
    return found


def test_original_rows_are_learned_from_and_never_decide_threshold_or_reference(mixed: TrainingSet) -> None:
    model = train(mixed, contract, seed=3)
    assert model.params["original_weight"] == mixed.info.original_weight
    without = mixed.frame[mixed.frame[ORIGIN] != ORIGINAL].reset_index(drop=True)
    alone = train(TrainingSet(without, mixed.info), contract, seed=3)
    assert not np.array_equal(probabilities(model, without), probabilities(alone, without))
    assert len(model.reference) == len(without)
    pd.testing.assert_frame_equal(model.reference[FEATURES], without[FEATURES])


def test_an_original_row_counts_as_much_as_its_weight_says(mixed: TrainingSet) -> None:
    """With all the weight on them, their copies with weight 1 would give the same coefficients."""
    frame = mixed.frame.copy()
    frame.loc[frame[ORIGIN] == ORIGINAL, "weight"] = 2.0
    doubled = mixed.frame[mixed.frame[ORIGIN] == ORIGINAL].assign(weight=1.0)
    twice = pd.concat([doubled, doubled, mixed.frame[mixed.frame[ORIGIN] != ORIGINAL]], ignore_index=True)
    one_c = with_last_step(LogisticRegression(tol=1e-10), C=(1.0,))

    def standing_still(seed: int) -> Pipeline:  # medians and scales are not weighted: take them out of the comparison
        return Pipeline([("impute", SimpleImputer(strategy="constant")), ("classify", LogisticRegression(tol=1e-10))])

    use_case = replace(one_c, build_estimator=standing_still)
    models = [train(TrainingSet(rows, mixed.info), use_case, seed=3) for rows in (frame, twice)]
    coefficients = [model.pipeline.steps[-1][1].coef_ for model in models]
    np.testing.assert_allclose(coefficients[0], coefficients[1], rtol=1e-3)


# Tuning


def test_the_grid_is_searched_as_scikit_learn_searches_it(halves: TrainingSet) -> None:
    grid = {"C": (0.001, 0.01, 0.1, 1.0, 10.0)}
    use_case = with_last_step(LogisticRegression(), **grid)
    model = train(halves, use_case, seed=3)
    learn = halves.part(TRAIN)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=3)
    search = GridSearchCV(use_case.build_estimator(3), {"classify__C": grid["C"]}, scoring=SCORING, cv=folds)
    search.fit(learn[FEATURES].to_numpy(), learn[TRUE_LABEL].to_numpy())
    assert model.params["classify__C"] == search.best_params_["classify__C"]


def test_progress_counts_every_fit_to_the_last(halves: TrainingSet) -> None:
    told: list[tuple[int, int]] = []
    train(halves, contract, seed=3, on_fits=lambda n_done, n_fits: told.append((n_done, n_fits)))
    assert told == [(2, 16), (4, 16), (6, 16), (8, 16), (10, 16), (11, 16), (16, 16)]


@pytest.mark.parametrize("parallelism", [Parallelism(2, "threading"), Parallelism(2, "loky")])
def test_the_model_is_the_same_whatever_runs_the_fits(
    halves: TrainingSet, trained: TrainedModel, parallelism: Parallelism
) -> None:
    other = train(halves, contract, seed=3, parallelism=parallelism)
    assert (other.params, other.metrics, other.record) == (trained.params, trained.metrics, trained.record)
    np.testing.assert_array_equal(probabilities(other, halves.frame), probabilities(trained, halves.frame))
    pd.testing.assert_frame_equal(other.reference, trained.reference)


def test_a_cluster_without_dask_is_refused_saying_how_to_get_it(
    halves: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'selfheal\[dask\]'"):
        train(halves, contract, seed=3, parallelism=Parallelism(2, "dask", "tcp://127.0.0.1:1"))


def test_parameters_of_a_grid_that_numpy_made_can_be_stored(halves: TrainingSet) -> None:
    """They are written as JSON, after all the fits."""
    estimator = HistGradientBoostingClassifier(max_iter=5)
    model = train(halves, with_last_step(estimator, max_depth=np.arange(2, 4), l2_regularization=np.zeros(1)), seed=3)
    assert json.loads(json.dumps(model.params)) == model.params


# Calibration


def test_what_the_training_rests_on_is_recorded(trained: TrainedModel) -> None:
    record = trained.record
    assert record is not None
    assert (record.seed, record.recalibration, record.recalibrated, record.notes) == (3, NOT_NEEDED, None, ())
    assert record.param_grid == {"classify__C": ["0.1", "1.0"]}
    assert {"scikit-learn", "numpy", "python", "machine", "blas"} <= record.libraries.keys()
    assert record.out_of_fold.n_rows == 1_050
    assert record.evaluation.n_rows == 450
    assert record.out_of_fold.slope == pytest.approx(1.0, abs=0.2)


def test_a_logistic_model_with_wrong_probabilities_is_set_right_and_stays_one() -> None:
    """Balanced class weights raise every probability; the correction moves the intercept back and keeps the ranking."""
    halves = split(labelled(4_000))
    crooked = with_last_step(LogisticRegression(class_weight="balanced"), C=(1.0,))
    model = train(halves, crooked, seed=3)
    record = model.record
    assert record is not None
    assert record.recalibration == FOLDED
    assert record.out_of_fold.intercept < -0.5  # type: ignore[operator]
    assert record.recalibrated.p_value > 0.5  # type: ignore[union-attr, operator]
    assert abs(record.evaluation.intercept) < 0.3  # type: ignore[arg-type]
    assert isinstance(model.pipeline.steps[-1][1], LogisticRegression)
    assert FOLDED in record.notes[0]
    rows = halves.part(EVALUATION)[FEATURES].to_numpy()
    assert plain_scoring(model.pipeline, rows).__name__ == "composed", "serving scores it as fast as ever"
    explanation = build_explainer(model.pipeline, contract, rows).explain(rows)
    assert explanation.is_exact.all()
    np.testing.assert_allclose(1 / (1 + np.exp(-explanation.log_odds)), probabilities(model, halves.part(EVALUATION)))


def test_another_model_with_wrong_probabilities_gets_a_sigmoid_around_it() -> None:
    """Naive Bayes counts correlated features twice: its probabilities are too extreme."""
    halves = split(labelled(4_000))
    model = train(halves, with_last_step(GaussianNB(), var_smoothing=(1e-9,)), seed=3)
    record = model.record
    assert record is not None
    assert record.recalibration == WRAPPED
    assert record.out_of_fold.slope < 0.9  # type: ignore[operator]
    assert record.evaluation.slope > record.out_of_fold.slope  # type: ignore[operator]
    again = train(halves, with_last_step(GaussianNB(), var_smoothing=(1e-9,)), seed=3)
    np.testing.assert_array_equal(probabilities(again, halves.frame), probabilities(model, halves.frame))


def test_the_sigmoid_adds_no_type_to_the_model_file_that_the_api_would_refuse() -> None:
    wrapped = train(split(labelled(4_000)), with_last_step(GaussianNB(), var_smoothing=(1e-9,)), seed=3)
    loaded = load_trusted(skops.io.dumps(wrapped.pipeline), "the model", 10_000_000)
    rows = split(labelled(200)).frame[FEATURES].to_numpy()
    np.testing.assert_array_equal(loaded.predict_proba(rows), wrapped.pipeline.predict_proba(rows))


# Failures


def test_an_estimator_that_needs_more_iterations_gets_them_and_that_is_told() -> None:
    halves = split(labelled(600))
    model = train(halves, with_last_step(LogisticRegression(max_iter=3), C=(1.0,)), seed=3)
    assert model.params["classify__max_iter"] == 30
    assert "did not converge at first; classify__max_iter was raised to 30" in model.record.notes  # type: ignore[union-attr]


def test_an_estimator_that_does_not_converge_is_a_clear_failure() -> None:
    stubborn = with_last_step(LogisticRegression(max_iter=1, tol=1e-14), C=(1e6,))
    with pytest.raises(TrainingFailedError, match=r"LogisticRegression does not converge \(classify__max_iter=10\)"):
        train(split(labelled(600)), stubborn, seed=3)


class NanClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns nothing and knows nothing."""

    def fit(self, x: Any, y: Any) -> NanClassifier:
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, x: Any) -> Any:
        return np.full((len(x), 2), np.nan)


class BrokenClassifier(NanClassifier):
    def fit(self, x: Any, y: Any) -> BrokenClassifier:
        raise RuntimeError("out of ideas")


class EqualClassifier(NanClassifier):
    def predict_proba(self, x: Any) -> Any:
        return np.full((len(x), 2), 0.5)


@pytest.mark.parametrize(
    ("estimator", "told"), [(NanClassifier(), "can be trained"), (BrokenClassifier(), "out of ideas")]
)
def test_an_estimator_that_gives_no_numbers_or_cannot_be_fitted_is_a_clear_failure(estimator: Any, told: str) -> None:
    with pytest.raises(TrainingFailedError, match=f"(?s)none of the 1 candidates of 'machine_failure'.*{told}"):
        train(split(labelled(600)), with_last_step(estimator), seed=3)


def test_a_bare_estimator_is_refused_before_it_can_fail_in_a_later_training() -> None:
    bare = replace(contract, build_estimator=lambda _seed: LogisticRegression(), param_grid={"C": [1.0]})
    with pytest.raises(TrainingFailedError, match="returns a LogisticRegression; wrap it: Pipeline"):
        train(split(labelled(600)), bare, seed=3)


class OverwhelmedClassifier(NanClassifier):
    """Copes with the rows of a fold, not with all."""

    def fit(self, x: Any, y: Any) -> OverwhelmedClassifier:
        self.is_overwhelmed_ = len(x) > 400
        return super().fit(x, y)  # type: ignore[return-value]

    def predict_proba(self, x: Any) -> Any:
        return np.full((len(x), 2), np.nan if self.is_overwhelmed_ else 0.5)


def test_probabilities_that_are_no_numbers_are_a_failure_even_if_they_were_numbers_in_every_fold() -> None:
    with pytest.raises(TrainingFailedError, match="gives 180 probabilities that are not numbers"):
        train(split(labelled(600)), with_last_step(OverwhelmedClassifier()), seed=3)


def test_a_candidate_that_fails_loses_to_one_that_does_not() -> None:
    use_case = with_last_step(HistGradientBoostingClassifier(max_iter=5), max_depth=(-3, 2))
    assert train(split(labelled(600)), use_case, seed=3).params["classify__max_depth"] == 2


def test_equal_scores_for_all_rows_are_a_model_whose_calibration_is_not_known() -> None:
    model = train(split(labelled(600)), with_last_step(EqualClassifier()), seed=3)
    assert model.metrics.auc_roc == 0.5
    assert model.record.out_of_fold.slope is None  # type: ignore[union-attr]


# Entities


def test_no_fold_predicts_an_entity_that_it_has_learned_from() -> None:
    rows = labelled(600).assign(**{ENTITY: [f"m{number % 90}" for number in range(600)]})
    learn = split(rows, use_case=keyed).part(TRAIN)
    found = _rows(learn, keyed, seed=1)
    who = learn[ENTITY].to_numpy()
    assert found.clusters is not None
    assert sorted(np.concatenate([fold for _, fold in found.folds])) == list(range(len(learn)))
    for others, fold in found.folds:
        assert not set(who[others]) & set(who[fold])
        assert abs(len(fold) - len(learn) / FOLDS) < 12


def test_what_remembers_entities_is_not_trusted_in_its_own_folds() -> None:
    """Labels that belong to the machine alone: who has seen the machine knows them, in other folds nobody does."""
    rng = np.random.default_rng(1)
    fate = rng.random(120) < 0.4
    who = rng.permutation(np.repeat(np.arange(120), 5))
    rows = labelled(120).iloc[who].reset_index(drop=True).assign(created_at=labelled(600)["created_at"])
    rows = rows.assign(**{TRUE_LABEL: fate[who].astype(np.int64), ENTITY: [f"m{one}" for one in who]})
    memory = with_last_step(KNeighborsClassifier(5), n_neighbors=[5])
    aucs = []
    for use_case, frame in ((replace(memory, entity="machine"), rows), (memory, rows.drop(columns=ENTITY))):
        found = _rows(
            frame.assign(**{ORIGIN: "logged", WEIGHT: 1.0}), replace(use_case, equal_inputs_are_one_case=False), 1
        )
        pipeline = build_pipeline(use_case, 1)
        aucs.append(roc_auc_score(found.y, _out_of_fold(pipeline, found, 1)))
    by_entity, by_row = aucs
    assert by_entity < 0.65
    assert by_row > 0.75


def test_a_calibration_by_folds_has_folds_of_entities_too() -> None:
    rows = labelled(600).assign(**{ENTITY: [f"m{number % 90}" for number in range(600)]})
    use_case = replace(with_last_step(GaussianNB(), var_smoothing=[1e-9]), entity="machine")
    trained = train(split(rows, use_case=use_case), use_case, seed=1)
    assert np.isfinite(trained.reference["probability"]).all()
    assert list(trained.reference.columns).count(ENTITY) == 1


def test_a_class_of_too_few_entities_is_refused_with_the_remedy() -> None:
    rows = labelled(600)
    who = np.where(rows[TRUE_LABEL] == 1, np.arange(600) % 3, 3 + np.arange(600) % 200)
    learn = rows.assign(**{ENTITY: [f"m{one}" for one in who], ORIGIN: "logged", WEIGHT: 1.0})
    with pytest.raises(TrainingFailedError, match="of class 1 are of 3 entities, and 5 are needed"):
        _rows(learn, keyed, seed=1)
