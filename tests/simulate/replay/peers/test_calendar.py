"""Never never changes; a fixed interval retrains when it is due, on the newest rows, filled up with the champion's own."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from selfheal.simulate.replay.engine import What, replay
from selfheal.simulate.replay.peers.calendar import FixedInterval, Never, rolling_window
from selfheal.simulate.replay.policy import View
from tests.simulate.replay.small import DAY, Scripted, deployment


def last_view() -> View:
    policy = Scripted()
    replay(deployment(), policy)
    return policy.views[-1]


def test_the_window_has_as_many_rows_as_the_champion_learned_from() -> None:
    rows, n_original = rolling_window(last_view())
    assert len(rows) + n_original == 1_200
    assert 850 < len(rows) < 950  # nine of ten days: labels come a day later
    assert (np.diff(rows) > 0).all()


def test_a_fixed_interval_promotes_each_time_it_is_due() -> None:
    found = replay(deployment(), FixedInterval(timedelta(days=3)))
    promoted = [event.time - found.deployment.start for event in found.events if event.what is What.PROMOTED]
    assert promoted == [3 * DAY, 6 * DAY, 9 * DAY]


def test_never_does_nothing() -> None:
    assert replay(deployment(), Never()).events == ()
