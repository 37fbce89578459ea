"""Rules of the monitoring window: which traffic a tick covers."""

from __future__ import annotations

from datetime import timedelta

from selfheal.domain.monitoring.window import window_start
from tests.builders import model_version
from tests.times import T0


def test_the_window_is_the_last_hours_of_traffic() -> None:
    champion = model_version(promoted_at=T0 - timedelta(days=9))
    assert window_start(champion, T0, 24) == T0 - timedelta(hours=24)


def test_the_window_does_not_reach_back_before_the_promotion() -> None:
    champion = model_version(promoted_at=T0 - timedelta(hours=2))
    assert window_start(champion, T0, 24) == T0 - timedelta(hours=2)
    assert window_start(model_version(promoted_at=None), T0, 24) == T0 - timedelta(hours=24)
