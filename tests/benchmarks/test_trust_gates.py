"""Rules of the worlds of the gates: a challenger is what its figure calls it, and no promotion is left out to save time."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.trust.gates_worlds import (
    METRICS,
    IntArray,
    Metric,
    Pair,
    equalised,
    is_hopeless,
    is_promoted,
    limits_for,
    scrambled,
    value_of,
)
from selfheal.domain.monitoring.performance import roc_auc
from selfheal.domain.retraining.evaluation import Scores


def population(n_rows: int = 3_000) -> tuple[IntArray, Scores, Scores]:
    """Labels, a good model's scores, and those of a model as good with errors of its own."""
    rng = np.random.default_rng(1)
    odds = rng.normal(-2, 1.5, n_rows)
    labels = (rng.random(n_rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    good, other = (Scores(1 / (1 + np.exp(-odds - rng.normal(0, sd, n_rows))), 0.3) for sd in (0.1, 0.6))
    return labels, good, other


def test_scrambled_scores_keep_every_decision_and_lose_the_area() -> None:
    labels, good, _ = population()
    found = scrambled(good, labels, 0.05, np.random.default_rng(2))
    assert (found.predictions == good.predictions).all()
    assert roc_auc(labels, found.probabilities) == pytest.approx(roc_auc(labels, good.probabilities) - 0.05, abs=0.002)


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_an_equalised_pair_has_no_gain_in_expectation(metric: Metric) -> None:
    labels, good, other = population()
    pair = equalised(metric, Pair(labels, other, good))
    rows = pair.draw(200_000, np.random.default_rng(3))
    values = [value_of(metric, labels[rows], Scores(one.probabilities[rows], 0.3)) for one in (other, good)]
    assert abs(values[0] - values[1]) < 0.002
    assert value_of(metric, labels, good) - value_of(metric, labels, other) > 0.004


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_called_hopeless_is_never_promoted(metric: Metric) -> None:
    labels, good, other = population()
    pair, rng, limits = Pair(labels, good, other), np.random.default_rng(4), {**limits_for(metric), "min_recall": 0.0}
    verdicts = []
    for _ in range(12):
        rows = pair.draw(600, rng)
        verdicts.append((is_hopeless(metric, pair.on(rows), 1, limits), is_promoted(pair, rows, 1, limits)))
    assert (True, True) not in verdicts
    assert {is_left_out for is_left_out, _ in verdicts} == {True, False} or metric in {"log_loss", "brier", "auc"}
