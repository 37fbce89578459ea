"""Probation: is the promoted version worse than the one it replaced, on rows it has served since? Pure.

Versions are compared by their squared errors. Those of a version that gives the same probabilities as the one it replaced, and
decides at another threshold, are equal whatever the threshold does: it is judged by its decisions, with the same bound.

Belongs here too: how long probation lasts, when the next evaluation is due, and when its alerts are resolved.
`selfheal.services.probation` reads the rows and acts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from selfheal.domain.clusters import Clusters, cluster_sums, design_effect, worth
from selfheal.domain.contract import FloatArray
from selfheal.domain.records import Alert, ModelVersion, ProbationOutcome, ProbationReport, Severity
from selfheal.domain.retraining.decision_losses import (
    NAMES,
    decision_losses,
    decision_metric,
    is_decided_otherwise,
)
from selfheal.domain.retraining.evidence import IntArray, kinds_of
from selfheal.domain.retraining.paired_gain import EQUAL_COSTS, Costs, PrimaryMetric

FALSE_ROLLBACK_LEVEL = 0.005
"""Largest probability that a version that is not worse is ever rolled back, however often it is evaluated."""

NOMINAL_LEVEL = FALSE_ROLLBACK_LEVEL / 2
"""Level for which the bound is computed. The bound is asymptotic: with 200 rows or more, 4 % events and a version that scores
every row higher, its measured error was up to 1.3 times the nominal one."""

TIGHTEST_AT_ROWS = 500
"""Number of rows at which the bound is tightest. From 300 to 2,000, the choice barely affects when a worse version is found."""

MIN_LABELS_PER_CLASS = 10
"""Smallest number of labels of either class from which the spread of the differences is known."""

SAME_PROBABILITY = 1e-9
"""Largest difference of two probabilities that are the same but for rounding."""

MIN_DECIDED_OTHERWISE = 10
"""Smallest number of rows (or entities) that two versions decide otherwise from which their decisions are compared: as of a class."""

MAX_ROWS = 20_000
"""Labelled rows at which probation ends: a loss that so many rows do not show is too small for a rollback."""

EVALUATION_GROWTH = 1.1
"""Growth of the number of labels until the next evaluation: about 50 evaluations from 200 labels to `MAX_ROWS`."""

FAILED, ROLLBACK_FAILED, CANNOT_COMPARE, NO_EVIDENCE, UNDECIDED = (
    "probation_failed",
    "rollback_failed",
    "probation_cannot_compare",
    "probation_without_evidence",
    "probation_undecided",
)
"""Kinds of alerts."""

BACK_TO_VERSION = "back_to_version"
"""Key among an alert's metrics: the version that a rollback brings back."""


@dataclass(frozen=True, slots=True)
class ProbationLimits:
    """Limits of probation. `max_duration`: longest probation, since going live, of a version with too few labels.

    `metric`: the primary metric, by which decisions are judged where only they differ; `costs`: if that is the expected cost.
    """

    min_labels: int
    max_duration: timedelta
    metric: PrimaryMetric = "f1"
    costs: Costs = EQUAL_COSTS


@dataclass(frozen=True)
class PairedScores:
    """Labelled rows that the new version served, with both versions' probabilities; shape (n,) each.

    `shortcoming` says why the rows cannot be judged; `previous_probabilities` is None then. `is_blind`: the old version cannot
    score them. `clusters`: the entity of each row; None if every row is its own. `thresholds`: from which probability on the new
    and the old version decide for class 1; None: not known.
    """

    labels: npt.NDArray[np.int64]
    probabilities: FloatArray
    previous_probabilities: FloatArray | None
    shortcoming: str | None = None
    is_blind: bool = False
    clusters: Clusters = None
    thresholds: tuple[float, float] | None = None

    @property
    def differ_by_threshold_alone(self) -> bool:
        """Return whether both versions give the same probabilities and decide at other thresholds."""
        if self.previous_probabilities is None or self.thresholds is None or len(self.labels) == 0:
            return False
        largest = float(np.abs(self.probabilities - self.previous_probabilities).max())
        return largest <= SAME_PROBABILITY and self.thresholds[0] != self.thresholds[1]

    @property
    def kinds(self) -> IntArray:
        """Return each row's kind, by its label and both decisions (`evidence.kinds_of`); both versions must score."""
        assert self.previous_probabilities is not None, "the old version scores"
        assert self.thresholds is not None, "the thresholds are known"
        new, old = (
            (scores >= threshold).astype(np.int64)
            for scores, threshold in zip(
                (self.probabilities, self.previous_probabilities), self.thresholds, strict=True
            )
        )
        return kinds_of(self.labels, new, old)


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """The fields of an open probation alert that decide whether it is resolved."""

    kind: str
    model_version: int | None
    created_at: datetime
    is_acknowledged: bool
    back_to_version: int | None


def judge_probation(
    version: ModelVersion, scores: PairedScores, limits: ProbationLimits, now: datetime
) -> ProbationReport:
    """Compare both versions' squared errors on the same labelled rows, pair by pair, and decide whether probation ends.

    A loss beyond noise ends it at once. When its time is over, a version that could not be evaluated has not passed. A version
    that differs by its threshold alone is judged by its decisions; if the primary metric sees none, nothing is known of it.
    """
    if version.probation_until is None or version.promoted_at is None or version.previous_version is None:
        return not_on_probation(version)
    n_rows = len(scores.labels)
    shortcoming = _shortcoming(scores, limits)
    if shortcoming is not None:
        ends_at = max(version.probation_until, version.promoted_at + limits.max_duration)
        outcome = ProbationOutcome.NO_EVIDENCE if now >= ends_at else None
        return _report(version, n_rows, shortcoming, outcome, ends_at, is_blind=scores.is_blind)
    if scores.differ_by_threshold_alone:
        return _judge_decisions(version, scores, limits, now)
    assert scores.previous_probabilities is not None, "nothing is lacking"
    labels = scores.labels
    paired = (scores.probabilities - labels) ** 2 - (scores.previous_probabilities - labels) ** 2
    effect = design_effect(paired, scores.clusters)
    change, low = float(paired.mean()), lower_bound(paired, effect=effect)
    word = "worse" if change > 0 else "better"
    reason = f"Brier score {abs(change):.4f} {word} than version {version.previous_version} on {n_rows:,} rows"
    reason += worth(n_rows, scores.clusters, effect)
    outcome = _outcome(low, n_rows, version.probation_until, now)
    return _report(version, n_rows, reason, outcome, version.probation_until, change, low)


def _judge_decisions(
    version: ModelVersion, scores: PairedScores, limits: ProbationLimits, now: datetime
) -> ProbationReport:
    """Compare the decisions of versions that differ by their threshold alone, by the primary metric."""
    assert version.probation_until is not None, "it is on probation"
    assert scores.thresholds is not None, "they differ"
    n_rows, metric = len(scores.labels), decision_metric(limits.metric)
    old = f"version {version.previous_version}"
    at = "the threshold {:.4g} instead of {:.4g}".format(*scores.thresholds)
    if metric is None:
        reason = f"it gives the probabilities of {old} and decides at {at}, which PRIMARY_METRIC={limits.metric} does not measure"
        is_over = now >= version.probation_until or n_rows >= MAX_ROWS
        outcome = ProbationOutcome.NO_EVIDENCE if is_over else None
        return _report(version, n_rows, reason, outcome, version.probation_until)
    losses = decision_losses(metric, scores.kinds, limits.costs)
    effect = design_effect(losses.by_row, scores.clusters)
    spread = max(float(losses.by_row.std()), losses.null_spread)
    change, low = float(losses.by_row.mean()), lower_bound(losses.by_row, effect=effect, spread=spread)
    n_otherwise = int(is_decided_otherwise(scores.kinds).sum())
    word = "worse" if change > 0 else "better"
    reason = f"{NAMES[metric]} {abs(change):.4f} {word} than {old} on {n_rows:,} rows{worth(n_rows, scores.clusters, effect)}: "
    reason += f"it gives the same probabilities and decides {n_otherwise:,} of the rows otherwise, by {at}"
    outcome = _outcome(low, n_rows, version.probation_until, now)
    return _report(version, n_rows, reason, outcome, version.probation_until)


def _outcome(low: float, n_rows: int, probation_until: datetime, now: datetime) -> ProbationOutcome | None:
    """Return how probation ends, by the lower bound of the loss; None if it goes on."""
    if low > 0:
        return ProbationOutcome.FAILED
    return ProbationOutcome.PASSED if now >= probation_until or n_rows >= MAX_ROWS else None


def not_on_probation(version: ModelVersion) -> ProbationReport:
    """Return the report of a version without probation: it came back by a rollback, or replaced nothing."""
    return _report(version, 0, f"version {version.version} is not on probation")


def lower_bound(
    differences: FloatArray, level: float = NOMINAL_LEVEL, effect: float = 1.0, spread: float | None = None
) -> float:
    """Return a one-sided lower confidence sequence for the mean.

    With probability 1 - `level` it is below the true mean at all sample sizes at once:
    mean - s sqrt(2 (n r + 1) / (n^2 r) log(1 + sqrt(n r + 1) / (2 level))) with s the standard deviation, and
    r = (log(1 - 2 log(2 level)) - 2 log(2 level)) / `TIGHTEST_AT_ROWS`. It is asymptotic in the first n that is evaluated;
    n >= 1. It depends only on the number, mean and standard deviation of the rows, not on their order. Rows of one entity count as
    n / `effect` independent ones, with the design effect of their sums by entity (Rao and Scott, 1992, Biometrics 48). `spread` is s
    where another one is known.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), "Time-uniform central limit theory and asymptotic
    confidence sequences", Annals of Statistics 52, appendix on one-sided sequences.
    """
    n = len(differences) / effect
    log_level = -2 * math.log(2 * level)
    r = (log_level + math.log(1 + log_level)) / TIGHTEST_AT_ROWS
    width = math.sqrt(2 * (n * r + 1) / (n * n * r) * math.log(1 + math.sqrt(n * r + 1) / (2 * level)))
    return float(differences.mean() - (differences.std() if spread is None else spread) * width)


def evaluation_number(n_labels: int, min_labels: int) -> int | None:
    """Return the number, from 0, of the evaluation due at `n_labels`; None below `min_labels`.

    >>> [evaluation_number(n, 200) for n in (199, 200, 219, 220, 2_000)]
    [None, 0, 0, 1, 24]
    """
    if n_labels < min_labels:
        return None
    return math.floor(math.log(n_labels / min_labels) / math.log(EVALUATION_GROWTH) + 1e-9)


def labels_of_next_evaluation(n_labels: int, min_labels: int) -> int:
    """Return the number of labels at which the next evaluation after `n_labels` is due.

    >>> [labels_of_next_evaluation(n, 200) for n in (0, 199, 200, 219, 220)]
    [200, 200, 220, 220, 242]
    """
    number = evaluation_number(n_labels, min_labels)
    return min_labels if number is None else math.ceil(min_labels * EVALUATION_GROWTH ** (number + 1) - 1e-9)


def may_have_ended(version: ModelVersion, now: datetime) -> bool:
    """Return whether an evaluation is due by time alone: it may end probation, or find that labels are missing."""
    return version.probation_until is not None and now >= version.probation_until


def alert_of(report: ProbationReport, is_overdue: bool = False) -> Alert | None:
    """Return the alert that follows from an evaluation, or None.

    Args:
        is_overdue: probation goes on after its planned end, because the rows do not suffice.
    """
    numbers: dict[str, float | int | str | None] = {
        "n_labels": report.n_labels,
        "brier_change": report.brier_change,
        "brier_change_low": report.brier_change_low,
        BACK_TO_VERSION: report.previous_version,
    }
    name = f"Version {report.version}"
    if report.outcome is ProbationOutcome.FAILED:
        message = (
            f"{name} failed its probation: {report.reason}. Version {report.previous_version} is being put back into "
            "production."
        )
        return Alert(FAILED, Severity.CRITICAL, message, numbers)
    if report.outcome is ProbationOutcome.NO_EVIDENCE:
        message = f"{name} remains in production unproven: its probation ended without evidence ({report.reason})."
        return Alert(NO_EVIDENCE, Severity.INFO, message, numbers)
    if report.outcome is None and report.is_blind:
        message = (
            f"{name} is on probation but cannot be compared: {report.reason}. Check its realised quality yourself."
        )
        return Alert(CANNOT_COMPARE, Severity.WARNING, message, numbers)
    if report.outcome is None and is_overdue:
        message = (
            f"{name} is on probation longer than planned, and serves unproven: {report.reason}. Without more labels the "
            f"probation ends undecided{'' if report.ends_at is None else f' on {report.ends_at:%Y-%m-%d}'}."
        )
        return Alert(UNDECIDED, Severity.WARNING, message, numbers)
    return None


def rolled_back_alert(report: ProbationReport) -> Alert:
    """Return the alert that a worse version was replaced by the one before."""
    message = (
        f"Version {report.previous_version} is in production again: version {report.version} failed its probation "
        f"({report.reason})."
    )
    return Alert(FAILED, Severity.CRITICAL, message, {BACK_TO_VERSION: report.previous_version})


def rollback_alert(report: ProbationReport, problem: str) -> Alert:
    """Return the alert that a version known to be worse could not be replaced."""
    message = (
        f"Version {report.version} failed its probation ({report.reason}), but version {report.previous_version} could not "
        f"take over: {problem}. If version {report.version} is still in production, choose another version: `selfheal "
        "rollback --to VERSION --reason ...`"
    )
    return Alert(ROLLBACK_FAILED, Severity.CRITICAL, message, {BACK_TO_VERSION: report.previous_version})


def is_settled(alert: OpenAlert, champion: ModelVersion | None) -> bool:
    """Return whether a probation alert is resolved: a further version has gone live since, or a person acknowledged it.

    The version that a rollback brings back is not a further version: the alert is about that rollback. While the failed or
    unwatched version is still in production, the alert stays open, even if it was acknowledged. That a probation is undecided
    is settled as soon as its version no longer serves.
    """
    if champion is None or champion.promoted_at is None:
        return False
    is_still_serving = champion.version == alert.model_version and champion.promoted_at <= alert.created_at
    if is_still_serving:
        return alert.kind == NO_EVIDENCE and alert.is_acknowledged
    return alert.kind == UNDECIDED or alert.is_acknowledged or champion.version != alert.back_to_version


def _shortcoming(scores: PairedScores, limits: ProbationLimits) -> str | None:
    """Return why the rows do not suffice for a judgement; None if they do."""
    n_rows, n_events = len(scores.labels), int(scores.labels.sum())
    if scores.shortcoming is not None:
        return scores.shortcoming
    if n_rows < limits.min_labels:
        return f"{n_rows:,} labels so far, {limits.min_labels:,} wanted"
    if min(n_events, n_rows - n_events) < MIN_LABELS_PER_CLASS:
        return f"{n_events:,} of {n_rows:,} labels are 1, at least {MIN_LABELS_PER_CLASS} of each are wanted"
    too_few = None if scores.clusters is None else _too_few_entities(scores.labels, scores.clusters, limits)
    return too_few or _too_few_decided_otherwise(scores, limits)


def _too_few_entities(
    labels: npt.NDArray[np.int64], clusters: npt.NDArray[np.int64], limits: ProbationLimits
) -> str | None:
    """Return why rows that recur do not suffice: an entity's labels count as what they are worth, and once for its class."""
    effect = design_effect(labels.astype(np.float64), clusters)
    if len(labels) / effect < limits.min_labels:
        return f"{len(labels):,} labels so far{worth(len(labels), clusters, effect)}, {limits.min_labels:,} wanted"
    with_event, without = (int(np.count_nonzero(cluster_sums(side, clusters))) for side in (labels == 1, labels == 0))
    if min(with_event, without) < MIN_LABELS_PER_CLASS:
        return f"{with_event:,} entities have a label of 1, {without:,} one of 0, at least {MIN_LABELS_PER_CLASS} of each are wanted"
    return None


def _too_few_decided_otherwise(scores: PairedScores, limits: ProbationLimits) -> str | None:
    """Return why a version that differs by its threshold alone cannot be judged by its decisions yet."""
    if not scores.differ_by_threshold_alone or decision_metric(limits.metric) is None:
        return None
    is_otherwise = is_decided_otherwise(scores.kinds)
    of_what = "rows" if scores.clusters is None else "entities"
    found = is_otherwise.sum() if scores.clusters is None else (cluster_sums(is_otherwise, scores.clusters) > 0).sum()
    if found >= MIN_DECIDED_OTHERWISE:
        return None
    return (
        f"it gives the probabilities of the version before and decides {int(found)} {of_what} among {len(scores.labels):,} labels "
        f"otherwise, by its threshold; {MIN_DECIDED_OTHERWISE} are wanted"
    )


def _report(
    version: ModelVersion,
    n_labels: int,
    reason: str,
    outcome: ProbationOutcome | None = None,
    ends_at: datetime | None = None,
    change: float | None = None,
    low: float | None = None,
    *,
    is_blind: bool = False,
) -> ProbationReport:
    return ProbationReport(
        model_name=version.model_name,
        version=version.version,
        previous_version=version.previous_version,
        n_labels=n_labels,
        brier_change=change,
        brier_change_low=low,
        is_on_probation=ends_at is not None and outcome is None,
        reason=reason,
        outcome=outcome,
        ends_at=ends_at,
        is_blind=is_blind,
    )
