"""Labels arrive when, and are as right as, the world declares."""

from __future__ import annotations

import numpy as np

from selfheal.simulate.replay.labels import label_times, labels_given
from selfheal.simulate.replay.worlds import ClassLabels, Delay, Labels, all_labels
from tests.simulate.replay.small import DAY, HOUR, T0

N = 20_000
TIMES = np.sort(T0 + np.random.default_rng(1).integers(0, 100 * 24, N) * HOUR)
OUTCOMES = (np.random.default_rng(2).random(N) < 0.3).astype(np.int8)
HOURS = (TIMES - T0) / HOUR


def days_to_label(labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray((label_times(labels, TIMES, OUTCOMES, np.random.default_rng(3)) - TIMES) / DAY)


def test_a_fixed_delay_is_the_same_for_all() -> None:
    assert set(days_to_label(all_labels(delay_days=2.5)).tolist()) == {2.5}


def test_a_random_delay_has_its_mean() -> None:
    found = days_to_label(all_labels(delay_days=1.0, mean_extra_days=4.0))
    assert found.min() >= 1.0
    assert abs(found.mean() - 5.0) < 0.15


def test_coverage_and_delay_may_depend_on_the_outcome() -> None:
    labels = Labels(ClassLabels(delay=Delay(10.0)), ClassLabels(0.4, Delay(10.0), 0.7, Delay(90.0)))
    found = days_to_label(labels)
    assert set(found[OUTCOMES == 1].tolist()) == {10.0}
    of_good = found[OUTCOMES == 0]
    has_label = ~np.isnan(of_good)
    assert abs(has_label.mean() - 0.4) < 0.02
    assert abs((of_good[has_label] == 90.0).mean() - 0.7) < 0.02


def given_wrong(labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(labels_given(labels, HOURS, OUTCOMES, np.random.default_rng(4)) != OUTCOMES)


def test_noise_is_a_share_of_all_labels() -> None:
    assert not given_wrong(Labels()).any()
    assert abs(given_wrong(Labels(noise=0.05)).mean() - 0.05) < 0.006


def test_a_poisoned_week_inverts_its_own_labels_and_no_others() -> None:
    day = HOURS / 24
    is_poisoned = (day >= 14) & (day < 21)
    np.testing.assert_array_equal(given_wrong(Labels(poisoned=(14.0, 7.0, 1.0))), is_poisoned)
    half = given_wrong(Labels(poisoned=(14.0, 7.0, 0.5)))
    assert not half[~is_poisoned].any()
    assert abs(half[is_poisoned].mean() - 0.5) < 0.05
