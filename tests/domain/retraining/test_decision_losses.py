"""The loss of decisions: its mean is the change of the metric, and its spread is never less than that of equally good thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from selfheal.domain.retraining.decision_losses import DecisionMetric, decision_losses, is_decided_otherwise
from selfheal.domain.retraining.evidence import IntArray, kinds_of
from selfheal.domain.retraining.paired_gain import EQUAL_COSTS, Costs

RNG = np.random.default_rng(1)
SCORES = RNG.beta(0.8, 2.0, 5_000)
LABELS = (RNG.random(5_000) < SCORES).astype(np.int64)


def kinds_at(new: float, old: float) -> IntArray:
    return kinds_of(LABELS, (new <= SCORES).astype(np.int64), (old <= SCORES).astype(np.int64))


@pytest.mark.parametrize(("new", "old"), [(0.1, 0.3), (0.6, 0.3)])
def test_the_mean_loss_is_the_change_of_the_metric(new: float, old: float) -> None:
    kinds = kinds_at(new, old)
    fall = f1_score(LABELS, old <= SCORES) - f1_score(LABELS, new <= SCORES)
    assert decision_losses("f1", kinds, EQUAL_COSTS).by_row.mean() == pytest.approx(fall)
    costs = [5.0 * (LABELS & (at > SCORES)).mean() + (1 - LABELS)[at <= SCORES].sum() / 5_000 for at in (new, old)]
    by_cost = decision_losses("expected_cost", kinds, Costs(1.0, 5.0)).by_row
    assert by_cost.mean() == pytest.approx(costs[0] - costs[1])
    assert is_decided_otherwise(kinds).sum() == ((min(new, old) <= SCORES) & (max(new, old) > SCORES)).sum()


def test_the_spread_of_the_loss_of_f1_is_what_samples_show() -> None:
    """The influence function against 400 samples drawn with replacement."""
    kinds = kinds_at(0.1, 0.3)
    drawn = [decision_losses("f1", RNG.choice(kinds, len(kinds)), EQUAL_COSTS).by_row.mean() for _ in range(400)]
    expected = decision_losses("f1", kinds, EQUAL_COSTS).by_row.std() / np.sqrt(len(kinds))
    assert np.std(drawn) == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("metric", ["f1", "expected_cost"])
def test_the_spread_without_a_difference_does_not_depend_on_the_events_that_the_sample_has(
    metric: DecisionMetric,
) -> None:
    """100 rows are decided otherwise, with few events among them or many."""
    base = [7] * 50 + [4] * 50 + [3] * 50 + [0] * 750
    few, many = (np.array(base + [6] * n + [2] * (100 - n)) for n in (0, 90))
    costs = Costs(1.0, 9.0)
    spreads = [decision_losses(metric, kinds, costs).null_spread for kinds in (few, many)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.25 if metric == "f1" else 1e-9)
    if metric == "expected_cost":
        assert spreads[0] == pytest.approx(np.sqrt(0.1 * 1.0 * 9.0)), "a tenth of the rows, each 1 or -9"
