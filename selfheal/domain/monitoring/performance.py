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
"""One-sided level of the lower bound that calls a realised loss harmful; ticks overlap, so it is looked at often."""

CONCEPT_DRIFT_LEVEL = 0.001
"""Level at which labels show that score and outcome are related otherwise than in the reference; for the same reason."""

MIN_LABELLED_ROWS = 30
"""Fewer labelled rows give no realised metrics: the normal approximation of the bound would be a fiction."""


def score_metrics(labels: IntArray, probabilities: FloatArray, threshold: float) -> ScoreMetrics:
    """Quality of `probabilities` for the true `labels` (both shape (n,)) at a decision threshold.

    AUC is None where there is only one class. Brier: mean squared error of the probability (Brier, 1950).
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
        labelled: labelled rows, with `true_label` too: those of `matured`, or of the window where maturity is unknown.
        reference: the champion's metrics on the rows it was judged on.
        calibration_rows: the champion's frozen reference: `inputs`, `probability`, `true_label`.
        inputs: names of the raw inputs.
        matured: the predictions that have had the time to be labelled; None where that is not known.
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
    # Labels that came early may be those of one class: they say nothing of the relation.
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
    """Judge the relation between score and outcome by labels; `p_value` is that of `relation_p_value`."""
    if p_value is None:
        return ConceptDrift.NOT_IDENTIFIABLE
    return ConceptDrift.SHOWN if p_value < CONCEPT_DRIFT_LEVEL else ConceptDrift.NONE_SHOWN


def brier_excess(labels: IntArray, probabilities: FloatArray) -> tuple[float, float]:
    """Realised minus announced Brier score, mean of (y - p)^2 - p(1 - p), and its one-sided lower bound.

    The statistic of Spiegelhalter (1986, Statistics in Medicine 5): 0 in expectation while the probabilities hold, for any
    mix of inputs. The bound is normal, at `HARM_LEVEL`, with the rows' own spread.
    """
    excess = (labels - probabilities) ** 2 - probabilities * (1 - probabilities)
    mean = float(excess.mean())
    error = float(excess.std(ddof=1)) / math.sqrt(len(excess))
    return mean, mean - NormalDist().inv_cdf(1 - HARM_LEVEL) * error


def _coverage_pct(window: Window) -> float | None:
    return 100.0 * window.n_labels / window.n_predictions if window.n_predictions else None
