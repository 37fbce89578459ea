"""Rules of drift detection: what is flagged, what is not, and what is not judged at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.monitoring.drift import (
    METHOD,
    PROBABILITY,
    DriftLimits,
    DriftResult,
    column_drift,
    detect_drift,
    evidently_p_values,
    run_evidently,
)
from selfheal.domain.monitoring.shift import column_shift
from selfheal.domain.monitoring.thresholds import derive_thresholds
from selfheal.domain.records import ColumnDrift
from selfheal.services.reports.files import save_evidently
from tests.builders import window
from tests.toy_use_case import contract, overheating

LIMITS = DriftLimits(n_ticks=90 * 288, min_effect=0.1, min_rows=200)


def scored(inputs: pd.DataFrame) -> pd.DataFrame:
    """All features and some probability that depends on them."""
    features = contract.feature_frame(inputs)
    return features.assign(probability=1 / (1 + np.exp(2.0 - features["load_ratio"] - features["restarts"] / 2)))


def detected(current: pd.DataFrame, reference: pd.DataFrame, baseline: pd.DataFrame | None = None) -> DriftResult:
    return detect_drift(
        window(),
        current,
        reference,
        features=contract.feature_names,
        reference_version=3,
        limits=LIMITS,
        baseline=baseline,
        feed_problems=("told by the feed check",),
    )


def by_name(result: DriftResult) -> dict[str, ColumnDrift]:
    return {column.column: column for column in result.report.columns}


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return scored(contract.synthesize(4_000, 1))


def test_other_rows_of_the_same_world_have_not_drifted(reference: pd.DataFrame) -> None:
    report = detected(scored(contract.synthesize(1_000, 2)), reference, baseline=reference).report
    assert report.is_sufficient
    assert report.drifted_features == ()
    assert report.feature_drift_ratio == 0.0
    assert not report.dataset_drift_detected
    assert report.baseline_drifted_features == ()
    assert [column.column for column in report.columns] == [*contract.feature_names, PROBABILITY]
    assert (report.n_current, report.n_reference, report.reference_version) == (1_000, 4_000, 3)
    assert report.feed_problems == ("told by the feed check",)


def test_what_has_shifted_is_flagged_each_in_its_channel(reference: pd.DataFrame, tmp_path: Path) -> None:
    """Shifted values, a risen missing rate, a column without any value: one comparison, since Evidently is slow."""
    rows = contract.synthesize(1_000, 2)
    rng = np.random.default_rng(3)
    hot, _ = overheating(rows[list(contract.input_names)], np.zeros(1_000, dtype=np.int64), rng)
    current = scored(hot)
    current.loc[rng.random(1_000) < 0.3, "load_ratio"] = np.nan
    current["restarts"] = np.nan
    result = detected(current, reference, baseline=reference)
    columns = by_name(result)

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

    report = result.report
    assert set(report.drifted_features) == set(contract.feature_names)
    assert report.feature_drift_ratio == 1.0
    assert report.dataset_drift_detected
    assert report.baseline_drifted_features == ("temperature_c", "strain")
    page = save_evidently(result, tmp_path / "reports", "page")
    html = page.read_text()
    assert html.lstrip().startswith("<")
    assert result.left_out == ("restarts",), "Evidently refuses a column without any value"
    assert "<b>Not on this page:</b> restarts." in html
    assert '<a href="page-overview.html">overview</a>' in html
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["page.html"]


TYPES = ["uint8", "uint64", "int32", "float32", "Int64", "Float64", "boolean", "bool"]


def test_a_column_is_judged_and_shown_whatever_its_type(reference: pd.DataFrame) -> None:
    """A derivation may return any; Evidently fails on nullable and boolean columns, or leaves them out."""
    rng = np.random.default_rng(5)

    def typed(n_rows: int, share: float) -> pd.DataFrame:
        flags = rng.random(n_rows) < share
        frame = pd.DataFrame({kind: pd.Series(flags).astype(kind) for kind in TYPES})
        return frame.assign(probability=rng.random(n_rows))

    result = detect_drift(
        window(), typed(1_000, 0.6), typed(4_000, 0.2), features=TYPES, reference_version=3, limits=LIMITS
    )
    assert set(result.report.drifted_features) == set(TYPES)
    assert result.left_out == ()


def test_too_few_rows_are_not_judged(reference: pd.DataFrame) -> None:
    few = scored(contract.synthesize(LIMITS.min_rows - 1, 2))
    result = detected(few.assign(temperature_c=200.0), reference, baseline=reference)
    assert result.snapshot is None
    assert not result.report.is_sufficient
    assert result.report.columns == ()
    assert result.report.feature_drift_ratio is None
    assert not result.report.dataset_drift_detected
    assert result.report.baseline_drifted_features == ()


def test_where_nothing_can_be_compared_only_missing_rates_speak(reference: pd.DataFrame) -> None:
    nothing = pd.DataFrame(np.nan, index=range(300), columns=[*contract.feature_names, PROBABILITY])
    result = detected(nothing, reference)
    assert result.snapshot is None
    assert all(column.is_missing_rate_drifted and not column.is_drifted for column in result.report.columns)
    unchanged = detected(nothing, nothing)
    assert unchanged.report.drifted_features == ()


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
    values = [None if rows is None else rows[name].to_numpy() for rows in (current, reference, recent)]
    return column_drift(name, *values, thresholds, LIMITS)  # type: ignore[arg-type]


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


def test_evidently_is_given_our_test_and_threshold_for_each_column(reference: pd.DataFrame) -> None:
    current = mixed(400, 200)[["temperature_c", "restarts"]]
    thresholds = derive_thresholds(reference, ["temperature_c", "restarts"], LIMITS.n_ticks)
    snapshot = run_evidently(current, reference[list(current)], thresholds)
    told = {
        metric["config"]["column"]: metric["config"]
        for metric in snapshot.dict()["metrics"]
        if "column" in metric["config"]
    }
    for name, p_value in evidently_p_values(snapshot).items():
        assert p_value == column_shift(current[name].to_numpy(), reference[name].to_numpy()).p_value
        assert (told[name]["method"], told[name]["threshold"]) == (METHOD, thresholds.of_values[name])


def test_what_columns_are_called_changes_nothing_even_where_evidently_gives_names_a_meaning(
    reference: pd.DataFrame,
) -> None:
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
    found = [dataclasses.replace(one, column=back.get(one.column, one.column)) for one in renamed.report.columns]
    assert found == list(usual.report.columns)
    assert "load_ratio" in usual.report.drifted_features
    assert (renamed.snapshot is None) == (usual.snapshot is None)
