"""Rules of the ladder: the cheapest repair that is as good as a retraining and shown to help, chosen on training rows alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline

from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.model.correction import Correction
from selfheal.domain.model.explanation import build_explainer
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.model.recalibrated import RecalibratedClassifier
from selfheal.domain.records import Repair, RepairChoice
from selfheal.domain.retraining.class_counts import EVALUATION
from selfheal.domain.retraining.corrections import beta_correction, platt_correction, prior_shift_correction
from selfheal.domain.retraining.dataset import SPLIT, TrainingSet
from selfheal.domain.retraining.repairs import Candidate, Chosen, Incumbent, Ladder, RecentRows, choose_repair
from selfheal.domain.retraining.training import TrainedModel, train
from tests.domain.retraining.rows import FEATURES, labelled, shifted, split
from tests.toy_use_case import contract


def incumbent(rows: pd.DataFrame, version: int, use_case: ModelContract = contract) -> Incumbent:
    model = train(split(rows, use_case=use_case), use_case, seed=3)
    return Incumbent(version, model.pipeline, model.threshold)


@pytest.fixture(scope="module")
def champion() -> Incumbent:
    return incumbent(shifted(3_000, 1), 4)


def of_base_rate(n_rows: int, seed: int, others_per_event: float) -> pd.DataFrame:
    """Rows whose classes have the inputs that they always had, in other numbers."""
    rows = shifted(12 * n_rows, seed)
    events, others = rows[rows[TRUE_LABEL] == 1], rows[rows[TRUE_LABEL] == 0]
    n_events = round(n_rows / (1 + others_per_event))
    both = pd.concat([events.head(n_events), others.head(n_rows - n_events)])
    return both.sample(frac=1.0, random_state=seed).reset_index(drop=True)


def repaired(rows: pd.DataFrame | TrainingSet, ladder: Ladder, use_case: ModelContract = contract) -> TrainedModel:
    halves = rows if isinstance(rows, TrainingSet) else split(rows, use_case=use_case)
    return train(halves, use_case, 3, None, None, None, ladder)


def choice_of(model: TrainedModel) -> RepairChoice:
    assert model.record is not None
    assert model.record.repair is not None
    return model.record.repair


def probabilities(model: Incumbent | TrainedModel, rows: pd.DataFrame) -> np.ndarray:
    return served_scoring(model.pipeline, contract)(rows[FEATURES].to_numpy(dtype=np.float64))


# What is chosen


def test_another_base_rate_is_repaired_without_a_new_fit_and_the_model_can_still_be_explained(
    champion: Incumbent,
) -> None:
    rows = of_base_rate(2_000, 5, others_per_event=19.0)
    model = repaired(rows, Ladder(champion))
    choice = choice_of(model)
    assert choice.repair in {Repair.THRESHOLD, Repair.PRIOR_SHIFT, Repair.PLATT}
    assert choice.version == 4
    assert [rung.repair for rung in choice.rungs] == [
        Repair.THRESHOLD,
        Repair.PRIOR_SHIFT,
        Repair.PLATT,
        Repair.RETRAINING,
    ]
    assert choice.reason.startswith("version 4, ")
    assert "a retraining" in choice.reason
    later = of_base_rate(2_000, 6, others_per_event=19.0)
    before, after = probabilities(champion, later), probabilities(model, later)
    assert abs(after.mean() - 0.05) < abs(before.mean() - 0.05) / 3
    np.testing.assert_array_equal(np.argsort(after, kind="stable"), np.argsort(before, kind="stable"))
    build_explainer(model.pipeline, contract, None)


def test_a_relation_that_has_turned_round_is_retrained(champion: Incumbent) -> None:
    model = repaired(shifted(1_500, 7, is_reversed=True), Ladder(champion))
    assert choice_of(model).repair is Repair.RETRAINING
    assert choice_of(model).reason.startswith("a retraining: ")
    alone = train(split(shifted(1_500, 7, is_reversed=True)), contract, 3)
    np.testing.assert_array_equal(probabilities(model, shifted(50, 8)), probabilities(alone, shifted(50, 8)))
    assert model.params == alone.params


def test_where_nothing_is_shown_to_help_the_challenger_is_a_retraining(champion: Incumbent) -> None:
    """A repair of what is right would only spend a verdict."""
    chosen = [compared_on(shifted(600, seed), champion).choice.repair for seed in range(20, 40)]
    assert chosen.count(Repair.RETRAINING) >= 12, "one standard error, for rungs that are nearly the same"


def compared_on(rows: pd.DataFrame, champion: Incumbent) -> Chosen:
    """The choice beside a new fit of the same kind."""
    x, y = rows[FEATURES].to_numpy(), rows[TRUE_LABEL].to_numpy()
    folds = list(StratifiedKFold(5).split(x, y))
    new = cross_val_predict(contract.build_estimator(0), x, y, cv=folds, method="predict_proba")[:, 1]
    retraining = Candidate(Repair.RETRAINING, None, new, new, lambda: champion.pipeline)
    found = choose_repair(Ladder(champion), retraining, RecentRows(x, y, folds, None), contract, 1)
    assert found is not None
    return found


def test_an_archived_version_that_fits_again_returns(champion: Incumbent) -> None:
    of_summer = incumbent(shifted(3_000, 9, is_reversed=True), 3)
    model = repaired(shifted(1_000, 10, is_reversed=True), Ladder(champion, (of_summer,)))
    assert (choice_of(model).repair, choice_of(model).version) == (Repair.RETURN, 3)
    rows = shifted(200, 11)
    np.testing.assert_array_equal(probabilities(model, rows), probabilities(of_summer, rows))


def test_the_primary_metric_decides_what_helps(champion: Incumbent) -> None:
    """Monotone repairs leave AUC-ROC as it is: where that must improve, they help nothing."""
    rows = of_base_rate(2_000, 5, others_per_event=9.0)
    assert choice_of(repaired(rows, Ladder(champion, metric="auc"))).repair is Repair.RETRAINING
    assert choice_of(repaired(rows, Ladder(champion, metric="log_loss"))).repair is not Repair.RETRAINING


def test_a_champion_that_does_not_score_the_rows_leaves_a_retraining(champion: Incumbent) -> None:
    broken = Incumbent(4, Pipeline([("nothing", SimpleImputer())]), 0.5)
    model = repaired(shifted(600, 12), Ladder(broken))
    assert model.record is not None
    assert model.record.repair is None
    assert model.record.notes[-1] == "version 4 does not score the training rows"


def test_evaluation_rows_choose_nothing(champion: Incumbent) -> None:
    halves = split(of_base_rate(2_000, 5, others_per_event=19.0))
    frame = halves.frame.copy()
    is_evaluation = frame[SPLIT] == EVALUATION
    frame.loc[is_evaluation, TRUE_LABEL] = 1 - frame.loc[is_evaluation, TRUE_LABEL]
    one, other = (choice_of(repaired(rows, Ladder(champion))) for rows in (halves, TrainingSet(frame, halves.info)))
    assert one == other


# Models that are no logistic function


def forest(seed: int) -> Pipeline:
    trees = RandomForestClassifier(30, min_samples_leaf=20, class_weight="balanced", random_state=seed)
    return Pipeline([("impute", SimpleImputer()), ("classify", trees)])


of_trees = replace(contract, build_estimator=forest, param_grid={"classify__max_depth": (4,)})


def test_any_estimator_is_recalibrated_and_a_second_time_is_no_layer_more() -> None:
    known = shifted(6_000, 1)
    fitted = forest(1).fit(known[FEATURES].to_numpy(), known[TRUE_LABEL])
    halves = split(shifted(1_500, 13), use_case=of_trees)
    ladder = Ladder(Incumbent(1, RecalibratedClassifier(fitted, 2.0, 1.5, 1.5), 0.9), metric="log_loss")
    model = repaired(halves, ladder, of_trees)
    assert choice_of(model).repair in {Repair.PRIOR_SHIFT, Repair.PLATT, Repair.BETA}
    assert Repair.BETA in {rung.repair for rung in choice_of(model).rungs}
    assert isinstance(model.pipeline, RecalibratedClassifier)
    assert model.pipeline.classifier is fitted
    later = shifted(3_000, 14)
    assert probabilities(model, later).mean() == pytest.approx(later[TRUE_LABEL].mean(), abs=0.03)


# Fits


def drawn(n_rows: int, seed: int, correction: Correction) -> tuple[Any, Any]:
    """Scores, and labels whose probabilities are the corrected ones."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1.0, 3.0, n_rows)
    return (rng.random(n_rows) < correction(p)).astype(np.int64), p


@settings(max_examples=20, deadline=None)
@given(st.floats(-1, 1), st.floats(0.4, 2), st.floats(0.4, 2), st.integers(0, 1_000))
def test_beta_calibration_finds_the_correction_that_the_labels_follow(
    intercept: float, of_event: float, of_other: float, seed: int
) -> None:
    true = Correction(intercept, of_event, of_other)
    found = beta_correction(*drawn(20_000, seed, true))
    assert found is not None
    p = np.linspace(0.05, 0.7, 20)
    np.testing.assert_allclose(found(p), true(p), atol=0.04)


def test_a_line_and_a_constant_are_found_likewise() -> None:
    line, shift = Correction(-0.5, 1.4, 1.4), Correction(0.8)
    p = np.linspace(0.05, 0.7, 20)
    for true, fit in ((line, platt_correction), (shift, prior_shift_correction)):
        found = fit(*drawn(20_000, 2, true))
        assert found is not None
        np.testing.assert_allclose(found(p), true(p), atol=0.03)


def test_scores_that_rank_the_wrong_way_round_are_not_corrected() -> None:
    labels, p = drawn(5_000, 3, Correction(0.0))
    assert platt_correction(1 - labels, p) is None
    turned = beta_correction(1 - labels, p)
    assert turned is None or min(turned.of_event, turned.of_other) >= 0


def test_labels_of_one_class_allow_no_correction() -> None:
    _, p = drawn(100, 4, Correction(0.0))
    for fit in (prior_shift_correction, platt_correction, beta_correction):
        assert fit(np.zeros(100, dtype=np.int64), p) is None


def test_recent_rows_are_those_of_the_log_and_original_ones_are_no_part_of_the_comparison() -> None:
    rows = labelled(900)
    model = repaired(rows, Ladder(incumbent(shifted(2_000, 1), 2)))
    n_train = len(split(rows).frame) - len(split(rows).part(EVALUATION))
    assert f"on {n_train:,} recent training rows" in choice_of(model).reason
