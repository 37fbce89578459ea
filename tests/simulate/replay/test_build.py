"""Building a deployment: repeatable, without the champion's rows, with the customers, outages and calendars that were declared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.domain.clusters import row_clusters
from selfheal.kit.errors import InvalidDataError
from selfheal.simulate.replay.build import CHANGE_AT, build, event_times, recurring_customers, source_of
from selfheal.simulate.replay.worlds import Burst, Customers, GroupShift, InputAwakens, Outage
from tests.simulate.replay.small import CALM, CHANGED, DAY, HOUR, deployment, source
from tests.toy_use_case import contract


def test_the_same_world_rows_and_seed_give_the_same_bits() -> None:
    first, second = (build(CHANGED, source(), seed=1).stream for _ in range(2))
    for name, values in first.columns.items():
        np.testing.assert_array_equal(values, second.columns[name])
    np.testing.assert_array_equal(first.event_time, second.event_time)
    np.testing.assert_array_equal(first.true_label, second.true_label)


def test_another_seed_gives_another_deployment() -> None:
    first, second = deployment(CALM, 1), deployment(CALM, 2)
    assert (first.stream.event_time != second.stream.event_time).any()
    assert first.champion.threshold != second.champion.threshold


def test_no_row_of_the_champion_is_in_the_traffic() -> None:
    found = deployment()
    learned = set(found.learned_from.columns["load_ratio"].tolist())
    assert len(learned) == 1_200
    assert learned.isdisjoint(found.stream.columns["load_ratio"].tolist())


def test_a_row_that_is_drawn_again_differs_in_its_continuous_inputs_only() -> None:
    columns = build(replace(CALM, per_day=2_000.0), source(), seed=1).stream.columns
    pool = source().rows.columns
    values = columns["load_ratio"]
    assert len(np.unique(values)) == len(values)
    assert set(columns["restarts"].tolist()) <= set(pool["restarts"].tolist())


def test_rows_count_as_one_case_only_where_the_world_repeats_cases() -> None:
    """Else a pool of few rows would look like few customers, and every interval would be too wide."""
    busy = replace(CALM, per_day=2_000.0)
    for world, repeats in (
        (busy, False),
        (replace(busy, name="c", customers=Customers(5, 5)), True),
        (replace(busy, name="r", resent_share=0.3), True),
    ):
        stream = build(world, source(), seed=1).stream
        clusters = row_clusters(pd.DataFrame(stream.columns), stream.contract)
        assert (clusters is not None) == repeats, world.name


def test_the_change_is_where_the_world_says_and_the_rows_are_as_many() -> None:
    found = deployment(CHANGED)
    assert found.change == CHANGE_AT
    assert (found.start, found.end) == (CHANGE_AT - 2 * DAY, CHANGE_AT + 8 * DAY)
    assert len(found.stream) == 1_000
    assert found.regime is not None
    np.testing.assert_array_equal(found.regime, (found.stream.event_time >= CHANGE_AT).astype(int))


@given(st.integers(1, 4), st.integers(0, 6), st.integers(0, 100))
def test_each_customer_occurs_as_often_as_declared(fewest: int, more: int, seed: int) -> None:
    hours = np.linspace(0.0, 240.0, 300)
    entity = recurring_customers(Customers(fewest, fewest + more), hours, np.random.default_rng(seed))
    counts = np.bincount(entity)
    assert len(entity) == 300
    assert counts.max() <= fewest + more
    assert (counts < fewest).sum() <= 1  # the last one is cut off by the end
    _, first = np.unique(entity, return_index=True)
    assert (np.diff(first) > 0).all()  # numbered in the order of their first rows


def test_a_customer_who_returns_has_the_same_inputs_and_outcome() -> None:
    stream = build(replace(CALM, name="c", customers=Customers(5, 5)), source(), seed=1).stream
    for name in ("load_ratio", "restarts"):
        by_customer: dict[int, set[float]] = {}
        for entity, value in zip(stream.entity.tolist(), stream.columns[name].tolist(), strict=True):
            by_customer.setdefault(entity, set()).add(value)
        assert {len(values) for values in by_customer.values()} == {1}
    assert abs(len(stream) / len(np.unique(stream.entity)) - 5) < 0.1


def test_a_row_that_is_sent_again_repeats_one_of_the_last_two_days() -> None:
    stream = build(replace(CALM, name="r", resent_share=0.3), source(), seed=1).stream
    _, counts = np.unique(stream.entity, return_counts=True)
    n_again = int((counts - 1).sum())
    assert abs(n_again / len(stream) - 0.3) < 0.05
    for entity in np.unique(stream.entity)[counts > 1][:20]:
        rows = np.flatnonzero(stream.entity == entity)
        assert len(set(stream.columns["load_ratio"][rows].tolist())) == 1
        assert len(set(stream.true_label[rows].tolist())) == 1
        assert (np.diff(stream.event_time[rows]) <= 48 * HOUR).all()


def test_nothing_is_sent_during_an_outage_and_more_in_a_burst() -> None:
    world = replace(CALM, traffic=(Outage(24.0, 24.0), Burst(96.0, 24.0, 10.0)))
    hours = (event_times(world, np.random.default_rng(1)) - CHANGE_AT) / HOUR
    per_day = np.bincount(np.floor(hours / 24).astype(int) + 2, minlength=10)
    assert per_day[3] == 0
    assert per_day[6] > 7 * per_day[4]
    assert (np.diff(hours) >= 0).all()


def test_the_calendar_adds_the_hour_the_weekday_and_groups_whose_shares_move() -> None:
    world = replace(CALM, name="g", with_calendar=True, changes=(GroupShift(((4, 0.5),)),), per_day=400.0)
    stream = build(world, source(), seed=1).stream
    monday = stream.event_time.astype("M8[D]") == np.datetime64("2026-06-01")
    assert (stream.columns["day_mon"][monday] == 1).all()
    assert sum(stream.columns[name] for name in stream.contract.input_names if name.startswith("day_")).max() == 1
    np.testing.assert_array_equal(stream.columns["hour_of_day"], stream.event_time.astype("M8[h]").astype(int) % 24)
    is_after = stream.event_time >= CHANGE_AT
    shares = [stream.columns["group_4"][rows].mean() for rows in (~is_after, is_after)]
    assert abs(shares[0] - 0.05) < 0.03
    assert abs(shares[1] - 0.5) < 0.05


def test_a_champion_never_learns_from_an_input_that_is_still_asleep() -> None:
    found = build(replace(CHANGED, name="a", changes=(InputAwakens(),)), source(), seed=1)
    load, labels = found.learned_from.columns["load_ratio"], found.learned_from.labels
    assert abs(np.corrcoef(load, labels)[0, 1]) < 0.08


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InvalidDataError, match="small: 100 rows; worlds are built from at least 2,000"):
        source_of(contract.synthesize(100, 1), contract, "small")
