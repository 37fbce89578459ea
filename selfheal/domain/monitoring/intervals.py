"""95 % confidence intervals of classification metrics on labelled rows, chosen to hold with few rows and few positives.

Belongs here: the uncertainty of a realised metric as an estimate of the quality on all such rows. Labels that have not
arrived yet are the subject of `selfheal.domain.monitoring.estimation`. `benchmarks.estimation` measures the coverage.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfheal.domain.clusters import Clusters, cluster_sums, design_effect, n_entities
from selfheal.domain.records import Interval

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray

INTERVAL_LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + INTERVAL_LEVEL) / 2)

MIN_DELONG_ROWS = 50
ROOT_TOLERANCE = 1e-15
"""Tolerance of a root between 0 and 1: the resolution of a float near 1."""

IntArray = npt.NDArray[np.int64]


def metric_intervals(
    labels: IntArray, scores: FloatArray, threshold: float, clusters: Clusters = None
) -> dict[str, Interval]:
    """Return the intervals by metric: f1, precision, recall, auc_roc, brier; omit those that the rows do not define.

    Args:
        labels: shape (n,), of rows drawn independently from the population.
        scores: shape (n,), the predicted probabilities of the same rows.
        clusters: the entity of each row, if entities are what is drawn independently; None if every row is its own.
    """
    predicted = scores >= threshold
    if clusters is not None:
        return _clustered_intervals(labels, scores, predicted.astype(np.int64), clusters)
    true_positive = int(labels[predicted].sum())
    n_positive, n_predicted = int(labels.sum()), int(predicted.sum())
    found = {
        "f1": f1_interval(true_positive, n_predicted - true_positive, n_positive - true_positive),
        "precision": wilson(true_positive, n_predicted),
        "recall": wilson(true_positive, n_positive),
        "auc_roc": auc_interval(labels, scores),
        "brier": mean_interval((scores - labels) ** 2),
    }
    return {name: interval for name, interval in found.items() if interval is not None}


def _clustered_intervals(
    labels: IntArray, scores: FloatArray, predicted: IntArray, clusters: IntArray
) -> dict[str, Interval]:
    hits = labels * predicted
    q = ratio_interval(hits, np.maximum(labels, predicted), clusters)
    found = {
        "f1": None if q is None else _f1_of_share(q),
        "precision": ratio_interval(hits, predicted, clusters),
        "recall": recall_interval(labels, predicted, clusters),
        "auc_roc": auc_interval(labels, scores, clusters),
        "brier": mean_interval((scores - labels) ** 2, clusters),
    }
    return {name: interval for name, interval in found.items() if interval is not None}


def recall_interval(labels: IntArray, predicted: IntArray, clusters: Clusters = None) -> Interval | None:
    """Return the interval of recall; None without a positive."""
    if clusters is None:
        return wilson(int((labels * predicted).sum()), int(labels.sum()))
    return ratio_interval(labels * predicted, labels, clusters)


def ratio_interval(hits: IntArray, trials: IntArray, clusters: IntArray) -> Interval | None:
    """Return the interval of a share of trials in clustered rows; None without a trial.

    It is Wilson's with hits and trials divided by the design effect of the ratio (Rao and Scott, 1992, Biometrics 48), and the
    quantile of Student's t, since the effect is estimated from the clusters that have a trial.

    Args:
        hits, trials: 0 or 1, shape (n,); a hit is a trial.
    """
    n_trials = int(trials.sum())
    if n_trials == 0:
        return None
    is_trial = trials.astype(bool)
    of_trials = clusters[is_trial]
    effect = design_effect(hits[is_trial].astype(np.float64), of_trials)
    return _wilson_of_share(float(hits.sum()) / n_trials, n_trials / effect, _t_quantile(n_entities(of_trials) - 1))


def _wilson_of_share(share: float, n: float, z: float) -> Interval:
    centre, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return Interval(max(0.0, low), min(1.0, high))


def _t_quantile(freedom: float) -> float:
    """Return Student's two-sided quantile; with less than one degree of freedom, that of one."""
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, freedom), (1 + INTERVAL_LEVEL) / 2))


def wilson(n_successes: int, n: int) -> Interval | None:
    """Return the interval of a proportion (Wilson, 1927, JASA 22); None without a trial.

    >>> found = wilson(15, 148)
    >>> round(found.low, 4), round(found.high, 4)
    (0.0624, 0.1605)
    """
    from scipy.stats import binomtest

    if n == 0:
        return None
    found = binomtest(n_successes, n).proportion_ci(INTERVAL_LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high))


def f1_interval(true_positive: int, false_positive: int, false_negative: int) -> Interval | None:
    """Return the interval of F1: Wilson's of q = TP / (TP + FP + FN), mapped by F1 = 2 q / (1 + q).

    None if all rows are true negatives.

    Given how many rows are not true negatives, TP is binomial, so a proportion's interval applies (the Wilson indirect
    method of Lam et al., arXiv:2309.14621; q is the F* of Hand et al., 2021, Machine Learning 110).
    """
    share = wilson(true_positive, true_positive + false_positive + false_negative)
    return None if share is None else _f1_of_share(share)


def _f1_of_share(share: Interval) -> Interval:
    return Interval(*(2 * q / (1 + q) for q in (share.low, share.high)))


def auc_interval(labels: IntArray, scores: FloatArray, clusters: Clusters = None) -> Interval | None:
    """Return the interval of the area under the ROC curve; None where there is only one class.

    From `MIN_DELONG_ROWS` rows of the smaller class on, the interval is DeLong's, which assumes nothing about the scores.
    With fewer rows DeLong's variance is too uncertain (90 % coverage instead of 95 % with 13 positives), and with perfect
    separation it is 0, so Newcombe's interval is used.

    In clustered rows the variance is that of the sums of DeLong's components by cluster (Obuchowski, 1997, Biometrics 53), and
    Newcombe's interval has as many fewer rows of each class as its components have a design effect.
    """
    if clusters is not None:
        return _clustered_auc(labels, scores, clusters)
    positive, negative = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    if not (len(positive) and len(negative)):
        return None
    wins = share_below(negative, positive)  # of each positive over the negatives
    losses = 1 - share_below(positive, negative)
    auc = float(wins.mean())
    if min(len(positive), len(negative)) < MIN_DELONG_ROWS or not 0 < auc < 1:
        return _newcombe(auc, len(positive), len(negative))
    return _delong(auc, wins, losses)


def _delong(auc: float, wins: FloatArray, losses: FloatArray) -> Interval:
    """Return the interval on the log-odds scale (Pepe, 2003, section 5.2), with DeLong's variance.

    The variance is that of DeLong et al. (1988, Biometrics 44); because it is estimated from two samples, the quantile
    is Student's t with Welch's degrees of freedom.
    """
    from scipy.special import stdtrit

    parts = float(wins.var(ddof=1)) / len(wins), float(losses.var(ddof=1)) / len(losses)
    variance = sum(parts)
    if variance == 0:  # each row wins equally often: the scores do not separate the classes
        return Interval(auc, auc)
    freedom = variance**2 / (parts[0] ** 2 / (len(wins) - 1) + parts[1] ** 2 / (len(losses) - 1))
    half = float(stdtrit(freedom, (1 + INTERVAL_LEVEL) / 2)) * math.sqrt(variance) / (auc * (1 - auc))
    return _from_log_odds(auc, half)


def _clustered_auc(labels: IntArray, scores: FloatArray, clusters: IntArray) -> Interval | None:
    is_positive = labels == 1
    positive, negative = np.sort(scores[is_positive]), np.sort(scores[~is_positive])
    if not (len(positive) and len(negative)):
        return None
    wins = share_below(negative, scores[is_positive])
    losses = 1 - share_below(positive, scores[~is_positive])
    auc = float(wins.mean())
    of_positive, of_negative = clusters[is_positive], clusters[~is_positive]
    n_positive = len(wins) / design_effect(wins, of_positive)
    n_negative = len(losses) / design_effect(losses, of_negative)
    if min(n_entities(of_positive), n_entities(of_negative)) < MIN_DELONG_ROWS or not 0 < auc < 1:
        return _newcombe(auc, n_positive, n_negative)
    parts = np.zeros(len(labels))
    parts[is_positive], parts[~is_positive] = (wins - auc) / len(wins), (losses - auc) / len(losses)
    sums = cluster_sums(parts, clusters)
    n_clusters = n_entities(clusters)
    variance = float((sums**2).sum()) * n_clusters / (n_clusters - 1)
    if variance == 0:
        return Interval(auc, auc)
    freedom = min(n_entities(of_positive), n_entities(of_negative)) - 1
    half = _t_quantile(freedom) * math.sqrt(variance) / (auc * (1 - auc))
    return _from_log_odds(auc, half)


def _from_log_odds(auc: float, half: float) -> Interval:
    log_odds = math.log(auc / (1 - auc))
    return Interval(*(1 / (1 + math.exp(-(log_odds + sign * half))) for sign in (-1, 1)))


def _newcombe(auc: float, n_positive: float, n_negative: float) -> Interval:
    """Return the areas within Z of their own standard error: Newcombe's method 5 (2006, Statistics in Medicine 25).

    The standard error is Hanley and McNeil's (1982) for exponential scores, with the mean of both class sizes.
    """
    from scipy.optimize import brentq

    extra = (n_positive + n_negative) / 2 - 1

    def excess(area: float) -> float:
        """Return the squared distance of `area` from the estimate, less the largest that the interval allows."""
        spread = 1 + extra * ((1 - area) / (2 - area) + area / (1 + area))
        variance = area * (1 - area) * spread / (n_positive * n_negative)
        return (area - auc) ** 2 - Z * Z * variance

    inside = min(
        max(auc, ROOT_TOLERANCE), 1 - ROOT_TOLERANCE
    )  # at 0 and 1 the variance is 0: a root, but not the interval's end
    low = 0.0 if auc == 0 else brentq(excess, 0.0, inside, xtol=ROOT_TOLERANCE)
    high = 1.0 if auc == 1 else brentq(excess, inside, 1.0, xtol=ROOT_TOLERANCE)
    return Interval(float(low), float(high))


def mean_interval(values: FloatArray, clusters: Clusters = None) -> Interval | None:
    """Return the interval of the mean of skewed values from 0 to 1, as squared errors are; None with fewer than two.

    Student's t with its skewness taken out by Hall's cubic transformation (1992, JRSS B 54): with T = (mean - m) / s
    and skewness g, sqrt(n) (T + g T^2 / 3 + g^2 T^3 / 27 + g / (6 n)) is nearly standard normal, and the cubic is
    monotone, so that it can be inverted. In clustered rows n is the number of clusters, and the values are the deviations'
    sums by cluster over the mean number of rows in one.
    """
    n = len(values)
    if n < 2:
        return None
    mean = float(values.mean())
    if clusters is not None:
        n = n_entities(clusters)
        values = mean + cluster_sums(values - mean, clusters) * (n / len(values))
    spread = float(values.std())
    if spread == 0:
        return Interval(mean, mean)
    skewness = float((((values - mean) / spread) ** 3).mean())
    ends = [mean - spread * hall_inverse(sign * Z / math.sqrt(n), skewness, n) for sign in (1, -1)]
    return Interval(max(0.0, ends[0]), min(1.0, ends[1]))


def hall_inverse(value: float, skewness: float, n: int) -> float:
    """Return the T at which Hall's cubic takes `value`.

    With g the skewness, the cubic is T + g T^2 / 3 + g^2 T^3 / 27 + g / (6 n); it is monotone (`mean_interval`).
    """
    shifted = value - skewness / (6 * n)
    if abs(skewness) < 1e-6:
        return shifted
    return float(3 / skewness * (np.cbrt(1 + skewness * shifted) - 1))


def share_below(sorted_others: FloatArray, values: FloatArray) -> FloatArray:
    """Return the share of the others that is below each value, a tie counting half."""
    below = np.searchsorted(sorted_others, values, "left") + np.searchsorted(sorted_others, values, "right")
    return np.asarray(below / (2 * len(sorted_others)), dtype=np.float64)
