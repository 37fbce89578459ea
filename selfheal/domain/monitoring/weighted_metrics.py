"""Realised metrics on labels that come for known shares of the predictions: inverse probability weights, in Hajek's form.

A label that comes with probability q stands for 1/q predictions; sums of weights, not the number of rows, are the denominators
(Hajek, 1971; Horvitz and Thompson, 1952), so that the shares need to be right up to a common factor only. Weights are no copies:
errors follow from the weighted residuals (linearisation), and grow with the variance of the weights.

Belongs here: metrics of weighted rows. Does not belong here: whose shares are known (`LabelPolicy`).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.domain.monitoring.intervals import IntArray
from selfheal.domain.records import ScoreMetrics


def weighted_score_metrics(
    labels: IntArray, probabilities: FloatArray, threshold: float, weights: FloatArray
) -> ScoreMetrics:
    """Compute the quality on the population that weighted rows stand for; counts are of rows, shares of weight."""
    predicted = probabilities >= threshold
    true_positive = float(weights[predicted & (labels == 1)].sum())
    n_predicted, n_positive = float(weights[predicted].sum()), float(weights[labels == 1].sum())
    return ScoreMetrics(
        n_rows=len(labels),
        n_positive=int(labels.sum()),
        f1=2 * true_positive / (n_predicted + n_positive) if n_predicted + n_positive else 0.0,
        precision=true_positive / n_predicted if n_predicted else 0.0,
        recall=true_positive / n_positive if n_positive else 0.0,
        auc_roc=_auc(labels, probabilities, weights) if 0 < labels.sum() < len(labels) else None,
        brier=float(np.average((probabilities - labels) ** 2, weights=weights)),
    )


def weighted_brier_excess(
    labels: IntArray, probabilities: FloatArray, weights: FloatArray, level: float
) -> tuple[float, float]:
    """Return the realised minus the announced Brier score of the population, and its one-sided lower bound at a level.

    The standard error of Hajek's mean m of values z is sqrt(sum (w (z - m))^2) / sum w.
    """
    excess = (labels - probabilities) ** 2 - probabilities * (1 - probabilities)
    mean = float(np.average(excess, weights=weights))
    error = math.sqrt(float(((weights * (excess - mean)) ** 2).sum())) / float(weights.sum())
    return mean, mean - NormalDist().inv_cdf(1 - level) * error


def _auc(labels: IntArray, scores: FloatArray, weights: FloatArray) -> float:
    """Return the weighted share of pairs of an event and a non-event that the scores order rightly; a tie counts half."""
    values, at = np.unique(scores, return_inverse=True)
    of_class = [np.bincount(at, weights=weights * (labels == label), minlength=len(values)) for label in (0, 1)]
    negatives_below = np.cumsum(of_class[0]) - of_class[0] / 2
    return float((of_class[1] * negatives_below).sum() / (of_class[0].sum() * of_class[1].sum()))
