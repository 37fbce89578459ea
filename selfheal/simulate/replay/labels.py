"""Verification latency and label noise: when labels arrive and how right they are, as a world declares. Pure.

Belongs here: coverage, delay, noise and poisoned periods. Does not belong here: selection by what was served, which depends on the
policy (`engine`).
"""

from __future__ import annotations

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.simulate.replay.stream import NEVER, LabelArray, TimeArray
from selfheal.simulate.replay.worlds import HOURS_PER_DAY, ClassLabels, Delay, Labels

DAY = 86_400e6
"""Microseconds of a day."""


def label_times(labels: Labels, event_time: TimeArray, outcomes: LabelArray, rng: np.random.Generator) -> TimeArray:
    """Return when each row's label arrives (datetime64[us]); NaT: never."""
    found = np.full(len(event_time), NEVER)
    for value, rule in ((1, labels.positive), (0, labels.negative)):
        is_here = outcomes == value
        found[is_here] = _arrivals(rule, event_time[is_here], rng)
    return found


def labels_given(labels: Labels, hours: FloatArray, outcomes: LabelArray, rng: np.random.Generator) -> LabelArray:
    """Return the labels as they are sent; `hours` since the change."""
    is_wrong = rng.random(len(outcomes)) < labels.noise
    if labels.poisoned is not None:
        first_day, days, share = labels.poisoned
        day = hours / HOURS_PER_DAY
        is_wrong |= (day >= first_day) & (day < first_day + days) & (rng.random(len(outcomes)) < share)
    return np.where(is_wrong, 1 - outcomes, outcomes).astype(np.int8)


def _arrivals(rule: ClassLabels, event_time: TimeArray, rng: np.random.Generator) -> TimeArray:
    n_rows = len(event_time)
    is_late = rng.random(n_rows) < rule.late_share
    days = np.where(is_late, _days(rule.late, n_rows, rng), _days(rule.delay, n_rows, rng))
    arrives = event_time + np.round(days * DAY).astype(np.int64).astype("m8[us]")
    return np.where(rng.random(n_rows) < rule.coverage, arrives, NEVER)


def _days(delay: Delay, n_rows: int, rng: np.random.Generator) -> FloatArray:
    return delay.days + rng.exponential(1.0, n_rows) * delay.mean_extra_days
