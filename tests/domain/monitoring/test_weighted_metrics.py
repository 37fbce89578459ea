"""Weighted metrics are those of the whole population, and their bound holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfheal.domain.contract import LabelPolicy
from selfheal.domain.monitoring.performance import brier_excess, score_metrics
from selfheal.domain.monitoring.weighted_metrics import weighted_brier_excess, weighted_score_metrics
from selfheal.kit.errors import ConfigurationError
from tests.toy_use_case import contract

THRESHOLD = 0.3
POLICY = LabelPolicy("random_share", of_flagged=0.1, of_others=0.8)


def population(n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.6, 3.0, n_rows)
    return (rng.random(n_rows) < scores).astype(np.int64), scores


def labelled(labels: np.ndarray, scores: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flags = (scores >= THRESHOLD).astype(np.int64)
    weights = POLICY.weights(flags)
    assert weights is not None
    is_known = np.random.default_rng(seed).random(len(labels)) < 1 / weights
    return labels[is_known], scores[is_known], weights[is_known]


def test_with_equal_weights_they_are_the_plain_metrics() -> None:
    labels, scores = population(800, 1)
    weights = np.full(800, 3.0)
    plain, found = score_metrics(labels, scores, THRESHOLD), weighted_score_metrics(labels, scores, THRESHOLD, weights)
    for name in ("n_rows", "n_positive", "f1", "precision", "recall", "auc_roc", "brier"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name))
    excess, low = weighted_brier_excess(labels, scores, weights, 0.001)
    assert (excess, low) == pytest.approx(brier_excess(labels, scores), rel=1e-2)


def test_few_labels_of_flagged_rows_give_the_metrics_of_all_rows() -> None:
    labels, scores = population(200_000, 2)
    true, found = score_metrics(labels, scores, THRESHOLD), labelled(labels, scores, 3)
    weighted = weighted_score_metrics(found[0], found[1], THRESHOLD, found[2])
    as_they_are = score_metrics(found[0], found[1], THRESHOLD)
    for name in ("f1", "recall", "auc_roc", "brier"):
        assert getattr(weighted, name) == pytest.approx(getattr(true, name), abs=0.02)
    assert abs(as_they_are.recall - true.recall) > 0.2


def test_the_bound_of_the_excess_is_seldom_above_zero_while_scores_are_calibrated() -> None:
    above = 0
    for seed in range(300):
        found = labelled(*population(2_000, seed), seed + 1_000)
        above += weighted_brier_excess(*found, 0.05)[1] > 0
    assert 3 <= above <= 30, "5 % of 300"


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError, match="label_policy has the shares"):
        replace(contract, label_policy=LabelPolicy("random_share", of_flagged=share))


def test_a_weight_has_a_ceiling_and_other_policies_have_none() -> None:
    flags = np.array([0, 1])
    assert LabelPolicy("random_share", of_flagged=0.001, of_others=1.0).weights(flags).tolist() == [1.0, 50.0]  # type: ignore[union-attr]
    assert LabelPolicy("all").weights(flags) is None
