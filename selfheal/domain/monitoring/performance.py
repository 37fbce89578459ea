"""Performance of the champion: realised on labelled rows, estimated by CBPE on all rows."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.estimation import estimate_performance, relation_p_value
from selfheal.domain.monitoring.intervals import IntArray, metric_intervals
from selfheal.domain.records import ConceptDrift, LabelDelay, PerformanceReport, ScoreMetrics, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

HARM_LEVEL = 0.001
"""One-sided level of the lower bound on a realised loss; small, because overlapping ticks test it often."""

CONCEPT_DRIFT_LEVEL = 0.001
"""Level of the test whether score and outcome are related as in the reference; small for the same reason."""

MIN_LABELLED_ROWS = 30
"""Smallest number of labelled rows with realised metrics: with fewer, the bound's normal approximation does not hold."""


def score_metrics(labels: IntArray, probabilities: FloatArray, threshold: float) -> ScoreMetrics:
    """Compute the quality of `probabilities` for the true `labels` (both shape (n,)) at a decision threshold.

    AUC is None if there is only one class. Brier is the mean squared error of the probability (Brier, 1950).
    """
    from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

    predicted = (probabilities >= threshold).astype(np.int64)
    has_both_classes = 0 < int(labels.sum()) < len(labels)
    return ScoreMetrics(
        n_rows=len(labels),
        n_positive=int(labels.sum()),
        f1=float(f1_score(labels, predicted, zero_division=0.0)),
        precision=float(precision_score(labels, predicted, zero_division=0.0)),
        recall=float(recall_score(labels, predicted, zero_division=0.0)),
        auc_roc=float(roc_auc_score(labels, probabilities)) if has_both_classes else None,
        brier=float(np.mean((probabilities - labels) ** 2)),
    )


def performance_report(
    window: Window,
    current: pd.DataFrame,
    labelled: pd.DataFrame,
    reference: ScoreMetrics,
    threshold: float,
    *,
    calibration_rows: pd.DataFrame,
    inputs: Sequence[str],
    label_delay: LabelDelay | None,
    matured: Window | None,
    seed: int,
) -> PerformanceReport:
    """Report realised and estimated quality of the champion in one window.

    Args:
        current: the window's rows: `inputs` and `probability`.
        labelled: labelled rows, with `true_label` too: those of `matured`, or of the window if maturity is unknown.
        reference: the champion's metrics on the rows it was judged on.
        calibration_rows: the champion's frozen reference: `inputs`, `probability`, `true_label`.
        inputs: names of the raw inputs.
        matured: the period whose predictions are old enough to be labelled; None if unknown.
        seed: of the estimate's simulation.
    """
    realised = excess = low = None
    intervals = {}
    if len(labelled) >= MIN_LABELLED_ROWS:
        labels = labelled[TRUE_LABEL].to_numpy(dtype=np.int64)
        probabilities = labelled["probability"].to_numpy(dtype=np.float64)
        realised = score_metrics(labels, probabilities, threshold)
        intervals = metric_intervals(labels, probabilities, threshold)
        excess, low = brier_excess(labels, probabilities)
    estimate = estimate_performance(current, calibration_rows, inputs, threshold, seed) if len(current) else None
    estimated = {} if estimate is None else estimate.values
    # Early labels may be of one class only, so they cannot test the relation.
    p_value = None if matured is None else relation_p_value(labelled, calibration_rows, inputs)
    return PerformanceReport(
        window=window,
        reference=reference,
        realised=realised,
        brier_excess=excess,
        brier_excess_low=low,
        estimated_f1=estimated.get("f1"),
        estimated_auc_roc=estimated.get("auc_roc"),
        estimated_brier=estimated.get("brier"),
        label_coverage_pct=_coverage_pct(window),
        realised_intervals=intervals,
        is_matured=matured is not None,
        matured_coverage_pct=None if matured is None else _coverage_pct(matured),
        label_delay=label_delay,
        estimate=estimate,
        concept_drift=concept_drift(p_value),
        concept_drift_p_value=p_value,
        concept_drift_rows=0 if p_value is None else len(labelled),
    )


def concept_drift(p_value: float | None) -> ConceptDrift:
    """Judge by labels whether the relation between score and outcome changed; `p_value` is from `relation_p_value`."""
    if p_value is None:
        return ConceptDrift.NOT_IDENTIFIABLE
    return ConceptDrift.SHOWN if p_value < CONCEPT_DRIFT_LEVEL else ConceptDrift.NONE_SHOWN


def brier_excess(labels: IntArray, probabilities: FloatArray) -> tuple[float, float]:
    """Return the realised minus the predicted Brier score, mean of (y - p)^2 - p(1 - p), and its one-sided lower bound.

    This is the statistic of Spiegelhalter (1986, Statistics in Medicine 5): its expectation is 0 while the probabilities are
    calibrated, for any mix of inputs. The bound is normal, at `HARM_LEVEL`, with the standard deviation of the rows.
    """
    excess = (labels - probabilities) ** 2 - probabilities * (1 - probabilities)
    mean = float(excess.mean())
    error = float(excess.std(ddof=1)) / math.sqrt(len(excess))
    return mean, mean - NormalDist().inv_cdf(1 - HARM_LEVEL) * error


def _coverage_pct(window: Window) -> float | None:
    return 100.0 * window.n_labels / window.n_predictions if window.n_predictions else None
