"""Signs that the feed is broken rather than the world changed: limits, missing values, constants, units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.contract import FloatArray, ModelContract

MISSING_JUMP_POINTS = 25.0
"""A missing rate that rises by so many percentage points is a sender's doing, not a change of population."""

UNIT_JUMP_FACTOR = 20.0
"""Medians of populations differ by small factors; 20 and more is another unit (cents, months, thousands)."""

MIN_ROWS = 50
"""Fewer rows than this say nothing about a feed."""


def feed_problems(current: pd.DataFrame, reference: pd.DataFrame, contract: ModelContract) -> tuple[str, ...]:
    """What looks broken in the raw inputs, a sentence each; empty if nothing does or there are too few rows."""
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
    return tuple(problems)


def _outside_limits(name: str, now: FloatArray, lower: float, upper: float) -> str | None:
    n_outside = int(((now < lower) | (now > upper)).sum())
    return f"{name}: {n_outside} values outside {lower:g} to {upper:g}" if n_outside else None


def _missing_jump(name: str, now: FloatArray, then: FloatArray) -> str | None:
    now_pct, then_pct = 100.0 * np.isnan(now).mean(), 100.0 * np.isnan(then).mean()
    if now_pct - then_pct < MISSING_JUMP_POINTS:
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
    if 1 / UNIT_JUMP_FACTOR < factor < UNIT_JUMP_FACTOR:
        return None
    return f"{name}: its median is {factor:.3g} times that of the reference; has the unit changed?"
