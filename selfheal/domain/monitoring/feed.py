"""Broken-feed detection: signs that the sender has changed rather than the population.

Belongs here: changes that a faulty sender makes and a population does not: limits, missing values, constants, units, swapped
columns, repeated rows, levels under other names. What a person has declared sound (`selfheal.domain.monitoring.declarations`) is
named, and no fault.

A slice of the population (the customers of one Monday, more students than retired) also makes columns constant and flags exchange
their shares. Such values are usual ones of the column, so that they are a fault only if the other columns say so
(`selfheal.domain.monitoring.relations`); otherwise they are a shift at most, which the drift tests report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selfheal.domain.features import FLAG_WORDS
from selfheal.domain.monitoring.declarations import ROWS
from selfheal.domain.monitoring.feed_levels import faults_of_levels
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.relations import (
    MIN_SLICE_ROWS,
    have_exchanged_relations,
    keeps_no_relation,
    slice_size,
)
from selfheal.domain.monitoring.shift import Sample, column_shift, share_p_value
from selfheal.domain.records import DriftReport, SpoiledPeriod

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.features import Kind

MISSING_JUMP_POINTS = 15.0
"""Rise of a missing rate, in percentage points, that indicates a faulty sender rather than a changed population."""

UNIT_JUMP_FACTOR = 20.0
"""Ratio of medians that indicates another unit (cents, months, thousands); populations differ by smaller factors."""

UNIT_FACTORS = (7.0, 10.0, 12.0)
"""Smaller factors between units (days per week, decimal point, months per year); they count only if they explain the whole
difference."""

REPEATED_POINTS = 60.0
"""Rise, in percentage points, of the share of rows that repeat another one: more than two rows of each kind then, which no
client that retries explains; one that sends everything twice makes just 50."""

SURE = 1e-6
"""Level at which rows certainly differ from the reference; small, because there are many overlapping checks."""

ALIKE = 1e-4
"""Level below which a difference counts; rows that differ neither at it nor by `ALIKE_EFFECT` may be of one population."""

ALIKE_EFFECT = 0.1

MAX_CODES = 53
"""Largest number of distinct values of a column of codes, each of which is a usual one: the weeks of a year, the longest calendar
field that a row carries."""

USUAL_SHARE = 0.05
"""Share of the reference's rows from which a value of any other column is a usual one."""

DISTINCT_SHARE = 0.01
MAX_ALIKE_SHAPES = 5
"""Number of values that at least `DISTINCT_SHARE` of the reference's rows have, up to which two columns' shapes match by chance:
a flag has but one share."""

MIN_ROWS = 50
"""Smallest number of rows from which a feed is judged."""


def feed_problems(
    current: pd.DataFrame | PreparedRows, reference: pd.DataFrame | PreparedRows, contract: ModelContract
) -> tuple[str, ...]:
    """Return what is broken in the raw inputs, one sentence per problem; empty if nothing is or there are too few rows.

    Args:
        current: the newest rows only, so that a repaired feed counts as sound as soon as possible.
        reference: rows of a sound feed.
    """
    return check_feed(current, reference, contract, {}).problems


class FeedFindings(NamedTuple):
    """What a check found: `problems`, and with who and why those that a person has declared to be none (`accepted`).

    `columns` are those, or `ROWS`, that the problems are about.
    """

    problems: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def check_feed(
    current: pd.DataFrame | PreparedRows,
    reference: pd.DataFrame | PreparedRows,
    contract: ModelContract,
    sound: Mapping[str, str],
) -> FeedFindings:
    """Return what looks broken in the raw inputs (`feed_problems`), and what of it is declared sound.

    Args:
        sound: inputs (or `ROWS`) in which no finding is a fault, each with who declared it, and why. One about two columns is a
            fault unless both are.
    """
    if len(current) < MIN_ROWS or len(reference) < MIN_ROWS:
        return FeedFindings()
    problems, accepted = [], []
    broken: dict[str, None] = {}
    for columns, sentence in _findings(PreparedRows.of(current), PreparedRows.of(reference), contract):
        if all(name in sound for name in columns):
            accepted.append(f"{sentence} ({'; '.join(sound[name] for name in columns)})")
        else:
            problems.append(sentence)
            broken |= dict.fromkeys(columns)
    return FeedFindings(tuple(problems), tuple(accepted), tuple(broken))


class _Finding(NamedTuple):
    """A sign of a fault, and the inputs that show it; `ROWS` if whole rows do."""

    columns: tuple[str, ...]
    sentence: str


def _findings(now: PreparedRows, then: PreparedRows, contract: ModelContract) -> Iterator[_Finding]:
    for feature in contract.inputs:
        name = feature.name
        checks = [_missing_jump(name, now.sample(name), then.sample(name))]
        if feature.kind == "category":
            checks += faults_of_levels(feature, now.sample(name), then.sample(name))
        else:
            checks.insert(0, _outside_limits(name, now.values(name), feature.lower, feature.upper))
            checks.append(_unit_jump(name, now, then))
        yield from (_Finding((name,), sentence) for sentence in checks if sentence is not None)
    yield from _stuck(now, then, contract.input_names, contract.kinds)
    yield from _swapped(now, then, contract.input_names)
    repeated = _repeated(now, then, contract.input_names)
    if repeated is not None:
        yield _Finding((ROWS,), repeated)


class FeedCheck(NamedTuple):
    """The result of the last tick that had enough rows to check the feed, and the end of the rows it checked."""

    is_broken: bool
    until: datetime


def spoiled_period(report: DriftReport, last_check: FeedCheck | None) -> SpoiledPeriod | None:
    """Return the traffic that this tick excludes from learning, or None.

    While the feed is broken, the period starts with the rows that show it, or at the end of the last check if that is
    earlier: unchecked traffic is not known to be sound. At the first sound check, the period lies between the last broken
    check and the rows that show a sound feed. A tick with too few rows is not a check.

    Args:
        last_check: None if this is the first check of the version's feed.
    """
    since, window = report.feed_checked_since, report.window
    if since is None:
        return None
    if report.feed_problems:
        start = window.start if last_check is None else min(since, last_check.until)
        return SpoiledPeriod(window.model_version, start, window.end, report.feed_problems, report.feed_columns)
    if last_check is not None and last_check.is_broken and last_check.until < since:
        reason = "between the last broken look and a sound one"
        return SpoiledPeriod(window.model_version, last_check.until, since, (reason,))
    return None


def _outside_limits(name: str, now: FloatArray, lower: float, upper: float) -> str | None:
    n_outside = int(((now < lower) | (now > upper)).sum())
    return f"{name}: {n_outside} values outside {lower:g} to {upper:g}" if n_outside else None


def _missing_jump(name: str, now: Sample, then: Sample) -> str | None:
    now_pct, then_pct = (100.0 * (side.n_missing / side.n_rows) for side in (now, then))
    if now_pct - then_pct < MISSING_JUMP_POINTS:
        return None
    if share_p_value(now.n_missing, now.n_rows, then.n_missing, then.n_rows) > SURE:
        return None
    return f"{name}: {now_pct:.0f} % missing, {then_pct:.0f} % in the reference"


def _stuck(
    current: PreparedRows, reference: PreparedRows, names: Sequence[str], kinds: Mapping[str, Kind]
) -> Iterator[_Finding]:
    """Yield each column that a fault made constant, rather than a slice of the population."""
    constant = {
        name: float(current.sample(name).values[0])
        for name in names
        if _became_constant(current.sample(name), reference.sample(name))
        and not _was_constant(reference.values(name), current.sample(name))
    }
    usual = {name: value for name, value in constant.items() if _is_usual(value, reference.sample(name))}
    is_one_slice = slice_size(reference, usual) >= MIN_SLICE_ROWS if usual else False
    slices = [usual] if is_one_slice else [{name: value} for name, value in usual.items()]
    filled = {name for one in slices if keeps_no_relation(current, reference, one, names) for name in one}
    for name, value in constant.items():
        shown = _shown(value, current.sample(name), kinds[name])
        if name not in usual:
            yield _Finding((name,), f"{name}: always {shown}, of many values in the reference")
        elif name in filled:
            yield _Finding((name,), f"{name}: always {shown}, in rows whose other columns are those of all values")


def _shown(value: float, sample: Sample, kind: Kind) -> str:
    """Return the one value that a column has, in words."""
    if sample.levels:
        return repr(sample.levels[0])
    return FLAG_WORDS[int(value)] if kind == "bool" else f"{value:g}"


def _became_constant(now: Sample, then: Sample) -> bool:
    """Return whether a column is constant that varies too much in the reference for that to be chance."""
    if now.n_known < MIN_ROWS or not then.n_known or len(now.values) > 1:
        return False
    usual_share = float(then.counts.max()) / then.n_known
    return usual_share**now.n_known <= SURE


def _was_constant(reference: FloatArray, now: Sample) -> bool:
    """Return whether the reference, in chronological order, has as many rows in succession with this value."""
    known = reference[~np.isnan(reference)]
    others = np.flatnonzero(known != now.values[0])
    longest = int(np.diff(others, prepend=-1, append=len(known)).max()) - 1
    return longest >= now.n_known


def _is_usual(value: float, reference: Sample) -> bool:
    """Return whether the reference has the value often enough for customers to have nothing else."""
    count = float(reference.counts[reference.values == value].sum())
    return count >= MIN_SLICE_ROWS and (len(reference.values) <= MAX_CODES or count >= USUAL_SHARE * reference.n_known)


def _unit_jump(name: str, current: PreparedRows, reference: PreparedRows) -> str | None:
    now, then = current.sample(name), reference.sample(name)
    if _n_positive(now) < MIN_ROWS or _n_positive(then) < MIN_ROWS:
        return None
    factor = _positive_median(now) / _positive_median(then)
    if 1 / UNIT_JUMP_FACTOR < factor < UNIT_JUMP_FACTOR:
        values, known = current.values(name), reference.values(name)
        if not _is_another_unit(values[values > 0], known[known > 0], factor):
            return None
    return f"{name}: its median is {factor:.3g} times that of the reference; has the unit changed?"


def _n_positive(sample: Sample) -> int:
    return int(sample.counts[sample.values > 0].sum())


def _positive_median(sample: Sample) -> float:
    """Return the median of the positive values, at least one."""
    values, ends = sample.values[sample.values > 0], np.cumsum(sample.counts[sample.values > 0])
    middle = (ends[-1] - 1) / 2  # the place of the median; between two rows if their number is even
    low, high = (values[np.searchsorted(ends, place, side="right")] for place in (np.floor(middle), np.ceil(middle)))
    return float(np.mean([low, high]))


def _is_another_unit(now: FloatArray, then: FloatArray, factor: float) -> bool:
    """Return whether one of the smaller factors between units explains the whole difference."""
    for unit in (*UNIT_FACTORS, *(1 / unit for unit in UNIT_FACTORS)):
        if 0.8 < factor / unit < 1.25 and _are_alike(now / unit, then):
            return True
    return False


def _are_alike(now: FloatArray | Sample, then: FloatArray | Sample) -> bool:
    shift = column_shift(now, then)
    return shift.p_value > ALIKE or shift.effect < ALIKE_EFFECT


def _swapped(current: PreparedRows, reference: PreparedRows, names: Sequence[str]) -> Iterator[_Finding]:
    """Yield each pair of columns that differ from their own reference and match each other's.

    Shapes of few values match by chance, so that the relations to the other columns must have been exchanged too.
    """
    now, then = ({name: rows.sample(name) for name in names} for rows in (current, reference))
    moved = [name for name in names if current.distances(name, reference).p_value < SURE]
    for first, second in combinations(moved, 2):
        pairs = ((now[first], then[second]), (now[second], then[first]))
        is_match = all(min(known.n_known for known in pair) >= MIN_ROWS and _are_alike(*pair) for pair in pairs)
        is_by_shape = is_match and max(_n_distinct(then[first]), _n_distinct(then[second])) > MAX_ALIKE_SHAPES
        if is_match and (is_by_shape or have_exchanged_relations(current, reference, (first, second), names)):
            sentence = f"{first} and {second}: each looks like the other in the reference; have they been swapped?"
            yield _Finding((first, second), sentence)


def _n_distinct(reference: Sample) -> int:
    """Return how many values are not rare."""
    return int((reference.counts >= DISTINCT_SHARE * reference.n_known).sum())


def _repeated(current: PreparedRows, reference: PreparedRows, names: Sequence[str]) -> str | None:
    """Return a sentence if more rows are repeated than among as many rows of the reference."""
    usual_pct, now_pct = _repeated_pct(reference, len(current), names), _repeated_pct(current, len(current), names)
    if now_pct - usual_pct < REPEATED_POINTS:
        return None
    return f"{now_pct:.0f} % of the rows repeat another one in all inputs, {usual_pct:.0f} % in the reference"


def _repeated_pct(rows: PreparedRows, n_rows: int, names: Sequence[str]) -> float:
    """Return the percentage of the last `n_rows` rows that repeat another one of them, each distinct row left out once."""

    def compute() -> float:
        return 100.0 * float(rows.rows[list(names)].tail(n_rows).duplicated().mean())

    return rows.once(("repeated", n_rows, *names), compute)
