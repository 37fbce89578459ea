"""Policies are found by name; one that does not exist yet is an error, never a stand-in."""

from __future__ import annotations

from datetime import timedelta

import pytest

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.policies import ALL_POLICIES, POLICIES, policy_named
from tests.simulate.replay.small import CALM, deployment


def test_the_benchmark_has_seven_policies() -> None:
    assert ALL_POLICIES == ("never", "weekly", "evidently", "adwin", "nannyml", "oracle", "ours")
    assert all(entry.name == name for name, entry in POLICIES.items())


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="no policy 'hope'; choose among never, weekly"):
        policy_named("hope")


def test_each_run_has_a_policy_of_its_own() -> None:
    entry, whole = policy_named("weekly"), deployment(CALM)
    first, second = (entry.run(whole, timedelta(days=1), seed=1) for _ in range(2))
    assert first.events == second.events
    assert len(first.events) > 0
