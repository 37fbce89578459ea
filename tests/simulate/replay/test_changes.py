"""Each declared change does to the rows what its words say, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal.domain.contract import FloatArray
from selfheal.simulate.replay.changes import (
    Traffic,
    apply_changes,
    break_feed,
    choose_rows,
    normal_scores,
    robust_sd,
    strongest_inputs,
)
from selfheal.simulate.replay.models import Rows
from selfheal.simulate.replay.worlds import (
    BrokenFeed,
    Change,
    FeedFault,
    FromScenario,
    InputAwakens,
    InputShift,
    MixShift,
    MoreEvents,
    PriorShift,
    RelationGone,
    RiskiestChange,
    Seasonal,
)
from tests.simulate.replay.small import source
from tests.toy_use_case import contract

N = 6_000
HOURS = np.linspace(-100.0, 100.0, N)
IS_AFTER = HOURS >= 0


def pool() -> Rows:
    return source().rows


def drawn(seed: int = 1) -> Traffic:
    rows = pool().at(np.random.default_rng(seed).integers(len(pool()), size=N))
    return Traffic(HOURS, dict(rows.columns), rows.labels.copy())


def score(rows: Rows) -> FloatArray:
    return np.asarray(rows.columns["load_ratio"] / 2)


def applied(*changes: Change) -> tuple[Traffic, Traffic]:
    before, after = drawn(), drawn()
    apply_changes(after, contract, changes, pool(), score, np.random.default_rng(2))
    return before, after


def chosen(*changes: Change, hours: FloatArray = HOURS) -> Rows:
    return pool().at(choose_rows(pool(), contract, changes, hours, np.random.default_rng(3)))


def correlation(rows: Rows, name: str) -> float:
    return float(np.corrcoef(np.nan_to_num(rows.columns[name], nan=60.0), rows.labels)[0, 1])


def test_a_mix_shift_moves_the_strongest_inputs_by_its_size_after_the_change_only() -> None:
    assert strongest_inputs(pool(), contract, 1) == ["load_ratio"]
    scores = normal_scores(pool().columns["load_ratio"])
    positions = choose_rows(pool(), contract, (MixShift(0.5, n_inputs=1),), HOURS, np.random.default_rng(3))
    assert abs(scores[positions[IS_AFTER]].mean() - 0.5) < 0.06
    assert abs(scores[positions[~IS_AFTER]].mean()) < 0.06


def test_a_mix_shift_leaves_the_relation_as_it_is() -> None:
    load, labels = pool().columns["load_ratio"], pool().labels
    is_high = load > np.quantile(load, 0.7)
    found = chosen(MixShift(0.5, n_inputs=1), hours=np.full(60_000, 1.0))
    among_high = found.labels[found.columns["load_ratio"] > np.quantile(load, 0.7)].mean()
    assert abs(among_high - labels[is_high].mean()) < 0.06


def test_a_season_moves_the_mix_to_and_fro() -> None:
    scores = normal_scores(pool().columns["load_ratio"])
    season = MixShift(0.6, n_inputs=1, when=Seasonal(24.0))
    positions = choose_rows(pool(), contract, (season,), HOURS, np.random.default_rng(3))
    phase = np.mod(HOURS, 24.0)
    assert scores[positions[(phase > 4) & (phase < 8)]].mean() > 0.4
    assert scores[positions[(phase > 16) & (phase < 20)]].mean() < -0.4


def test_a_prior_shift_changes_the_odds_by_its_factor_and_nothing_within_a_class() -> None:
    found = chosen(PriorShift(2.0), hours=np.full(60_000, 1.0))
    odds = [labels.mean() / (1 - labels.mean()) for labels in (found.labels, pool().labels)]
    assert abs(odds[0] / odds[1] - 2.0) < 0.1
    for value in (0, 1):
        means = [rows.columns["load_ratio"][rows.labels == value].mean() for rows in (found, pool())]
        assert abs(means[0] - means[1]) < 0.02


def test_changes_of_the_mix_compose() -> None:
    both = chosen(MixShift(0.5, n_inputs=1), PriorShift(2.0), hours=np.full(20_000, 1.0))
    one = chosen(MixShift(0.5, n_inputs=1), hours=np.full(20_000, 1.0))
    assert both.labels.mean() > one.labels.mean() + 0.05


def test_a_relation_that_is_gone_is_gone_in_its_share_after_the_change() -> None:
    before, after = applied(RelationGone(1.0))
    is_after = np.flatnonzero(IS_AFTER)
    assert abs(correlation(after.rows().at(is_after), "load_ratio")) < 0.05
    assert abs(after.labels[IS_AFTER].mean() - pool().labels.mean()) < 0.03
    np.testing.assert_array_equal(before.labels[~IS_AFTER], after.labels[~IS_AFTER])
    _, partly = applied(RelationGone(0.4))
    assert 0.1 < (before.labels != partly.labels)[IS_AFTER].mean() < (before.labels != after.labels)[IS_AFTER].mean()


@pytest.mark.parametrize("to", ["inverted", "average"])
def test_only_the_riskiest_rows_change_their_outcomes(to: str) -> None:
    before, after = applied(RiskiestChange(0.1, to))  # type: ignore[arg-type]
    is_changed = before.labels != after.labels
    limit = np.quantile(score(pool()), 0.9)
    assert is_changed.any()
    assert (score(before.rows())[is_changed] >= limit).all()
    riskiest = IS_AFTER & (score(before.rows()) >= limit)
    expected = 1 - before.labels[riskiest].mean() if to == "inverted" else pool().labels.mean()
    assert abs(after.labels[riskiest].mean() - expected) < 0.08


def test_a_scenario_strikes_its_share_of_the_rows_after_the_change() -> None:
    before, after = applied(FromScenario(0.3))
    is_struck = before.columns["temperature_c"] + 25.0 == after.columns["temperature_c"]
    assert abs(is_struck[IS_AFTER].mean() - 0.3) < 0.05
    assert not is_struck[~IS_AFTER].any()


def test_inputs_move_and_outcomes_remain() -> None:
    before, after = applied(InputShift(factor=0.1, size_sd=1.0))
    sd = robust_sd(pool().columns["load_ratio"])
    expected = np.clip(before.columns["load_ratio"] * 1.1 + sd, 0.0, 5.0)
    np.testing.assert_allclose(after.columns["load_ratio"][IS_AFTER], expected[IS_AFTER])
    np.testing.assert_array_equal(after.columns["load_ratio"][~IS_AFTER], before.columns["load_ratio"][~IS_AFTER])
    np.testing.assert_array_equal(after.labels, before.labels)


def test_more_events_come_whatever_the_inputs() -> None:
    before, after = applied(MoreEvents(0.05))
    assert (after.labels >= before.labels).all()
    share = (after.labels > before.labels)[IS_AFTER & (before.labels == 0)].mean()
    assert 0.02 < share < 0.08


def test_an_input_that_awakens_said_nothing_before() -> None:
    _, after = applied(InputAwakens())
    said = [correlation(after.rows().at(np.flatnonzero(rows)), "load_ratio") for rows in (~IS_AFTER, IS_AFTER)]
    assert abs(said[0]) < 0.05
    assert said[1] > 0.3


FAULTS: dict[FeedFault, str] = {
    "unit": "load_ratio",
    "missing": "load_ratio",
    "constant": "load_ratio",
    "swapped": "temperature_c",
    "out_of_bounds": "load_ratio",
    "frozen_rows": "restarts",
}


@pytest.mark.parametrize(("fault", "column"), FAULTS.items())
def test_a_broken_feed_changes_inputs_until_it_is_repaired(fault: FeedFault, column: str) -> None:
    before, after = drawn(), drawn()
    break_feed(after.columns, contract, BrokenFeed(fault, 2.0), HOURS, pool(), np.random.default_rng(5))
    is_changed = ~np.isclose(before.columns[column], after.columns[column], equal_nan=True)
    is_broken = IS_AFTER & (HOURS < 48)
    assert is_changed[is_broken].any()
    assert not is_changed[~is_broken].any()


def test_missing_values_have_the_middle_rank_and_a_constant_no_correlation() -> None:
    assert normal_scores(np.array([np.nan, 1.0, 3.0])).tolist()[0] == 0.0
    rows = Rows({"load_ratio": np.ones(4), "restarts": np.array([0.0, 1, 2, 3])}, np.array([0, 0, 1, 1], np.int8))
    assert strongest_inputs(rows, contract, 2, ["load_ratio", "restarts"]) == ["restarts", "load_ratio"]


def test_the_spread_of_a_skewed_input_is_that_of_its_middle() -> None:
    values = np.concatenate([np.random.default_rng(1).normal(0, 2, 10_000), np.full(10, 1e9)])
    assert abs(robust_sd(values) - 2.0) < 0.1
    assert robust_sd(np.array([0.0, 0, 0, 0, 8])) > 0
