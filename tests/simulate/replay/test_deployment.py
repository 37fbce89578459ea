"""A deployment holds its rows between its start and its end, and its change too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfheal.kit.errors import InvalidDataError
from selfheal.simulate.replay.deployment import Selection
from tests.simulate.replay.small import CHANGED, DAY, deployment


def test_rows_outside_of_a_deployment_are_refused() -> None:
    whole = deployment()
    with pytest.raises(InvalidDataError, match="are not within"):
        replace(whole, end=whole.start + DAY)


def test_a_change_outside_of_a_deployment_is_refused() -> None:
    whole = deployment(CHANGED)
    with pytest.raises(InvalidDataError, match="the change at"):
        replace(whole, change=whole.end)


def test_hours_count_from_the_change_and_without_one_from_the_start() -> None:
    changed, calm = deployment(CHANGED), deployment()
    assert changed.change is not None
    assert changed.hours_since_change(changed.change + DAY) == 24.0
    assert calm.hours_since_change(calm.start + DAY) == 24.0
    assert changed.stream.event_time[changed.first_after_change] >= changed.change


def test_a_row_is_flagged_from_the_threshold_on() -> None:
    probability = np.array([0.1, 0.3, 0.5])
    assert Selection.FLAGGED_ONLY.allows(probability, 0.3).tolist() == [False, True, True]
    assert Selection.APPROVED_ONLY.allows(probability, 0.3).tolist() == [True, False, False]
    assert Selection.ALL.allows(probability, 0.3).all()
