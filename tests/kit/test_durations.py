"""How durations are said: short, in the two largest units, never negative."""

from __future__ import annotations

from datetime import timedelta

import pytest

from selfheal.kit.durations import span


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(days=2, hours=23, minutes=59), "2 d 23 h"),
        (timedelta(days=2, minutes=5), "2 d"),
        (timedelta(hours=24), "1 d"),
        (timedelta(minutes=1, seconds=59), "1 min"),
        (timedelta(seconds=-3), "0 s"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(duration: timedelta, said: str) -> None:
    assert span(duration) == said
