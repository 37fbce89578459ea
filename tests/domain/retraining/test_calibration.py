"""Calibration is measured as the books say, and a logistic model is corrected exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression

from selfheal.domain.model.correction import Correction
from selfheal.domain.records import Calibration
from selfheal.domain.retraining.calibration import (
    OFF_DEVIANCE,
    OFF_INTERCEPT,
    calibration_line,
    check_calibration,
    correction_of,
    folded_into_linear_step,
    is_off,
    needs_recalibration,
)
from tests.domain.retraining.rows import FEATURES, labelled
from tests.toy_use_case import contract


def scored(n_rows: int, intercept: float, slope: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities whose logits need this line."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.0, 1.2, n_rows)
    truth = 1 / (1 + np.exp(-(intercept + slope * logits)))
    return (rng.random(n_rows) < truth).astype(np.int64), 1 / (1 + np.exp(-logits))


def test_the_line_is_scikit_learns_unpenalised_regression_on_the_logit() -> None:
    labels, p = scored(3_000, 0.4, 0.7, 1)
    found = check_calibration(labels, p)
    fitted = LogisticRegression(C=np.inf, tol=1e-12).fit(np.log(p / (1 - p)).reshape(-1, 1), labels)
    assert found.intercept == pytest.approx(fitted.intercept_[0], abs=1e-5)
    assert found.slope == pytest.approx(fitted.coef_[0, 0], abs=1e-5)


def test_the_test_is_the_likelihood_ratio_with_two_degrees_of_freedom() -> None:
    labels, p = scored(500, 0.1, 1.0, 2)
    found = check_calibration(labels, p)
    better = correction_of(found)(p)
    likelihoods = [float(np.log(np.where(labels == 1, q, 1 - q)).sum()) for q in (p, better)]
    assert found.p_value == pytest.approx(chi2.sf(2 * (likelihoods[1] - likelihoods[0]), 2), rel=1e-6)


def test_calibrated_scores_are_seldom_recalibrated_and_spoiled_ones_always() -> None:
    """One in a hundred at most by the level; 400 tries allow for 11 (99.9 % of a binomial)."""
    alarms = [needs_recalibration(check_calibration(*scored(800, 0.0, 1.0, seed))) for seed in range(400)]
    assert sum(alarms) <= 11
    z = [check_calibration(*scored(800, 0.0, 1.0, seed)).spiegelhalter_z for seed in range(400)]
    assert abs(np.mean(z)) < 0.2
    assert np.std(z) == pytest.approx(1.0, abs=0.12)
    for line in ((0.8, 1.0), (0.0, 0.5), (0.0, 2.0), (-0.6, 1.3)):
        assert all(needs_recalibration(check_calibration(*scored(800, *line, seed))) for seed in range(20))


def test_a_miss_that_is_sure_but_tiny_is_left_alone() -> None:
    assert not needs_recalibration(Calibration(10**6, 0.02, 0.98, 1e-9, 0.1))


@pytest.mark.parametrize(
    ("labels", "p"),
    [
        (np.ones(50, dtype=np.int64), np.linspace(0.1, 0.9, 50)),
        (np.arange(50) % 2, np.full(50, 0.4)),
        ((np.arange(50) >= 25).astype(np.int64), np.linspace(0.1, 0.9, 50)),
        (np.arange(50) % 2, np.repeat([0.0, 1.0], 25)),
    ],
    ids=["one class", "equal scores", "separated classes", "scores of 0 and 1"],
)
def test_where_no_line_can_be_fitted_nothing_is_claimed(labels: np.ndarray, p: np.ndarray) -> None:
    found = check_calibration(labels, p)
    if found.slope is not None:
        assert np.isfinite([found.slope, found.intercept, found.p_value]).all()
    else:
        assert (found.intercept, found.p_value) == (None, None)
    assert not needs_recalibration(Calibration(50, None, None, None, None))


def test_a_ranking_that_is_upside_down_is_not_mended() -> None:
    found = check_calibration(*scored(2_000, 0.0, -1.0, 3))
    assert found.slope is not None
    assert found.slope < 0
    assert not needs_recalibration(found)


def test_the_line_in_the_coefficients_gives_the_corrected_probabilities_and_leaves_the_model_alone() -> None:
    rows = labelled(400)
    x, y = rows[FEATURES].to_numpy(), rows["true_label"].to_numpy()
    pipeline = contract.build_estimator(0).fit(x, y)
    before = pipeline.predict_proba(x)[:, 1]
    line = Correction(-0.7, 1.6, 1.6)
    folded = folded_into_linear_step(pipeline, line, x)
    assert folded is not None
    np.testing.assert_allclose(folded.predict_proba(x)[:, 1], line(before), rtol=1e-12)
    np.testing.assert_array_equal(pipeline.predict_proba(x)[:, 1], before)


# The line with its errors, for the Brier gate


def test_the_errors_of_intercept_and_slope_are_their_spread_over_samples() -> None:
    found = [calibration_line(*scored(600, 0.0, 1.0, seed)) for seed in range(300)]
    lines = [line for line in found if line is not None]
    assert len(lines) == 300
    for of, error in (("intercept", "intercept_error"), ("slope", "slope_error")):
        values, errors = (np.array([getattr(line, name) for line in lines]) for name in (of, error))
        assert values.std() == pytest.approx(errors.mean(), rel=0.15)
    assert sum(line.deviance > OFF_DEVIANCE for line in lines) <= 3, "one in a thousand"


def test_odds_that_are_overstated_have_their_logarithm_as_intercept_and_a_slope_of_one() -> None:
    labels, p = scored(20_000, 0.0, 1.0, 3)
    found = calibration_line(labels, 2.7 * p / (1 - p + 2.7 * p))
    assert found is not None
    assert found.intercept == pytest.approx(-np.log(2.7), abs=4 * found.intercept_error)
    assert found.slope == pytest.approx(1.0, abs=4 * found.slope_error)
    assert is_off(found)


def test_a_material_error_that_may_be_chance_and_a_sure_one_that_is_small_are_not_off() -> None:
    few, many = calibration_line(*scored(40, 0.8, 1.0, 4)), calibration_line(*scored(60_000, 0.1, 1.0, 5))
    assert few is not None
    assert many is not None
    assert abs(few.intercept) > OFF_INTERCEPT
    assert many.deviance > OFF_DEVIANCE
    assert not is_off(few)
    assert not is_off(many)


def test_without_two_classes_or_different_scores_there_is_no_line() -> None:
    _, p = scored(100, 0.0, 1.0, 6)
    assert calibration_line(np.zeros(100, dtype=np.int64), p) is None
    assert calibration_line(np.tile([0, 1], 50), np.full(100, 0.3)) is None
