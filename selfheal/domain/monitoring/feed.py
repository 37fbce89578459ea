"""Broken-feed detection: signs that the sender has changed rather than the world.

Belongs here: what a sender does and a population does not. Limits, missing values, constants, units, columns that were swapped,
rows that are sent again and again.
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
"""A missing rate that rises by so many percentage points is a sender's doing, not a change of population."""

UNIT_JUMP_FACTOR = 20.0
"""Medians of populations differ by small factors; 20 and more is another unit (cents, months, thousands)."""

UNIT_FACTORS = (7.0, 10.0, 12.0)
"""Smaller factors between units (days a week, decimal point, months a year): to be believed if nothing but the unit differs."""

REPEATED_POINTS = 40.0
"""Share of rows, in percentage points above the usual, that are the same in all inputs as another one."""

SURE = 1e-6
"""Level at which rows differ from the reference for certain; looks overlap, and there are many."""

ALIKE = 1e-4
"""Rows that do not differ at this level, nor by `ALIKE_EFFECT`, may be of one population."""

ALIKE_EFFECT = 0.1

MIN_ROWS = 50
"""Fewer rows than this say nothing about a feed."""


def feed_problems(current: pd.DataFrame, reference: pd.DataFrame, contract: ModelContract) -> tuple[str, ...]:
    """Return what is broken in the raw inputs, one sentence per problem; empty if nothing is or rows are too few.

    Args:
        current: the newest rows, so that a feed that was repaired is sound again as soon as it is.
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
    """What the last tick that had enough rows to tell said of the feed, and until when it looked."""

    is_broken: bool
    until: datetime


def spoiled_period(report: DriftReport, last_check: FeedCheck | None) -> SpoiledPeriod | None:
    """Return the traffic that this tick excludes from learning, or None.

    While the feed is broken, that is everything since the rows that show it, or since the last look if that is longer ago:
    what nobody has looked at is not known to be sound. At the first sound look it is what lies between the last broken
    one and the rows that show that it is sound. A tick with too few rows to tell is no look.

    Args:
        last_check: None if this is the first look at the version's feed.
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
    """Only for columns that vary so much in the reference that a constant window is out of the question."""
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
    """Whether one of the smaller factors between units explains all of the difference."""
    for unit in (*UNIT_FACTORS, *(1 / unit for unit in UNIT_FACTORS)):
        if 0.8 < factor / unit < 1.25 and _are_alike(now / unit, then):
            return True
    return False


def _are_alike(now: FloatArray, then: FloatArray) -> bool:
    shift = column_shift(now, then)
    return shift.p_value > ALIKE or shift.effect < ALIKE_EFFECT


def _swapped(current: pd.DataFrame, reference: pd.DataFrame) -> Iterator[str]:
    """Pairs of columns each of which is as unlike itself as it is like the other."""
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
    """Rows that stand in the feed more than once, against as many rows of the reference."""
    usual_pct = 100.0 * float(reference.tail(len(current)).duplicated(keep=False).mean())
    now_pct = 100.0 * float(current.duplicated(keep=False).mean())
    if now_pct - usual_pct < REPEATED_POINTS:
        return None
    return f"{now_pct:.0f} % of the rows are the same as another one in all inputs, {usual_pct:.0f} % in the reference"
