"""A deployment is healed from the hour on from which what serves is as good as the oracle's, on the rows ahead."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.simulate.replay.engine import What, replay
from selfheal.simulate.replay.healing import Healing, attainable_brier, expected_brier, healing
from selfheal.simulate.replay.peers.calendar import Never
from selfheal.simulate.replay.peers.oracle import Oracle
from selfheal.simulate.replay.policy import Promote
from tests.simulate.replay.small import CHANGED, Scripted, deployment

NEVER, ATTAINABLE = [0.3] * 8, [0.1] * 8


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ATTAINABLE, Healing(0.0, is_healed=True)),
        (NEVER, Healing(48.0, is_healed=False)),
        ([0.3, 0.3, 0.3, 0.13, 0.13, 0.13, 0.13, 0.13], Healing(18.0, is_healed=True)),
        ([0.3, 0.3, 0.3, 0.15, 0.15, 0.15, 0.15, 0.15], Healing(48.0, is_healed=False)),
        ([0.3, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1], Healing(30.0, is_healed=True)),
    ],
)
def test_healed_is_the_first_hour_after_the_last_one_that_is_too_bad(policy: list[float], expected: Healing) -> None:
    assert healing(policy, NEVER, ATTAINABLE, hours=48.0) == expected


@given(st.lists(st.floats(0, 0.5), min_size=8, max_size=8))
def test_a_policy_that_is_worse_everywhere_never_heals_earlier(policy: list[float]) -> None:
    worse = [loss + 0.05 for loss in policy]
    assert healing(worse, NEVER, ATTAINABLE, 48.0).hours >= healing(policy, NEVER, ATTAINABLE, 48.0).hours


def test_steps_without_a_known_outcome_say_nothing() -> None:
    assert healing([None, *NEVER], [None, *NEVER], [None, *ATTAINABLE], 54.0) == Healing(54.0, is_healed=False)
    assert healing([None], [None], [None], 6.0) == Healing(6.0, is_healed=False)


def test_what_serves_is_scored_on_the_rows_ahead_not_on_those_it_happened_to_serve() -> None:
    whole = deployment(CHANGED)
    found = expected_brier(replay(whole, Never()))
    stream, first = whole.stream, whole.first_after_change
    losses = np.square(whole.champion.score(stream.features(first, len(stream))) - stream.true_label[first:])
    assert len(found) == 8 * 4
    assert found[0] == pytest.approx(losses.mean())


def test_a_version_counts_from_the_moment_it_serves() -> None:
    whole = deployment(CHANGED)
    other = deployment(CHANGED, 2).champion
    found = expected_brier(replay(whole, Scripted(at_6=Promote(other)), interval=timedelta(days=1)))
    never = expected_brier(replay(whole, Never()))
    is_equal = [a == b for a, b in zip(found, never, strict=True)]
    assert is_equal.index(False) == 4 * 4  # six days after the start are four after the change
    assert not any(is_equal[4 * 4 :])


def test_the_oracle_itself_takes_until_its_first_good_version_to_heal() -> None:
    whole = deployment(replace(CHANGED, per_day=300.0))
    found = replay(whole, Oracle(whole, 1))
    never = expected_brier(replay(whole, Never()))
    healed = healing(expected_brier(found), never, attainable_brier(found), 192.0)
    promoted = next(event.time for event in found.events if event.what is What.PROMOTED)
    assert healed.is_healed
    assert 24.0 < whole.hours_since_change(promoted) <= healed.hours < 192.0  # labels come after a day


def test_no_version_is_better_than_what_is_attainable() -> None:
    whole = deployment(CHANGED)
    found = replay(whole, Oracle(whole, 1))
    best, served = (np.array(values) for values in (attainable_brier(found), expected_brier(found)))
    assert (best <= served).all()
    assert (best < served).any()
