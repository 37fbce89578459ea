"""Broken-feed detection: signs that the sender has changed rather than the population.

Belongs here: changes that a faulty sender makes and a population does not: limits, missing values, constants, units, swapped
columns, repeated rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selfheal.domain.monitoring.shift import column_shift, share_p_value
from selfheal.domain.records import DriftReport, SpoiledPeriod

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray, ModelContract

MISSING_JUMP_POINTS = 15.0
"""Rise of a missing rate, in percentage points, that indicates a faulty sender rather than a changed population."""

UNIT_JUMP_FACTOR = 20.0
"""Ratio of medians that indicates another unit (cents, months, thousands); populations differ by smaller factors."""

UNIT_FACTORS = (7.0, 10.0, 12.0)
"""Smaller factors between units (days per week, decimal point, months per year); they count only if they explain the whole
difference."""

REPEATED_POINTS = 40.0
"""Rise, in percentage points, of the share of rows that equal another row in all inputs."""

SURE = 1e-6
"""Level at which rows certainly differ from the reference; small, because there are many overlapping checks."""

ALIKE = 1e-4
"""Level below which a difference counts; rows that differ neither at it nor by `ALIKE_EFFECT` may be of one population."""

ALIKE_EFFECT = 0.1

MIN_ROWS = 50
"""Smallest number of rows from which a feed is judged."""


def feed_problems(current: pd.DataFrame, reference: pd.DataFrame, contract: ModelContract) -> tuple[str, ...]:
    """Return what is broken in the raw inputs, one sentence per problem; empty if nothing is or there are too few rows.

    Args:
        current: the newest rows only, so that a repaired feed counts as sound as soon as possible.
        reference: rows of a sound feed.
    """
    if len(current) < MIN_ROWS or len(reference) < MIN_ROWS:
        return ()
    problems: list[str] = []
    for feature in contract.inputs:
        now, then = current[feature.name].to_numpy(), reference[feature.name].to_numpy()
        checks = (
            _outside_limits(feature.name, now, feature.lower, feature.upper),
            _missing_jump(feature.name, now, then),
            _became_constant(feature.name, now, then),
            _unit_jump(feature.name, now, then),
        )
        problems.extend(problem for problem in checks if problem is not None)
    names = list(contract.input_names)
    problems.extend(_swapped(current[names], reference[names]))
    repeated = _repeated(current[names], reference[names])
    return (*problems, *(() if repeated is None else (repeated,)))


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
        return SpoiledPeriod(window.model_version, start, window.end, report.feed_problems)
    if last_check is not None and last_check.is_broken and last_check.until < since:
        reason = "between the last broken look and a sound one"
        return SpoiledPeriod(window.model_version, last_check.until, since, (reason,))
    return None


def _outside_limits(name: str, now: FloatArray, lower: float, upper: float) -> str | None:
    n_outside = int(((now < lower) | (now > upper)).sum())
    return f"{name}: {n_outside} values outside {lower:g} to {upper:g}" if n_outside else None


def _missing_jump(name: str, now: FloatArray, then: FloatArray) -> str | None:
    now_pct, then_pct = 100.0 * np.isnan(now).mean(), 100.0 * np.isnan(then).mean()
    p_value = share_p_value(int(np.isnan(now).sum()), len(now), int(np.isnan(then).sum()), len(then))
    if now_pct - then_pct < MISSING_JUMP_POINTS or p_value > SURE:
        return None
    return f"{name}: {now_pct:.0f} % missing, {then_pct:.0f} % in the reference"


def _became_constant(name: str, now: FloatArray, then: FloatArray) -> str | None:
    """Return a sentence if a column became constant that varies too much in the reference for that to be chance."""
    known_now, known_then = now[~np.isnan(now)], then[~np.isnan(then)]
    if len(known_now) < MIN_ROWS or len(known_then) == 0 or not (known_now == known_now[0]).all():
        return None
    usual_share = float(np.unique(known_then, return_counts=True)[1].max()) / len(known_then)
    if usual_share ** len(known_now) > 1e-6:
        return None
    return f"{name}: always {known_now[0]:g}, of many values in the reference"


def _unit_jump(name: str, now: FloatArray, then: FloatArray) -> str | None:
    positive_now, positive_then = now[now > 0], then[then > 0]
    if len(positive_now) < MIN_ROWS or len(positive_then) < MIN_ROWS:
        return None
    factor = float(np.median(positive_now) / np.median(positive_then))
    if 1 / UNIT_JUMP_FACTOR < factor < UNIT_JUMP_FACTOR and not _is_another_unit(positive_now, positive_then, factor):
        return None
    return f"{name}: its median is {factor:.3g} times that of the reference; has the unit changed?"


def _is_another_unit(now: FloatArray, then: FloatArray, factor: float) -> bool:
    """Return whether one of the smaller factors between units explains the whole difference."""
    for unit in (*UNIT_FACTORS, *(1 / unit for unit in UNIT_FACTORS)):
        if 0.8 < factor / unit < 1.25 and _are_alike(now / unit, then):
            return True
    return False


def _are_alike(now: FloatArray, then: FloatArray) -> bool:
    shift = column_shift(now, then)
    return shift.p_value > ALIKE or shift.effect < ALIKE_EFFECT


def _swapped(current: pd.DataFrame, reference: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence for each pair of columns that differ from their own reference and match each other's."""
    now = {name: current[name].to_numpy(dtype=np.float64) for name in current}
    then = {name: reference[name].to_numpy(dtype=np.float64) for name in reference}
    moved = [name for name in now if column_shift(now[name], then[name]).p_value < SURE]
    for first, second in combinations(moved, 2):
        pairs = ((now[first], then[second]), (now[second], then[first]))
        if all(_known_rows(*pair) >= MIN_ROWS and _are_alike(*pair) for pair in pairs):
            yield f"{first} and {second}: each looks like the other in the reference; have they been swapped?"


def _known_rows(now: FloatArray, then: FloatArray) -> int:
    return int(min((~np.isnan(now)).sum(), (~np.isnan(then)).sum()))


def _repeated(current: pd.DataFrame, reference: pd.DataFrame) -> str | None:
    """Return a sentence if more rows are repeated than among as many rows of the reference."""
    usual_pct = 100.0 * float(reference.tail(len(current)).duplicated(keep=False).mean())
    now_pct = 100.0 * float(current.duplicated(keep=False).mean())
    if now_pct - usual_pct < REPEATED_POINTS:
        return None
    return f"{now_pct:.0f} % of the rows are the same as another one in all inputs, {usual_pct:.0f} % in the reference"
