"""Rules of corrections: the ranking stays, lines compose, and a recalibrated model is stored, opened and served like any other."""

from __future__ import annotations

import numpy as np
import pytest
import skops.io
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline

from selfheal.domain.model.correction import Correction
from selfheal.domain.model.examination import examine
from selfheal.domain.model.file import load_trusted
from selfheal.domain.model.plain_scoring import plain_scoring
from selfheal.domain.model.recalibrated import RecalibratedClassifier
from selfheal.kit.errors import ModelRefusedError
from tests.domain.retraining.rows import FEATURES, labelled
from tests.toy_use_case import contract

numbers = st.floats(-4, 4)
factors = st.floats(0, 4)


@given(numbers, factors, factors, st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_correction_gives_probabilities_and_never_turns_two_rows_round(
    intercept: float, of_event: float, of_other: float, scores: list[float]
) -> None:
    before = np.sort(scores)
    after = Correction(intercept, of_event, of_other)(before)
    assert ((after >= 0) & (after <= 1)).all()
    assert (np.diff(after) >= -1e-12).all()


@given(st.lists(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=20))
def test_without_intercept_and_with_factors_of_one_nothing_changes(scores: list[float]) -> None:
    np.testing.assert_allclose(Correction(0.0)(np.array(scores)), scores, rtol=1e-9)


@given(numbers, factors, factors, numbers, factors)
def test_a_line_after_a_correction_is_one_correction(
    intercept: float, of_event: float, of_other: float, then: float, slope: float
) -> None:
    p = np.linspace(0.02, 0.98, 25)
    first, line = Correction(intercept, of_event, of_other), Correction(then, slope, slope)
    np.testing.assert_allclose(line.after(first)(p), line(first(p)), rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def model() -> RecalibratedClassifier:
    rows = labelled(400)
    forest = make_pipeline(SimpleImputer(), RandomForestClassifier(20, max_depth=4, random_state=1))
    return RecalibratedClassifier(forest.fit(rows[FEATURES].to_numpy(), rows["true_label"]), -0.7, 1.3, 0.8)


def test_a_recalibrated_model_is_opened_from_its_file_and_gives_the_same_bits(model: RecalibratedClassifier) -> None:
    trees = ("sklearn.tree._tree.Tree",)
    data = skops.io.dumps(model)
    opened = load_trusted(data, "model.skops", 10_000_000, trees)
    matrix = labelled(100, 2)[FEATURES].to_numpy()
    np.testing.assert_array_equal(opened.predict_proba(matrix), model.predict_proba(matrix))
    examine(opened, contract)
    with pytest.raises(ModelRefusedError, match="not trusted"):
        load_trusted(data, "model.skops", 10_000_000)


def test_it_scores_each_row_by_itself_as_its_classifier_does_and_then_corrects(model: RecalibratedClassifier) -> None:
    matrix = labelled(200, 3)[FEATURES].to_numpy()
    score = plain_scoring(model, matrix[:20])
    together = score(matrix)
    np.testing.assert_array_equal(together, [score(matrix[i : i + 1])[0] for i in range(len(matrix))])
    np.testing.assert_allclose(together, model.predict_proba(matrix)[:, 1], rtol=0, atol=1e-13)
    inner: Pipeline = model.classifier
    np.testing.assert_array_equal(together, model.correction(plain_scoring(inner, matrix[:20])(matrix)))
