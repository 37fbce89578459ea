"""Bounds over seeds hold what they promise, and a ratio without a denominator is no figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selfheal.simulate.replay.summary import NO_FIGURE, mean_bounds, ratio_bounds, stream_summary, world_summary


def test_the_interval_of_a_mean_covers_it_in_95_percent() -> None:
    rng = np.random.default_rng(1)
    bounds = [mean_bounds(rng.normal(3.0, 2.0, 5).tolist()) for _ in range(2_000)]
    covered = np.mean([low <= 3.0 <= high for low, _, high in bounds if low is not None and high is not None])
    assert 0.935 <= covered <= 0.965


def test_the_interval_of_a_ratio_of_paired_sums_covers_it_in_95_percent() -> None:
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(2_000):
        whole = rng.normal(10.0, 2.0, 5)
        part = 0.6 * whole + rng.normal(0.0, 1.0, 5)
        low, _, high = ratio_bounds(part.tolist(), whole.tolist())
        assert low is not None
        assert high is not None
        hits.append(low <= 0.6 <= high)
    assert 0.935 <= np.mean(hits) <= 0.965


@pytest.mark.parametrize("denominators", [[1.0, -1.0, 0.5], [-3.0, -3.1, -2.9], [0.0, 0.0, 0.0]])
def test_a_denominator_that_may_be_0_gives_no_ratio(denominators: list[float]) -> None:
    assert ratio_bounds([1.0, 1.1, 0.9], denominators) == NO_FIGURE


def test_one_seed_gives_a_figure_without_bounds() -> None:
    assert mean_bounds([2.0]) == (None, 2.0, None)
    assert ratio_bounds([1.0], [2.0]) == (None, 0.5, None)
    assert mean_bounds([]) == ratio_bounds([], []) == NO_FIGURE


def cell(brier: float, **changes: Any) -> dict[str, Any]:
    zero = ("alarms", "false_alarms", "false_retrains", "trainings", "promotions", "wrong_promotions")
    figures = {
        **dict.fromkeys((*zero, "wrong_promotion_h", "rollbacks", "labels_used"), 0),
        **{"brier": brier, "log_loss": 0.4, "f1": 0.5, "auc": 0.8, "n_rows_after": 1_000, "detect_h": None},
        **{"hours_after": 48.0, "expected_brier": [brier] * 8, "attainable_brier": [brier] * 8},
    }
    return figures | changes


def cells(**by_policy: list[float]) -> dict[str, dict[int, dict[str, Any]]]:
    return {name: {seed: cell(brier) for seed, brier in enumerate(briers)} for name, briers in by_policy.items()}


def test_recovery_and_regret_are_paired_by_seed() -> None:
    found = world_summary(cells(never=[0.3, 0.4], oracle=[0.1, 0.2], half=[0.2, 0.3]))
    assert found["half"]["recovered_share"] == pytest.approx((0.5, 0.5, 0.5))
    assert found["half"]["regret"] == pytest.approx((100.0, 100.0, 100.0))
    assert found["oracle"]["recovered_share"][1] == pytest.approx(1.0)
    assert found["never"]["recovered_share"][1] == 0.0


def test_healing_is_censored_and_stands_beside_the_share_that_healed() -> None:
    both = cells(never=[0.3, 0.31], oracle=[0.1, 0.11], half=[0.2, 0.11])
    found = world_summary(both)["half"]
    assert found["heal_h"][1] == pytest.approx((48.0 + 0.0) / 2)
    assert found["healed_share"] == 0.5
    assert (found["detect_h"][1], found["detected_share"]) == (48.0, 0.0)


def test_where_nothing_can_be_recovered_there_is_no_share_and_no_healing() -> None:
    found = world_summary(cells(never=[0.3, 0.2], oracle=[0.31, 0.19], weekly=[0.3, 0.21]))["weekly"]
    assert (found["recovered_share"], found["heal_h"], found["healed_share"]) == (NO_FIGURE, NO_FIGURE, None)


def test_seeds_that_the_yardsticks_have_not_finished_are_not_compared() -> None:
    found = world_summary(cells(never=[0.3], oracle=[0.1], weekly=[0.2, 0.9]))["weekly"]
    assert found["recovered_share"][1] == pytest.approx(0.5)
    assert found["seeds"] == 2
    alone = world_summary({"weekly": cells(weekly=[0.2])["weekly"]})["weekly"]
    assert alone["regret"] == NO_FIGURE


def test_a_stream_without_both_classes_has_no_auc() -> None:
    found = stream_summary({1: cell(0.2, auc=None)})
    assert found["auc"] == NO_FIGURE
    assert found["brier"] == (None, 0.2, None)
