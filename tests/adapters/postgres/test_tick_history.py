"""The monitor's past in steps: nothing grave gets lost, and what is not known stays unknown."""

from __future__ import annotations

from datetime import timedelta

import pytest

from selfheal.adapters.postgres import ticks
from selfheal.adapters.postgres.store import Store
from selfheal.adapters.postgres.tick_history import STEPS, step_for, steps_between
from selfheal.domain.records import ProxyMetrics, Triage, Verdict
from tests import builders
from tests.times import T0

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def add_tick(
    store: Store, minute: int, verdict: Verdict, drifted: tuple[str, ...] = (), *, is_compared: bool = True
) -> None:
    """A look at `T0` and so many minutes."""
    at = T0 + minute * MINUTE
    seen = builders.window(end=at, n_predictions=1_000 + minute)
    drift = builders.drift_report(
        window=seen,
        columns=tuple(builders.column_drift(name, is_drifted=True, effect=0.3) for name in drifted),
        feature_drift_ratio=len(drifted) / 4 if is_compared else None,
    )
    performance = builders.performance(window=seen)
    triage = Triage(seen, verdict, (), (), None)
    assert ticks.record_tick(store, ProxyMetrics(seen, minute / 100, None, None, None), drift, performance, triage, at)


def test_a_step_is_its_newest_tick_with_the_gravest_verdict_and_the_drift_of_all(store: Store) -> None:
    add_tick(store, 0, Verdict.STABLE)
    add_tick(store, 5, Verdict.HARMFUL_SHIFT, ("load_ratio", "restarts"))
    add_tick(store, 10, Verdict.BENIGN_SHIFT, ("load_ratio",))
    add_tick(store, 15, Verdict.INSUFFICIENT, is_compared=False)
    add_tick(store, 65, Verdict.STABLE)
    first, second = steps_between(store, T0 - HOUR, T0 + 2 * HOUR, HOUR)
    assert (first.start, first.n_ticks, first.n_compared) == (T0, 4, 3)
    assert (first.verdict, first.max_drift_ratio, first.newest.positive_rate) == (Verdict.HARMFUL_SHIFT, 0.5, 0.15)
    assert first.n_drifted == {"load_ratio": 2, "restarts": 1}
    assert (second.start, second.n_ticks, second.verdict, second.n_drifted) == (T0 + HOUR, 1, Verdict.STABLE, {})


def test_a_step_is_insufficient_only_if_no_tick_saw_enough(store: Store) -> None:
    add_tick(store, 0, Verdict.INSUFFICIENT, is_compared=False)
    add_tick(store, 60, Verdict.INSUFFICIENT, is_compared=False)
    add_tick(store, 65, Verdict.STABLE)
    first, second = steps_between(store, T0, T0 + 2 * HOUR, HOUR)
    assert (first.verdict, first.n_compared, first.max_drift_ratio) == (Verdict.INSUFFICIENT, 0, None)
    assert second.verdict is Verdict.STABLE


def test_ticks_outside_of_the_period_are_left_out(store: Store) -> None:
    for minute in (0, 30, 60):
        add_tick(store, minute, Verdict.STABLE)
    (found,) = steps_between(store, T0 + MINUTE, T0 + 59 * MINUTE, HOUR)
    assert found.n_ticks == 1
    assert steps_between(store, T0 + 2 * HOUR, T0 + 3 * HOUR, HOUR) == []


@pytest.mark.parametrize("hours", [1, 24, 168, 720, 2_160])
@pytest.mark.parametrize("max_steps", [10, 120, 400])
def test_a_period_is_never_more_steps_than_were_asked_for(hours: int, max_steps: int) -> None:
    step = step_for(hours * HOUR, max_steps)
    assert hours * HOUR / step <= max_steps
    shorter = [one for one in STEPS if one < step]
    assert not shorter or hours * HOUR / shorter[-1] > max_steps
