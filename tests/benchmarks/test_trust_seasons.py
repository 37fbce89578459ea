"""Rules of the worlds of seasons: their ticks see all that the platform's see."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trust.seasons_worlds import (
    BEGAN,
    CHANGE_DAY,
    Deployment,
    Population,
    deployment,
    population_of,
    still,
    sudden,
    tick,
    w14_figures,
)
from benchmarks.trust.worlds import Given
from selfheal.credit_risk import contract
from selfheal.domain.monitoring.seasons import Calm
from selfheal.domain.records import SeasonMemory, Verdict
from selfheal.services.tick import harm_limits
from selfheal.settings import default_settings


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Population:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    contract.synthesize(6_000, 1).to_csv(path, index=False)
    return population_of(path, 1)


def verdict_on(population: Population, *, is_shuffled: bool = False, n_equal: int = 0) -> Verdict:
    """The verdict of a tick on a calm day, whose columns may have lost their relations, or whose newest rows may be a few."""
    rng = np.random.default_rng(3)
    reference, day = (population.prepared(rng.integers(len(population.rows), size=n), contract) for n in (3_000, 2_000))
    if is_shuffled:
        day = type(day)(day.rows.apply(lambda column: rng.permutation(column.to_numpy())))
    newest = type(day)(day.rows.iloc[-500:].reset_index(drop=True))
    if n_equal:
        newest = type(day)(day.rows.iloc[np.arange(500) % n_equal].reset_index(drop=True))
    calm = Calm(SeasonMemory(BEGAN))
    return tick(day, newest, reference, contract, BEGAN + timedelta(days=1), calm, harm_limits(default_settings()))[0]


def test_lost_relations_of_columns_are_drift_although_no_column_has_moved(population: Population) -> None:
    assert verdict_on(population) is Verdict.STABLE
    assert verdict_on(population, is_shuffled=True) is Verdict.BENIGN_SHIFT


def test_a_feed_that_repeats_the_same_rows_is_called_broken(population: Population) -> None:
    assert verdict_on(population, n_equal=20) is Verdict.BROKEN_FEED


@pytest.mark.parametrize("tick_hours", [2, 6])
def test_an_episode_is_a_run_of_shifted_ticks_after_the_first_days(tick_hours: int) -> None:
    per_day = 24 // tick_hours
    verdicts = [Verdict.STABLE] * (90 * per_day)
    for step in (per_day, 40 * per_day, 40 * per_day + 1, 50 * per_day):
        verdicts[step] = Verdict.BENIGN_SHIFT
    verdicts[58 * per_day] = Verdict.BROKEN_FEED
    found = Deployment(tuple(verdicts), tick_hours)
    assert (found.episodes(), found.episodes(28), found.n_broken) == (3, 2, 1)
    assert found.days_until_drift(CHANGE_DAY) == 50 - CHANGE_DAY
    assert found.days_until_drift(60) == float("inf")


def test_real_drift_is_found_and_nothing_after_it_is_lived_through(population: Population) -> None:
    found = deployment(population, still, np.random.default_rng(1), tick_hours=24, change=sudden)
    assert found.days_until_drift(CHANGE_DAY) <= 3
    assert len(found.verdicts) == CHANGE_DAY + found.days_until_drift(CHANGE_DAY) + 1
    assert found.n_broken == 0


def test_looks_of_one_deployment_are_no_independent_evidence_of_a_sound_feed(tmp_path: Path) -> None:
    def found(n_broken: list[int]) -> dict[str, dict[str, int]]:
        return {
            f"{share}.{i}": {"episodes": 0, "n_ticks": 1_000, "n_broken": n}
            for share in ("share_15", "share_30")
            for i, n in enumerate(n_broken)
        }

    given = Given(tmp_path / "rows.csv")
    assert w14_figures(given, found([0] * 40))["share_15.called_broken"].is_met
    few = w14_figures(given, found([90, 90, 90, *[0] * 37]))["share_15.called_broken"]
    assert few.value == pytest.approx(0.00675)
    assert few.high > 0.08
    assert not w14_figures(given, found([930] * 40))["share_15.called_broken"].is_met
