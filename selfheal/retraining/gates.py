"""The six gates between a shadow model and production. Pure: labels and scores in, verdict out.

Both models score the same evaluation rows, each at its own threshold. Every gate is evaluated, whatever the others say;
what cannot be measured does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfheal.contract import FloatArray, Segment
from selfheal.monitoring.performance import score_metrics
from selfheal.records import Action, GateResult, GateStatus, ScoreMetrics, SegmentDifference

if TYPE_CHECKING:
    import pandas as pd

BOOTSTRAP_RESAMPLES = 2_000
MIN_SEGMENT_ROWS = 30
GATE_NAMES = ("f1_improvement", "brier_degradation", "labelled_samples", "label_coverage", "recall", "auc_roc")

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The settings the gates ask for; `level` is the chance of passing a model that is no better, per episode."""

    min_f1_improvement_pct: float
    max_brier_degradation: float
    min_samples: int
    min_coverage_pct: float
    min_recall: float
    min_auc: float
    level: float
    max_attempts: int

    @property
    def level_per_attempt(self) -> float:
        """The level spent evenly over the attempts of an episode (Bonferroni)."""
        return self.level / self.max_attempts


@dataclass(frozen=True)
class Scores:
    """One model's probabilities on the evaluation rows, shape (n,), and its decision threshold."""

    probabilities: FloatArray
    threshold: float


@dataclass(frozen=True, slots=True)
class GateOutcome:
    gates: tuple[GateResult, ...]
    champion: ScoreMetrics | None
    challenger: ScoreMetrics

    @property
    def action(self) -> Action:
        """Promote if every applicable gate passes; one failure rejects; else more labels could tell."""
        statuses = {gate.status for gate in self.gates}
        if GateStatus.FAIL in statuses:
            return Action.REJECT
        return Action.INCONCLUSIVE if GateStatus.INCONCLUSIVE in statuses else Action.PROMOTE

    @property
    def reason(self) -> str:
        """The sentences of the gates that did not pass, or that there is none."""
        failing = [g.sentence for g in self.gates if g.status in {GateStatus.FAIL, GateStatus.INCONCLUSIVE}]
        return "; ".join(failing) if failing else "all applicable gates passed"


def evaluate_gates(
    labels: IntArray,
    challenger: Scores,
    champion: Scores | None,
    label_coverage_pct: float | None,
    limits: GateLimits,
    seed: int,
) -> GateOutcome:
    """The six gates on one set of evaluation rows.

    Args:
        labels: the true labels, shape (n,).
        champion: None at bootstrap: the gates that compare are then not applicable.
        label_coverage_pct: share of the window's predictions with a label; None where rows did not come from predictions.
        seed: of the paired bootstrap.
    """
    new = score_metrics(labels, challenger.probabilities, challenger.threshold)
    old = None if champion is None else score_metrics(labels, champion.probabilities, champion.threshold)
    gates = (
        _f1_improvement(labels, challenger, champion, new, old, limits, seed),
        _brier_degradation(new, old, limits),
        _labelled_samples(len(labels), limits),
        _label_coverage(label_coverage_pct, limits),
        _recall(new, limits),
        _auc(new, limits),
    )
    return GateOutcome(gates, old, new)


def segment_differences(
    rows: pd.DataFrame, labels: IntArray, challenger: Scores, champion: Scores, segments: Sequence[Segment]
) -> tuple[SegmentDifference, ...]:
    """F1 of both models within each band of each segment that has at least 30 rows."""
    found: list[SegmentDifference] = []
    for segment in segments:
        bands = np.digitize(rows[segment.feature].to_numpy(dtype=np.float64), segment.edges)
        bounds = ("-inf", *(f"{edge:g}" for edge in segment.edges), "inf")
        for band in range(len(segment.edges) + 1):
            mask = bands == band
            if mask.sum() < MIN_SEGMENT_ROWS:
                continue
            f1 = [
                score_metrics(labels[mask], model.probabilities[mask], model.threshold).f1
                for model in (champion, challenger)
            ]
            name = f"{segment.feature} in [{bounds[band]}, {bounds[band + 1]})"
            found.append(SegmentDifference(name, int(mask.sum()), *f1))
    return tuple(found)


def f1_difference_bounds(
    labels: IntArray, challenger: Scores, champion: Scores, level: float, seed: int
) -> tuple[float, float]:
    """Percentile bounds of F1(challenger) - F1(champion), by resampling rows in pairs (Efron, 1979).

    The lower bound is one-sided at `level`, the upper one at the same level from above. F1 depends on a resample only
    through how often each kind of row (label, both predictions) occurs, so counts are drawn, not rows.
    """
    predicted = [(m.probabilities >= m.threshold).astype(np.int64) for m in (challenger, champion)]
    kind = labels * 4 + predicted[0] * 2 + predicted[1]
    counts = np.bincount(kind, minlength=8)
    draws = np.random.default_rng(seed).multinomial(len(labels), counts / len(labels), size=BOOTSTRAP_RESAMPLES)
    difference = _f1_of_counts(draws, bit=2) - _f1_of_counts(draws, bit=1)
    low, high = np.quantile(difference, [level, 1 - level])
    return float(low), float(high)


def more_rows_for_certainty(n_rows: int, difference: float, low: float) -> int | None:
    """Rows beyond `n_rows` (1 at least) at which the lower bound `low` of a difference passes 0, if the difference stays.

    The bound's distance shrinks with the root of the number of rows. None if the difference is not above 0.

    >>> more_rows_for_certainty(200, 0.1, -0.1)
    600
    """
    if difference <= 0:
        return None
    return max(1, math.ceil(n_rows * (((difference - low) / difference) ** 2 - 1)))


def _f1_of_counts(counts: IntArray, bit: int) -> FloatArray:
    """F1 from counts of the 8 kinds of row, shape (resamples, 8); `bit` selects whose prediction it is."""
    is_positive = np.array([kind & 4 for kind in range(8)], dtype=bool)
    is_predicted = np.array([kind & bit for kind in range(8)], dtype=bool)
    true_positive = counts[:, is_positive & is_predicted].sum(axis=1)
    total = counts[:, is_positive].sum(axis=1) + counts[:, is_predicted].sum(axis=1)
    return np.asarray(2 * true_positive / np.maximum(total, 1), dtype=np.float64)


def _f1_improvement(
    labels: IntArray,
    challenger: Scores,
    champion: Scores | None,
    new: ScoreMetrics,
    old: ScoreMetrics | None,
    limits: GateLimits,
    seed: int,
) -> GateResult:
    name, wanted = "f1_improvement", limits.min_f1_improvement_pct
    if champion is None or old is None:
        return GateResult(name, GateStatus.NOT_APPLICABLE, None, wanted, "no champion to compare with")
    improvement_pct = 100.0 * (new.f1 - old.f1) / old.f1 if old.f1 > 0 else (100.0 if new.f1 > 0 else 0.0)
    low, high = f1_difference_bounds(labels, challenger, champion, limits.level_per_attempt, seed)
    measured = f"F1 {old.f1:.3f} -> {new.f1:.3f} ({improvement_pct:+.1f} %, {wanted:g} % wanted)"
    if improvement_pct < wanted:
        status, sentence = GateStatus.FAIL, measured
    elif low <= 0:
        status = GateStatus.INCONCLUSIVE
        more = more_rows_for_certainty(len(labels), new.f1 - old.f1, low)
        advice = "" if more is None else f"; about {more:,} more evaluation rows would tell, if it stays as it is"
        sentence = f"{measured}, but the difference may be chance: it could be as low as {low:+.3f}{advice}"
    else:
        status, sentence = GateStatus.PASS, f"{measured}, at least {low:+.3f}"
    return GateResult(name, status, improvement_pct, wanted, sentence, low, high)


def _brier_degradation(new: ScoreMetrics, old: ScoreMetrics | None, limits: GateLimits) -> GateResult:
    name, allowed = "brier_degradation", limits.max_brier_degradation
    if old is None:
        return GateResult(name, GateStatus.NOT_APPLICABLE, None, allowed, "no champion to compare with")
    change = new.brier - old.brier
    status = GateStatus.PASS if change <= allowed else GateStatus.FAIL
    return GateResult(
        name, status, change, allowed, f"Brier score {old.brier:.4f} -> {new.brier:.4f} (+{allowed:g} allowed)"
    )


def _labelled_samples(n_rows: int, limits: GateLimits) -> GateResult:
    enough = n_rows >= limits.min_samples
    sentence = f"{n_rows:,} labelled evaluation rows, {limits.min_samples:,} wanted"
    if not enough:
        sentence += f": {limits.min_samples - n_rows:,} more needed"
    status = GateStatus.PASS if enough else GateStatus.INCONCLUSIVE
    return GateResult("labelled_samples", status, float(n_rows), float(limits.min_samples), sentence)


def _label_coverage(coverage_pct: float | None, limits: GateLimits) -> GateResult:
    name, wanted = "label_coverage", limits.min_coverage_pct
    if coverage_pct is None:
        return GateResult(name, GateStatus.NOT_APPLICABLE, None, wanted, "the rows are not logged predictions")
    status = GateStatus.PASS if coverage_pct >= wanted else GateStatus.INCONCLUSIVE
    sentence = f"{coverage_pct:.0f} % of the predictions are labelled, {wanted:g} % wanted"
    return GateResult(name, status, coverage_pct, wanted, sentence)


def _recall(new: ScoreMetrics, limits: GateLimits) -> GateResult:
    if new.n_positive == 0:
        sentence = "no positive label among the evaluation rows: recall is unknown"
        return GateResult("recall", GateStatus.INCONCLUSIVE, None, limits.min_recall, sentence)
    status = GateStatus.PASS if new.recall >= limits.min_recall else GateStatus.FAIL
    sentence = f"recall {new.recall:.3f}, {limits.min_recall:g} wanted"
    return GateResult("recall", status, new.recall, limits.min_recall, sentence)


def _auc(new: ScoreMetrics, limits: GateLimits) -> GateResult:
    if new.auc_roc is None:
        sentence = "only one class among the evaluation rows: AUC-ROC is unknown"
        return GateResult("auc_roc", GateStatus.INCONCLUSIVE, None, limits.min_auc, sentence)
    status = GateStatus.PASS if new.auc_roc >= limits.min_auc else GateStatus.FAIL
    sentence = f"AUC-ROC {new.auc_roc:.3f}, {limits.min_auc:g} wanted"
    return GateResult("auc_roc", status, new.auc_roc, limits.min_auc, sentence)
