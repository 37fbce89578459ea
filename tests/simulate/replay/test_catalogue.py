"""The named worlds cover what the benchmark promises, and each can be built."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.build import build
from selfheal.simulate.replay.catalogue import WORLDS, core_worlds, covering, shortened, world_named
from selfheal.simulate.replay.deployment import Kind
from selfheal.simulate.replay.worlds import FeedFault, World
from tests.simulate.replay.small import source


@pytest.mark.parametrize("failure", [f"W{number}" for number in range(1, 22)])
def test_every_known_failure_is_rebuilt_by_a_world(failure: str) -> None:
    assert covering(failure)


def test_there_are_eight_core_worlds_of_all_kinds_among_more_than_24() -> None:
    assert len(WORLDS) >= 24
    assert len(core_worlds()) == 8
    assert {world.kind for world in core_worlds()} == {Kind.HARMFUL, Kind.HARMLESS, Kind.BROKEN}


def test_each_broken_feed_is_there_with_and_without_repair() -> None:
    feeds = [world.feed for world in WORLDS.values() if world.feed is not None]
    assert {(feed.fault, feed.repaired_after_days is None) for feed in feeds} == {
        (fault, never) for fault in get_args(FeedFault) for never in (True, False)
    }


def test_a_name_is_that_of_its_world_and_an_unknown_one_is_refused() -> None:
    assert all(world.name == name for name, world in WORLDS.items())
    with pytest.raises(ConfigurationError, match="no world 'paradise'; choose among calm"):
        world_named("paradise")


def test_a_shortened_world_keeps_its_name_and_never_grows() -> None:
    world = world_named("sudden")
    assert (shortened(world, 5.0).days_after, shortened(world, 500.0).days_after) == (5.0, 60.0)


def in_small(world: World) -> World:
    """The same declaration, short, with few rows and the toy contract's quick estimator."""
    age = min(world.champion_age_days, 3.0)
    return replace(
        world, champion_age_days=age, days_after=5.0, per_day=120.0, champion_rows=1_200, estimator="default"
    )


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_can_be_built(name: str) -> None:
    world = in_small(WORLDS[name])
    found = build(world, source(), seed=1)
    assert (found.change is not None) == bool(world.changes or world.feed)
    assert np.isfinite(found.champion.score(found.stream.features(0, 50))).all()
    assert found.regime is not None
    assert found.regime.any() == bool(world.changes)
