"""Drift of each feature and of the predicted probability against a frozen reference.

The tests are those of `selfheal.domain.monitoring.shift`, the thresholds those of `selfheal.domain.monitoring.thresholds`. A
column has drifted if its shift is significant under the false-alarm budget *and* material. Missing rates are tested separately
from values. Rendering the comparison for people belongs to `selfheal.services.reports`.

Each tick evaluates two windows. The whole look-back detects small shifts. Its newest rows detect a new shift before it
dominates the look-back, and detect its end before the last shifted row has left the look-back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal.domain.monitoring.multivariate import MATERIAL_AUC, DomainCheck, domain_check
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.shift import Distances, Sample, column_shift, distances, ks_distance, share_p_value
from selfheal.domain.monitoring.thresholds import Thresholds, derive_thresholds
from selfheal.domain.records import ColumnDrift, DriftReport, Window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pandas as pd

    from selfheal.domain.contract import FloatArray

PROBABILITY = "probability"
METHOD = "selfheal_shift"
"""Name of the test in the records: the smaller of the Kolmogorov-Smirnov and the rank-sum p-value, doubled."""

RECENT_ROWS = 500
"""Number of newest rows that form the second window."""

DATASET_DRIFT_SHARE = 0.5
"""Share of drifted features from which the data set as a whole counts as drifted (Evidently's own default)."""

MATERIAL_MISSING_POINTS = 5.0
"""Smallest material change of a missing rate, in percentage points: a significant change of 0.1 does not matter."""

LONG_TERM_DISTANCE = 0.1
"""KS distance from the first baseline that is reported to people; it decides nothing."""

RETURN_LEVEL = 0.001
"""Level at which the newest rows must differ from the window's, and be closer to the reference, for a shift to be over."""


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """What counts as drift.

    Args:
        n_ticks: number of ticks in which one false alarm is expected at most.
        min_effect: smallest distance (`Shift.effect`) that is material.
        min_rows: smallest sufficient number of current rows.
    """

    n_ticks: float
    min_effect: float
    min_rows: int


def detect_drift(
    window: Window,
    current: pd.DataFrame | PreparedRows,
    reference: pd.DataFrame | PreparedRows,
    *,
    features: Sequence[str],
    reference_version: int,
    limits: DriftLimits,
    recent: pd.DataFrame | PreparedRows | None = None,
    baseline: pd.DataFrame | PreparedRows | None = None,
    feed_problems: tuple[str, ...] = (),
    feed_checked_since: datetime | None = None,
    seed: int = 0,
) -> DriftReport:
    """Compare the window's rows with the serving version's reference (decides) and the first baseline (informs).

    For a column without any value on one side only the missing rate is compared.

    Args:
        current: the features and `probability` of the window, one row per prediction.
        reference: the same columns, frozen with the model, in chronological order.
        recent: the window's newest `RECENT_ROWS` rows, likewise; None if `current` has no more rows than that.
        baseline: the features of the first baseline, for long-term drift, which decides nothing; None leaves it out.
        feed_problems: what `selfheal.domain.monitoring.feed` found, passed on to triage.
        feed_checked_since: time of the oldest row in which the feed was checked.
        seed: of the domain classifier.
    """
    domain: DomainCheck | None = None
    level = 0.0
    columns: tuple[ColumnDrift, ...] = ()
    names = [*features, PROBABILITY]
    now, then = PreparedRows.of(current), PreparedRows.of(reference)
    if len(now) >= limits.min_rows:
        thresholds = derive_thresholds(then, names, limits.n_ticks)
        columns = drift_of_columns(names, now, then, recent, thresholds, limits)
        once, once_then = now.newest_of_each_entity(), then.newest_of_each_entity()
        is_enough = min(len(once), len(once_then)) >= limits.min_rows
        domain = domain_check(once, once_then, features, seed) if is_enough else None
        level = thresholds.level
    return drift_report(
        window,
        columns,
        n_current=len(now),
        n_reference=len(then),
        n_features=len(features),
        reference_version=reference_version,
        limits=limits,
        feed_problems=feed_problems,
        feed_checked_since=feed_checked_since,
        domain=domain,
        domain_level=level,
        baseline_drifted_features=()
        if baseline is None or not columns
        else _moved_since(now, PreparedRows.of(baseline), features),
    )


def _moved_since(current: PreparedRows, baseline: PreparedRows, features: Sequence[str]) -> tuple[str, ...]:
    """Return the features that are far from the first baseline."""
    return tuple(
        name for name in features if ks_distance(current.sample(name), baseline.sample(name)) >= LONG_TERM_DISTANCE
    )


def drift_of_columns(
    names: Sequence[str],
    current: pd.DataFrame | PreparedRows,
    reference: pd.DataFrame | PreparedRows,
    recent: pd.DataFrame | PreparedRows | None,
    thresholds: Thresholds,
    limits: DriftLimits,
) -> tuple[ColumnDrift, ...]:
    """Apply `column_drift` to each name."""
    now, then = PreparedRows.of(current), PreparedRows.of(reference)
    has_more = recent is not None and limits.min_rows <= len(recent) < len(now)
    newest = PreparedRows.of(recent) if has_more and recent is not None else None
    return tuple(
        _column_drift(
            name,
            now.distances(name, then),
            None if newest is None else newest.distances(name, then),
            thresholds,
            limits,
        )
        for name in names
    )


def drift_report(
    window: Window,
    columns: tuple[ColumnDrift, ...],
    *,
    n_current: int,
    n_reference: int,
    n_features: int,
    reference_version: int,
    limits: DriftLimits,
    feed_problems: tuple[str, ...] = (),
    feed_checked_since: datetime | None = None,
    baseline_drifted_features: tuple[str, ...] = (),
    domain: DomainCheck | None = None,
    domain_level: float = 0.0,
) -> DriftReport:
    """Combine the columns into one report. `domain_level` is the level of the test of all columns at once."""
    is_sufficient = n_current >= limits.min_rows
    n_drifted = sum(1 for c in columns if c.column != PROBABILITY and (c.is_drifted or c.is_missing_rate_drifted))
    ratio = n_drifted / n_features if is_sufficient else None
    return DriftReport(
        window=window,
        reference_version=reference_version,
        n_reference=n_reference,
        n_current=n_current,
        columns=columns,
        feature_drift_ratio=ratio,
        dataset_drift_detected=ratio is not None and ratio >= DATASET_DRIFT_SHARE,
        is_sufficient=is_sufficient,
        feed_problems=feed_problems,
        feed_checked_since=feed_checked_since,
        baseline_drifted_features=baseline_drifted_features,
        domain_auc=None if domain is None else domain.auc,
        domain_p_value=None if domain is None else domain.p_value,
        is_multivariate_drifted=domain is not None and domain.p_value < domain_level and domain.auc >= MATERIAL_AUC,
    )


def column_drift(
    name: str,
    current: FloatArray,
    reference: FloatArray,
    recent: FloatArray | None,
    thresholds: Thresholds,
    limits: DriftLimits,
) -> ColumnDrift:
    """Compare one column of the window and of its newest rows (None: the window has no more) with the reference.

    A shift in either counts as drift, unless the newest rows show that the window's shift is over.
    """
    then = Sample.of(reference)
    newest = None if recent is None else distances(recent, then)
    return _column_drift(name, distances(current, then), newest, thresholds, limits)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One column in one window. A p-value is computed only where the effect is material."""

    distances: Distances
    is_drifted: bool
    is_missing_drifted: bool

    @classmethod
    def of(cls, name: str, found: Distances, thresholds: Thresholds, limits: DriftLimits) -> _Comparison:
        points = abs(found.current.missing_pct - found.reference.missing_pct)
        return cls(
            found,
            is_drifted=found.effect >= limits.min_effect and found.p_value < thresholds.of_values[name],
            is_missing_drifted=points >= MATERIAL_MISSING_POINTS
            and _missing_p_value(found.current, found.reference) < thresholds.of_missing_rates[name],
        )

    @property
    def missing_pct(self) -> float:
        return self.distances.current.missing_pct


def _missing_p_value(current: Sample, reference: Sample) -> float:
    worth = [n / side.copies for side in (current, reference) for n in (side.n_missing, side.n_rows)]
    return share_p_value(*worth)


def _column_drift(
    name: str, current: Distances, recent: Distances | None, thresholds: Thresholds, limits: DriftLimits
) -> ColumnDrift:
    then = current.reference
    reference_missing_pct = 100.0 * (then.n_missing / then.n_rows)
    whole = _Comparison.of(name, current, thresholds, limits)
    newest = whole if recent is None else _Comparison.of(name, recent, thresholds, limits)
    is_drifted = whole.is_drifted and (recent is None or not _has_returned(whole, newest))
    is_missing_drifted = whole.is_missing_drifted and not _has_returned_missing(whole, newest, reference_missing_pct)
    shown = newest if newest.is_drifted and not is_drifted else whole
    return ColumnDrift(
        column=name,
        method=METHOD,
        p_value=shown.distances.p_value,
        threshold=thresholds.of_values[name],
        effect=shown.distances.effect,
        is_drifted=is_drifted or newest.is_drifted,
        reference_missing_pct=reference_missing_pct,
        current_missing_pct=newest.missing_pct if newest.is_missing_drifted else whole.missing_pct,
        is_missing_rate_drifted=is_missing_drifted or newest.is_missing_drifted,
        ks_distance=shown.distances.ks_distance,
        rank_shift=shown.distances.rank_shift,
        n_rows=shown.distances.current.n_rows,
    )


def _has_returned(whole: _Comparison, newest: _Comparison) -> bool:
    is_closer = newest.distances.effect < whole.distances.effect / 2
    return is_closer and column_shift(newest.distances.current, whole.distances.current).p_value < RETURN_LEVEL


def _has_returned_missing(whole: _Comparison, newest: _Comparison, reference_pct: float) -> bool:
    is_closer = abs(newest.missing_pct - reference_pct) < abs(whole.missing_pct - reference_pct) / 2
    return is_closer and _missing_p_value(newest.distances.current, whole.distances.current) < RETURN_LEVEL
