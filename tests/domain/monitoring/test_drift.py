"""Rules of drift detection: what is flagged, what is not, and what is not judged at all."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.clusters import row_clusters
from selfheal.domain.monitoring.drift import (
    LOOKBACK,
    NEWEST,
    PROBABILITY,
    compare_columns,
    detect_drift,
)
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.seasons import Calm
from selfheal.domain.monitoring.shift import column_shift
from selfheal.domain.monitoring.thresholds import derive_thresholds
from selfheal.domain.records import ColumnDrift, DriftReport, Excursions, SeasonMemory
from tests.builders import window
from tests.domain.monitoring.toy_drift import LIMITS, detected
from tests.toy_use_case import contract, overheating


def scored(inputs: pd.DataFrame) -> pd.DataFrame:
    """All features and some probability that depends on them."""
    features = contract.feature_frame(inputs)
    return features.assign(probability=1 / (1 + np.exp(2.0 - features["load_ratio"] - features["restarts"] / 2)))


def by_name(report: DriftReport) -> dict[str, ColumnDrift]:
    return {column.column: column for column in report.columns}


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return scored(contract.synthesize(4_000, 1))


def test_other_rows_of_the_same_world_have_not_drifted(reference: pd.DataFrame) -> None:
    report = detected(
        scored(contract.synthesize(1_000, 2)), reference, baseline=reference, feed_problems=("told by the feed check",)
    )
    assert report.is_sufficient
    assert report.drifted_features == ()
    assert report.feature_drift_ratio == 0.0
    assert not report.dataset_drift_detected
    assert report.baseline_drifted_features == ()
    assert [column.column for column in report.columns] == [*contract.feature_names, PROBABILITY]
    assert (report.n_current, report.n_reference, report.reference_version) == (1_000, 4_000, 3)
    assert report.feed_problems == ("told by the feed check",)


def test_what_has_shifted_is_flagged_each_in_its_channel(reference: pd.DataFrame) -> None:
    """Shifted values, a risen missing rate, a column without any value."""
    rows = contract.synthesize(1_000, 2)
    rng = np.random.default_rng(3)
    hot, _ = overheating(rows[list(contract.input_names)], np.zeros(1_000, dtype=np.int64), rng)
    current = scored(hot)
    current.loc[rng.random(1_000) < 0.3, "load_ratio"] = np.nan
    current["restarts"] = np.nan
    report = detected(current, reference, baseline=reference)
    columns = by_name(report)

    temperature = columns["temperature_c"]
    assert temperature.is_drifted
    assert not temperature.is_missing_rate_drifted
    assert temperature.p_value < temperature.threshold == pytest.approx(1 / (90 * 288 * (5 * 2 * 2 + 1)))
    shift = column_shift(current["temperature_c"].to_numpy(), reference["temperature_c"].to_numpy())
    assert (temperature.ks_distance, temperature.rank_shift, temperature.p_value) == shift
    assert temperature.effect == shift.effect

    load = columns["load_ratio"]
    assert load.is_missing_rate_drifted
    assert not load.is_drifted
    assert (load.current_missing_pct, load.reference_missing_pct) == (pytest.approx(30, abs=5), 0.0)

    restarts = columns["restarts"]
    assert restarts.is_missing_rate_drifted
    assert (restarts.is_drifted, restarts.p_value, restarts.effect) == (False, 1.0, 0.0)

    assert set(report.drifted_features) == set(contract.feature_names)
    assert report.feature_drift_ratio == 1.0
    assert report.dataset_drift_detected
    assert report.baseline_drifted_features == ("temperature_c", "strain")


def test_the_decision_needs_no_evidently(reference: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evidently", None)  # an import fails
    rows = scored(contract.synthesize(1_000, 2))
    assert detected(rows.assign(load_ratio=rows["load_ratio"] * 2), reference).drifted_features == ("load_ratio",)


def test_every_p_value_is_that_of_our_own_test(reference: pd.DataFrame) -> None:
    current = scored(contract.synthesize(1_000, 2))
    for column in detected(current, reference).columns:
        shift = column_shift(current[column.column].to_numpy(), reference[column.column].to_numpy())
        assert (column.p_value, column.effect) == (shift.p_value, shift.effect)


def test_infinite_values_are_the_largest_ones(reference: pd.DataFrame) -> None:
    """They do not reach a look, as the contract refuses them; a look that they did reach must not fail."""
    current = scored(contract.synthesize(1_000, 2))
    of_infinite = by_name(detected(current.assign(strain=np.inf), reference))["strain"]
    of_large = by_name(detected(current.assign(strain=1e9), reference))["strain"]
    assert of_infinite.is_drifted
    assert of_infinite == of_large


TYPES = ["uint8", "uint64", "int32", "float32", "Int64", "Float64", "boolean", "bool"]


def test_a_column_is_judged_whatever_its_type() -> None:
    """A derivation may return any."""
    rng = np.random.default_rng(5)

    def typed(n_rows: int, share: float) -> pd.DataFrame:
        flags = rng.random(n_rows) < share
        frame = pd.DataFrame({kind: pd.Series(flags).astype(kind) for kind in TYPES})
        return frame.assign(probability=rng.random(n_rows))

    report = detect_drift(
        window(), typed(1_000, 0.6), typed(4_000, 0.2), features=TYPES, reference_version=3, limits=LIMITS
    )
    assert set(report.drifted_features) == set(TYPES)


def test_too_few_rows_are_not_judged(reference: pd.DataFrame) -> None:
    few = scored(contract.synthesize(LIMITS.min_rows - 1, 2))
    report = detected(few.assign(temperature_c=200.0), reference, baseline=reference)
    assert not report.is_sufficient
    assert report.columns == ()
    assert report.feature_drift_ratio is None
    assert not report.dataset_drift_detected
    assert report.baseline_drifted_features == ()


def test_where_nothing_can_be_compared_only_missing_rates_speak(reference: pd.DataFrame) -> None:
    nothing = pd.DataFrame(np.nan, index=range(300), columns=[*contract.feature_names, PROBABILITY])
    report = detected(nothing, reference)
    assert all(column.is_missing_rate_drifted and not column.is_drifted for column in report.columns)
    unchanged = detected(nothing, nothing)
    assert unchanged.drifted_features == ()


def mixed(n_calm: int, n_hot: int) -> pd.DataFrame:
    """Calm rows and then shifted ones, or the other way round with negative numbers of calm rows."""
    calm = contract.synthesize(abs(n_calm), 5)
    hot, _ = overheating(
        contract.synthesize(n_hot, 6)[list(contract.input_names)],
        np.zeros(n_hot, dtype=np.int64),
        np.random.default_rng(4),
    )
    parts = [calm[list(contract.input_names)], hot]
    return scored(pd.concat(parts if n_calm > 0 else parts[::-1], ignore_index=True))


def drift_of(current: pd.DataFrame, recent: pd.DataFrame | None, reference: pd.DataFrame, name: str) -> ColumnDrift:
    thresholds = derive_thresholds(reference, [*contract.feature_names, PROBABILITY], LIMITS.n_ticks)
    (compared,) = compare_columns([name], current, reference, recent, thresholds, LIMITS)
    return compared.drift()


def test_a_fresh_shift_is_seen_in_the_newest_rows_however_long_it_was_calm(reference: pd.DataFrame) -> None:
    current = mixed(6_000, 300)
    assert not drift_of(current, None, reference, "temperature_c").is_drifted
    column = drift_of(current, current.tail(300), reference, "temperature_c")
    assert column.is_drifted
    assert column.n_rows == 300


def test_a_shift_is_over_once_the_newest_rows_are_as_before(reference: pd.DataFrame) -> None:
    current = mixed(-500, 1_000)
    assert drift_of(current, None, reference, "temperature_c").is_drifted
    assert not drift_of(current, current.tail(500), reference, "temperature_c").is_drifted


def test_a_shift_that_only_many_rows_show_is_not_over_because_few_do_not_show_it(reference: pd.DataFrame) -> None:
    rows = contract.synthesize(3_000, 5)
    current = scored(rows.assign(temperature_c=rows["temperature_c"] + 0.2 * rows["temperature_c"].std()))
    assert drift_of(current, None, reference, "temperature_c").is_drifted
    few = drift_of(current.tail(250), None, reference, "temperature_c")
    assert not few.is_drifted
    assert drift_of(current, current.tail(250), reference, "temperature_c").is_drifted


def test_a_missing_rate_is_looked_at_in_both_windows(reference: pd.DataFrame) -> None:
    calm = scored(contract.synthesize(6_000, 5))
    gaps = calm.copy()
    gaps.loc[gaps.index[-60:], "restarts"] = np.nan
    assert not drift_of(gaps, None, reference, "restarts").is_missing_rate_drifted
    fresh = drift_of(gaps, gaps.tail(300), reference, "restarts")
    assert (fresh.is_missing_rate_drifted, fresh.current_missing_pct) == (True, 20.0)
    healed = calm.copy()
    healed.loc[healed.index[:1_000], "restarts"] = np.nan
    assert drift_of(healed, None, reference, "restarts").is_missing_rate_drifted
    assert not drift_of(healed, healed.tail(500), reference, "restarts").is_missing_rate_drifted


def test_what_columns_are_called_changes_nothing(reference: pd.DataFrame) -> None:
    rows = scored(contract.synthesize(1_000, 2).assign(load_ratio=lambda frame: frame["load_ratio"] * 1.5))
    others = dict(zip(contract.feature_names, ("target", "id", "datetime", "index"), strict=True))
    usual = detected(rows, reference)
    renamed = detect_drift(
        window(),
        rows.rename(columns=others),
        reference.rename(columns=others),
        features=tuple(others.values()),
        reference_version=3,
        limits=LIMITS,
        baseline=None,
        feed_problems=("told by the feed check",),
    )
    back = {new: old for old, new in others.items()}
    found = [dataclasses.replace(one, column=back.get(one.column, one.column)) for one in renamed.columns]
    assert found == list(usual.columns)
    assert "load_ratio" in usual.drifted_features


def test_machines_that_send_ten_rows_each_have_not_drifted(reference: pd.DataFrame) -> None:
    """Their rows as if alone differ from the reference in most windows, and a classifier remembers them."""
    is_drifted = {"entities": 0, "rows": 0}
    for seed in range(10, 20):
        visits = np.random.default_rng(seed).permutation(np.repeat(np.arange(40), 50))
        rows = scored(contract.synthesize(40, seed)).iloc[visits].reset_index(drop=True)
        is_drifted["rows"] += bool(detected(rows, reference).drifted_features)
        report = detected(PreparedRows(rows, visits), reference)
        is_drifted["entities"] += bool(report.drifted_features) or report.is_multivariate_drifted
    assert is_drifted["rows"] > 5
    assert is_drifted["entities"] == 0


def test_what_came_and_went_before_is_no_drift_and_stays_in_the_report(reference: pd.DataFrame) -> None:
    rows = contract.synthesize(1_000, 2)
    shifted = scored(rows.assign(load_ratio=rows["load_ratio"] + 0.5))
    end = window().end
    first = detected(shifted, reference, calm=Calm(SeasonMemory(end - timedelta(days=40))))
    assert first.drifted_features
    assert first.seasons is not None
    known = replace(
        first.seasons,
        excursions=tuple(
            replace(one, is_over=True, n_known=1, known_effect=one.effect, known_seconds=3_600.0)
            for one in first.seasons.excursions
        ),
    )
    again = detected(shifted, reference, calm=Calm(known))
    assert (again.drifted_features, again.feature_drift_ratio, again.is_multivariate_drifted) == ((), 0.0, False)
    assert len(again.explained) >= len(first.drifted_features)


def test_the_report_says_what_rows_that_were_sent_again_are_worth(reference: pd.DataFrame) -> None:
    rows = scored(contract.synthesize(700, 2))
    once, again = rows, pd.concat([rows, rows.head(300)], ignore_index=True)
    found = [detected(PreparedRows(sent, row_clusters(sent, contract)), reference).copies for sent in (once, again)]
    assert found == [1.0, pytest.approx(1.6)]


def test_the_newest_rows_are_not_remembered_as_calm_where_they_are_the_only_ones(reference: pd.DataFrame) -> None:
    """With 500 rows or fewer the look-back alone is compared, and a window without a known value only for missing ones."""
    end = window().end
    begun = tuple(
        Excursions(name, of, "higher", end - timedelta(hours=20), end - timedelta(hours=12), is_reported=True)
        for name in ("load_ratio", "restarts")
        for of in (LOOKBACK, NEWEST)
    )
    calm = Calm(SeasonMemory(end - timedelta(days=40), end - timedelta(hours=1), begun))
    rows = scored(contract.synthesize(400, 2)).assign(restarts=np.nan)
    found = detected(rows, reference, calm=calm).seasons
    assert found is not None
    is_over = {(one.column, one.window): one.is_over for one in found.excursions if one.direction == "higher"}
    assert is_over == {
        ("load_ratio", LOOKBACK): True,
        ("load_ratio", NEWEST): False,
        ("restarts", LOOKBACK): False,
        ("restarts", NEWEST): False,
    }
