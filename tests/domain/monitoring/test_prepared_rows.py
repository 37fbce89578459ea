"""Prepared rows: the same results as from the rows themselves, computed once, bounded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring import thresholds
from selfheal.domain.monitoring.drift import PROBABILITY, DriftLimits, detect_drift
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.prepared_rows import MAX_REMEMBERED, PreparedRows
from selfheal.domain.monitoring.shift import Sample, column_shift
from tests.builders import window
from tests.toy_use_case import contract

LIMITS = DriftLimits(n_ticks=90 * 288, min_effect=0.05, min_rows=200)
FEATURES = contract.feature_names


def scored(n_rows: int, seed: int) -> pd.DataFrame:
    features = contract.feature_frame(contract.synthesize(n_rows, seed))
    return features.assign(**{PROBABILITY: np.random.default_rng(seed).random(n_rows)})


def test_a_look_at_prepared_rows_gives_the_same_report() -> None:
    reference, current = scored(1_000, 1), scored(700, 2)
    current.loc[600:, "load_ratio"] *= 1.5
    recent, baseline = current.tail(500).reset_index(drop=True), scored(900, 3)
    prepared = [PreparedRows(rows) for rows in (reference, recent, baseline)]
    reports = [
        detect_drift(
            window(),
            current,
            then,
            features=FEATURES,
            reference_version=3,
            limits=LIMITS,
            recent=newest,
            baseline=first,
            feed_problems=feed_problems(newest, then, contract),
        )
        for then, newest, first in ([reference, recent, baseline], prepared, prepared)
    ]
    assert reports[0].columns
    assert reports[0] == reports[1] == reports[2]


def test_thresholds_of_a_reference_are_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, calls = PreparedRows(scored(600, 1)), 0

    def counted(values: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        return 1.0

    monkeypatch.setattr(thresholds, "design_effect", counted)
    first = thresholds.derive_thresholds(prepared, FEATURES, 1_000)
    assert calls == 2 * len(FEATURES)
    assert thresholds.derive_thresholds(prepared, FEATURES, 1_000) == first
    assert thresholds.derive_thresholds(prepared, FEATURES, 2_000).level == first.level / 2
    assert calls == 2 * len(FEATURES)


def test_what_is_remembered_is_bounded() -> None:
    prepared = PreparedRows(pd.DataFrame({"x": [1.0]}))
    assert [prepared.once(number, lambda number=number: number) for number in range(MAX_REMEMBERED + 1)] == list(
        range(MAX_REMEMBERED + 1)
    )
    assert prepared.once(MAX_REMEMBERED, lambda: -1) == MAX_REMEMBERED
    assert prepared.once(0, lambda: -1) == -1, "the oldest is computed again"


def test_a_wide_table_is_prepared_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"x{number}" for number in range(400)]
    prepared = PreparedRows(pd.DataFrame(np.random.default_rng(1).random((60, len(names))), columns=names))
    first = thresholds.derive_thresholds(prepared, names, 1_000)
    samples = [prepared.sample(name) for name in names]
    monkeypatch.setattr(thresholds, "design_effect", lambda _: pytest.fail("it is computed again"))
    assert thresholds.derive_thresholds(prepared, names, 1_000) == first
    assert all(prepared.sample(name) is one for name, one in zip(names, samples, strict=True))


@pytest.mark.parametrize(
    "column",
    [[], [np.nan], [2.0, np.nan, 1.0, 2.0], [0.0, -0.0, np.inf, -np.inf, np.inf], [5.0] * 4],
)
def test_a_sample_holds_each_distinct_value_once(column: list[float]) -> None:
    values = np.array(column, dtype=np.float64)
    sample, known = Sample.of(values), values[~np.isnan(values)]
    expected, counts = np.unique(known, return_counts=True)
    assert (sample.values.tolist(), sample.counts.tolist()) == (expected.tolist(), counts.tolist())
    assert (sample.n_known, sample.n_missing, sample.n_rows) == (len(known), len(values) - len(known), len(values))
    other = np.array([1.0, 2.0, 3.0])
    assert column_shift(sample, Sample.of(other)) == column_shift(values, other)


def test_of_each_entity_the_newest_row_is_taken_once() -> None:
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})
    prepared = PreparedRows(rows, np.array([0, 1, 0, 2]))
    assert list(prepared.newest_of_each_entity().values("x")) == [2.0, 3.0, 4.0]
    assert prepared.sample("x").copies == 1.5
    alone = PreparedRows(rows)
    assert alone.newest_of_each_entity() is alone
    assert alone.sample("x").copies == 1.0
