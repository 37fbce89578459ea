"""ADWIN: an error that rises is an alarm, one that falls is none, and a value that is no number does not silence it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from selfheal.simulate.replay.engine import What, replay
from selfheal.simulate.replay.peers.adwin import AdwinRetrain, new_adwin, rises_with
from tests.simulate.replay.small import CALM, CHANGED, DAY, deployment


def errors(rate: float, n_rows: int, seed: int) -> list[float]:
    return (np.random.default_rng(seed).random(n_rows) < rate).astype(float).tolist()


def rises(values: list[float]) -> int:
    detector = new_adwin()
    return sum(rises_with(detector, value) for value in values)


def test_an_error_that_rises_is_an_alarm_and_one_that_falls_is_none() -> None:
    low, high = errors(0.1, 1_000, 1), errors(0.4, 1_000, 2)
    assert rises(low + high) >= 1
    assert rises(high + low) == 0
    assert rises(low + errors(0.1, 2_000, 3)) == 0


def test_a_value_that_is_no_number_does_not_silence_the_detector() -> None:
    detector = new_adwin()
    for value in errors(0.1, 1_000, 1):
        rises_with(detector, value)
    assert not rises_with(detector, math.nan)
    assert not rises_with(detector, math.inf)
    assert math.isfinite(detector.estimation)
    assert any(rises_with(detector, value) for value in errors(0.4, 1_000, 2))


def test_without_the_guard_one_nan_silences_rivers_adwin_for_good() -> None:
    detector = new_adwin()
    detector.update(math.nan)
    for value in [*errors(0.0, 1_000, 1), *errors(1.0, 1_000, 2)]:
        detector.update(value)
    assert math.isnan(detector.estimation)  # when this fails, river has mended it


def test_a_change_is_followed_by_a_refit_on_rows_after_it() -> None:
    changed = replace(CHANGED, per_day=300.0)
    found = replay(deployment(changed), AdwinRetrain())
    assert found.deployment.change is not None
    promoted = [event.time for event in found.events if event.what is What.PROMOTED]
    assert promoted
    assert found.deployment.change < promoted[0] < found.deployment.change + 4 * DAY
    assert not [event for event in found.events if event.time < found.deployment.change]


def test_a_calm_deployment_is_left_alone() -> None:
    assert replay(deployment(replace(CALM, per_day=300.0)), AdwinRetrain()).events == ()
