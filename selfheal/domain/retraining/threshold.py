"""The decision threshold of a model: from which probability on it decides for class 1.

The threshold with the highest F1 on labelled rows is an accident of the few events near it. So F1 is taken as expected: of a row's
chance of the event, which is a logistic function of the normal score of its rank. Only the order of the probabilities enters, so they need
not be calibrated (the binormal model of ROC curves: Dorfman and Alf, 1969, J. Math. Psychol. 6). The threshold with the highest
expected F1 is the best one if the chances are right (Lipton, Elkan and Naryanaswamy, 2014, ECML PKDD). `benchmarks.threshold` measures
its F1 on other rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.monitoring.newton import fit_logistic, probability
from selfheal.domain.retraining.evidence import derivatives, f1_difference, kinds_of

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray
    from selfheal.domain.retraining.fitting import IntArray

RIDGE = 1e-2
"""Penalty of the slope, by which it stays finite where the probabilities separate the classes."""

CONTRADICTION = 3.0
"""Standard errors by which the labels have to show another threshold to be better, before it is taken: where many labels contradict the
logistic function, it is wrong."""


def f1_optimal_threshold(labels: IntArray, probabilities: FloatArray) -> float:
    """Return the threshold with the highest expected F1, halfway to the next lower probability so that no row equals it.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: of models that have not seen the rows, shape (n,).
    """
    of_labels = _highest_f1(labels, probabilities)
    if labels.min() == labels.max():
        return of_labels
    expected = _highest_f1(_chances(labels, probabilities), probabilities)
    says, other_says = ((probabilities >= threshold).astype(np.int64) for threshold in (of_labels, expected))
    gain, error = _gain(kinds_of(labels, says, other_says))
    return of_labels if gain > CONTRADICTION * error else expected


def _highest_f1(chances: FloatArray | IntArray, probabilities: FloatArray) -> float:
    """Return the threshold with the highest F1 if a row is an event with its chance (or label)."""
    order = np.argsort(-probabilities, kind="stable")
    sorted_ones = probabilities[order]
    hits, predicted = np.cumsum(chances[order]), np.arange(1, len(order) + 1)
    f1 = 2 * hits / np.maximum(hits[-1] + predicted, 1)
    is_last_of_equals = np.append(sorted_ones[1:] != sorted_ones[:-1], True)
    # of equally good ones the lowest: it leaves out none that is as likely
    best = len(f1) - 1 - int(np.where(is_last_of_equals, f1, -1.0)[::-1].argmax())
    below = sorted_ones[best + 1] if best + 1 < len(sorted_ones) else 0.0
    return float((sorted_ones[best] + below) / 2)


def _chances(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Return each row's chance of the event, as a logistic function of the normal score of its probability's rank."""
    from scipy.special import logit, ndtri
    from scipy.stats import rankdata

    scores = ndtri(rankdata(probabilities) / (len(labels) + 1))
    x = np.column_stack([np.ones(len(labels)), scores])
    usual = np.full(len(labels), float(logit(labels.mean())))
    line, _ = fit_logistic(x, labels.astype(np.float64), 1.0, usual, np.array([0.0, RIDGE]))
    return probability(usual + x @ line)


def _gain(kinds: IntArray) -> tuple[float, float]:
    """Return by how much F1 is higher than that of the other decisions, and the standard error of that (linearised)."""
    counts = np.bincount(kinds, minlength=8)
    return float(f1_difference(counts)), float(np.sqrt((derivatives(counts)[kinds] ** 2).sum()))
