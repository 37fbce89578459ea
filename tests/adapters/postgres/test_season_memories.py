"""What a version's ticks have learned: one memory per version, written with the tick that learned it, in Postgres as in a replay."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from selfheal.adapters.postgres.repositories import PostgresTicks
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Excursions, ProxyMetrics, SeasonMemory, Spread, Triage, Verdict, Window
from selfheal.services.repositories import TickRepository
from selfheal.simulate.replay.memory.records import MemoryTicks
from tests import builders
from tests.times import T0

MEMORY = SeasonMemory(
    T0,
    T0 + timedelta(hours=1),
    (Excursions("age", "look-back", "higher", T0, T0 + timedelta(hours=1), 0.125, n_known=2, known_effect=0.25),),
    (Spread("age", "look-back", 7, 0.5, 0.25, 0.125),),
)


@pytest.fixture(params=["postgres", "replay"])
def ticks(request: pytest.FixtureRequest, store: Store) -> TickRepository:
    return PostgresTicks(store) if request.param == "postgres" else MemoryTicks()


def record(ticks: TickRepository, seen: Window, memory: SeasonMemory | None) -> bool:
    return ticks.record(
        ProxyMetrics(seen, 0.2, 0.3, 0.1, 0.9),
        builders.drift_report(window=seen, seasons=memory),
        builders.performance(window=seen),
        Triage(seen, Verdict.STABLE, (), (), None),
        T0 + timedelta(hours=2),
    )


def test_what_was_learned_is_read_as_it_was_written_and_replaced_by_the_next_tick(ticks: TickRepository) -> None:
    first, second = builders.window(), builders.window(n_predictions=1_001)
    assert ticks.season_memory(first.model_version) is None
    assert record(ticks, first, MEMORY)
    assert ticks.season_memory(first.model_version) == MEMORY
    assert record(ticks, second, replace(MEMORY, spreads=()))
    assert ticks.season_memory(first.model_version) == replace(MEMORY, spreads=())


def test_a_tick_that_is_recorded_already_teaches_nothing(ticks: TickRepository) -> None:
    assert record(ticks, builders.window(), MEMORY)
    assert not record(ticks, builders.window(), replace(MEMORY, spreads=()))
    assert ticks.season_memory(builders.window().model_version) == MEMORY


def test_versions_learn_apart(ticks: TickRepository) -> None:
    seen = builders.window()
    record(ticks, seen, MEMORY)
    assert ticks.season_memory(seen.model_version + 1) is None
