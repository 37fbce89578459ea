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


def learned(ticks: TickRepository) -> SeasonMemory:
    found = ticks.season_memory(builders.window().model_version)
    assert found is not None
    return found


def test_what_was_learned_is_read_as_it_was_written_and_replaced_by_the_next_tick(ticks: TickRepository) -> None:
    first, second = builders.window(), builders.window(n_predictions=1_001)
    assert ticks.season_memory(first.model_version) is None
    assert record(ticks, first, MEMORY)
    assert learned(ticks) == replace(MEMORY, tick_id=first.tick_id)
    assert record(ticks, second, replace(learned(ticks), spreads=()))
    assert learned(ticks) == replace(MEMORY, spreads=(), tick_id=second.tick_id)


def test_a_tick_that_is_recorded_already_teaches_nothing(ticks: TickRepository) -> None:
    seen = builders.window()
    assert record(ticks, seen, MEMORY)
    assert not record(ticks, seen, replace(learned(ticks), spreads=()))
    assert learned(ticks) == replace(MEMORY, tick_id=seen.tick_id)


@pytest.mark.parametrize("is_first", [True, False], ids=["before anything is known", "later"])
def test_of_two_ticks_at_once_the_first_to_end_is_learned_from(ticks: TickRepository, *, is_first: bool) -> None:
    """The other one is recorded all the same; what it learned would undo what the first did."""
    before = MEMORY
    if not is_first:
        record(ticks, builders.window(), MEMORY)
        before = learned(ticks)
    quick, slow = builders.window(n_predictions=1_001), builders.window(n_predictions=1_002)
    assert record(ticks, quick, replace(before, until=T0 + timedelta(hours=3)))
    assert record(ticks, slow, replace(before, until=T0 + timedelta(hours=2)))
    assert learned(ticks) == replace(MEMORY, until=T0 + timedelta(hours=3), tick_id=quick.tick_id)
    latest = ticks.latest(slow.model_version)
    assert latest is not None
    assert latest.tick_id == slow.tick_id


def test_versions_learn_apart(ticks: TickRepository) -> None:
    seen = builders.window()
    record(ticks, seen, MEMORY)
    assert ticks.season_memory(seen.model_version + 1) is None
