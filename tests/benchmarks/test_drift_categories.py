"""The benchmark's table of categories is what it says, and its count of alarms misses none that the platform reports."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift import category_alarms, false_alarms
from benchmarks.drift.categories import changed
from benchmarks.drift.category_alarms import near_alarm
from benchmarks.drift.category_table import (
    CUTS,
    FAULTS,
    NAMES,
    PLANS,
    POPULATION,
    SHIFTS,
    CategoryWorld,
    contract,
    cut,
)
from benchmarks.drift.false_alarms import Stream
from benchmarks.drift.population import LIMITS, TICKS_PER_DAY, World
from selfheal.domain.monitoring.drift import compare_columns
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.thresholds import derive_thresholds

DAYS = 3
N_TICKS = DAYS * TICKS_PER_DAY


@pytest.fixture(scope="module")
def world() -> CategoryWorld:
    return CategoryWorld.of(World(None, 1))


def test_a_column_is_cut_into_levels_of_the_stated_shares_and_keeps_its_gaps() -> None:
    values = np.array([5.0, np.nan, 1.0, 4.0, 2.0, 3.0, 2.0, 0.0, 9.0, 7.0, 8.0])
    levels = cut(values, ("low", "middle", "high"), np.array([0.5, 0.3, 0.2]))
    assert levels.tolist() == [
        *("middle", None, "low", "middle", "low", "low", "low", "low", "high", "middle", "high"),
    ]


def test_the_table_has_the_levels_that_are_stated(world: CategoryWorld) -> None:
    shares = world.rows["plan"].value_counts(normalize=True)
    assert shares[list(PLANS)].tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.001)
    assert {name: world.rows[name].nunique() for name in CUTS} == {
        name: len(levels) for name, (_, levels, _) in CUTS.items()
    }
    assert set(NAMES) <= set(world.rows.columns)


@pytest.mark.parametrize("shift", [name for name in SHIFTS if "%" in name])
def test_a_shift_gives_the_share_that_it_is_named_after(world: CategoryWorld, shift: str) -> None:
    column, change, _ = SHIFTS[shift]
    rows = world.window(20_000, np.random.default_rng(1))
    after = changed(rows, column, change, np.random.default_rng(2))[column].value_counts(normalize=True)
    moves = after.sub(rows[column].value_counts(normalize=True), fill_value=0).abs()
    wanted = 0.0 if "vanished" in shift else float(shift.rsplit("has ", 1)[1].removesuffix(" %")) / 100
    assert after.get(moves.idxmax(), 0.0) == pytest.approx(wanted, abs=0.01)


def test_each_fault_is_one_of_the_feed_and_no_move_of_the_population_is(world: CategoryWorld) -> None:
    reference = PreparedRows(world.reference(np.random.default_rng(1)))
    for name, (column, change) in (FAULTS | POPULATION).items():
        rows = world.window(500, np.random.default_rng(2))
        found = feed_problems(changed(rows, column, change, np.random.default_rng(3)), reference, contract)
        assert bool(found) is (name in FAULTS), (name, found)


def test_no_tick_at_which_drift_is_reported_is_left_out(world: CategoryWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the third day other merchants and another plan come: most ticks are then reported, those before are not."""
    for module in (false_alarms, category_alarms):
        monkeypatch.setattr(module, "N_TICKS", N_TICKS)
    monkeypatch.setattr(false_alarms, "DAYS", DAYS)
    rng = np.random.default_rng(5)
    later = world.rows
    for shift in ("of 400 levels 180 rare ones have gone to others", "a level of 20 % has 26 %"):
        later = changed(later, *SHIFTS[shift][:2], rng)
    rows = pd.concat([world.rows, later], ignore_index=True)
    reference = world.reference(rng)
    ends = np.arange(1, N_TICKS + 1) * 10
    traffic = world.draw(int(ends[-1]), rng)
    traffic[2 * TICKS_PER_DAY * 10 :] += len(world.rows)
    stream = Stream(traffic, ends, rng)
    prepared = PreparedRows(reference)
    thresholds = derive_thresholds(prepared, NAMES, LIMITS.n_ticks)
    near = near_alarm(rows, reference, stream, thresholds)
    reported = 0
    for tick in range(TICKS_PER_DAY, N_TICKS, 24):
        day, recent = (PreparedRows(rows[list(CUTS)].iloc[which]) for which in (stream.day(tick), stream.recent(tick)))
        for one in compare_columns(list(CUTS), day, prepared, recent, thresholds, LIMITS):
            if any(True for _ in one.moves()):
                reported += 1
                assert one.name in near.get(tick, []), (tick, one.name)
    assert reported > 5
    assert len([tick for tick in near if tick < 2 * TICKS_PER_DAY]) < TICKS_PER_DAY, "all are tried: it tests nothing"
