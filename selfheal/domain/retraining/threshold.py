"""The decision threshold of a model: from which probability on it decides for class 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray
    from selfheal.domain.retraining.fitting import IntArray


def f1_optimal_threshold(labels: IntArray, probabilities: FloatArray) -> float:
    """Return the threshold with the highest F1, halfway to the next lower probability so that no row equals it."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    best = int(np.argmax(f1))
    below = thresholds[best - 1] if best else 0.0
    return float((thresholds[best] + below) / 2)
