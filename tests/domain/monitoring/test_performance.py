"""Rules of performance: realised metrics, when a loss is beyond what was announced, and what may be said of concept drift."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.estimation import estimate_performance
from selfheal.domain.monitoring.intervals import metric_intervals
from selfheal.domain.monitoring.performance import (
    CONCEPT_DRIFT_LEVEL,
    MIN_LABELLED_ROWS,
    brier_excess,
    concept_drift,
    performance_report,
    score_metrics,
)
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.triage import HarmLimits, harm_reasons
from selfheal.domain.records import ConceptDrift, LabelDelay, PerformanceReport
from selfheal.kit.serialization import from_dict, to_json
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


@pytest.mark.parametrize("n_values", [2, 5, 40, 10**9])
def test_realised_metrics_are_those_of_scikit_learn_to_the_last_bit(n_values: int) -> None:
    from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

    rng = np.random.default_rng(n_values)
    for n_rows in (2, 3, 50, 1_000):
        scores = rng.integers(0, n_values, n_rows) / n_values
        labels = rng.permutation(np.arange(n_rows) % 3 == 0).astype(np.int64)
        found, predicted = score_metrics(labels, scores, 0.5), scores >= 0.5
        assert found.auc_roc == roc_auc_score(labels, scores)
        assert found.f1 == f1_score(labels, predicted, zero_division=0.0)
        assert found.precision == precision_score(labels, predicted, zero_division=0.0)
        assert found.recall == recall_score(labels, predicted, zero_division=0.0)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_metrics_of_a_score_that_is_no_number_are_refused(score: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        score_metrics(np.array([0, 1]), np.array([0.5, score]), 0.5)


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


def rows_of(n_rows: int, seed: int, relation: Callable[[FloatArray], FloatArray] = lambda p: p) -> pd.DataFrame:
    """Rows whose score is the input itself; the true probability is `relation` of it."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(1.0, 3.0, size=n_rows)
    labels = (rng.random(n_rows) < relation(scores)).astype(np.int64)
    return pd.DataFrame({"load": scores, "probability": scores, TRUE_LABEL: labels})


CALIBRATION_ROWS = rows_of(3_000, seed=3)


def report_of(current: pd.DataFrame, labelled: pd.DataFrame, **changes: Any) -> PerformanceReport:
    """A report with nothing known of the labels' delay, unless the test says otherwise."""
    values: dict[str, Any] = {
        "calibration_rows": CALIBRATION_ROWS,
        "inputs": ["load"],
        "label_delay": None,
        "matured": None,
        "seed": 1,
    }
    seen = window(n_predictions=len(current), n_labels=len(labelled))
    return performance_report(seen, current, labelled, score(), THRESHOLD, **(values | changes))


def test_a_report_holds_realised_and_estimated_metrics() -> None:
    rows = rows_of(300, seed=4)
    report = report_of(rows, rows.iloc[:100], matured=window(n_predictions=300, n_labels=100))
    assert report.withheld == ()
    labels, scores = rows[TRUE_LABEL].to_numpy()[:100], rows["probability"].to_numpy()[:100]
    assert report.realised == score_metrics(labels, scores, THRESHOLD)
    assert report.realised_intervals == metric_intervals(labels, scores, THRESHOLD)
    assert (report.brier_excess, report.brier_excess_low) == brier_excess(labels, scores)
    assert report.estimate == estimate_performance(rows, CALIBRATION_ROWS, ["load"], THRESHOLD, seed=1)
    assert report.estimated_auc_roc == report.estimate.values["auc_roc"]
    assert report.label_coverage_pct == pytest.approx(100 / 3)
    assert report.reference == score()


def test_while_nobody_knows_when_labels_are_complete_they_show_nothing_and_the_report_says_why() -> None:
    rows = rows_of(300, seed=4)
    delay = LabelDelay(300, 100, None, "not identifiable: labels are not random")
    report = report_of(rows, rows.iloc[:100], label_delay=delay)
    assert (report.realised, report.brier_excess) == (None, None)
    assert "withheld" in report.withheld[0]
    assert "labels are not random" in report.withheld[0]


def test_reference_rows_without_a_label_are_no_calibration_rows() -> None:
    rows = rows_of(600, seed=4)
    unlabelled = rows_of(2_000, seed=8).assign(**{TRUE_LABEL: np.nan})
    mixed = pd.concat([CALIBRATION_ROWS, unlabelled]).sample(frac=1.0, random_state=1)
    labelled = mixed[mixed[TRUE_LABEL].notna()].reset_index(drop=True)
    matured = window(n_predictions=600, n_labels=600)
    found, alone = (report_of(rows, rows, matured=matured, calibration_rows=given) for given in (mixed, labelled))
    assert found == alone
    assert found.estimate is not None
    assert found.estimate.n_calibration_rows == len(CALIBRATION_ROWS)


def test_too_few_labels_leave_the_realised_metrics_unknown() -> None:
    rows = rows_of(300, seed=4)
    report = report_of(rows, rows.iloc[: MIN_LABELLED_ROWS - 1])
    assert (report.realised, report.brier_excess, report.brier_excess_low) == (None, None, None)
    assert report.realised_intervals == {}
    assert report.estimated_f1 is not None


def test_without_predictions_nothing_is_known() -> None:
    none = rows_of(0, seed=4)
    report = report_of(none, none)
    unknown = (report.realised, report.estimate, report.estimated_f1, report.estimated_auc_roc, report.estimated_brier)
    assert unknown == (None,) * 5
    assert report.label_coverage_pct is None
    assert report.concept_drift is ConceptDrift.NOT_IDENTIFIABLE


def test_an_estimate_that_is_not_identifiable_leaves_the_estimated_metrics_unknown() -> None:
    """An unknown is None for whoever reads the report, never a number from rows nobody has seen the outcome of."""
    elsewhere = rows_of(300, seed=4).assign(load=5.0)
    report = report_of(elsewhere, elsewhere.iloc[:0])
    assert report.estimate is not None
    assert not report.estimate.is_identifiable
    assert (report.estimated_f1, report.estimated_auc_roc, report.estimated_brier) == (None, None, None)


REVERSED = rows_of(500, seed=5, relation=lambda p: 1 - p)


def test_concept_drift_is_not_identifiable_without_labels_however_much_the_relation_has_changed() -> None:
    report = report_of(REVERSED, REVERSED.iloc[:0])
    assert report.concept_drift is ConceptDrift.NOT_IDENTIFIABLE
    assert report.concept_drift_p_value is None


def test_labels_of_unknown_maturity_show_no_concept_drift() -> None:
    """The early labels may be those of one class: what they would show is not known to be so."""
    assert report_of(REVERSED, REVERSED).concept_drift is ConceptDrift.NOT_IDENTIFIABLE


def test_matured_labels_show_concept_drift_and_show_where_there_is_none() -> None:
    matured = window(n_predictions=1_000, n_labels=500)
    report = report_of(REVERSED, REVERSED, matured=matured)
    assert report.concept_drift is ConceptDrift.SHOWN
    assert (report.is_matured, report.matured_coverage_pct, report.concept_drift_rows) == (True, 50.0, 500)
    steady = rows_of(500, seed=6)
    assert report_of(steady, steady, matured=matured).concept_drift is ConceptDrift.NONE_SHOWN


def test_too_few_matured_labels_leave_concept_drift_unknown() -> None:
    report = report_of(REVERSED, REVERSED.iloc[:10], matured=window(n_predictions=10, n_labels=10))
    assert report.concept_drift is ConceptDrift.NOT_IDENTIFIABLE


@pytest.mark.parametrize(
    ("p_value", "drift"),
    [
        (None, ConceptDrift.NOT_IDENTIFIABLE),
        (CONCEPT_DRIFT_LEVEL, ConceptDrift.NONE_SHOWN),
        (CONCEPT_DRIFT_LEVEL / 2, ConceptDrift.SHOWN),
    ],
)
def test_concept_drift_is_shown_below_its_level_only(p_value: float | None, drift: ConceptDrift) -> None:
    assert concept_drift(p_value) is drift


def test_a_report_survives_its_json() -> None:
    rows = rows_of(300, seed=4)
    report = report_of(rows, rows, matured=window(), label_delay=LabelDelay(300, 300, 5.0, "soon", {"0.5": 3.0}, 90.0))
    assert from_dict(PerformanceReport, json.loads(to_json(report))) == report


@pytest.mark.parametrize("relation", [lambda p: p, lambda p: 0.1 + 0 * p], ids=["as announced", "no relation"])
@pytest.mark.parametrize("n_rows", [1, 3, 40, 600])
def test_a_report_that_only_decides_gives_the_same_reasons_of_harm_at_any_limit(
    relation: Callable[[FloatArray], FloatArray], n_rows: int
) -> None:
    reference, current = rows_of(800, seed=5, relation=relation), rows_of(n_rows, seed=6)
    whole = report_of(current, current, calibration_rows=reference, matured=window())
    assert whole.estimate is not None
    for limit in (0.0, 0.3, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0):
        deciding = report_of(current, current, calibration_rows=reference, matured=window(), decides_at_auc=limit)
        reasons = [
            harm_reasons(report, HarmLimits(0.01, limit), is_estimate_sufficient=True) for report in (whole, deciding)
        ]
        assert reasons[0] == reasons[1]
        assert (deciding.concept_drift_p_value, deciding.brier_excess) == (
            whole.concept_drift_p_value,
            whole.brier_excess,
        )


def riskiest_average(scores: FloatArray) -> FloatArray:
    return np.where(scores >= np.quantile(scores, 0.8), scores.mean(), scores)


def test_harm_is_called_where_the_riskiest_became_average_although_the_loss_is_below_the_announced_one() -> None:
    limits = HarmLimits(0.01, 0.5)
    for relation, is_harmful in ((riskiest_average, True), (lambda p: p, False)):
        rows = rows_of(1_440, seed=8, relation=relation)
        report = report_of(rows, rows, matured=window())
        assert report.brier_excess is not None
        assert report.brier_excess < 0.01
        assert bool(harm_reasons(report, limits, is_estimate_sufficient=True)) is is_harmful


def test_a_report_that_only_decides_leaves_out_the_intervals_that_cannot_change_the_verdict() -> None:
    current = rows_of(600, seed=6)
    deciding = report_of(current, current, decides_at_auc=0.5)
    assert deciding.estimate is not None
    assert (deciding.realised_intervals, deciding.estimate.intervals) == ({}, {})
    assert deciding.estimate.values == report_of(current, current).estimate.values  # type: ignore[union-attr]


def test_rows_that_were_prepared_for_many_looks_give_the_same_report() -> None:
    prepared, current = PreparedRows(CALIBRATION_ROWS), rows_of(300, seed=4)
    fresh = report_of(current, current, matured=window())
    for _ in range(2):
        assert report_of(current, current, matured=window(), calibration_rows=prepared) == fresh
