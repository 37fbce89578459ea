"""Rules of the training set and of training: strictly in time, on training rows only, the same with the same seed."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from selfheal.contract import TRUE_LABEL
from selfheal.errors import InvalidDataError
from selfheal.monitoring.performance import score_metrics
from selfheal.retraining.dataset import EVALUATION, MIN_ROWS_PER_CLASS, SPLIT, TRAIN, TrainingSet, training_set
from selfheal.retraining.training import FOLDS, MIN_REFERENCE_ROWS, TrainedModel, f1_optimal_threshold, train
from tests.times import T0
from tests.toy_use_case import contract

FEATURES = list(contract.feature_names)


def labelled(n_rows: int, seed: int = 1) -> pd.DataFrame:
    """Rows a minute apart, oldest first."""
    raw = contract.synthesize(n_rows, seed)
    times = [T0 + timedelta(minutes=i) for i in range(n_rows)]
    return contract.feature_frame(raw).assign(**{TRUE_LABEL: raw[TRUE_LABEL], "created_at": pd.DatetimeIndex(times)})


def split(rows: pd.DataFrame, min_evaluation_rows: int = 100) -> TrainingSet:
    return training_set(
        rows,
        contract,
        source="test rows",
        min_evaluation_rows=min_evaluation_rows,
        label_coverage_pct=50.0,
        digest="digest",
    )


# The training set


def test_every_evaluation_row_is_later_than_every_training_row() -> None:
    rows = labelled(1_000)
    halves = split(rows)
    times = rows["created_at"]
    is_train = (halves.frame[SPLIT] == TRAIN).to_numpy()
    assert times[is_train].max() < times[~is_train].min()
    assert (len(halves.part(TRAIN)), len(halves.part(EVALUATION))) == (700, 300)
    assert (halves.info.n_train, halves.info.n_evaluation) == (700, 300)
    assert (halves.info.window_start, halves.info.window_end) == (times.iloc[0], times.iloc[-1])
    assert halves.info.n_positive == rows[TRUE_LABEL].sum()


def test_no_row_is_lost_changed_or_in_both_parts() -> None:
    rows = labelled(500)
    halves = split(rows)
    together = pd.concat([halves.part(TRAIN), halves.part(EVALUATION)])
    pd.testing.assert_frame_equal(together[[*FEATURES, TRUE_LABEL]], rows[[*FEATURES, TRUE_LABEL]])


def test_evaluation_gets_the_rows_it_needs_first() -> None:
    halves = split(labelled(500), min_evaluation_rows=200)
    assert (halves.info.n_train, halves.info.n_evaluation) == (300, 200)


def test_neither_times_nor_ids_are_learned_from() -> None:
    rows = labelled(300).assign(prediction_id="x", probability=0.5, prediction=1)
    assert list(split(rows).frame.columns) == [*FEATURES, TRUE_LABEL, SPLIT]


def test_rows_without_times_have_no_time_span() -> None:
    info = split(labelled(300).drop(columns="created_at")).info
    assert (info.window_start, info.window_end) == (None, None)


@pytest.mark.parametrize(
    ("n_rows", "min_evaluation_rows", "part"), [(5, 100, "train"), (100, 100, "train"), (105, 100, "train")]
)
def test_too_few_rows_are_refused(n_rows: int, min_evaluation_rows: int, part: str) -> None:
    with pytest.raises(InvalidDataError, match=rf"the {part} part has .* wait for more labels \({n_rows} now\)"):
        split(labelled(n_rows), min_evaluation_rows)


@pytest.mark.parametrize(("part", "slot"), [(TRAIN, slice(0, 700)), (EVALUATION, slice(700, 1_000))])
@pytest.mark.parametrize("label", [0, 1])
def test_a_part_with_too_few_rows_of_a_class_is_refused(part: str, slot: slice, label: int) -> None:
    rows = labelled(1_000)
    rows[TRUE_LABEL] = np.tile([0, 1], 500)
    rows.iloc[slot, rows.columns.get_loc(TRUE_LABEL)] = 1 - label
    few = MIN_ROWS_PER_CLASS - 1
    rows.iloc[slot.start : slot.start + few, rows.columns.get_loc(TRUE_LABEL)] = label
    with pytest.raises(InvalidDataError, match=f"the {part} part has .* only {few} of one class"):
        split(rows)
    rows.iloc[slot.start + few, rows.columns.get_loc(TRUE_LABEL)] = label
    assert split(rows).info.n_train == 700


# Training


@pytest.fixture(scope="module")
def halves() -> TrainingSet:
    return split(labelled(1_500))


@pytest.fixture(scope="module")
def trained(halves: TrainingSet) -> TrainedModel:
    return train(halves, contract, seed=3)


def probabilities(model: TrainedModel, rows: pd.DataFrame) -> np.ndarray:
    return model.pipeline.predict_proba(rows[FEATURES].to_numpy(dtype=np.float64))[:, 1]


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


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_no_other_threshold_has_a_higher_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.array([0, 1] * 3 + [0] * 14))
    scores = np.round(rng.random(20), 1)
    best = f1_score(labels, scores >= f1_optimal_threshold(labels, scores), zero_division=0.0)
    for threshold in np.unique(scores):
        assert best >= f1_score(labels, scores >= threshold, zero_division=0.0) - 1e-12


def test_the_threshold_lies_halfway_between_two_scores() -> None:
    assert f1_optimal_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)
    assert f1_optimal_threshold(np.array([1, 1]), np.array([0.6, 0.9])) == pytest.approx(0.3)
