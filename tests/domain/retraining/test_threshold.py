"""Rules of the decision threshold: the best one to expect, from the order of the scores, and what the labels show if they show it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import f1_score, precision_recall_curve

from selfheal.domain.contract import FloatArray
from selfheal.domain.retraining.evidence import IntArray
from selfheal.domain.retraining.threshold import f1_optimal_threshold

N_TRUTH = 20_000


def drawn(rng: np.random.Generator, n_rows: int) -> tuple[IntArray, FloatArray]:
    """Labels and calibrated probabilities, a tenth of them events."""
    chances = rng.beta(0.6, 5.4, n_rows)
    return (rng.random(n_rows) < chances).astype(np.int64), chances


def highest_on_labels(labels: IntArray, probabilities: FloatArray) -> float:
    """The threshold with the highest F1 on the labels themselves."""
    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    return float(thresholds[np.argmax(2 * precision[:-1] * recall[:-1] / (precision[:-1] + recall[:-1] + 1e-12))])


def test_its_f1_on_other_rows_is_higher_than_that_of_the_labels_best() -> None:
    rng = np.random.default_rng(3)
    truth, scores = drawn(rng, N_TRUTH)
    gains = []
    for _ in range(150):
        labels, probabilities = drawn(rng, 400)
        ours, theirs = (found(labels, probabilities) for found in (f1_optimal_threshold, highest_on_labels))
        gains.append(f1_score(truth, scores >= ours) - f1_score(truth, scores >= theirs))
    assert np.mean(gains) > 3 * np.std(gains) / np.sqrt(len(gains))


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_only_the_order_of_the_scores_counts(seed: int) -> None:
    """So that a model whose probabilities are wrong by a function of themselves decides as a calibrated one."""
    labels, probabilities = drawn(np.random.default_rng(seed), 200)
    says = probabilities >= f1_optimal_threshold(labels, probabilities)
    overconfident = probabilities**3
    assert ((overconfident >= f1_optimal_threshold(labels, overconfident)) == says).all()


def test_scores_that_separate_the_classes_decide_other_rows_as_well_as_by_the_labels_best() -> None:
    """There the slope of the chances is bounded by its penalty alone, and a step towards it may be far too long."""
    rng = np.random.default_rng(7)

    def separated(n_rows: int, n_events: int) -> tuple[IntArray, FloatArray]:
        labels = (np.arange(n_rows) < n_events).astype(np.int64)
        return labels, expit(6 * labels - 3 + rng.normal(size=n_rows))

    truth, scores = separated(N_TRUTH, N_TRUTH // 50)
    for _ in range(20):
        labels, probabilities = separated(300, 6)
        ours, theirs = (found(labels, probabilities) for found in (f1_optimal_threshold, highest_on_labels))
        assert f1_score(truth, scores >= ours) > f1_score(truth, scores >= theirs) - 0.1


def test_where_many_labels_contradict_the_expectation_they_decide() -> None:
    """Events are as frequent everywhere above the median, and below it there is none."""
    rng = np.random.default_rng(5)
    scores = rng.random(N_TRUTH)
    labels = ((scores > 0.5) & (rng.random(N_TRUTH) < 0.3)).astype(np.int64)
    assert f1_optimal_threshold(labels, scores) == pytest.approx(0.5, abs=0.005)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 30))
def test_it_is_between_0_and_1_and_no_score_equals_it_unless_it_is_0(seed: int, n_events: int, n_others: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.array([1] * n_events + [0] * n_others))
    scores = np.round(rng.random(len(labels)), 1)
    found = f1_optimal_threshold(labels, scores)
    assert 0 <= found < 1
    assert found == 0 or found not in scores


@pytest.mark.parametrize("label", [0, 1])
def test_of_one_class_alone_the_lowest_score_is_the_limit(label: int) -> None:
    assert f1_optimal_threshold(np.full(3, label), np.array([0.4, 0.6, 0.9])) == pytest.approx(0.2)


def test_scores_that_are_all_equal_are_not_divided() -> None:
    labels = np.array([1] * 10 + [0] * 90)
    assert f1_optimal_threshold(labels, np.full(100, 0.2)) == pytest.approx(0.1)


def test_scores_that_separate_the_classes_are_cut_between_them() -> None:
    labels = np.array([0] * 50 + [1] * 50)
    assert f1_optimal_threshold(labels, np.where(labels == 1, 0.9, 0.2)) == pytest.approx(0.55)
