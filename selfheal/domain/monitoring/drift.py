"""Drift of each feature and of the predicted probability against a frozen reference.

The tests are those of `selfheal.domain.monitoring.shift` (of a category: `.category_shift`), the thresholds those of
`selfheal.domain.monitoring.thresholds`. A column has drifted if its shift is significant under the false-alarm budget *and*
material. Missing rates are tested separately from values. Rendering the comparison for people belongs to `selfheal.services.reports`.

Each tick evaluates two windows. The whole look-back detects small shifts. Its newest rows detect a new shift before it
dominates the look-back, and detect its end before the last shifted row has left the look-back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeGuard

from selfheal.domain.monitoring.category_shift import CategoryDistances
from selfheal.domain.monitoring.declared_moves import DeclaredMoves
from selfheal.domain.monitoring.multivariate import MATERIAL_AUC, MAX_DOMAIN_ROWS, DomainCheck, domain_check
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.seasons import (
    ALL_COLUMNS,
    FEWER_MISSING,
    MISSING,
    MORE_MISSING,
    Calm,
    Channel,
    Explained,
    Kind,
    Move,
    Position,
    explain,
    margin,
)
from selfheal.domain.monitoring.shift import Distances, Sample, column_shift, ks_distance, share_p_value
from selfheal.domain.monitoring.thresholds import Thresholds, derive_thresholds
from selfheal.domain.records import ColumnDrift, DriftReport, Window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pandas as pd

PROBABILITY = "probability"
METHOD = "selfheal_shift"
"""Name of the test in the records: the smaller of the Kolmogorov-Smirnov and the rank-sum p-value, doubled."""

METHOD_OF_LEVELS = "selfheal_levels"
"""Likewise for a category: the smaller of the p-values of single levels and of all levels together, doubled."""

RECENT_ROWS = 500
"""Number of newest rows that form the second window."""

DATASET_DRIFT_SHARE = 0.5
"""Share of drifted features from which the data set as a whole counts as drifted (Evidently's own default)."""

MATERIAL_MISSING_POINTS = 5.0
"""Smallest material change of a missing rate, in percentage points: a significant change of 0.1 does not matter."""

LOOKBACK, NEWEST = "look-back", "newest rows"
"""Names of the two windows in what is remembered of seasons."""

TOGETHER = Kind(ALL_COLUMNS, LOOKBACK, "apart")
"""What the domain classifier finds to have moved."""

NOTHING_EXPLAINED = Explained()

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
    calm: Calm | None = None,
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
        calm: what is known of the version's traffic before; None explains nothing and remembers nothing.
    """
    domain: DomainCheck | None = None
    level = 0.0
    columns: tuple[ColumnDrift, ...] = ()
    found = Explained(memory=None if calm is None else calm.memory)
    names = [*features, PROBABILITY]
    now, then = PreparedRows.of(current), PreparedRows.of(reference)
    if len(now) >= limits.min_rows:
        thresholds = derive_thresholds(then, names, limits.n_ticks)
        compared = compare_columns(names, now, then, recent, thresholds, limits)
        level = thresholds.level
        check = DomainTest(now.newest_of_each_entity(), then.newest_of_each_entity(), level, seed)
        domain = check.of(features) if check.n_rows >= limits.min_rows else None
        if calm is not None:
            domain, found = _explain(compared, features, calm, window.end, domain, check)
        columns = tuple(one.drift(found.sentences) for one in compared)
    return drift_report(
        window,
        columns,
        found=found,
        copies=now.copies,
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


@dataclass(frozen=True, slots=True)
class DomainTest:
    """The domain classifier on one row of each entity of both sides."""

    current: PreparedRows
    reference: PreparedRows
    level: float
    seed: int

    @property
    def n_rows(self) -> int:
        """Return the number of rows of the smaller side."""
        return min(len(self.current), len(self.reference))

    def of(self, columns: Sequence[str]) -> DomainCheck:
        """Return how far a classifier tells the two sides apart by these columns."""
        return domain_check(self.current, self.reference, columns, self.seed)

    def is_apart(self, domain: DomainCheck | None) -> TypeGuard[DomainCheck]:
        """Return whether it does so significantly and materially."""
        return domain is not None and _is_apart(domain, self.level)

    def move(self, domain: DomainCheck) -> Move:
        """Return the move of all columns together, from the rows that each side gave the classifier."""
        n_now, n_then = (min(len(side), MAX_DOMAIN_ROWS) / 2 for side in (self.current, self.reference))
        return Move(TOGETHER, 2 * domain.auc - 1, margin(n_now, n_then, self.level))


def _explain(
    compared: Sequence[ComparedColumn],
    features: Sequence[str],
    calm: Calm,
    now: datetime,
    domain: DomainCheck | None,
    test: DomainTest,
) -> tuple[DomainCheck | None, Explained]:
    """Explain what has moved. Where a declared column has, the classifier is asked again without what is computed from it."""
    moved = [one.name for one in compared if one.name in calm.declared and one.has_moved]
    declared = DeclaredMoves.of(calm, moved, PROBABILITY)
    together: dict[Kind, str] = {}
    if declared.moved and test.is_apart(domain):
        others = declared.others(features)
        rest = test.of(others) if others else None
        if not test.is_apart(rest):
            together = {TOGETHER: declared.together(None if rest is None else rest.auc)}
        domain = rest or domain
    moves = [move for one in compared for move in one.moves()]
    if test.is_apart(domain) and not together:
        moves.append(test.move(domain))
    positions = [position for one in compared for position in one.positions()]
    channels = {channel for one in compared for channel in one.channels()}
    channels |= set() if domain is None or together else {TOGETHER.channel}
    found = explain(moves, calm, now, positions, channels, declared.following)
    return domain, replace(found, sentences={**found.sentences, **together})


def _moved_since(current: PreparedRows, baseline: PreparedRows, features: Sequence[str]) -> tuple[str, ...]:
    """Return the features that are far from the first baseline."""
    return tuple(
        name for name in features if ks_distance(current.sample(name), baseline.sample(name)) >= LONG_TERM_DISTANCE
    )


def compare_columns(
    names: Sequence[str],
    current: pd.DataFrame | PreparedRows,
    reference: pd.DataFrame | PreparedRows,
    recent: pd.DataFrame | PreparedRows | None,
    thresholds: Thresholds,
    limits: DriftLimits,
) -> tuple[ComparedColumn, ...]:
    """Compare each of these columns of the window and of its newest rows with the reference, before seasons explain anything.

    A shift in either counts as drift, unless the newest rows show that the window's shift is over.

    Args:
        recent: the newest rows; they are compared if they are enough, and the window has more.
    """
    now, then = PreparedRows.of(current), PreparedRows.of(reference)
    has_more = recent is not None and limits.min_rows <= len(recent) < len(now)
    newest = PreparedRows.of(recent) if has_more and recent is not None else None
    return tuple(
        ComparedColumn.of(
            _Comparison.of(name, now.distances(name, then), thresholds, limits),
            None if newest is None else _Comparison.of(name, newest.distances(name, then), thresholds, limits),
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
    found: Explained = NOTHING_EXPLAINED,
    copies: float = 1.0,
) -> DriftReport:
    """Combine the columns into one report.

    Args:
        domain_level: level of the test of all columns at once.
        found: which of the shifts are no drift, and what is remembered.
        copies: as in the report.
    """
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
        is_multivariate_drifted=domain is not None
        and _is_apart(domain, domain_level)
        and TOGETHER not in found.sentences,
        explained=_explained(columns, found.sentences),
        seasons=found.memory,
        copies=copies,
    )


def _is_apart(domain: DomainCheck, level: float) -> bool:
    """Return whether the domain classifier tells the window from the reference."""
    return domain.p_value < level and domain.auc >= MATERIAL_AUC


def _explained(columns: Sequence[ColumnDrift], sentences: Mapping[Kind, str]) -> tuple[str, ...]:
    """Return a sentence for each shift that is no drift."""
    together = sentences.get(TOGETHER)
    return (
        *(f"{one.column} has moved {one.explained}" for one in columns if one.explained),
        *(() if together is None else (f"the columns together have moved {together}",)),
    )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One column in one window. A p-value is computed only where the effect is material."""

    name: str
    distances: Distances | CategoryDistances
    threshold: float
    missing_threshold: float
    is_drifted: bool
    is_missing_drifted: bool

    @classmethod
    def of(
        cls, name: str, found: Distances | CategoryDistances, thresholds: Thresholds, limits: DriftLimits
    ) -> _Comparison:
        points = abs(found.current.missing_pct - found.reference.missing_pct)
        threshold, missing_threshold = thresholds.of_values[name], thresholds.of_missing_rates[name]
        return cls(
            name,
            found,
            threshold,
            missing_threshold,
            is_drifted=found.effect >= limits.min_effect and found.p_value < threshold,
            is_missing_drifted=points >= MATERIAL_MISSING_POINTS
            and _missing_p_value(found.current, found.reference) < missing_threshold,
        )

    @property
    def missing_pct(self) -> float:
        return self.distances.current.missing_pct

    def move(self, window: str) -> Move:
        """Return how far the values have moved."""
        return Move(
            Kind(self.name, window, self.distances.direction), self.distances.effect, self._margin(self.threshold)
        )

    def missing_move(self, window: str) -> Move:
        """Return how far the missing rate has moved."""
        points = self.missing_pct - self.distances.reference.missing_pct
        direction = MORE_MISSING if points > 0 else FEWER_MISSING
        return Move(Kind(self.name, window, direction), abs(points) / 100.0, self._margin(self.missing_threshold))

    def position(self, window: str) -> Position | None:
        """Return where the known values lie; None if there are none, or if they have no order."""
        now = self.distances.current
        if not now.n_known or self.is_category:
            return None
        return Position(self.name, window, self.distances.rank_shift, now.copies / (3 * now.n_known))

    @property
    def is_category(self) -> bool:
        """Return whether the column has levels, which have no order."""
        return isinstance(self.distances, CategoryDistances)

    def _margin(self, threshold: float) -> float:
        now, then = self.distances.current, self.distances.reference
        return margin(now.n_rows / now.copies, then.n_rows / then.copies, threshold)


def _missing_p_value(current: Sample, reference: Sample) -> float:
    worth = [n / side.copies for side in (current, reference) for n in (side.n_missing, side.n_rows)]
    return share_p_value(*worth)


@dataclass(frozen=True, slots=True)
class ComparedColumn:
    """One column in both windows, before seasons explain anything.

    A shift of the look-back counts unless the newest rows show that it is over. `newest` is None if the window has no more rows.
    """

    whole: _Comparison
    newest: _Comparison | None
    is_whole_drifted: bool
    is_whole_missing_drifted: bool

    @classmethod
    def of(cls, whole: _Comparison, newest: _Comparison | None) -> ComparedColumn:
        """Decide whether the look-back's shift is over."""
        return cls(
            whole,
            newest,
            is_whole_drifted=whole.is_drifted and not (newest is not None and _has_returned(whole, newest)),
            is_whole_missing_drifted=whole.is_missing_drifted
            and not (newest is not None and _has_returned_missing(whole, newest)),
        )

    @property
    def name(self) -> str:
        """Return the column's name."""
        return self.whole.name

    @property
    def has_moved(self) -> bool:
        """Return whether the values of a window differ significantly from the reference's, materially or not."""
        windows = (self.whole,) if self.newest is None else (self.whole, self.newest)
        return any(one.distances.p_value < one.threshold for one in windows)

    def moves(self) -> Iterator[Move]:
        """Yield what has shifted: values before missing rates, the look-back before the newest rows."""
        whole, newest = self.whole, self.newest
        if self.is_whole_drifted:
            yield whole.move(LOOKBACK)
        if newest is not None and newest.is_drifted:
            yield newest.move(NEWEST)
        if self.is_whole_missing_drifted:
            yield whole.missing_move(LOOKBACK)
        if newest is not None and newest.is_missing_drifted:
            yield newest.missing_move(NEWEST)

    def channels(self) -> Iterator[Channel]:
        """Yield what was compared: values only where some are known."""
        for window, one in ((LOOKBACK, self.whole), (NEWEST, self.newest)):
            if one is not None:
                yield Channel(self.name, window, is_missing_rate=True)
                if one.distances.current.n_known:
                    yield Channel(self.name, window)

    def positions(self) -> Iterator[Position]:
        """Yield where the column lies in each window, drifted or not."""
        at = [self.whole.position(LOOKBACK), None if self.newest is None else self.newest.position(NEWEST)]
        yield from (one for one in at if one is not None)

    def drift(self, explained: Mapping[Kind, str] | None = None) -> ColumnDrift:
        """Return the column's drift: what has shifted and is not explained."""
        sentences = explained or {}
        kinds = [move.kind for move in self.moves()]
        drifted = {(kind.window, kind.direction in MISSING) for kind in kinds if kind not in sentences}
        newest = self.newest or self.whole
        shown = newest if (NEWEST, False) in drifted and (LOOKBACK, False) not in drifted else self.whole
        missing = newest if (NEWEST, True) in drifted else self.whole
        return ColumnDrift(
            column=self.name,
            method=METHOD_OF_LEVELS if shown.is_category else METHOD,
            p_value=shown.distances.p_value,
            threshold=shown.threshold,
            effect=shown.distances.effect,
            is_drifted=any(not is_missing for _, is_missing in drifted),
            reference_missing_pct=self.whole.distances.reference.missing_pct,
            current_missing_pct=missing.missing_pct,
            is_missing_rate_drifted=any(is_missing for _, is_missing in drifted),
            ks_distance=shown.distances.ks_distance,
            rank_shift=shown.distances.rank_shift,
            n_rows=shown.distances.current.n_rows,
            levels=shown.distances.moves(),
            explained="; ".join(
                dict.fromkeys(f"{kind.direction} {sentences[kind]}" for kind in kinds if kind in sentences)
            ),
        )


def _has_returned(whole: _Comparison, newest: _Comparison) -> bool:
    is_closer = newest.distances.effect < whole.distances.effect / 2
    return is_closer and column_shift(newest.distances.current, whole.distances.current).p_value < RETURN_LEVEL


def _has_returned_missing(whole: _Comparison, newest: _Comparison) -> bool:
    reference_pct = whole.distances.reference.missing_pct
    is_closer = abs(newest.missing_pct - reference_pct) < abs(whole.missing_pct - reference_pct) / 2
    return is_closer and _missing_p_value(newest.distances.current, whole.distances.current) < RETURN_LEVEL
