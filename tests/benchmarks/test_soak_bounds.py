"""What a slope is taken for: met, bounded by a figure that is checked, or a problem. Growth that is shown is never noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.soak.bounds import (
    EVIDENCE,
    FILLS,
    KEPT,
    MAX_MIB,
    MEASURES,
    MIB,
    POSTGRES_MEMORY,
    PROCESSES,
    REPORTS,
    UNLABELLED,
    Bound,
    judge,
    rise,
    unlabelled_within,
)
from benchmarks.soak.kept import Kept
from benchmarks.soak.measured import JUDGED, bounds_of, changed_most, floors_of, slopes_of
from benchmarks.soak.plan import QUICK, Plan
from benchmarks.soak.series import Series

HOUR = 3_600.0
FLAT = [300 * MIB] * 30
SAMPLES = 12


def test_a_slope_within_the_target_is_met_whatever_its_level_did() -> None:
    assert judge("api", "rss", [-3.0, 1.0, 5.0], [*FLAT, 900 * MIB], {}).is_met


def test_a_slope_too_noisy_to_tell_is_bounded_by_a_level_that_did_not_rise() -> None:
    said = judge("api", "rss", [-40.0, 3.0, 46.0], FLAT, {})
    assert said.bound is not None
    assert (said.bound.figure, said.bound.limit, said.problem) == (0.0, 6 * MIB, None)


def test_a_slope_too_noisy_to_tell_is_a_problem_if_the_level_rose() -> None:
    assert judge("api", "fds", [4.0, 30.0, 56.0], [30.0 + step for step in range(30)], {}).problem is not None


def test_memory_that_grows_has_to_stay_below_what_the_growth_of_its_first_minutes_would_come_to() -> None:
    plan = Plan(2.0)
    hours = (plan.seconds - plan.first_s) / HOUR
    for process, after_minutes, mib_an_hour in (("api", 426, 50), ("daemon", 157, 45)):
        assert after_minutes + mib_an_hour * (hours - 0.3) > MAX_MIB[process] > after_minutes


@pytest.mark.parametrize("process", [*PROCESSES, KEPT])
def test_growth_that_is_shown_is_a_problem_even_if_it_is_small(process: str) -> None:
    for measure in MEASURES[process]:
        if (process, measure) not in FILLS:
            said = judge(process, measure, [5.1, 6.0, 7.0], FLAT, {})
            assert f"{process} {measure} grows by 6.0 % a day" in str(said.problem)


def test_what_fills_up_may_grow_within_its_checked_limit_and_no_further() -> None:
    steep, within = [100.0, 200.0, 300.0], {POSTGRES_MEMORY: Bound(7.0, 24.0, "caches")}
    assert judge("postgres", "rss", steep, FLAT, within).bound is within[POSTGRES_MEMORY]
    for beyond in ({POSTGRES_MEMORY: Bound(25.0, 24.0, "caches")}, {POSTGRES_MEMORY: Bound(math.nan, 24.0, "")}, {}):
        assert judge("postgres", "rss", steep, FLAT, beyond).problem is not None


@pytest.mark.parametrize("interval", [None, [math.nan] * 3, [0.0, math.nan, math.nan]])
def test_a_slope_that_is_unknown_is_a_problem(interval: list[float] | None) -> None:
    assert judge("up", "rss", interval, [math.nan] * 30, {}).problem is not None


def test_a_level_without_samples_is_a_problem() -> None:
    assert "too few samples" in str(judge("up", "fds", [0.0, 0.0, 0.0], [], {}).problem)


@pytest.mark.parametrize(("process", "rises"), [("api", 5), ("daemon", 5), ("postgres", 30)])
def test_descriptors_that_are_left_behind_are_more_than_noise(process: str, rises: int) -> None:
    level = [80.0] * 10 + [80.0] * 10 + [80.0 + rises] * 10
    assert not rise(process, "fds", level).holds
    assert rise(process, "fds", [80.0] * 20 + [82.0] * 10).holds


def test_a_bound_that_is_unknown_does_not_hold() -> None:
    assert not Bound(math.nan, 1.0, "").holds
    assert not Bound(1.0, math.nan, "").holds
    assert Bound(1.0, 1.0, "").holds


# Floors


def test_what_comes_and_goes_is_no_growth_and_what_stays_is() -> None:
    rng = np.random.default_rng(20)
    coming, leaking = Series(), Series()
    for number in range(480):
        burst = float(rng.integers(1, 40)) if rng.random() < 0.4 else 0.0
        coming.add(10.0 * number, 50.0 + burst)
        leaking.add(10.0 * number, 50.0 + burst + number // 40)
    flat, growing = coming.floors(120).trend(), leaking.floors(120).trend()
    assert flat is not None and growing is not None
    assert flat.as_list() == [0.0, 0.0, 0.0]
    assert growing.low > 100
    noisy = coming.trend()
    assert noisy is not None and noisy.high > 5


def test_a_short_outage_does_not_lower_a_floor() -> None:
    series = Series()
    for number in range(SAMPLES):
        series.add(10.0 * number, 0.0 if number in {5, 6} else 30.0)
    assert series.floors(120).values == [30.0]


def test_a_block_that_a_life_only_touches_says_nothing() -> None:
    series = Series()
    for number in range(3 * SAMPLES + 2):
        series.add(10.0 * number, 30.0, segment=number // (SAMPLES + 1))
    assert [(segment, time_s) for segment, time_s in zip(*_lives(series), strict=True)] == [(0, 60), (1, 180), (2, 300)]


def _lives(series: Series) -> tuple[list[int], list[float]]:
    floors = series.floors(120)
    return floors.segments, floors.times_s


# What is kept


def test_a_sawtooth_that_deletes_by_whole_hours_is_within_its_bound_and_one_that_forgets_an_hour_is_not() -> None:
    times = [30.0 * step for step in range(int(4 * HOUR / 30))]
    answered = [20.0 * time_s for time_s in times]
    deleted_until = [max(0.0, (time_s - 900) // HOUR * HOUR) for time_s in times]
    kept = [20.0 * (time_s - until) for time_s, until in zip(times, deleted_until, strict=True)]
    assert unlabelled_within(kept, answered, times, HOUR + 1_000).holds
    forgotten = [20.0 * (time_s - max(0.0, until - HOUR)) for time_s, until in zip(times, deleted_until, strict=True)]
    found = unlabelled_within(forgotten, answered, times, HOUR + 1_000)
    assert not found.holds and found.figure > found.limit > 0


def test_predictions_that_were_never_counted_are_not_within_a_bound() -> None:
    assert not unlabelled_within([], [], [], HOUR).holds


def test_rows_that_a_decision_rests_on_are_evidence_with_their_share_of_the_bytes() -> None:
    kept = Kept()
    kept.add_table("selfheal.monitoring_metrics", n_rows=40, n_evidence=30, size=8_000)
    kept.add_table("dagster.event_logs", n_rows=0, n_evidence=0, size=16)
    kept.add_files("monitoring", 50)
    assert (kept.rows[KEPT], kept.rows[EVIDENCE]) == (10, 30)
    assert (kept.sizes[KEPT], kept.sizes[EVIDENCE]) == (2_066, 6_000)
    assert kept.parts["selfheal.monitoring_metrics"] == (10, 2_000)


def test_the_parts_that_changed_most_are_named_with_both_ends() -> None:
    parts = [
        (1.0, {"old": (99.0, 99.0)}),
        (10.0, {"a": (5.0, 10.0), "b": (1.0, 1.0)}),
        (20.0, {"a": (5.0, 30.0), "b": (1.0, 1.0)}),
    ]
    changed = changed_most(parts, after_s=5.0)
    assert changed["a"] == (5.0, 10.0, 5.0, 30.0)
    assert "old" not in changed
    assert changed_most(parts, after_s=50.0) == {}


# From samples to figures


def sampled(plan: Plan) -> dict[str, dict[str, Series]]:
    """Return flat series of all that is measured, with the API's memory filling in the first part."""
    series: dict[str, dict[str, Series]] = {
        name: {measure: Series() for measure in measures} for name, measures in JUDGED.items()
    }
    series["postgres"] |= {"shared": Series(), "processes": Series()}
    series[REPORTS] = {"bytes": Series()}
    series[UNLABELLED] = {"rows": Series(), "acknowledged": Series()}
    for number in range(int(plan.seconds / plan.sample_s)):
        time_s = plan.sample_s * number
        for measures in series.values():
            for one in measures.values():
                one.add(time_s, 50.0)
        series["api"]["rss"].values[-1] = 100 * MIB + min(time_s, plan.first_s) * MIB / 10
    return series


def test_what_fills_before_the_warm_up_has_ended_is_not_in_the_slope() -> None:
    plan = Plan(2.0)
    slopes = slopes_of(floors_of(sampled(plan), plan))
    assert slopes["api"]["rss"] == [0.0, 0.0, 0.0]
    assert {name: set(measures) for name, measures in slopes.items()} == {
        name: set(measures) for name, measures in JUDGED.items()
    }


def test_every_bound_needs_its_samples() -> None:
    plan = Plan(2.0)
    whole = bounds_of(sampled(plan), plan, shared_limit_bytes=150 * MIB, n_acknowledged=10, max_reports=1)
    assert all(bound.holds for bound in whole.values())
    nothing = bounds_of({}, plan, shared_limit_bytes=None, n_acknowledged=0, max_reports=1)
    assert not any(bound.holds for bound in nothing.values())


def test_shared_buffers_have_the_size_of_postgres_as_their_limit() -> None:
    plan, series = Plan(2.0), sampled(Plan(2.0))
    series["postgres"]["shared"].values[-1] = 151 * MIB
    found = bounds_of(series, plan, shared_limit_bytes=150 * MIB, n_acknowledged=10, max_reports=1)
    assert [name for name, bound in found.items() if not bound.holds] == ["Postgres' shared memory"]


def test_reports_have_a_limit_of_their_own_and_do_not_hide_the_growth_of_tables() -> None:
    plan, series = Plan(2.0), sampled(Plan(2.0))
    series[REPORTS]["bytes"].values[5] = 9 * MIB
    found = bounds_of(series, plan, shared_limit_bytes=150 * MIB, n_acknowledged=10, max_reports=1)
    assert [name for name, bound in found.items() if not bound.holds] == ["drift reports"]
    assert slopes_of(floors_of(series, plan))[KEPT]["bytes"] == [0.0, 0.0, 0.0]


def test_a_run_of_two_hours_has_enough_blocks_between_the_kills_of_postgres_and_a_quick_one_has_samples() -> None:
    plan = Plan(2.0)
    assert (plan.seconds - plan.settled_s) / plan.block_s >= 40
    assert QUICK.settled_s < QUICK.seconds
    assert plan.first_s + plan.warm_up_s <= plan.settled_s
