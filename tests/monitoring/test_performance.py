"""Rules of performance: realised metrics, what CBPE expects, and when a loss is beyond what was announced."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from selfheal.contract import TRUE_LABEL, FloatArray
from selfheal.monitoring.performance import MIN_LABELLED_ROWS, brier_excess, cbpe, performance_report, score_metrics
from tests.builders import score, window

THRESHOLD = 0.4


@pytest.fixture(scope="module")
def probabilities() -> FloatArray:
    return np.random.default_rng(1).beta(0.8, 3.0, size=2_000)


def drawn(probabilities: FloatArray, seed: int) -> npt.NDArray[np.int64]:
    """Labels for which the probabilities are true."""
    return (np.random.default_rng(seed).random(len(probabilities)) < probabilities).astype(np.int64)


def test_realised_metrics_are_those_of_a_hand_count() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    metrics = score_metrics(labels, np.array([0.9, 0.8, 0.1, 0.7, 0.2, 0.2, 0.1, 0.0]), 0.7)
    assert (metrics.n_rows, metrics.n_positive) == (8, 3)
    assert metrics.precision == metrics.recall == metrics.f1 == pytest.approx(2 / 3)
    assert metrics.brier == pytest.approx((0.01 + 0.04 + 0.81 + 0.49 + 0.04 + 0.04 + 0.01) / 8)
    assert metrics.auc_roc == pytest.approx((5 + 5 + 1.5) / 15)


@pytest.mark.parametrize("label", [0, 1])
def test_with_a_single_class_the_auc_is_unknown(label: int) -> None:
    metrics = score_metrics(np.full(10, label), np.linspace(0, 1, 10), 0.5)
    assert metrics.auc_roc is None
    assert 0.0 <= metrics.f1 <= 1.0


def test_cbpe_expects_what_calibrated_scores_give_on_average(probabilities: FloatArray) -> None:
    estimate = cbpe(probabilities, THRESHOLD)
    runs = [score_metrics(drawn(probabilities, seed), probabilities, THRESHOLD) for seed in range(100)]
    for name in ("f1", "precision", "recall", "auc_roc", "brier"):
        realised = np.array([getattr(run, name) for run in runs])
        error = realised.std(ddof=1) / np.sqrt(len(runs))
        assert getattr(estimate, name) == pytest.approx(realised.mean(), abs=4 * error + 5e-4), name


def test_cbpe_expects_the_same_in_any_order_of_rows(probabilities: FloatArray) -> None:
    shuffled = np.random.default_rng(2).permutation(probabilities)
    assert cbpe(shuffled, THRESHOLD).auc_roc == pytest.approx(cbpe(probabilities, THRESHOLD).auc_roc)


def test_scores_that_tell_nothing_apart_have_an_expected_auc_of_one_half() -> None:
    assert cbpe(np.full(50, 0.3), THRESHOLD).auc_roc == pytest.approx(0.5)


def test_tied_scores_count_half_as_in_the_realised_auc() -> None:
    tied = np.repeat([0.1, 0.3, 0.8], 400)
    realised = [roc_auc_score(drawn(tied, seed), tied) for seed in range(40)]
    assert cbpe(tied, THRESHOLD).auc_roc == pytest.approx(np.mean(realised), abs=0.005)


@pytest.mark.parametrize("probabilities", [[0.3], [0.0, 0.0], [1.0, 1.0]], ids=["one row", "all 0", "all 1"])
def test_where_no_pair_can_be_compared_the_expected_auc_is_unknown(probabilities: list[float]) -> None:
    assert cbpe(np.array(probabilities), THRESHOLD).auc_roc is None


def test_certain_scores_have_an_expected_auc_of_one() -> None:
    estimate = cbpe(np.array([0.0, 0.0, 1.0]), 0.5)
    assert (estimate.auc_roc, estimate.f1, estimate.brier) == (1.0, 1.0, 0.0)


def test_the_excess_is_zero_on_average_while_scores_are_calibrated(probabilities: FloatArray) -> None:
    found = np.array([brier_excess(drawn(probabilities, seed), probabilities) for seed in range(200)])
    error = found[:, 0].std(ddof=1) / np.sqrt(len(found))
    assert abs(found[:, 0].mean()) < 4 * error
    assert (found[:, 1] > 0).mean() < 0.02  # the level is 0.001; 200 tries leave room for bad luck
    assert (found[:, 1] < found[:, 0]).all()


def test_the_excess_is_zero_for_another_mix_of_rows_too(probabilities: FloatArray) -> None:
    risky = probabilities[probabilities > 0.3]
    _, low = brier_excess(drawn(risky, 1), risky)
    assert low < 0


def test_the_excess_is_certain_where_the_relation_has_turned(probabilities: FloatArray) -> None:
    excess, low = brier_excess(1 - drawn(probabilities, 1), probabilities)
    assert 0 < low < excess


def report_of(n_labelled: int, n_current: int = 300, **changes: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = np.random.default_rng(4).random(max(n_labelled, n_current))
    labelled = pd.DataFrame({"probability": scores[:n_labelled], TRUE_LABEL: drawn(scores, 5)[:n_labelled]})
    return pd.DataFrame({"probability": scores[:n_current]}), labelled


def test_a_report_holds_realised_and_estimated_metrics() -> None:
    current, labelled = report_of(100)
    report = performance_report(window(n_predictions=300, n_labels=100), current, labelled, score(), THRESHOLD)
    labels, scores = labelled[TRUE_LABEL].to_numpy(), labelled["probability"].to_numpy()
    assert report.realised == score_metrics(labels, scores, THRESHOLD)
    assert (report.brier_excess, report.brier_excess_low) == brier_excess(labels, scores)
    assert report.estimated_auc_roc == cbpe(current["probability"].to_numpy(), THRESHOLD).auc_roc
    assert report.label_coverage_pct == pytest.approx(100 / 3)
    assert report.reference == score()


def test_too_few_labels_leave_the_realised_metrics_unknown() -> None:
    current, labelled = report_of(MIN_LABELLED_ROWS - 1)
    report = performance_report(window(), current, labelled, score(), THRESHOLD)
    assert (report.realised, report.brier_excess, report.brier_excess_low) == (None, None, None)
    assert report.estimated_f1 is not None


def test_without_predictions_nothing_is_known() -> None:
    current, labelled = report_of(0, 0)
    report = performance_report(window(n_predictions=0, n_labels=0), current, labelled, score(), THRESHOLD)
    unknown = (report.realised, report.estimated_f1, report.estimated_auc_roc, report.estimated_brier)
    assert unknown == (None,) * 4
    assert report.label_coverage_pct is None
