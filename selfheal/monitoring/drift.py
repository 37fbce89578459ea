"""Drift of each feature and of the predicted probability against a frozen reference.

Evidently computes; the thresholds are ours, derived from a false-alarm budget. A column is drifted if its shift is
significant under the budget *and* material. Missing values are a channel of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.records import ColumnDrift, DriftReport, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from selfheal.contract import FloatArray

PROBABILITY = "probability"
METHOD = "ks"
DATASET_DRIFT_SHARE = 0.5
"""Share of drifted features from which the data set as a whole counts as drifted (Evidently's own default)."""

MATERIAL_MISSING_POINTS = 5.0
"""A missing rate must also move by so many percentage points: a significant 0.1 is nobody's business."""


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """What counts as drift.

    Args:
        n_ticks: looks that share one false alarm.
        min_effect: smallest KS distance that is material.
        min_rows: fewer current rows than this are insufficient.
    """

    n_ticks: float
    min_effect: float
    min_rows: int

    def significance(self, n_columns: int) -> float:
        """Level of one test: one expected false alarm shared by all ticks, columns and both channels (Bonferroni)."""
        return 1.0 / (self.n_ticks * n_columns * 2)


@dataclass(frozen=True)
class DriftResult:
    """The record, and Evidently's snapshot to render a page from (None if there was nothing to compare)."""

    report: DriftReport
    snapshot: Any | None


def detect_drift(
    window: Window,
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    features: Sequence[str],
    reference_version: int,
    limits: DriftLimits,
    baseline: pd.DataFrame | None = None,
    feed_problems: tuple[str, ...] = (),
) -> DriftResult:
    """Compares the window's rows with the serving version's reference (acts) and the first baseline (informs).

    A column without any value on one side has no values to compare (Evidently refuses it): only its missing rate speaks.

    Args:
        current: the features and `probability` of the window, one row a prediction.
        reference: the same columns, frozen with the model.
        baseline: the features of the first baseline, for long-term drift.
        feed_problems: what `selfheal.monitoring.feed` found, carried along for triage.
    """
    is_sufficient = len(current) >= limits.min_rows
    columns: tuple[ColumnDrift, ...] = ()
    snapshot = None
    long_term: tuple[str, ...] = ()
    if is_sufficient:
        names = [*features, PROBABILITY]
        level = limits.significance(len(names))
        known = [name for name in names if current[name].notna().any() and reference[name].notna().any()]
        snapshot = run_evidently(current[known], reference[known], level) if known else None
        p_values = evidently_p_values(snapshot, known) if known else {}
        columns = tuple(
            _column_drift(
                name, current[name].to_numpy(), reference[name].to_numpy(), p_values.get(name, 1.0), level, limits
            )
            for name in names
        )
        if baseline is not None:
            long_term = tuple(
                name
                for name in features
                if ks_distance(current[name].to_numpy(), baseline[name].to_numpy()) >= limits.min_effect
            )
    n_drifted = sum(1 for c in columns if c.column != PROBABILITY and (c.is_drifted or c.is_missing_rate_drifted))
    ratio = n_drifted / len(features) if is_sufficient else None
    report = DriftReport(
        window=window,
        reference_version=reference_version,
        n_reference=len(reference),
        n_current=len(current),
        columns=columns,
        feature_drift_ratio=ratio,
        dataset_drift_detected=ratio is not None and ratio >= DATASET_DRIFT_SHARE,
        is_sufficient=is_sufficient,
        feed_problems=feed_problems,
        baseline_drifted_features=long_term,
    )
    return DriftResult(report, snapshot)


def run_evidently(current: pd.DataFrame, reference: pd.DataFrame, level: float) -> Any:
    """Evidently's drift preset with the same method and our level for every column."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = list(current.columns)
    definition = DataDefinition(numerical_columns=names)
    preset = DataDriftPreset(
        columns=names,
        drift_share=DATASET_DRIFT_SHARE,
        per_column_method=dict.fromkeys(names, METHOD),
        per_column_threshold=dict.fromkeys(names, level),
    )
    return Report([preset]).run(
        Dataset.from_pandas(current, data_definition=definition),
        Dataset.from_pandas(reference, data_definition=definition),
    )


def evidently_p_values(snapshot: Any, names: Sequence[str]) -> dict[str, float]:
    """Each column's p-value in a snapshot of `run_evidently`."""
    found = {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if "column" in metric.get("config", {})
    }
    return {name: found[name] for name in names}


def ks_distance(current: FloatArray, reference: FloatArray) -> float:
    """Largest difference of the two empirical distribution functions, missing values left out; 0 if a side is empty.

    Range 0 to 1. Kolmogorov (1933), Smirnov (1939).

    >>> ks_distance(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    1.0
    """
    a, b = np.sort(current[~np.isnan(current)]), np.sort(reference[~np.isnan(reference)])
    if not len(a) or not len(b):
        return 0.0
    points = np.concatenate([a, b])
    difference = np.searchsorted(a, points, side="right") / len(a) - np.searchsorted(b, points, side="right") / len(b)
    return float(np.abs(difference).max())


def proportion_p_value(k_a: int, n_a: int, k_b: int, n_b: int) -> float:
    """Two-sided p-value that two shares are equal: pooled z-test, with a continuity correction.

    >>> proportion_p_value(0, 100, 0, 100)
    1.0
    """
    if n_a == 0 or n_b == 0 or k_a + k_b in {0, n_a + n_b}:
        return 1.0
    pooled = (k_a + k_b) / (n_a + n_b)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    difference = max(0.0, abs(k_a / n_a - k_b / n_b) - 0.5 * (1 / n_a + 1 / n_b))
    return math.erfc(difference / error / math.sqrt(2))


def _column_drift(
    name: str, current: FloatArray, reference: FloatArray, p_value: float, level: float, limits: DriftLimits
) -> ColumnDrift:
    effect = ks_distance(current, reference)
    missing_current, missing_reference = int(np.isnan(current).sum()), int(np.isnan(reference).sum())
    current_pct = 100.0 * missing_current / len(current)
    reference_pct = 100.0 * missing_reference / len(reference)
    missing_p = proportion_p_value(missing_current, len(current), missing_reference, len(reference))
    return ColumnDrift(
        column=name,
        method=METHOD,
        p_value=p_value,
        threshold=level,
        effect=effect,
        is_drifted=p_value < level and effect >= limits.min_effect,
        reference_missing_pct=reference_pct,
        current_missing_pct=current_pct,
        is_missing_rate_drifted=missing_p < level and abs(current_pct - reference_pct) >= MATERIAL_MISSING_POINTS,
    )
