"""Whoever implements a repository has all that the loop asks of it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from selfheal.adapters.mlflow_registry import Registry
from selfheal.adapters.postgres import repositories as in_postgres
from selfheal.services import repositories
from selfheal.services.platform import Platform
from selfheal.simulate.replay.memory.platform import MemoryPlatform
from selfheal.simulate.replay.memory.records import MemoryAlerts, MemoryDecisions, MemoryTicks
from selfheal.simulate.replay.memory.registry import MemoryRegistry
from selfheal.simulate.replay.memory.traffic import MemoryTraffic
from selfheal.simulate.replay.memory.versions import MemoryVersions

IMPLEMENTATIONS = (
    (repositories.TrafficRepository, in_postgres.PostgresTraffic, MemoryTraffic),
    (repositories.VersionRepository, in_postgres.PostgresVersions, MemoryVersions),
    (repositories.DecisionRepository, in_postgres.PostgresDecisions, MemoryDecisions),
    (repositories.TickRepository, in_postgres.PostgresTicks, MemoryTicks),
    (repositories.AlertRepository, in_postgres.PostgresAlerts, MemoryAlerts),
    (repositories.ModelRegistry, Registry, MemoryRegistry),
)


def asked_of(interface: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in vars(interface).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


@pytest.mark.parametrize(("interface", "stored", "in_memory"), IMPLEMENTATIONS, ids=lambda one: one.__name__)
def test_an_implementation_takes_the_arguments_of_each_method(
    interface: type, stored: type[Any], in_memory: type[Any]
) -> None:
    for implementation in (stored, in_memory):
        for name, expected in asked_of(interface).items():
            has = inspect.signature(getattr(implementation, name)).parameters
            takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in has.values())
            missing = set(expected.parameters) - set(has)
            assert takes_any or not missing, f"{implementation.__name__}.{name} lacks {sorted(missing)}"


def test_both_platforms_have_what_the_stages_run_on() -> None:
    in_memory = set(vars(MemoryPlatform)) | set(MemoryPlatform.__init__.__code__.co_names)
    for name in (one for one in vars(repositories.LoopPlatform) if not one.startswith("_")):
        assert hasattr(Platform, name) or name in Platform.__dataclass_fields__, name
        assert name in in_memory, name
