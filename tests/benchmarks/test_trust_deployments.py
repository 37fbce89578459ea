"""Rules of the worlds that are whole deployments: what is counted, and that nothing that counts is cut off."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import numpy as np

from benchmarks.trust.deployment_worlds import (
    Asked,
    first_wait,
    healed_within,
    healing,
    is_monitors,
    trained_after,
    w11_figures,
    wait_in,
)
from benchmarks.trust.worlds import Given
from selfheal.domain.records import Action, Decision, Trigger
from selfheal.simulate.replay.engine import Event, Replay, What, replay
from selfheal.simulate.replay.policy import Promote
from tests.simulate.replay.small import CHANGED, DAY, Scripted, deployment
from tests.times import T0

DAILY = timedelta(days=1)


def event(day: float, what: What) -> Event:
    """An event so many days after the change."""
    return Event(deployment(CHANGED).change + np.timedelta64(round(24 * day), "h"), 0, what, 1)


def lived(*events: tuple[float, What]) -> Replay:
    """A replay of which the events are known."""
    nothing = np.empty(0)
    return Replay(
        deployment(CHANGED), nothing, nothing.astype(np.int32), (), tuple(event(*one) for one in events), 0, 0
    )


def test_nothing_is_lived_through_after_the_deployment_was_healed() -> None:
    whole = deployment(CHANGED)
    better = replay(whole, Scripted(at_6=lambda _: Promote(good()))).models[1]
    policies = [
        Scripted(at_14=Promote(whole.champion), at_18=Promote(better), at_30=Promote(whole.champion)) for _ in range(2)
    ]
    to_the_end = replay(whole, policies[0])
    cut = replay(whole, policies[1], is_enough=healed_within(math.inf))
    assert healing(cut) == healing(to_the_end)
    assert healing(cut).days < math.inf
    assert (len(policies[0].views), len(policies[1].views)) == (40, 18)
    assert len(cut.probability) == len(whole.stream)


def test_a_deployment_that_is_not_healed_in_time_counts_as_never_healed() -> None:
    policy = Scripted(at_30=Promote(good()))
    found = replay(deployment(CHANGED), policy, is_enough=healed_within(3.0))
    assert healing(found).days == math.inf
    assert len(policy.views) == 20  # two days before the change and three after it, every six hours


def good() -> Any:
    """A model of the changed world: fitted to its rows."""
    from selfheal.simulate.replay.models import Rows, refit

    whole = deployment(CHANGED)
    after = slice(whole.first_after_change, None)
    columns = {name: values[after] for name, values in whole.stream.columns.items()}
    return refit(whole.champion, Rows(columns, whole.stream.true_label[after]), 1)


def test_a_rollback_waits_for_the_next_training_and_for_ever_if_there_is_none() -> None:
    events = [(1, What.TRAINED), (3, What.ROLLED_BACK), (10, What.TRAINED), (12, What.TRAINED), (20, What.ROLLED_BACK)]
    assert first_wait(event(*one) for one in events) == 7.0
    assert first_wait(event(*one) for one in events[:2]) == math.inf
    assert first_wait(event(*one) for one in events[:1]) is None


def moment(day: float) -> np.datetime64:
    return event(day, What.TRAINED).time


def test_a_training_counts_from_the_moment_of_the_gain_and_a_promotion_before_it_too() -> None:
    assert wait_in(lived((-1, What.PROMOTED), (2, What.TRAINED), (9, What.TRAINED)), moment(3)) == 6.0
    assert wait_in(lived((2, What.PROMOTED)), moment(3)) == 0.0
    assert wait_in(lived((2, What.TRAINED)), moment(3)) == math.inf
    assert wait_in(lived((40, What.TRAINED)), moment(3)) == math.inf  # more than 30 days
    is_enough = trained_after(moment(3))
    assert not is_enough(lived((2, What.PROMOTED)), moment(2))
    assert is_enough(lived((2, What.PROMOTED)), moment(3))
    assert not is_enough(lived((2, What.TRAINED)), moment(33))
    assert is_enough(lived((2, What.TRAINED)), moment(33.25))


def test_the_first_training_is_the_monitors_unless_the_calendar_asked_for_it() -> None:
    def decided(day: int, trigger: Trigger, action: Action = Action.TRAIN) -> Decision:
        return Decision("d", T0 + timedelta(days=day), "toy", trigger.value, action, "why", "who")

    start = np.datetime64(T0.replace(tzinfo=None), "us")
    monday, drift = decided(2, Trigger.SCHEDULE), decided(3, Trigger.DRIFT)
    assert not is_monitors([monday, drift], start)
    assert is_monitors([monday, drift], start + 2 * DAY)
    assert is_monitors([replace(monday, action=Action.SKIP), drift], start)
    assert not is_monitors([], start)


def test_trainings_that_the_monitor_asked_for_are_a_figure_of_their_own(tmp_path: Any) -> None:
    calendar_only = Asked(10.0, waited=3.0)
    monitor = Asked(10.0, waited=1.0, is_monitors=True, waited_for_monitor=1.0)
    found = {str(n): asdict(one) for n, one in enumerate([calendar_only] * 30 + [monitor] * 10)}
    figures = w11_figures(Given(tmp_path), found)
    assert figures["within_30_days"].is_met
    assert figures["first_asked_by_monitor"].value == 0.25
    assert figures["without_calendar.within_30_days"].value == 0.25
    assert not figures["without_calendar.within_30_days"].is_met
    assert figures["without_calendar.days_to_retraining"].value == math.inf
