"""Label selection: are the rows with a label like the rows without, or did score or outcome choose them? Pure.

A plateau of the delay curve is not maturity: defaults may be known in ten days and most good loans in ninety, or never. Metrics
on what is labelled then measure the choice, not the model. Three facts that labelled *and* unlabelled rows show together tell
it, as far as it can be told:

- slope `b`: how the chance of a label depends on the score (least squares within ages, robust errors: White, 1980). Labels
  that come for one class more often than for the other give, for calibrated scores, exactly the difference of the classes'
  coverages, since P(label | s) = c0 + (c1 - c0) s.
- coverage by class: c1 = labels 1 / sum of the scores, c0 = labels 0 / sum of (1 - score), over all rows of the age
  (positive-unlabelled learning: Elkan and Noto, 2008).
- offset: the rate of the event among labelled rows minus what their scores announce.

With no slope and no offset the labels are as good as random. With no slope and an offset the world has changed, where the slope
that a choice of classes would need is excluded; where it is not, labels that agreed with the scores at first decide. With a
slope nothing is identifiable without knowing who chose (`ModelContract.label_policy`).

Belongs here: this judgement. Does not belong here: when labels come (`label_delay`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.domain.monitoring.intervals import IntArray
from selfheal.domain.records import ClassCoverage

SLOPE_Z, OFFSET_Z, EXCLUDED_Z, EARLY_Z = 3.9, 2.0, 3.0, 2.5
"""Standard errors beyond which a slope is none by chance (ticks overlap and test often), beyond which an offset has to be
explained (sooner than a loss of it is called harm), beyond which the slope of a choice of classes is excluded, and within which
early labels agree with the scores."""

MATERIAL_SHIFT = 0.05
"""Relative difference between the mean score of labelled rows and of all from which on a slope matters."""

MATERIAL_OFFSET = 0.05
"""Relative difference between the rate among labelled rows and the announced one from which on an offset matters."""

MIN_EARLY_LABELS = 200
"""Labels of the oldest rows that show whether labels agreed with the scores at first."""

MIN_ROWS = 100
AGE_BINS = 10
"""Rows are compared within bins of their age: coverage and mix may both change in time."""


@dataclass(frozen=True, slots=True)
class _Facts:
    slope: float
    slope_error: float
    shift: float
    offset: float
    offset_error: float
    announced: float
    coverage: ClassCoverage
    needed: float
    needed_error: float

    @property
    def has_slope(self) -> bool:
        return abs(self.slope) > SLOPE_Z * self.slope_error and abs(self.shift) > MATERIAL_SHIFT

    @property
    def has_offset(self) -> bool:
        return abs(self.offset) > OFFSET_Z * self.offset_error and abs(self.offset) > MATERIAL_OFFSET * self.announced

    @property
    def is_choice_excluded(self) -> bool:
        return abs(self.slope - self.needed) > EXCLUDED_Z * float(np.hypot(self.slope_error, self.needed_error))


def coverage_by_class(scores: FloatArray, labels: FloatArray) -> ClassCoverage:
    """Return the share of each class's rows that has a label, as the scores count the classes; it may exceed 1 by chance.

    Args:
        scores: of all rows of an age.
        labels: NaN without a label.
    """
    n_positive, n_negative = float((labels == 1).sum()), float((labels == 0).sum())
    return ClassCoverage(
        negative=n_negative / max(1e-9, float((1 - scores).sum())), positive=n_positive / max(1e-9, float(scores.sum()))
    )


def selection(scores: FloatArray, labels: FloatArray, ages_s: FloatArray) -> str:
    """Return why metrics on the labelled rows are not those of all rows; empty if they are, as far as can be seen.

    Args:
        scores: of rows that are old enough to have a label.
        labels: NaN without a label.
        ages_s: of the rows, in seconds.
    """
    if len(scores) < MIN_ROWS:
        return f"not identifiable: {len(scores):,} predictions are old enough to compare labelled and unlabelled ones"
    found = _facts(scores, labels, ages_s)
    if found.has_slope:
        return _chosen(found)
    if not found.has_offset or found.is_choice_excluded or _agreed_early(scores, labels, ages_s):
        return ""
    return (
        f"not identifiable: {_offset_of(found)}, and as long as {_classes_of(found)} could be the reason, this shows neither "
        "a loss nor its absence"
    )


def _chosen(found: _Facts) -> str:
    more = "higher" if found.slope > 0 else "lower"
    why = f"{_offset_of(found)}; {_classes_of(found)}" if found.has_offset else "who has a label depends on the score"
    return f"not identifiable: labels are not random: they come for {more} scores more often, and {why}"


def _offset_of(found: _Facts) -> str:
    rate = found.announced + found.offset
    return f"{rate:.1%} of the labelled rows are 1 where the scores announce {found.announced:.1%}"


def _classes_of(found: _Facts) -> str:
    of_class = found.coverage
    return f"labels of {min(1.0, of_class.positive):.0%} of class 1 and {min(1.0, of_class.negative):.0%} of class 0"


def _facts(scores: FloatArray, labels: FloatArray, ages_s: FloatArray) -> _Facts:
    is_labelled = ~np.isnan(labels)
    slope, error = _slope(is_labelled.astype(np.float64), scores, _bins(ages_s))
    share = max(1e-9, float(is_labelled.mean()))
    of_labelled = scores[is_labelled]
    n_labelled = max(1, len(of_labelled))
    announced = float(of_labelled.mean()) if len(of_labelled) else 0.0
    coverage = coverage_by_class(scores, labels)
    expected = float(scores.sum()), float((1 - scores).sum())
    errors = [np.sqrt((labels == value).sum()) / max(1e-9, expected[1 - value]) for value in (1, 0)]
    return _Facts(
        slope=slope,
        slope_error=error,
        shift=slope * float(scores.var()) / (share * max(1e-9, float(scores.mean()))),
        offset=float(labels[is_labelled].mean() - announced) if len(of_labelled) else 0.0,
        offset_error=float(np.sqrt((of_labelled * (1 - of_labelled)).sum())) / n_labelled,
        announced=announced,
        coverage=coverage,
        needed=coverage.positive - coverage.negative,
        needed_error=float(np.hypot(*errors)),
    )


def _slope(values: FloatArray, scores: FloatArray, bins: IntArray) -> tuple[float, float]:
    """Return the slope of values on scores within bins, and its robust standard error."""
    x, y = _within(scores, bins), _within(values, bins)
    total = float((x**2).sum())
    if total == 0:
        return 0.0, np.inf
    slope = float((x * y).sum()) / total
    return slope, float(np.sqrt(((x * (y - slope * x)) ** 2).sum())) / total


def _within(values: FloatArray, bins: IntArray) -> FloatArray:
    means = np.bincount(bins, weights=values) / np.maximum(1, np.bincount(bins))
    return np.asarray(values - means[bins])


def _bins(ages_s: FloatArray) -> IntArray:
    ranks = np.argsort(np.argsort(ages_s, kind="stable"), kind="stable")
    return np.asarray(ranks * AGE_BINS // len(ages_s), dtype=np.int64)


def _agreed_early(scores: FloatArray, labels: FloatArray, ages_s: FloatArray) -> bool:
    """Return whether the labels of the oldest third agree with their scores: then they are no choice of classes."""
    is_early = _bins(ages_s) >= AGE_BINS - AGE_BINS // 3
    found = _facts(scores[is_early], labels[is_early], ages_s[is_early])
    n_labels = int((~np.isnan(labels[is_early])).sum())
    return n_labels >= MIN_EARLY_LABELS and abs(found.offset) < EARLY_Z * found.offset_error
