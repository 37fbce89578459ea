"""Prequential evaluation of a replay by the true labels: losses day by day, alarms, trainings and wrong promotions.

Belongs here: the figures of one replay. Does not belong here: bounds over seeds and comparisons with other policies (`summary`), for
which the sums of each period are kept.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.simulate.replay.deployment import Deployment, Kind
from selfheal.simulate.replay.engine import Event, Replay, What
from selfheal.simulate.replay.healing import attainable_brier, expected_brier
from selfheal.simulate.replay.stream import UNKNOWN, BoolArray, IntArray, LabelArray

SMALLEST = 1e-12
"""Probabilities are cut to this distance from 0 and 1 for the log loss."""

JUDGED_FOR = np.timedelta64(7, "D")
"""Least time after a promotion on which it is judged, although it may have been replaced earlier."""

Z_95 = 1.96
MAX_EVENTS = 1_000
"""Most events of a replay that its results list, the earliest; the counts beside them cover all."""

EPISODE = np.timedelta64(48, "h")
"""Alarms that are closer than this are one: a daily job that alarms every day alarms once."""


@dataclass(frozen=True)
class Periods:
    """Sums over the rows of each period with a known outcome, one element per period from the start on.

    `auc` is None where a period has rows of one class only.
    """

    n_rows: tuple[int, ...]
    brier: tuple[float, ...]
    log_loss: tuple[float, ...]
    true_positives: tuple[int, ...]
    n_flagged: tuple[int, ...]
    n_positive: tuple[int, ...]
    auc: tuple[float | None, ...]


@dataclass(frozen=True)
class Figures:
    """The figures of one replay; hours are since the change (since the start, where there is none).

    Args:
        days: of the deployment; `hours_after`: from the change to the end.
        brier, log_loss, f1, auc: on the rows from the change on.
        expected_brier: of the version in production, every six hours from the change on (`healing`).
        attainable_brier: of the best of all versions then; empty unless the policy is the yardstick.
        by_day: from the start on.
        detect_h: hours from the change to the first alarm or training after it; None: neither came.
        false_alarms: alarm episodes before the change, or at any time where nothing can be repaired.
        false_retrains: trainings then.
        wrong_promotions: promotions of a version that is provably worse than the one it replaced; `wrong_promotion_h`: the hours they served.
        change_h: hours from the start to the change; None: nobody knows of one.
        events: (hours since the start, what, version), of alarms the first of each episode.
    """

    days: float
    hours_after: float
    n_rows_after: int
    brier: float
    log_loss: float
    f1: float
    auc: float | None
    expected_brier: tuple[float | None, ...]
    attainable_brier: tuple[float | None, ...]
    by_day: Periods
    detect_h: float | None
    alarms: int
    false_alarms: int
    false_retrains: int
    trainings: int
    promotions: int
    wrong_promotions: int
    wrong_promotion_h: float
    rollbacks: int
    labels_used: int
    n_decisions: int
    change_h: float | None
    events: tuple[tuple[float, str, int], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


def figures(replay: Replay, *, is_yardstick: bool = False) -> Figures:
    """Measure a replay; `is_yardstick`: its policy is the oracle, whose versions tell what is attainable."""
    deployment = replay.deployment
    labels = deployment.stream.true_label
    known = np.flatnonzero(labels != UNKNOWN)
    after = known[known >= deployment.first_after_change]
    losses = np.square(replay.probability - labels)
    wrong = [served for event in _of(replay, What.PROMOTED) if (served := _wrong_for_hours(replay, event)) is not None]
    alarms, trainings = _of(replay, What.ALARM), _of(replay, What.TRAINED)
    return Figures(
        days=deployment.days,
        hours_after=deployment.hours_since_change(deployment.end),
        n_rows_after=len(after),
        brier=float(losses[after].mean()),
        log_loss=float(_log_losses(replay.probability[after], labels[after]).mean()),
        f1=_f1(labels[after], replay.is_flagged[after]),
        auc=auc_roc(labels[after], replay.probability[after]),
        expected_brier=expected_brier(replay),
        attainable_brier=attainable_brier(replay) if is_yardstick else (),
        by_day=_by_day(replay, known, losses),
        detect_h=_first_after(deployment, [*alarms, *trainings]),
        alarms=_episodes(alarms),
        false_alarms=_episodes(_false(deployment, alarms)),
        false_retrains=len(_false(deployment, trainings)),
        trainings=len(trainings),
        promotions=len(_of(replay, What.PROMOTED)),
        wrong_promotions=len(wrong),
        wrong_promotion_h=float(sum(wrong)),
        rollbacks=len(_of(replay, What.ROLLED_BACK)),
        labels_used=replay.labels_used,
        n_decisions=replay.n_decisions,
        change_h=None if deployment.change is None else _hours(deployment.change - deployment.start),
        events=_listed(replay),
    )


def auc_roc(labels: LabelArray, probability: FloatArray) -> float | None:
    """Return the area under the ROC curve: P(a positive row scores higher than a negative one), ties one half; None with one class.

    >>> import numpy as np
    >>> auc_roc(np.array([0, 0, 1, 1], dtype=np.int8), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    from scipy.stats import rankdata

    n_positive = int((labels == 1).sum())
    n_negative = len(labels) - n_positive
    if not n_positive or not n_negative:
        return None
    ranks = float(rankdata(probability)[labels == 1].sum())
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _log_losses(probability: FloatArray, labels: LabelArray) -> FloatArray:
    p = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return np.asarray(-np.log(np.where(labels == 1, p, 1 - p)))


def _f1(labels: LabelArray, is_flagged: BoolArray) -> float:
    total = int(is_flagged.sum()) + int((labels == 1).sum())
    return 2 * int((is_flagged & (labels == 1)).sum()) / total if total else 0.0


# Periods


def _by_day(replay: Replay, known: IntArray, losses: FloatArray) -> Periods:
    deployment = replay.deployment
    labels, is_flagged = deployment.stream.true_label, replay.is_flagged
    day = ((deployment.stream.event_time[known] - deployment.start) // np.timedelta64(1, "D")).astype(np.int64)
    n_days = max(1, int(np.ceil(deployment.days)))

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(day, values, minlength=n_days), dtype=np.float64)

    bounds = np.searchsorted(day, np.arange(n_days + 1))
    parts = [known[start:stop] for start, stop in pairwise(bounds)]
    is_positive = (labels[known] == 1).astype(np.float64)
    flagged = is_flagged[known].astype(np.float64)
    return Periods(
        n_rows=tuple(np.bincount(day, minlength=n_days).tolist()),
        brier=tuple(total(losses[known]).round(9).tolist()),
        log_loss=tuple(total(_log_losses(replay.probability[known], labels[known])).round(9).tolist()),
        true_positives=tuple(total(is_positive * flagged).astype(np.int64).tolist()),
        n_flagged=tuple(total(flagged).astype(np.int64).tolist()),
        n_positive=tuple(total(is_positive).astype(np.int64).tolist()),
        auc=tuple(auc_roc(labels[part], replay.probability[part]) for part in parts),
    )


# Events


def _of(replay: Replay, what: What) -> list[Event]:
    return [event for event in replay.events if event.what is what]


def _false(deployment: Deployment, events: list[Event]) -> list[Event]:
    """Return the events that nothing called for: before the change, or in a world in which there is nothing to repair."""
    if deployment.kind is Kind.NATURAL:
        return []
    if deployment.kind is Kind.HARMFUL and deployment.change is not None:
        return [event for event in events if event.time < deployment.change]
    return events


def _first_after(deployment: Deployment, events: list[Event]) -> float | None:
    hours = [deployment.hours_since_change(event.time) for event in events]
    return min((found for found in hours if found >= 0), default=None)


def _episodes(events: list[Event]) -> int:
    return len(_firsts(events))


def _firsts(events: list[Event]) -> list[Event]:
    """Return the first event of each episode."""
    return [
        event
        for before, event in zip([None, *events], events, strict=False)
        if before is None or event.time - before.time > EPISODE
    ]


def _listed(replay: Replay) -> tuple[tuple[float, str, int], ...]:
    shown = {id(event) for event in _firsts(_of(replay, What.ALARM))}
    listed = [event for event in replay.events if event.what is not What.ALARM or id(event) in shown]
    start = replay.deployment.start
    return tuple((_hours(event.time - start), event.what.value, event.version) for event in listed[:MAX_EVENTS])


def _hours(span: np.timedelta64) -> float:
    return round(float(span / np.timedelta64(1, "h")), 3)


def _wrong_for_hours(replay: Replay, event: Event) -> float | None:
    """Return the hours that a wrongly promoted version served; None if it is not provably worse than the version it replaced.

    Wrong: on the rows from its promotion to its replacement, but of at least a week, its mean Brier score is higher than the replaced
    version's, with the lower 95 % bound of the paired difference above 0 (normal, rows as independent).
    """
    deployment = replay.deployment
    times = deployment.stream.event_time
    before = replay.version[event.row - 1] if event.row else 0
    replaced = next((e for e in replay.events if e.row >= event.row and e is not event and _switches(e, event)), None)
    end = deployment.end if replaced is None else replaced.time
    stop = max(int(np.searchsorted(times, end)), int(np.searchsorted(times, event.time + JUDGED_FOR)))
    labels = deployment.stream.true_label[event.row : stop]
    known = labels != UNKNOWN
    if known.sum() < 2:
        return None
    old, new = (np.square(replay.scores(v, event.row, stop) - labels)[known] for v in (int(before), event.version))
    difference = new - old
    error = float(difference.std(ddof=1)) / np.sqrt(len(difference))
    if float(difference.mean()) - Z_95 * error <= 0:
        return None
    return float((end - event.time) / np.timedelta64(1, "h"))


def _switches(event: Event, promotion: Event) -> bool:
    return event.what in {What.PROMOTED, What.ROLLED_BACK} and bool(event.time > promotion.time)
