"""How well the model does: realised on labelled rows, estimated by CBPE on all rows."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfheal.contract import TRUE_LABEL, FloatArray
from selfheal.records import PerformanceReport, ScoreMetrics, Window

if TYPE_CHECKING:
    import pandas as pd

HARM_LEVEL = 0.001
"""One-sided level of the lower bound that calls a realised loss harmful; ticks overlap, so it is looked at often."""

MIN_LABELLED_ROWS = 30
"""Fewer labelled rows give no realised metrics: the normal approximation of the bound would be a fiction."""

IntArray = npt.NDArray[np.int64]


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
    window: Window, current: pd.DataFrame, labelled: pd.DataFrame, reference: ScoreMetrics, threshold: float
) -> PerformanceReport:
    """Realised and estimated quality of the champion in one window.

    Args:
        current: `probability` of the window's rows.
        labelled: `probability` and `true_label` of its labelled rows.
        reference: the champion's metrics on the rows it was judged on.
    """
    realised = excess = low = None
    if len(labelled) >= MIN_LABELLED_ROWS:
        labels = labelled[TRUE_LABEL].to_numpy(dtype=np.int64)
        probabilities = labelled["probability"].to_numpy(dtype=np.float64)
        realised = score_metrics(labels, probabilities, threshold)
        excess, low = brier_excess(labels, probabilities)
    estimate = cbpe(current["probability"].to_numpy(dtype=np.float64), threshold) if len(current) else None
    return PerformanceReport(
        window=window,
        reference=reference,
        realised=realised,
        brier_excess=excess,
        brier_excess_low=low,
        estimated_f1=estimate.f1 if estimate else None,
        estimated_auc_roc=estimate.auc_roc if estimate else None,
        estimated_brier=estimate.brier if estimate else None,
        label_coverage_pct=100.0 * window.n_labels / window.n_predictions if window.n_predictions else None,
    )


def brier_excess(labels: IntArray, probabilities: FloatArray) -> tuple[float, float]:
    """Realised minus announced Brier score, mean of (y - p)^2 - p(1 - p), and its one-sided lower bound.

    The statistic of Spiegelhalter (1986, Statistics in Medicine 5): 0 in expectation while the probabilities hold, for any
    mix of inputs. The bound is normal, at `HARM_LEVEL`, with the rows' own spread.
    """
    excess = (labels - probabilities) ** 2 - probabilities * (1 - probabilities)
    mean = float(excess.mean())
    error = float(excess.std(ddof=1)) / math.sqrt(len(excess))
    return mean, mean - NormalDist().inv_cdf(1 - HARM_LEVEL) * error


def cbpe(probabilities: FloatArray, threshold: float) -> ScoreMetrics:
    """Confidence-based performance estimation: the metrics expected if the probabilities are calibrated.

    Each row counts as p true and 1 - p false cases (Guo et al., 2017; NannyML's documentation of CBPE). AUC compares each
    row with every other one, a tie counting half; it is None where no pair of a true and a false case can be. Blind to a
    change of the relation between inputs and label: only labels can show that.
    """
    positive, predicted = probabilities, probabilities >= threshold
    true_positive = float(positive[predicted].sum())
    n_predicted, n_positive = float(predicted.sum()), float(positive.sum())
    values, row_of = np.unique(probabilities, return_inverse=True)
    negatives = np.bincount(row_of, weights=1 - probabilities, minlength=len(values))
    negatives_below = (np.cumsum(negatives) - negatives)[row_of]
    negatives_tied = negatives[row_of] - (1 - probabilities)  # the row itself is not a pair
    pairs = float((positive * (negatives.sum() - (1 - probabilities))).sum())
    return ScoreMetrics(
        n_rows=len(probabilities),
        n_positive=round(n_positive),
        f1=2 * true_positive / (n_predicted + n_positive) if n_predicted + n_positive else 0.0,
        precision=true_positive / n_predicted if n_predicted else 0.0,
        recall=true_positive / n_positive if n_positive else 0.0,
        auc_roc=float((positive * (negatives_below + negatives_tied / 2)).sum() / pairs) if pairs > 0 else None,
        brier=float(np.mean(probabilities * (1 - probabilities))),
    )
