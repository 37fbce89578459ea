"""Performance of the champion: realised on labelled rows, estimated by CBPE on all rows."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.clusters import Clusters, design_effect
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.estimation import estimate_performance
from selfheal.domain.monitoring.intervals import IntArray, metric_intervals
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.regret import regret
from selfheal.domain.monitoring.relation import Relation
from selfheal.domain.monitoring.weighted_metrics import weighted_brier_excess, weighted_score_metrics
from selfheal.domain.records import (
    ConceptDrift,
    Interval,
    LabelCheck,
    LabelDelay,
    PerformanceReport,
    ScoreMetrics,
    Window,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

HARM_LEVEL = 0.001
"""One-sided level of the lower bound on a realised loss; small, because overlapping ticks test it often."""

CONCEPT_DRIFT_LEVEL = 0.001
"""Level of the test whether score and outcome are related as in the reference; small for the same reason."""

MIN_LABELLED_ROWS = 30
"""Smallest number of labelled rows with realised metrics: with fewer, the bound's normal approximation does not hold."""


def score_metrics(
    labels: IntArray, probabilities: FloatArray, threshold: float, decisions: IntArray | None = None
) -> ScoreMetrics:
    """Compute the quality of `probabilities` for the true `labels` (both shape (n,)) at a decision threshold.

    AUC is None if there is only one class. Brier is the mean squared error of the probability (Brier, 1950). A share of nothing
    is 0: precision without a predicted positive, recall without a positive.

    Args:
        decisions: 0 or 1, in place of those at the threshold.

    Raises:
        ValueError: if a probability is not a finite number.
    """
    if not np.isfinite(probabilities).all():
        raise ValueError("a probability is not a finite number: the model's output is unusable")
    predicted = probabilities >= threshold if decisions is None else decisions == 1
    true_positive, n_predicted, n_positive = (int(n) for n in (labels[predicted].sum(), predicted.sum(), labels.sum()))
    return ScoreMetrics(
        n_rows=len(labels),
        n_positive=n_positive,
        f1=2 * true_positive / (n_predicted + n_positive) if n_predicted + n_positive else 0.0,
        precision=true_positive / n_predicted if n_predicted else 0.0,
        recall=true_positive / n_positive if n_positive else 0.0,
        auc_roc=roc_auc(labels, probabilities) if 0 < n_positive < len(labels) else None,
        brier=float(np.mean((probabilities - labels) ** 2)),
    )


def roc_auc(labels: IntArray, scores: FloatArray) -> float:
    """Return the area under the ROC curve by trapezoids between its corners; both classes must be present.

    It is scikit-learn's `roc_auc_score` to the last bit, without its checks, which cost more than the area.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    in_order = scores[order]
    ends = np.append(np.flatnonzero(np.diff(in_order)), len(scores) - 1)
    positives = np.cumsum(labels[order].astype(np.float64))[ends]
    negatives = 1 + ends - positives
    if len(ends) > 2:
        is_corner = np.concatenate([[True], (np.diff(positives, 2) != 0) | (np.diff(negatives, 2) != 0), [True]])
        positives, negatives = positives[is_corner], negatives[is_corner]
    shares = np.concatenate([[0.0], positives]) / positives[-1]
    false_shares = np.concatenate([[0.0], negatives]) / negatives[-1]
    return float((np.diff(false_shares) * (shares[1:] + shares[:-1]) / 2.0).sum())


def performance_report(
    window: Window,
    current: pd.DataFrame,
    labelled: pd.DataFrame,
    reference: ScoreMetrics,
    threshold: float,
    *,
    calibration_rows: pd.DataFrame | PreparedRows,
    inputs: Sequence[str],
    label_delay: LabelDelay | None,
    matured: Window | None,
    seed: int,
    decides_at_auc: float | None = None,
    label_check: LabelCheck | None = None,
    clusters: Clusters = None,
    labelled_clusters: Clusters = None,
    weights: FloatArray | None = None,
) -> PerformanceReport:
    """Report realised and estimated quality of the champion in one window.

    Args:
        current: the window's rows: `inputs` and `probability`.
        labelled: labelled rows, with `true_label` too, of `matured`; if maturity is unknown they show nothing, and are not used.
        reference: the champion's metrics on the rows it was judged on.
        calibration_rows: the champion's frozen reference: `inputs`, `probability`, `true_label`.
        inputs: names of the raw inputs.
        matured: the period whose predictions are old enough to be labelled; None if unknown.
        seed: of the estimate's simulation.
        decides_at_auc: `HarmLimits.min_auc`, if only the verdict is wanted (`triage`): leave out the intervals that cannot
            change it, most of the cost. None: the whole report.
        weights: how many predictions each labelled row stands for; None: itself. With weights there are no intervals, and
            the relation is not tested.
        label_check: what the newest labels are like; `labelled` is without those that are suspect.
        clusters, labelled_clusters: the entity of each row of `current` and `labelled`; None if every row is its own.
    """
    realised = excess = low = None
    intervals: dict[str, Interval] = {}
    rows = PreparedRows.of(calibration_rows)
    if matured is not None and len(labelled) >= MIN_LABELLED_ROWS:
        labels = labelled[TRUE_LABEL].to_numpy(dtype=np.int64)
        probabilities = labelled["probability"].to_numpy(dtype=np.float64)
        if weights is not None:
            realised = weighted_score_metrics(labels, probabilities, threshold, weights)
            excess, low = weighted_brier_excess(labels, probabilities, weights, HARM_LEVEL)
        else:
            realised = score_metrics(labels, probabilities, threshold)
            intervals = (
                {}
                if decides_at_auc is not None
                else metric_intervals(labels, probabilities, threshold, labelled_clusters)
            )
            excess, low = brier_excess(labels, probabilities, labelled_clusters)
    estimate = (
        estimate_performance(current, rows, inputs, threshold, seed, decides_at_auc, clusters) if len(current) else None
    )
    estimated = {} if estimate is None else estimate.values
    # Early labels may be of one class only, so they cannot test the relation.
    is_judged = matured is not None and weights is None
    relation = Relation.of(labelled, rows, inputs, labelled_clusters) if is_judged else None
    p_value = None if relation is None else relation.p_value()
    return PerformanceReport(
        window=window,
        reference=reference,
        realised=realised,
        brier_excess=excess,
        brier_excess_low=low,
        estimated_f1=estimated.get("f1"),
        estimated_auc_roc=estimated.get("auc_roc"),
        estimated_brier=estimated.get("brier"),
        label_coverage_pct=_coverage_pct(window),
        realised_intervals=intervals,
        is_matured=matured is not None,
        matured_coverage_pct=None if matured is None else _coverage_pct(matured),
        label_delay=label_delay,
        estimate=estimate,
        concept_drift=concept_drift(p_value),
        concept_drift_p_value=p_value,
        concept_drift_rows=0 if p_value is None else len(labelled),
        label_check=label_check,
        withheld=_withheld(window, label_delay) if matured is None else (),
        regret=None if relation is None else regret(relation, threshold, seed),
        matured_since=None if matured is None else matured.start,
        matured_until=None if matured is None else matured.end,
    )


def _withheld(window: Window, delay: LabelDelay | None) -> tuple[str, ...]:
    """Say why there are no realised metrics although there are labels."""
    if window.n_labels == 0:
        return ()
    why = "how long labels take is unknown" if delay is None else delay.reason
    return (f"realised metrics, gates and probation are withheld: when labels are complete is {why}",)


def concept_drift(p_value: float | None) -> ConceptDrift:
    """Judge by labels whether the relation between score and outcome changed; `p_value` is from `Relation`."""
    if p_value is None:
        return ConceptDrift.NOT_IDENTIFIABLE
    return ConceptDrift.SHOWN if p_value < CONCEPT_DRIFT_LEVEL else ConceptDrift.NONE_SHOWN


def brier_excess(labels: IntArray, probabilities: FloatArray, clusters: Clusters = None) -> tuple[float, float]:
    """Return the realised minus the predicted Brier score, mean of (y - p)^2 - p(1 - p), and its one-sided lower bound.

    This is the statistic of Spiegelhalter (1986, Statistics in Medicine 5): its expectation is 0 while the probabilities are
    calibrated, for any mix of inputs. The bound is normal, at `HARM_LEVEL`, with the standard deviation of the rows.
    """
    excess = (labels - probabilities) ** 2 - probabilities * (1 - probabilities)
    mean = float(excess.mean())
    error = float(excess.std(ddof=1)) / math.sqrt(len(excess) / design_effect(excess, clusters))
    return mean, mean - NormalDist().inv_cdf(1 - HARM_LEVEL) * error


def _coverage_pct(window: Window) -> float | None:
    return 100.0 * window.n_labels / window.n_predictions if window.n_predictions else None
