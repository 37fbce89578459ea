"""Rules of cross-fitting: each row teaches and judges, never both at once, and what judges nothing has seen is what decides."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.records import Onset, Repair
from selfheal.domain.retraining.class_counts import CROSS_FITTED, EVALUATION, TRAIN
from selfheal.domain.retraining.cross_fitting import SERVED, CrossFitted, blocks_of_time, decisions_of_others
from selfheal.domain.retraining.dataset import (
    LOGGED,
    ORIGIN,
    ORIGINAL,
    WEIGHT,
    OriginalRows,
    TrainingSet,
    part_counts,
    training_set,
)
from selfheal.domain.retraining.evaluation import Evaluation, Scores
from selfheal.domain.retraining.repairs import Incumbent, Ladder
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.domain.retraining.training import FOLDED, TrainedModel, _rows, train
from selfheal.kit.errors import InvalidDataError
from tests.domain.retraining.rows import FEATURES, labelled, shifted, split
from tests.times import T0
from tests.toy_use_case import contract, keyed

CHANGED = Onset(T0 - timedelta(days=1), T0 - timedelta(days=2), T0, 0.001, "load_ratio", 9_000, 400)


def since_change(n_rows: int, seed: int = 1) -> TrainingSet:
    return split(labelled(n_rows, seed), onset=CHANGED)


@pytest.fixture(scope="module")
def halves() -> TrainingSet:
    return since_change(800)


@pytest.fixture(scope="module")
def trained(halves: TrainingSet) -> TrainedModel:
    return train(halves, contract, seed=3)


def judged(model: TrainedModel) -> CrossFitted:
    assert model.cross_fitted is not None
    return model.cross_fitted


def test_after_a_change_every_row_is_in_both_parts_and_counted_once(halves: TrainingSet) -> None:
    assert halves.is_cross_fitted
    assert len(halves.part(TRAIN)) == len(halves.part(EVALUATION)) == 800
    assert (halves.info.n_train, halves.info.n_evaluation, halves.info.n_rows) == (800, 800, 800)
    assert not split(labelled(800)).is_cross_fitted
    assert split(labelled(800)).info.n_rows == 800


def test_rows_from_before_the_change_teach_and_judge_nothing() -> None:
    before = OriginalRows(shifted(1_000, 4).assign(weight=1.0), "the champion's rows")
    both = split(labelled(600), onset=CHANGED, original=before)
    assert (both.part(TRAIN)[ORIGIN] == ORIGINAL).sum() == both.info.n_original > 0
    assert (both.part(EVALUATION)[ORIGIN] != ORIGINAL).all()
    assert both.info.n_rows == 600 + both.info.n_original
    model = judged(train(both, contract, seed=3))
    assert len(model.probabilities) == len(model.decisions) == 600


def test_one_count_of_classes_is_asked_for_and_refused() -> None:
    rows = labelled(500).assign(inputs_key="one")
    (counts,) = part_counts(rows, 100, is_cross_fitted=True)
    assert (counts.part, counts.n_rows, counts.n_positive) == (CROSS_FITTED, 500, int(rows[TRUE_LABEL].sum()))
    rows[TRUE_LABEL] = (np.arange(500) < 9).astype(np.int64)
    with pytest.raises(InvalidDataError, match="to fit, tune and be judged on in turn need 1 more of class 1"):
        split(rows, onset=CHANGED)


@pytest.mark.parametrize("block", range(5))
def test_a_block_of_time_without_an_event_ends_no_training(block: int) -> None:
    rows = labelled(500)
    rows[TRUE_LABEL] = (np.arange(500) % 20 == 0).astype(np.int64)
    rows.loc[100 * block : 100 * block + 99, TRUE_LABEL] = 0
    assert blocks_of_time(rows[TRUE_LABEL].to_numpy(), 5, None) is None
    assert np.isfinite(judged(train(split(rows, onset=CHANGED), contract, seed=3)).probabilities).all()


def of_machines(n_rows: int, n_machines: int, seed: int = 1) -> pd.DataFrame:
    rows = labelled(n_rows, seed)
    return rows.assign(_entity=[f"machine {n}" for n in np.arange(n_rows) % n_machines])


def after(originals: pd.DataFrame, recent: pd.DataFrame) -> pd.DataFrame:
    """Original rows and recent ones, as a training set has them."""
    learn: pd.DataFrame = pd.concat([originals, recent], ignore_index=True)
    learn[ORIGIN], learn[WEIGHT] = np.where(learn.index < len(originals), ORIGINAL, LOGGED), 1.0
    return learn


@pytest.mark.parametrize("in_blocks", [True, False])
@pytest.mark.parametrize("n_original", [0, 5_000, 20_000])
def test_however_many_original_rows_there_are_no_row_is_judged_by_its_own_entity(
    n_original: int, in_blocks: bool
) -> None:
    """Rows of others would hide that the few recent ones recur."""
    others = labelled(n_original, 2).assign(_entity=[f"other {n}" for n in range(n_original)])
    learn = after(others, of_machines(600, 300))
    found = _rows(learn, keyed, 1, in_blocks=in_blocks)
    machines = learn["_entity"].to_numpy()
    for others_of_block, block in found.folds:
        assert not set(machines[others_of_block]) & set(machines[block])
        assert len(others_of_block) >= n_original


@pytest.mark.parametrize("in_blocks", [True, False])
def test_an_original_row_teaches_whatever_does_not_judge_its_entity(in_blocks: bool) -> None:
    """Each machine of today is among the original rows, of which most are of others."""
    originals = labelled(20_000, 2).assign(_entity=[f"machine {n}" for n in range(20_000)])
    learn = after(originals, of_machines(600, 600))
    machines, taught = learn["_entity"].to_numpy(), set()
    for others_of_block, block in _rows(learn, keyed, 1, in_blocks=in_blocks).folds:
        assert not set(machines[others_of_block]) & set(machines[block])
        taught |= {row for row in others_of_block if row < 20_000}
    assert len(taught) == 20_000


def test_after_a_change_original_rows_of_machines_that_are_back_teach() -> None:
    """All of them were dropped, since all of today's rows judge: with customers that come again hardly any row was left."""
    before = OriginalRows(of_machines(1_500, 100, seed=4).assign(weight=1.0), "the champion's rows")
    found = training_set(
        of_machines(600, 100),
        keyed,
        source="s",
        min_evaluation_rows=100,
        label_coverage_pct=None,
        original=before,
        onset=CHANGED,
    )
    assert found.info.original_weight
    assert found.info.n_original == 1_500


def test_folds_that_are_no_blocks_part_equal_inputs_neither() -> None:
    rows = labelled(500)
    for name in FEATURES:
        rows[name] = rows[name].to_numpy()[np.arange(500) % 60]
    rows[TRUE_LABEL] = (np.arange(500) % 60 % 7 == 0).astype(np.int64)
    rows.loc[:99, TRUE_LABEL] = 0
    rows[ORIGIN], rows[WEIGHT] = LOGGED, 1.0
    found = _rows(rows, contract, 1, in_blocks=True)
    inputs = rows[FEATURES].round(9).astype(str).agg(" ".join, axis=1).to_numpy()
    for others, fold in found.folds:
        assert not set(inputs[others]) & set(inputs[fold])


def test_what_is_judged_is_not_calibrated_on_its_own_labels() -> None:
    """A line fitted to the judged rows would make their calibration perfect, whatever the model is like."""

    def overfitting(seed: int) -> Pipeline:
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import PolynomialFeatures, StandardScaler

        classify = LogisticRegression(C=100.0, max_iter=20_000)
        steps = [SimpleImputer(), StandardScaler(), PolynomialFeatures(3), StandardScaler(), classify]
        return Pipeline([(str(n), step) for n, step in enumerate(steps)])

    use_case = replace(contract, build_estimator=overfitting, param_grid={"4__C": (100.0,)})
    model = train(split(labelled(300), onset=CHANGED, use_case=use_case), use_case, seed=3)
    assert model.record is not None
    assert model.record.recalibration == FOLDED
    assert model.record.evaluation.slope is not None
    assert model.record.evaluation.slope == pytest.approx(0.42, abs=0.2), "with a line of its own rows it is 1"


@given(st.integers(60, 400), st.integers(2, 8), st.integers(0, 1_000), st.integers(1, 40))
def test_blocks_part_the_rows_in_time_and_part_no_group(n_rows: int, n_blocks: int, seed: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    labels, groups = np.arange(n_rows) % 2, rng.integers(n_groups * 10, size=n_rows)
    alone = blocks_of_time(labels, n_blocks, None)
    assert alone is not None
    np.testing.assert_array_equal(np.concatenate([predict for _, predict in alone]), np.arange(n_rows))
    for learn, predict in blocks_of_time(labels, n_blocks, groups) or []:
        assert not set(groups[learn]) & set(groups[predict])
        assert sorted([*learn, *predict]) == list(range(n_rows))


def test_where_one_block_has_nearly_all_events_folds_are_not_cut_in_time() -> None:
    labels = np.zeros(500, dtype=np.int64)
    labels[420:] = 1
    assert blocks_of_time(labels, 5, None) is None
    rows = labelled(500)
    rows[TRUE_LABEL] = labels
    model = judged(train(split(rows, onset=CHANGED), contract, seed=3))
    assert np.isfinite(model.probabilities).all()


def test_what_a_row_is_judged_by_does_not_depend_on_its_own_block(halves: TrainingSet, trained: TrainedModel) -> None:
    """Other labels in the newest fifth leave what that fifth is scored with as it is, but for parameters and the calibration."""
    frame = halves.frame.copy()
    newest = frame.index[-160:]
    frame.loc[newest, TRUE_LABEL] = 1 - frame.loc[newest, TRUE_LABEL]
    other = judged(
        train(TrainingSet(frame, halves.info), replace(contract, param_grid={"classify__C": (0.1,)}), seed=3)
    )
    same = judged(train(halves, replace(contract, param_grid={"classify__C": (0.1,)}), seed=3))
    first, second = (np.argsort(np.argsort(one.probabilities[-160:])) for one in (same, other))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(same.probabilities[:-160], other.probabilities[:-160])


def test_metrics_and_reference_are_those_of_models_that_had_not_seen_the_rows(
    halves: TrainingSet, trained: TrainedModel
) -> None:
    labels, found = halves.part(EVALUATION)[TRUE_LABEL].to_numpy(), judged(trained)
    expected = score_metrics(labels, found.probabilities, trained.threshold, found.decisions)
    assert trained.metrics == expected
    np.testing.assert_array_equal(trained.reference["probability"], found.probabilities)
    served = served_scoring(trained.pipeline, contract)(halves.part(EVALUATION)[FEATURES].to_numpy())
    np.testing.assert_array_equal(trained.reference[SERVED], served)
    assert not np.allclose(served, found.probabilities), "the model that goes live has learned from all"


def test_decisions_are_at_the_thresholds_of_the_other_blocks() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(200)
    labels = (rng.random(200) < p).astype(np.int64)
    folds = blocks_of_time(labels, 5, None)
    assert folds is not None
    found = decisions_of_others(labels, p, folds)
    for learn, predict in folds:
        np.testing.assert_array_equal(found[predict], p[predict] >= f1_optimal_threshold(labels[learn], p[learn]))


def test_scores_with_decisions_of_their_own_keep_them_row_by_row() -> None:
    scores = Scores(np.array([0.1, 0.6, 0.6, 0.9]), 0.5, decisions=np.array([1, 0, 1, 1]))
    np.testing.assert_array_equal(scores.predictions, [1, 0, 1, 1])
    recurring = Evaluation(np.array([0, 1, 0, 1]), scores, scores, clusters=np.array([0, 1, 1, 2]))
    np.testing.assert_array_equal(recurring.one_row_of_each_entity().challenger.predictions, [1, 1, 1])


def test_customers_are_never_judged_by_what_has_learned_from_them() -> None:
    rows = of_machines(600, 150)
    model = train(split(rows, onset=CHANGED, use_case=keyed), keyed, seed=3)
    assert np.isfinite(judged(model).probabilities).all()


def test_a_repair_is_judged_by_the_choice_that_the_other_blocks_make() -> None:
    """The same rows choose and judge, but not at once: what each block is judged by was chosen without it."""
    known = train(split(shifted(3_000, 1)), contract, seed=3)
    rows = shifted(900, 7, is_reversed=True)
    rows["created_at"] = labelled(900)["created_at"]
    both = split(rows, onset=CHANGED)
    ladder = Ladder(Incumbent(1, known.pipeline, known.threshold))
    model = train(both, contract, 3, None, None, None, ladder)
    assert model.record is not None
    assert model.record.repair is not None
    assert model.record.repair.repair is Repair.RETRAINING
    alone = judged(train(both, contract, 3))
    np.testing.assert_array_equal(judged(model).probabilities, alone.probabilities)
    np.testing.assert_array_equal(judged(model).decisions, alone.decisions)


def test_it_is_stored_as_a_table_and_read_back(trained: TrainedModel) -> None:
    again = CrossFitted.from_frame(judged(trained).to_frame())
    for name in ("probabilities", "decisions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(judged(trained), name))
