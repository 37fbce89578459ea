"""Declarations say when they contradict themselves, and their intensities are what their words say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.deployment import Kind
from selfheal.simulate.replay.worlds import (
    Campaign,
    Gradual,
    GroupShift,
    Labels,
    Later,
    Recurring,
    Seasonal,
    Sudden,
    When,
    World,
    all_labels,
)

CALM = World("calm", "nothing changes", Kind.HARMLESS)
HOURS = np.array([-5.0, 0.0, 12.0, 24.0, 36.0, 48.0])


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (Sudden(), [0, 1, 1, 1, 1, 1]),
        (Sudden(days=1), [0, 1, 1, 0, 0, 0]),
        (Later(1.0), [0, 0, 0, 1, 1, 1]),
        (Gradual(2.0), [0, 0, 0.25, 0.5, 0.75, 1]),
        (Recurring(2.0, 1.0), [0, 1, 1, 0, 0, 1]),
        (Campaign(48.0, 3.0), [0, 1, 0, 0, 0, 1]),
        (Seasonal(48.0), [-np.sin(2 * np.pi * 5 / 48), 0, 1, 0, -1, 0]),
    ],
)
def test_the_intensity_of_a_change_over_time(when: When, expected: list[float]) -> None:
    np.testing.assert_allclose(when.intensity(HOURS), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"per_day": 0.0}, "per_day=0.0 is not within 1 and 1e"),
        ({"days_after": -1.0}, "days_after"),
        ({"labels": Labels(noise=1.5)}, "labels.noise=1.5"),
        ({"labels": all_labels(coverage=2.0)}, "labels.positive.coverage=2.0"),
        ({"kind": Kind.BROKEN}, "of kind broken but has no feed"),
        ({"changes": (GroupShift(((0, 0.5),)),)}, "GroupShift needs with_calendar=True"),
    ],
)
def test_a_world_that_contradicts_itself_is_refused_by_name(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"world 'calm': .*{told}"):
        replace(CALM, **changes)  # type: ignore[arg-type]


def test_a_world_prints_as_its_declaration() -> None:
    assert repr(replace(CALM, per_day=50.0)) != repr(CALM)
