"""The gates between a shadow model and production. Pure: labels and scores in, verdict out.

Both models score the same evaluation rows, each at its own threshold. Every gate is evaluated, whatever the others say;
what cannot be measured does not pass. The six of `GATE_NAMES` and the one on segments can be evaluated again from a stored
training set (`evaluate_gates`); the one on shadow scoring is about the traffic of the moment (`shadow_scoring_gate`).
`docs/evaluation_gates.md` tells what they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import FloatArray, Segment
from selfheal.domain.monitoring.intervals import Z, auc_interval, wilson
from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.records import (
    Action,
    GateResult,
    GateStatus,
    Interval,
    ScoreMetrics,
    SegmentDifference,
    ShadowScoring,
)
from selfheal.domain.retraining.dataset import EVALUATION_SHARE
from selfheal.domain.retraining.evidence import (
    CHALLENGER_SAYS_SO,
    CHAMPION_SAYS_SO,
    IntArray,
    f1,
    f1_difference,
    f1_difference_bounds,
    kind_counts,
    level_of_verdict,
    more_rows_for_certainty,
)
from selfheal.kit.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd

GATE_NAMES = ("f1_improvement", "brier_degradation", "labelled_samples", "label_coverage", "recall", "auc_roc")
SEGMENTS_GATE, SHADOW_SCORING_GATE = "segments", "shadow_scoring"
ALL_GATE_NAMES = (*GATE_NAMES, SEGMENTS_GATE, SHADOW_SCORING_GATE)

MIN_SEGMENT_ROWS = 30
SEGMENTS_LEVEL = 0.05
"""Chance that some segment is called better or worse when none is: it is shared by the segments and the two sides."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What the gates ask for, as `Decision.gate_config` keeps it.

    `level` is the chance that a champion is ever replaced by a model that is no better; `seed` is that of the draws from
    which the bounds come.
    """

    min_f1_improvement_pct: float
    max_brier_degradation: float
    min_samples: int
    min_coverage_pct: float
    min_recall: float
    min_auc: float
    level: float
    segments: Literal["report", "enforce"]
    seed: int


@dataclass(frozen=True)
class Scores:
    """One model's probabilities, shape (n,), and its decision threshold. NaN: it gives none for that row.

    `failure` says why it gives none at all, where it failed.
    """

    probabilities: FloatArray
    threshold: float
    failure: str | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with the probabilities; None if there is one for each row."""
        if self.failure is not None:
            return self.failure
        is_wrong = ~((self.probabilities >= 0) & (self.probabilities <= 1))  # NaN compares as False
        n_wrong = int(is_wrong.sum())
        return f"no probability for {n_wrong:,} of {len(is_wrong):,} rows" if n_wrong else None

    @property
    def predictions(self) -> IntArray:
        return (self.probabilities >= self.threshold).astype(np.int64)


@dataclass(frozen=True)
class Evaluation:
    """The rows that both models are judged on, and where they come from.

    Args:
        labels: the true labels, shape (n,).
        champion: None at bootstrap: the gates that compare are then not applicable.
        label_coverage_pct: share of the champion's predictions with a label; None where rows are not logged predictions.
        n_labels: labelled predictions of the champion in all, of which the rows are a part.
        bands: which rows are in each segment's band, by its name (`segment_bands`).
    """

    labels: IntArray
    challenger: Scores
    champion: Scores | None
    label_coverage_pct: float | None = None
    n_labels: int = 0
    bands: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """All gates. The metrics of a model that does not score every row are not known."""

    gates: tuple[GateResult, ...]
    champion: ScoreMetrics | None
    challenger: ScoreMetrics | None
    segments: tuple[SegmentDifference, ...] = ()

    @property
    def action(self) -> Action:
        """Promote if every applicable gate passes; one failure rejects; else more labels could tell."""
        statuses = {gate.status for gate in self.gates}
        if GateStatus.FAIL in statuses:
            return Action.REJECT
        return Action.INCONCLUSIVE if GateStatus.INCONCLUSIVE in statuses else Action.PROMOTE

    @property
    def reason(self) -> str:
        """The sentences of the gates that did not pass, each once, or that there is none."""
        failing = [g.sentence for g in self.gates if g.status in {GateStatus.FAIL, GateStatus.INCONCLUSIVE}]
        return "; ".join(dict.fromkeys(failing)) if failing else "all applicable gates passed"


def evaluate_gates(evaluation: Evaluation, limits: GateLimits, verdict_number: int) -> GateOutcome:
    """The six gates and the one on segments.

    Args:
        verdict_number: the how-manieth verdict against this champion this is, from 1 on: its level depends on it.

    Raises:
        InvalidDataError: if there is no row to judge on.
    """
    if len(evaluation.labels) == 0:
        raise InvalidDataError("no labelled row to judge the challenger on: wait for labels")
    new, old = _metrics(evaluation.labels, evaluation.challenger), _metrics(evaluation.labels, evaluation.champion)
    segments = segment_differences(evaluation, limits.seed)
    gates = (
        _f1_improvement(evaluation, new, old, limits, verdict_number),
        _brier_degradation(evaluation, new, old, limits),
        _labelled_samples(len(evaluation.labels), limits),
        _label_coverage(evaluation, limits),
        _recall(evaluation, new, limits),
        _auc(evaluation, new, limits),
        _segments(evaluation, segments, limits),
    )
    return GateOutcome(gates, old, new, segments)


def segment_bands(rows: pd.DataFrame, segments: Sequence[Segment]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows are in each band of each segment that has at least 30 of them. An edge belongs to the band above it."""
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for segment in segments:
        bands = np.digitize(rows[segment.feature].to_numpy(dtype=np.float64), segment.edges)
        bounds = ("-inf", *(f"{edge:g}" for edge in segment.edges), "inf")
        for band in range(len(segment.edges) + 1):
            is_within = bands == band
            if is_within.sum() >= MIN_SEGMENT_ROWS:
                found[f"{segment.feature} in [{bounds[band]}, {bounds[band + 1]})"] = is_within
    return found


def segment_differences(evaluation: Evaluation, seed: int) -> tuple[SegmentDifference, ...]:
    """F1 of both models within each band, with bounds that hold for all bands together (Bonferroni): a band's own level is
    `SEGMENTS_LEVEL` over the number of bands, half of it on each side.
    """
    champion = evaluation.champion
    if champion is None or _problem(evaluation) is not None:
        return ()
    level = SEGMENTS_LEVEL / (2 * max(1, len(evaluation.bands)))
    kinds = (evaluation.labels, evaluation.challenger.predictions, champion.predictions)
    return tuple(
        _segment_difference(name, kind_counts(*(values[is_within] for values in kinds)), level, seed)
        for name, is_within in evaluation.bands.items()
    )


def shadow_scoring_gate(scoring: ShadowScoring | None) -> GateResult:
    """The challenger must give a probability for each of the champion's newest predictions."""
    name = SHADOW_SCORING_GATE
    if scoring is None:
        return GateResult(
            name, GateStatus.NOT_APPLICABLE, None, None, "no live traffic of a champion to score", n_rows=0
        )
    n_rows, agreement = scoring.n_rows, scoring.agreement
    if scoring.problem is not None:
        sentence = f"the challenger fails on the champion's {n_rows:,} newest predictions: {scoring.problem}"
        return GateResult(name, GateStatus.FAIL, None, None, sentence, n_rows=n_rows)
    assert agreement is not None, "all rows are scored"
    sentence = f"scored the champion's {n_rows:,} newest predictions and agrees on {100 * agreement:.1f} %"
    return _result(name, GateStatus.PASS, agreement, None, sentence, n_rows, scoring.agreement_interval)


def _result(
    name: str,
    status: GateStatus,
    value: float | None,
    threshold: float | None,
    sentence: str,
    n_rows: int,
    interval: Interval | None = None,
) -> GateResult:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return GateResult(name, status, value, threshold, sentence, low, high, n_rows)


def _metrics(labels: IntArray, scores: Scores | None) -> ScoreMetrics | None:
    if scores is None or scores.problem is not None:
        return None
    return score_metrics(labels, scores.probabilities, scores.threshold)


def _problem(evaluation: Evaluation) -> tuple[GateStatus, str] | None:
    """Why the models cannot be compared: a challenger that does not score fails, a champion that does not leaves it open."""
    if evaluation.challenger.problem is not None:
        return GateStatus.FAIL, f"the challenger cannot be judged: {evaluation.challenger.problem}"
    if evaluation.champion is not None and evaluation.champion.problem is not None:
        return GateStatus.INCONCLUSIVE, f"the champion cannot be compared with: {evaluation.champion.problem}"
    return None


def _f1_improvement(
    evaluation: Evaluation, new: ScoreMetrics | None, old: ScoreMetrics | None, limits: GateLimits, verdict_number: int
) -> GateResult:
    """Value, threshold and interval in percent of the champion's F1."""
    name, wanted, n_rows = "f1_improvement", limits.min_f1_improvement_pct, len(evaluation.labels)
    if evaluation.champion is None:
        return _no_champion(name, wanted, n_rows)
    if new is None or old is None:
        return _incomparable(name, wanted, evaluation)
    counts = kind_counts(evaluation.labels, evaluation.challenger.predictions, evaluation.champion.predictions)
    level_at = partial(level_of_verdict, limits.level, has_brier_risen=new.brier > old.brier)
    bounds = f1_difference_bounds(counts, level_at(verdict_number, n_rows), limits.seed)
    improvement_pct = _percent_of(old.f1, new.f1 - old.f1)
    measured = f"F1 {old.f1:.3f} -> {new.f1:.3f} ({improvement_pct:+.1f} %, {wanted:g} % wanted)"
    if improvement_pct < wanted:
        status, sentence = GateStatus.FAIL, measured
    elif bounds.low <= 0:
        spent, at_next_verdict = level_at(verdict_number, n_rows), partial(level_at, verdict_number + 1)
        more = more_rows_for_certainty(n_rows, float(f1_difference(counts)), bounds.low, spent, at_next_verdict)
        chance = f"the difference may be chance: it could be as low as {bounds.low:+.3f}"
        status, sentence = GateStatus.INCONCLUSIVE, f"{measured}, but {chance}{_advice(more)}"
    else:
        status, sentence = GateStatus.PASS, f"{measured}, at least {bounds.low:+.3f}"
    interval = None if old.f1 == 0 else Interval(100 * bounds.low / old.f1, 100 * bounds.high / old.f1)
    return _result(name, status, improvement_pct, wanted, sentence, n_rows, interval)


def _percent_of(before: float, change: float) -> float:
    """From nothing to something is an improvement by 100 %."""
    return 100.0 * change / before if before > 0 else 100.0 * (change > 0)


def _advice(more: int | None) -> str:
    if more is None:
        return ""
    return f"; about {more:,} more evaluation rows would tell, if it stays as it is: {_labels_for(more)}"


def _labels_for(n_evaluation_rows: int) -> str:
    """Most labels go to training."""
    return f"about {math.ceil(n_evaluation_rows / EVALUATION_SHARE):,} more labels"


def _brier_degradation(
    evaluation: Evaluation, new: ScoreMetrics | None, old: ScoreMetrics | None, limits: GateLimits
) -> GateResult:
    name, allowed, n_rows = "brier_degradation", limits.max_brier_degradation, len(evaluation.labels)
    if evaluation.champion is None:
        return _no_champion(name, allowed, n_rows)
    if new is None or old is None:
        return _incomparable(name, allowed, evaluation)
    change = new.brier - old.brier
    status = GateStatus.PASS if change <= allowed else GateStatus.FAIL
    sentence = f"Brier score {old.brier:.4f} -> {new.brier:.4f} (+{allowed:g} allowed)"
    losses = [
        (scores.probabilities - evaluation.labels) ** 2 for scores in (evaluation.challenger, evaluation.champion)
    ]
    return _result(name, status, change, allowed, sentence, n_rows, _change_interval(losses[0] - losses[1], change))


def _change_interval(differences: FloatArray, change: float) -> Interval:
    """95 %, of the mean of a bounded difference; all that is known of a single row, or of equal ones, is the mean."""
    half = Z * float(np.std(differences, ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return Interval(change - half, change + half)


def _labelled_samples(n_rows: int, limits: GateLimits) -> GateResult:
    missing = limits.min_samples - n_rows
    sentence = f"{n_rows:,} labelled evaluation rows, {limits.min_samples:,} wanted"
    if missing > 0:
        sentence += f": {missing:,} more needed, {_labels_for(missing)}"
    status = GateStatus.PASS if missing <= 0 else GateStatus.INCONCLUSIVE
    return _result("labelled_samples", status, float(n_rows), float(limits.min_samples), sentence, n_rows)


def _label_coverage(evaluation: Evaluation, limits: GateLimits) -> GateResult:
    name, wanted, pct = "label_coverage", limits.min_coverage_pct, evaluation.label_coverage_pct
    if pct is None:
        sentence = "the rows are not logged predictions"
        return _result(name, GateStatus.NOT_APPLICABLE, None, wanted, sentence, len(evaluation.labels))
    sentence = f"{pct:.0f} % of the predictions are labelled, {wanted:g} % wanted"
    if pct >= wanted:
        return _result(name, GateStatus.PASS, pct, wanted, sentence, evaluation.n_labels)
    missing = evaluation.n_labels * (wanted / pct - 1) if pct > 0 else math.inf
    if 0 < missing < math.inf:
        sentence += f": about {math.ceil(missing):,} more labels"
    return _result(name, GateStatus.INCONCLUSIVE, pct, wanted, sentence, evaluation.n_labels)


def _recall(evaluation: Evaluation, new: ScoreMetrics | None, limits: GateLimits) -> GateResult:
    name, wanted = "recall", limits.min_recall
    if new is None:
        return _incomparable(name, wanted, evaluation)
    if new.n_positive == 0:
        sentence = "no positive label among the evaluation rows: recall is unknown"
        return _result(name, GateStatus.INCONCLUSIVE, None, wanted, sentence, 0)
    status = GateStatus.PASS if new.recall >= wanted else GateStatus.FAIL
    sentence = f"recall {new.recall:.3f} of {new.n_positive:,} true events, {wanted:g} wanted"
    interval = wilson(round(new.recall * new.n_positive), new.n_positive)
    return _result(name, status, new.recall, wanted, sentence, new.n_positive, interval)


def _auc(evaluation: Evaluation, new: ScoreMetrics | None, limits: GateLimits) -> GateResult:
    name, wanted, n_rows = "auc_roc", limits.min_auc, len(evaluation.labels)
    if new is None:
        return _incomparable(name, wanted, evaluation)
    if new.auc_roc is None:
        sentence = "only one class among the evaluation rows: AUC-ROC is unknown"
        return _result(name, GateStatus.INCONCLUSIVE, None, wanted, sentence, n_rows)
    status = GateStatus.PASS if new.auc_roc >= wanted else GateStatus.FAIL
    interval = auc_interval(evaluation.labels, evaluation.challenger.probabilities)
    return _result(name, status, new.auc_roc, wanted, f"AUC-ROC {new.auc_roc:.3f}, {wanted:g} wanted", n_rows, interval)


def _segments(evaluation: Evaluation, found: Sequence[SegmentDifference], limits: GateLimits) -> GateResult:
    """The value is the largest loss of F1 in a segment. Unless enforced, the gate only tells."""
    name, n_rows = SEGMENTS_GATE, len(evaluation.labels)
    problem = _problem(evaluation)
    if problem is not None and limits.segments == "enforce":
        return _incomparable(name, 0.0, evaluation)
    if not found:
        why = "no champion to compare with" if evaluation.champion is None else "no segment to compare in"
        return _result(name, GateStatus.NOT_APPLICABLE, None, 0.0, why if problem is None else problem[1], n_rows)
    worst = min(found, key=lambda s: s.challenger_f1 - s.champion_f1)
    worse = [s for s in found if s.interval_high is not None and s.interval_high < 0]
    change = worst.challenger_f1 - worst.champion_f1
    sentence = f"F1 {change:+.3f} where it changes for the worst ({worst.segment}, {worst.n_rows:,} rows)"
    sentence += (
        f"; worse for certain: {', '.join(s.segment for s in worse)}" if worse else "; nowhere worse for certain"
    )
    status = GateStatus.FAIL if worse else GateStatus.PASS
    if limits.segments == "report":
        status, sentence = GateStatus.NOT_APPLICABLE, f"{sentence} (reported, GATE_SEGMENTS=report)"
    assert worst.interval_low is not None, "segments are compared with intervals"
    assert worst.interval_high is not None, "segments are compared with intervals"
    return _result(name, status, change, 0.0, sentence, n_rows, Interval(worst.interval_low, worst.interval_high))


def _segment_difference(name: str, counts: IntArray, level: float, seed: int) -> SegmentDifference:
    champion, challenger = (float(f1(counts, says_so)) for says_so in (CHAMPION_SAYS_SO, CHALLENGER_SAYS_SO))
    bounds = f1_difference_bounds(counts, level, seed)
    return SegmentDifference(name, int(counts.sum()), champion, challenger, bounds.low, bounds.high)


def _no_champion(name: str, threshold: float, n_rows: int) -> GateResult:
    return _result(name, GateStatus.NOT_APPLICABLE, None, threshold, "no champion to compare with", n_rows)


def _incomparable(name: str, threshold: float, evaluation: Evaluation) -> GateResult:
    problem = _problem(evaluation)
    assert problem is not None, "metrics are unknown only where a model does not score"
    return _result(name, problem[0], None, threshold, problem[1], len(evaluation.labels))
