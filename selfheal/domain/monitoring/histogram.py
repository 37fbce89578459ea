"""Histogram of two samples in the same bins, for pages. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.domain.features import FLAG_WORDS
from selfheal.domain.levels import normal, numbers

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray

MAX_BINS, MAX_VALUES = 24, 12
MAX_TICK_CHARACTERS = 12
SKEW = 50.0
"""Ratio of the top to the median from which bars have equal ratios: equal steps would put nearly all rows into one bar."""


@dataclass(frozen=True)
class Distribution:
    """The percentage of the known values in each bar, in the reference and now.

    `labels` name the bars, which are at positions 0, 1, 2, ...; `ticks` are positions and texts for the axis.
    """

    labels: tuple[str, ...]
    reference_pct: tuple[float, ...]
    current_pct: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def distribution(current: FloatArray, reference: FloatArray, kind: str = "float") -> Distribution | None:
    """Return both samples in the same bars, without missing values; None if neither has a value.

    There is one bar per value if there are few values. Otherwise the bars are equal steps over the middle 98 % of each
    sample, or equal ratios if the sample is skewed; the outer bars hold the rest, so that each side sums to 100. The bars of a
    `bool` are named false and true.
    """
    now, then = current[np.isfinite(current)], reference[np.isfinite(reference)]
    if not len(now) and not len(then):
        return None
    values = np.unique(np.concatenate([now, then]))
    if len(values) <= MAX_VALUES:
        is_flag = kind == "bool" and set(values) <= {0.0, 1.0}
        labels = tuple(FLAG_WORDS[int(value)] if is_flag else f"{value:g}" for value in values)
        bars = tuple(tuple(_percent([(side == value).sum() for value in values])) for side in (then, now))
        texts = labels if is_flag else tuple(_compact(value) for value in values)
        return Distribution(labels, bars[0], bars[1], _some(list(enumerate(texts)), 6))
    edges = _edges(now, then)
    inner = edges[1:-1]
    counts = [np.bincount(np.searchsorted(inner, side, side="right"), minlength=len(edges) - 1) for side in (then, now)]
    if (values == np.round(values)).all() and (np.diff(edges) == np.round(np.diff(edges))).all():
        wholes = [(int(np.ceil(low)), int(np.floor(high))) for low, high in itertools.pairwise(edges)]
        labels = tuple(f"{low}" if low == high else f"{low} to {high}" for low, high in wholes)
        ticks = [(float(place), _compact(low)) for place, (low, _) in enumerate(wholes)]
    else:
        labels = tuple(f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges))
        ticks = [(place - 0.5, _compact(edge)) for place, edge in enumerate(edges)]
    return Distribution(labels, tuple(_percent(counts[0])), tuple(_percent(counts[1])), _some(ticks, 5))


def bars_of(current: pd.Series, reference: pd.Series, kind: str) -> Distribution | None:
    """Return the bars of a frame's column on both sides: of a category, one per level."""
    if kind == "category":
        return level_distribution(current, reference)
    return distribution(numbers(current), numbers(reference), kind)


def level_distribution(current: pd.Series, reference: pd.Series) -> Distribution | None:
    """Return the levels of both samples, without missing values, the commonest first; None if neither has a level.

    There is a bar for each of the `MAX_VALUES` levels that are commonest on either side, and one for all others together.
    """
    sides = [column.dropna().map(normal).value_counts() for column in (reference, current)]
    totals = [max(1, int(side.sum())) for side in sides]
    shares = {
        level: max(float(side.get(level, 0)) / total for side, total in zip(sides, totals, strict=True))
        for level in dict.fromkeys((*sides[0].index, *sides[1].index))
    }
    if not shares:
        return None
    shown = sorted(shares, key=lambda level: -shares[level])[:MAX_VALUES]
    n_others = len(shares) - len(shown)
    labels = (*shown, *([f"{n_others:,} other levels"] if n_others else []))
    bars = []
    for side in sides:
        counts = [int(side.get(level, 0)) for level in shown]
        bars.append(tuple(_percent([*counts, *([int(side.sum()) - sum(counts)] if n_others else [])])))
    ticks = [(float(place), _short(label)) for place, label in enumerate(labels)]
    return Distribution(labels, bars[0], bars[1], _some(ticks, 6))


def _short(label: str) -> str:
    return label if len(label) <= MAX_TICK_CHARACTERS else f"{label[: MAX_TICK_CHARACTERS - 1]}…"


def _some(ticks: Sequence[tuple[float, str]], n_ticks: int) -> tuple[tuple[float, str], ...]:
    """Return `n_ticks` of the ticks, evenly spaced."""
    places = sorted({round(place) for place in np.linspace(0, len(ticks) - 1, min(n_ticks, len(ticks)))})
    return tuple(ticks[place] for place in places)


def _edges(now: FloatArray, then: FloatArray) -> FloatArray:
    """Return the increasing edges of the bars, at least two."""
    sides = [side for side in (now, then) if len(side)]
    low = min(float(np.quantile(side, 0.01)) for side in sides)
    high = max(float(np.quantile(side, 0.99)) for side in sides)
    pooled = np.concatenate(sides)
    if low >= high:
        low, high = float(pooled.min()), float(pooled.max())
    median = float(np.median(pooled))
    positive = pooled[pooled > 0]
    if low >= 0 and len(positive) and high > SKEW * max(median, 1e-12):
        start = max(float(np.quantile(positive, 0.02)), high / 1e6)
        if start < high:
            return np.concatenate([[0.0], np.geomspace(start, high, MAX_BINS)])
    if (pooled == np.round(pooled)).all():
        step = -(-(round(high) - round(low) + 1) // MAX_BINS)  # whole numbers: every bar spans equally many of them
        return np.arange(round(low) - 0.5, round(high) + step, step)
    return np.linspace(low, high, MAX_BINS + 1)


def _percent(counts: Iterable[Any]) -> list[float]:
    numbers = [int(count) for count in counts]
    total = max(1, sum(numbers))
    return [round(100 * number / total, 2) for number in numbers]


def _compact(value: float) -> str:
    """Format a number for an axis: 6250 becomes 6.3k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.2g}{letter}" if abs(value) < 100 * size else f"{value / size:.0f}{letter}"
    return f"{value:.0f}" if abs(value) >= 10 or value == round(value) else f"{value:.2g}"
