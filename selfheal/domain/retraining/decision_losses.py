"""Decisions of two versions on the same labelled rows: by how much those of the new one are worse, and the spread of that. Pure.

For versions that give the same probabilities and decide at other thresholds: no score of probabilities tells them apart. Only a
metric of decisions does: F1, or the expected cost.

Both are means over rows, F1 by its influence function (the delta method), so a bound of a mean bounds them. Its hazard is what the
sample lacks. Where few rows are decided otherwise, and few of those would have to be events, a sample without any event shows a loss
without a spread. So the spread is at least the one that would be there if both versions were equally good, as in a score test: the
share of events among the rows that are decided otherwise is then known from the metric alone.

Belongs here: change and spread. Does not belong here: bounds and outcomes (`selfheal.domain.probation`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from selfheal.domain.retraining.evidence import (
    CHALLENGER_SAYS_SO,
    CHAMPION_SAYS_SO,
    IntArray,
    derivatives,
    f1,
    f1_difference,
)
from selfheal.domain.retraining.paired_gain import Costs, PrimaryMetric, cost_by_kind

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray

DecisionMetric: TypeAlias = Literal["f1", "expected_cost"]

NAMES: dict[DecisionMetric, str] = {"f1": "F1", "expected_cost": "expected cost per row"}

OTHERWISE = ((1, 5), (2, 6))
"""Kinds of row (`evidence.KINDS`) that the two decide otherwise, without and with the event, for each way of doing so."""


class DecisionLosses(NamedTuple):
    """How much worse each row is by the new version's decision: shape (n,), in units of the metric; their mean is the change.

    `null_spread` is the standard deviation that the rows would have if both versions were equally good.
    """

    by_row: FloatArray
    null_spread: float


def decision_metric(metric: PrimaryMetric) -> DecisionMetric | None:
    """Return the primary metric if it is one of decisions, else None.

    >>> decision_metric("f1"), decision_metric("auc")
    ('f1', None)
    """
    return metric if metric == "f1" or metric == "expected_cost" else None  # noqa: PLR1714  (a type checker follows this)


def is_decided_otherwise(kinds: IntArray) -> FloatArray:
    """Return 1 for each row that the two versions decide otherwise, else 0; `kinds` as in `evidence.kinds_of`."""
    return np.isin(kinds, np.ravel(OTHERWISE)).astype(np.float64)


def decision_losses(metric: DecisionMetric, kinds: IntArray, costs: Costs) -> DecisionLosses:
    """Return by how much the new version's decisions are worse.

    Args:
        metric: what decisions are measured by.
        kinds: each row's kind, shape (n,), n >= 1 (`evidence.kinds_of`).
        costs: of wrong decisions; only the expected cost uses them.

    >>> kinds = np.array([7] * 10 + [2] * 5 + [0] * 85)  # five false alarms more, of 100 rows
    >>> losses = decision_losses("f1", kinds, Costs(1.0, 1.0))
    >>> round(float(losses.by_row.mean()), 3)  # F1 is 0.8 instead of 1
    0.2
    """
    counts = np.bincount(kinds, minlength=8).astype(np.float64)
    by_kind = _losses_by_kind(metric, counts, costs)
    if metric == "f1":
        share = float(f1(counts, CHAMPION_SAYS_SO)) / 2
    else:
        share = costs.false_alarm / (costs.false_alarm + costs.miss)
    equal = _equally_good(counts, share)
    return DecisionLosses(by_kind[kinds], _spread(equal, _losses_by_kind(metric, equal, costs)))


def _losses_by_kind(metric: DecisionMetric, counts: FloatArray, costs: Costs) -> FloatArray:
    """Return how much worse a row of each kind is, shape (8,); the mean over rows is the change of the metric."""
    if metric == "expected_cost":
        return cost_by_kind(CHALLENGER_SAYS_SO, costs) - cost_by_kind(CHAMPION_SAYS_SO, costs)
    return np.asarray(-f1_difference(counts) - counts.sum() * derivatives(counts))


def _equally_good(counts: FloatArray, share_of_events: float) -> FloatArray:
    """Return the counts with as many events among the rows decided otherwise as make no difference."""
    found = counts.copy()
    for without, with_event in OTHERWISE:
        n_rows = counts[without] + counts[with_event]
        found[without], found[with_event] = (1 - share_of_events) * n_rows, share_of_events * n_rows
    return found


def _spread(counts: FloatArray, by_kind: FloatArray) -> float:
    weights = counts / counts.sum()
    return math.sqrt(float(weights @ (by_kind - weights @ by_kind) ** 2))
