"""The oracle is the yardstick: it heals first, never promotes what is worse, and leaves a calm deployment alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from selfheal.simulate.replay.deployment import Kind
from selfheal.simulate.replay.engine import INTERVAL, Replay, What, replay
from selfheal.simulate.replay.measures import figures
from selfheal.simulate.replay.peers import oracle
from selfheal.simulate.replay.peers.calendar import FixedInterval, Never
from selfheal.simulate.replay.peers.oracle import FIRST_LABELS, Oracle, best_fixed_interval
from selfheal.simulate.replay.policies import policy_named
from selfheal.simulate.replay.worlds import FromScenario, Recurring
from tests.simulate.replay.small import CALM, CHANGED, DAY, deployment


def of_oracle(found: Replay, what: What) -> list[np.datetime64]:
    return [event.time for event in found.events if event.what is what]


def test_it_retrains_as_soon_as_200_labels_of_the_new_world_exist() -> None:
    whole = deployment(CHANGED)
    found = replay(whole, Oracle(whole, 1))
    assert whole.change is not None
    first = of_oracle(found, What.TRAINED)[0]
    n_arrived = ((whole.stream.event_time >= whole.change) & (whole.stream.label_time <= first)).sum()
    n_before = (
        (whole.stream.event_time >= whole.change) & (whole.stream.label_time <= first - np.timedelta64(6, "h"))
    ).sum()
    assert n_before < FIRST_LABELS <= n_arrived


def test_it_is_better_than_never_and_than_a_calendar_after_a_change() -> None:
    whole = deployment(replace(CHANGED, per_day=300.0))
    briers = [
        figures(replay(whole, policy)).brier for policy in (Oracle(whole, 1), FixedInterval(timedelta(days=2)), Never())
    ]
    assert briers[0] < briers[1] < briers[2]


def test_it_is_right_although_the_labels_that_arrive_are_wrong() -> None:
    world = replace(CHANGED, name="poisoned", labels=replace(CHANGED.labels, noise=1.0))
    whole = deployment(world)
    assert figures(replay(whole, Oracle(whole, 1))).brier < figures(replay(whole, Never())).brier


def test_a_calm_deployment_is_left_alone() -> None:
    whole = deployment(CALM)
    assert replay(whole, Oracle(whole, 1)).events == ()


def test_a_world_that_comes_back_gets_the_version_that_fits_it_back() -> None:
    world = replace(
        CHANGED, name="recurring", per_day=300.0, days_after=24.0, changes=(FromScenario(when=Recurring(16.0, 8.0)),)
    )
    whole = deployment(world)
    found = replay(whole, Oracle(whole, 1))
    assert whole.change is not None
    times = whole.stream.event_time - whole.change
    model_of = {
        row: found.models[found.version[row]] for row in np.flatnonzero((times > 8.5 * DAY) & (times < 15.5 * DAY))
    }
    assert set(map(id, model_of.values())) == {id(whole.champion)}
    assert figures(found).wrong_promotions == 0


def test_on_a_natural_stream_the_best_calendar_in_hindsight_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "HINDSIGHT_RETRAININGS", (2,))
    whole = replace(deployment(CHANGED), kind=Kind.NATURAL)
    best = best_fixed_interval(whole, INTERVAL, 1)
    through_entry = policy_named("oracle").run(whole, INTERVAL, 1)
    assert through_entry.events == best.events
    policies = (Never(), FixedInterval(), FixedInterval(timedelta(days=5)))
    briers = [figures(replay(whole, policy, seed=1)).brier for policy in policies]
    assert figures(best).brier == min(briers)
    assert len(set(briers)) == 3
