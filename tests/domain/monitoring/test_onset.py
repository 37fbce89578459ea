"""Rules of the onset: a change of the relation is dated with an interval, a steady one is left alone whatever the inputs do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring import onset
from selfheal.domain.monitoring.onset import MIN_BLOCK_ROWS, find_changes, onset_of
from selfheal.domain.monitoring.window import TICK

INPUTS = ["a", "b"]
START = datetime(2026, 3, 2, tzinfo=UTC)
Truth = Callable[[np.ndarray, pd.DataFrame, np.ndarray], np.ndarray]


def log_odds(rows: pd.DataFrame) -> np.ndarray:
    """What the model believes: few events, more of them where `a` is large."""
    return np.asarray(-2.5 + rows["a"])


def labelled(n_rows: int, truth: Truth, seed: int = 1, shift: float = 0.0) -> pd.DataFrame:
    """Rows whose probabilities are the model's, and whose labels are drawn with what `truth` makes of its log-odds."""
    rng = np.random.default_rng(seed)
    place = np.arange(n_rows)
    rows = pd.DataFrame({"a": rng.normal(size=n_rows) + shift * (place > n_rows / 2), "b": rng.normal(size=n_rows)})
    believed = log_odds(rows)
    true = truth(believed, rows, place)
    return rows.assign(
        probability=1 / (1 + np.exp(-believed)),
        true_label=(rng.random(n_rows) < 1 / (1 + np.exp(-true))).astype(np.int64),
        created_at=[START + timedelta(minutes=int(minute)) for minute in place],
    )


def steady(believed: np.ndarray, *_: Any) -> np.ndarray:
    """The model is right all the time."""
    return believed


def from_row(row: int, changed: Callable[[np.ndarray, pd.DataFrame], np.ndarray]) -> Truth:
    """The model is right before a row, and wrong from it on."""
    return lambda believed, rows, place: np.where(place >= row, changed(believed, rows), believed)


CHANGES: dict[str, Callable[[np.ndarray, pd.DataFrame], np.ndarray]] = {
    "more events": lambda believed, _: believed + 0.8,
    "the score says nothing": lambda believed, _: np.full_like(believed, -2.0),
    "another input decides": lambda believed, rows: believed + 1.2 * rows["b"],
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_change_of_the_relation_is_dated_within_its_interval(name: str) -> None:
    (change,) = find_changes(labelled(8_000, from_row(6_500, CHANGES[name])), INPUTS, seed=1)
    assert change.low <= 6_500 <= change.high
    assert abs(change.row - 6_500) <= 400
    assert change.p_value <= onset.LEVEL
    if name == "another input decides":
        assert change.shown_by == "b"


def test_a_recent_change_is_seen_after_few_rows_of_a_long_life() -> None:
    rows = labelled(40_000, from_row(39_500, lambda believed, _: believed + 2.0))
    (change,) = find_changes(rows, INPUTS, seed=1)
    assert abs(change.row - 39_500) <= 100


def test_an_old_change_of_a_long_life_is_seen_though_the_newest_rows_are_alike() -> None:
    (change,) = find_changes(labelled(40_000, from_row(10_000, lambda b, _: b + 0.8)), INPUTS, seed=1)
    assert abs(change.row - 10_000) <= 500


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_steady_relation_is_left_alone_whatever_the_inputs_do(shift: float) -> None:
    """60 searches at a level of 0.2 %; more than one false change has a chance below 1 %."""
    found = [find_changes(labelled(2_000, steady, seed, shift), INPUTS, seed) for seed in range(60)]
    assert sum(bool(changes) for changes in found) <= 1


def test_rare_events_and_ties_are_no_changes() -> None:
    def seldom(believed: np.ndarray, *_: Any) -> np.ndarray:
        return believed

    for seed in range(20):
        rows = labelled(3_000, seldom, seed)
        rare = rows.assign(probability=0.02, true_label=(np.random.default_rng(seed).random(3_000) < 0.02).astype(int))
        assert find_changes(rare.assign(b=1.0), INPUTS, seed) == ()


def test_of_two_changes_the_latest_with_enough_rows_counts_and_without_any_the_latest() -> None:
    def twice(believed: np.ndarray, _: pd.DataFrame, place: np.ndarray) -> np.ndarray:
        return believed + np.select([place >= 5_600, place >= 3_000], [-1.5, 1.5], 0.0)

    rows = labelled(6_000, twice)
    first, second = find_changes(rows, INPUTS, seed=1)
    for min_rows, expected in ((300, second), (1_000, first), (5_000, second)):
        found = onset_of(rows, INPUTS, min_rows, seed=1)
        assert found is not None
        assert found.at == rows["created_at"].iloc[expected.row].to_pydatetime() - TICK, (
            "just before the first row since"
        )
        assert found.low <= found.at <= found.high
        assert (found.n_before, found.n_after) == (expected.row, 6_000 - expected.row)


def test_an_onset_is_within_its_interval_also_where_many_rows_are_of_one_moment() -> None:
    rows = labelled(1_200, from_row(600, lambda believed, _: believed + 3.0))
    batches = rows.assign(created_at=[START + timedelta(minutes=row // 500) for row in range(1_200)])
    found = onset_of(batches, INPUTS, 10, seed=1)
    assert found is not None
    assert found.low <= found.at <= found.high


@pytest.mark.parametrize("n_rows", [0, 1, 5 * MIN_BLOCK_ROWS])
def test_few_rows_show_nothing(n_rows: int) -> None:
    rows = labelled(max(n_rows, 1), steady).iloc[:n_rows]
    assert onset_of(rows, INPUTS, 10, seed=1) is None


def test_missing_and_constant_inputs_are_no_obstacle_and_the_same_rows_give_the_same_answer() -> None:
    rows = labelled(4_000, from_row(3_000, lambda believed, _: believed + 1.5)).assign(b=np.nan)
    assert find_changes(rows, INPUTS, seed=1) == find_changes(rows, INPUTS, seed=1) != ()
