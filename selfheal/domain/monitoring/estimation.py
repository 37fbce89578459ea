"""Performance estimation without labels (CBPE) on calibrated scores, with prediction intervals.

Confidence-based performance estimation counts each row as p true and 1 - p false cases. Here p is not the model's raw score.
The score is calibrated on the outcomes in the version's frozen reference (rows the model had not seen), weighted to the
window's mix of inputs: importance-weighted calibration, as in Bialek et al., "Estimating Model Performance Under Covariate
Shift Without Labels" (arXiv:2401.08348). The intervals are predictive: they predict what the labels of *these* rows will
show, so they include the randomness of each outcome and the uncertainty of the calibration.

The estimate assumes that inputs and outcome are related as in the reference (no concept drift). Only labels can test that:
`relation_p_value` does so with the labels that have arrived. An estimate never proves that the model is healthy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfheal.domain.clusters import Clusters, cluster_sums, n_entities, within
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.intervals import INTERVAL_LEVEL
from selfheal.domain.monitoring.mixture import Mixture, Overlap
from selfheal.domain.monitoring.newton import fit_logistic, probability
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.records import Estimate, Interval, ScoreMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

N_DRAWS = 1_000
"""Number of simulated label sets; the interval's coverage is then uncertain by half a percentage point at each end."""

MAX_CELLS_PER_BLOCK = 65_536
"""Draws x rows simulated at once (256 kB per array), so that a block stays in the processor's cache, whatever the window."""

ENOUGH_DRAWS_ABOVE = 51
"""Draws at or above a limit from which the upper end of their interval is certainly not below it, whatever the others show: the
51st of 1,000 from the top is inside the central 95 %, and so is a tie of so many."""

MIN_EVENTS = 20
"""Smallest effective number of calibration rows of either class, after weighting, that determines a calibration curve."""

MAX_UNCOVERED_PCT = 10.0
"""Largest percentage of uncovered rows: with more, the estimate would be about rows without any known outcome."""

MAX_MIXTURE_GAP = 0.2
"""Largest KS distance of an input between the window and the weighted reference, less what chance explains. Above it the
weighting has not reproduced the window's mix (a column stuck at one value, say)."""

CURVE_PENALTY = 1.0
"""Ridge penalty of the calibration curve's distance from the model's own scores, which hold unless rows contradict them."""

KNOT_LEVELS = (0.05, 0.35, 0.65, 0.95)
"""Quantiles of the scores at which the calibration curve may bend (Harrell, Regression Modeling Strategies, 2015, 2.4.6)."""

SMALLEST_PROBABILITY = 1e-4
"""Scores are clipped to this distance from 0 and 1 before taking log-odds, which would otherwise be infinite."""


@dataclass(frozen=True)
class Calibration:
    """The calibration log-odds(outcome) = log-odds(score) + curve(log-odds(score)), and the uncertainty of the curve.

    The curve is a restricted cubic spline, linear beyond its outer knots, so that it stays moderate where there are no rows.
    `coefficients` has shape (k,), `covariance` (k, k).
    """

    knots: FloatArray
    coefficients: FloatArray
    covariance: FloatArray

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Return the calibrated probability of class 1 for each score."""
        log_odds = _log_odds(scores)
        return probability(log_odds + _curve_basis(log_odds, self.knots) @ self.coefficients)


UNCALIBRATED = Calibration(knots=np.array([]), coefficients=np.zeros(2), covariance=np.zeros((2, 2)))
"""Scores unchanged, without uncertainty."""


def cbpe(probabilities: FloatArray, threshold: float, scores: FloatArray | None = None) -> ScoreMetrics:
    """Estimate performance from confidence (CBPE): the expected metrics if class 1 has these `probabilities`.

    Each row counts as p true and 1 - p false cases (Guo et al., 2017; NannyML's documentation of CBPE). AUC compares each
    row with every other one, a tie counting half; it is None if no pair of a true and a false case is possible. CBPE does
    not see a change in the relation between inputs and label: only labels can show that.

    Args:
        scores: the model's scores, which decide and rank; if absent, the probabilities themselves.
    """
    said = probabilities if scores is None else scores
    predicted = said >= threshold
    true_positive = float(probabilities[predicted].sum())
    n_predicted, n_positive = float(predicted.sum()), float(probabilities.sum())
    values, row_of = np.unique(said, return_inverse=True)
    negatives = np.bincount(row_of, weights=1 - probabilities, minlength=len(values))
    negatives_below = (np.cumsum(negatives) - negatives)[row_of]
    negatives_tied = negatives[row_of] - (1 - probabilities)  # a row does not pair with itself
    pairs = float((probabilities * (negatives.sum() - (1 - probabilities))).sum())
    return ScoreMetrics(
        n_rows=len(probabilities),
        n_positive=round(n_positive),
        f1=2 * true_positive / (n_predicted + n_positive) if n_predicted + n_positive else 0.0,
        precision=true_positive / n_predicted if n_predicted else 0.0,
        recall=true_positive / n_positive if n_positive else 0.0,
        auc_roc=float((probabilities * (negatives_below + negatives_tied / 2)).sum() / pairs) if pairs > 0 else None,
        brier=float(np.mean(probabilities * (1 - said) ** 2 + (1 - probabilities) * said**2)),
    )


def estimate_performance(
    current: pd.DataFrame,
    reference: pd.DataFrame | PreparedRows,
    inputs: Sequence[str],
    threshold: float,
    seed: int,
    harmful_below_auc: float | None = None,
    clusters: Clusters = None,
) -> Estimate:
    """Estimate what the labels of the window's rows will show, with 95 % prediction intervals.

    Args:
        current: the window's rows, at least one: `inputs` and `probability`.
        reference: the version's frozen reference: `inputs`, `probability` (of a model that had not seen the row) and
            `true_label`; a version without outcomes is estimated from its scores as they are.
        inputs: raw inputs, by which the reference is weighted to the window's mix.
        harmful_below_auc: leave out the intervals, nearly all of the cost, where the AUC's certainly does not lie below this:
            they then decide nothing (`selfheal.domain.monitoring.triage.harm_reasons`). None: always give them.
        clusters: the entity of each of the window's rows, which share one outcome; None if every row is its own.
    """
    scores, rows = current["probability"].to_numpy(dtype=np.float64), with_outcomes(PreparedRows.of(reference))
    simulation = _Simulation(scores, threshold, seed, harmful_below_auc, clusters)
    known = outcomes(rows)
    if _fewest_events(known, np.ones(len(known))) < MIN_EVENTS:
        reason = f"not calibrated: the reference has fewer than {MIN_EVENTS} outcomes of a class, scores are taken as they are"
        basis = Estimate({}, {}, is_identifiable=True, is_calibrated=False, reason=reason, n_calibration_rows=0)
        return simulation.added_to(basis, UNCALIBRATED)
    overlap = overlap_of(current, rows, inputs)
    problem = _why_not_identifiable(known, overlap)
    effective = _effective_rows(overlap.weights)
    basis = Estimate(
        {},
        {},
        is_identifiable=problem is None,
        is_calibrated=problem is None,
        reason=problem
        or f"calibrated on {len(known):,} rows with known outcome, worth {effective:,.0f} in this mix"
        f"{_shared(len(scores), clusters)}",
        n_calibration_rows=len(known),
        effective_calibration_rows=effective,
        uncovered_pct=overlap.uncovered_pct,
    )
    return basis if problem is not None else simulation.added_to(basis, _curve_rows(rows).fit(overlap.weights))


def relation_p_value(
    labelled: pd.DataFrame,
    reference: pd.DataFrame | PreparedRows,
    inputs: Sequence[str],
    clusters: Clusters = None,
) -> float | None:
    """Return the p-value of the labels if score and outcome are related as in the reference; None if not identifiable.

    This is the score test for a changed level or slope of the calibration. Under the old relation,
    U = sum (y - p) (1, log-odds of the score) has mean 0 and covariance C = G + G_c V G_c', where V is the calibration's own
    uncertainty; U' C^-1 U is chi-square with two degrees of freedom (Cox and Hinkley, Theoretical Statistics, 1974, 9.3).
    The result is None if either side has too few events of a class, or if the reference has no rows like the labelled ones.
    Rows of one entity share one outcome: their parts of U are added before they are squared in C, and count once as events.

    Args:
        labelled: `inputs`, `probability` and `true_label` of matured rows, so that both outcomes have had time to arrive.
        clusters: the entity of each of them; None if every row is its own.
    """
    rows = with_outcomes(PreparedRows.of(reference))
    known = outcomes(rows)
    if labelled.empty or _fewest_events(known, np.ones(len(known))) < MIN_EVENTS:
        return None
    overlap = overlap_of(labelled, rows, inputs)
    if _why_not_identifiable(known, overlap) is not None:
        return None
    calibration = _curve_rows(rows).fit(overlap.weights)
    scores, labels = (labelled[name].to_numpy(dtype=np.float64) for name in ("probability", TRUE_LABEL))
    expected = calibration.probabilities(scores)
    once = 1.0 if clusters is None else 1.0 / np.bincount(clusters)[clusters]
    if min((once * expected).sum(), (once * (1 - expected)).sum()) < MIN_EVENTS / 2:
        return None
    curve = _curve_basis(_log_odds(scores), calibration.knots)
    direction = curve[:, :2]  # level and slope
    information = direction * (expected * (1 - expected))[:, None]
    to_curve = information.T @ curve
    of_labels = information.T @ direction
    if clusters is not None:
        shared = cluster_sums(direction * np.sqrt(expected * (1 - expected))[:, None], clusters)
        of_labels = shared.T @ shared
    covariance = of_labels + to_curve @ calibration.covariance @ to_curve.T
    shift = direction.T @ (labels - expected)
    statistic = float(shift @ np.linalg.pinv(covariance) @ shift)
    return math.exp(-max(0.0, statistic) / 2)


def overlap_of(current: pd.DataFrame, reference: pd.DataFrame | PreparedRows, inputs: Sequence[str]) -> Overlap:
    """Weight the reference to the window's mix of these inputs (`selfheal.domain.monitoring.mixture`)."""
    rows = PreparedRows.of(reference)
    mixture = rows.once(("mixture", *inputs), lambda: Mixture.of(rows, inputs))
    return mixture.overlap([current[name].to_numpy(dtype=np.float64) for name in inputs])


def fit_calibration(scores: FloatArray, labels: FloatArray, weights: FloatArray) -> Calibration:
    """Fit the curve from scores to outcomes on weighted rows.

    Its covariance is the sandwich estimator H^-1 (sum w^2 (y - p)^2 x x') H^-1 (Huber, 1967; White, 1982), for clustered rows with
    the parts w (y - p) x of each cluster added before they are squared (Liang and Zeger, 1986, Biometrika 73).
    """
    return _CurveRows.of(scores, labels).fit(weights)


@dataclass(frozen=True, eq=False)
class _CurveRows:
    """Rows to fit a calibration curve on, with any weights."""

    labels: FloatArray
    log_odds: FloatArray
    knots: FloatArray
    basis: FloatArray
    clusters: Clusters = None

    @classmethod
    def of(cls, scores: FloatArray, labels: FloatArray, clusters: Clusters = None) -> _CurveRows:
        log_odds = _log_odds(scores)
        knots = np.unique(np.quantile(log_odds, KNOT_LEVELS).round(6))
        return cls(labels, log_odds, knots, _curve_basis(log_odds, knots), clusters)

    def fit(self, weights: FloatArray) -> Calibration:
        penalties = np.full(self.basis.shape[1], CURVE_PENALTY)
        penalties[0] = 0.0
        coefficients, hessian = fit_logistic(self.basis, self.labels, weights, self.log_odds, penalties)
        residuals = weights * (self.labels - probability(self.log_odds + self.basis @ coefficients))
        inverse = np.linalg.pinv(hessian)
        spread = self.basis * residuals[:, None]
        if self.clusters is not None:
            spread = cluster_sums(spread, self.clusters)
        return Calibration(self.knots, coefficients, inverse @ (spread.T @ spread) @ inverse)


def _curve_rows(reference: PreparedRows) -> _CurveRows:
    return reference.once(
        ("calibration",),
        lambda: _CurveRows.of(reference.values("probability"), outcomes(reference), reference.clusters),
    )


def _shared(n_rows: int, clusters: Clusters) -> str:
    if clusters is None:
        return ""
    return f"; the {n_rows:,} rows are of {n_entities(clusters):,} entities, with one outcome each"


def simulate_metrics(
    scores: FloatArray, calibration: Calibration, threshold: float, seed: int
) -> dict[str, FloatArray]:
    """Simulate the metrics of `N_DRAWS` label sets: draw a curve from its distribution, then a label for each row.

    Each metric follows from four sums over the rows with label 1 (count, predicted positives, ranks, change of the squared
    error), so that a draw is one row of a matrix product. A metric that a draw does not define is NaN.
    """
    draws = simulate_unless(scores, calibration, threshold, seed, math.inf)
    assert draws is not None, "no AUC is infinite"
    return draws


def simulate_unless(
    scores: FloatArray,
    calibration: Calibration,
    threshold: float,
    seed: int,
    enough_auc: float,
    clusters: Clusters = None,
) -> dict[str, FloatArray] | None:
    """Return `simulate_metrics`; None as soon as `ENOUGH_DRAWS_ABOVE` draws have an AUC of at least `enough_auc`.

    Rows of one cluster share the variate that decides their labels.
    """
    rng = np.random.default_rng(seed)
    n, predicted = len(scores), scores >= threshold
    of_positives = np.column_stack([np.ones(n), predicted, _midranks(scores) / n, 1 - 2 * scores]).astype(np.float32)
    log_odds = _log_odds(scores)
    basis = _curve_basis(log_odds, calibration.knots)
    curves = rng.multivariate_normal(calibration.coefficients, calibration.covariance, size=N_DRAWS, method="eigh")
    sums = np.empty((N_DRAWS, 4))
    n_predicted, squared_scores = int(predicted.sum()), float((scores**2).sum())
    n_above = 0
    for block in np.array_split(np.arange(N_DRAWS), math.ceil(N_DRAWS * n / MAX_CELLS_PER_BLOCK)):
        chance = probability((log_odds + curves[block] @ basis.T).astype(np.float32))
        is_positive = _variates(rng, chance.shape, clusters) < chance
        sums[block] = is_positive.astype(np.float32) @ of_positives
        aucs = _metrics_of_sums(sums[block], n, n_predicted, squared_scores)["auc_roc"]
        n_above += int(np.count_nonzero((aucs >= enough_auc) & np.isfinite(aucs)))  # an undefined one does not count
        if n_above >= ENOUGH_DRAWS_ABOVE:
            return None
    return _metrics_of_sums(sums, n, n_predicted, squared_scores)


def _variates(rng: np.random.Generator, shape: tuple[int, ...], clusters: Clusters) -> npt.NDArray[np.float32]:
    """Return uniform variates, shape (draws, rows), one for each cluster of rows."""
    if clusters is None:
        return rng.random(shape, dtype=np.float32)
    return rng.random((shape[0], int(clusters.max()) + 1), dtype=np.float32)[:, clusters]


def prediction_interval(draws: FloatArray) -> Interval | None:
    """Return the central 95 % of the draws by mid-p, where ties count half; None if most draws do not define the metric.

    Counts are discrete: an interval that covers *at least* 95 % covers 97 % or more in small windows. By mid-p the coverage
    is 95 % on average (Lancaster, 1961, JASA 56).
    """
    defined = draws[np.isfinite(draws)]
    if 2 * len(defined) < len(draws):
        return None
    values, counts = np.unique(defined, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(defined)
    tail = (1 - INTERVAL_LEVEL) / 2
    inside = values[(middle >= tail) & (middle <= 1 - tail)]
    # One certain outcome, or two that share the probability: no mid-p is inside, so the outcomes are the interval's ends.
    return (
        Interval(float(inside[0]), float(inside[-1])) if len(inside) else Interval(float(values[0]), float(values[-1]))
    )


@dataclass(frozen=True, eq=False)
class _Simulation:
    """What the expected metrics of the window's scores and their intervals depend on beside the calibration."""

    scores: FloatArray
    threshold: float
    seed: int
    harmful_below_auc: float | None
    clusters: Clusters = None

    def added_to(self, basis: Estimate, calibration: Calibration) -> Estimate:
        """Add the expected metrics and their intervals to the estimate; omit a metric that most draws do not define."""
        probabilities = calibration.probabilities(self.scores)
        expected = cbpe(probabilities, self.threshold, self.scores)
        values = {name: getattr(expected, name) for name in ("f1", "precision", "recall", "auc_roc", "brier")}
        values["positive_rate"] = float(probabilities.mean())
        known = {name: value for name, value in values.items() if value is not None}
        enough = math.inf if self.harmful_below_auc is None else self.harmful_below_auc
        draws = simulate_unless(self.scores, calibration, self.threshold, self.seed, enough, self.clusters)
        if draws is None:
            return replace(basis, values=known)
        found = {name: prediction_interval(draws[name]) for name in known}
        intervals = {name: interval for name, interval in found.items() if interval is not None}
        return replace(basis, values={name: known[name] for name in intervals}, intervals=intervals)


def _metrics_of_sums(sums: FloatArray, n: int, n_predicted: int, squared_scores: float) -> dict[str, FloatArray]:
    n_positive, true_positive, mean_ranks, error_change = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        above = mean_ranks * n - n_positive * (n_positive + 1) / 2
        return {
            "f1": 2 * true_positive / (n_predicted + n_positive),
            "precision": true_positive / n_predicted,
            "recall": true_positive / n_positive,
            "auc_roc": above / (n_positive * (n - n_positive)),
            "brier": (squared_scores + error_change) / n,
            "positive_rate": n_positive / n,
        }


def _why_not_identifiable(known: FloatArray, overlap: Overlap) -> str | None:
    """Return why the window cannot be estimated from the reference; None if it can."""
    if overlap.uncovered_pct > MAX_UNCOVERED_PCT:
        return (
            f"not identifiable: {overlap.uncovered_pct:.0f} % of the rows are of a kind that the reference, whose outcomes "
            f"are known, hardly holds; labels for such rows would tell"
        )
    if overlap.gap > MAX_MIXTURE_GAP:
        return (
            "not identifiable: no weighting of the reference, whose outcomes are known, has the window's mix of inputs"
        )
    events = _fewest_events(known, overlap.weights)
    if events < MIN_EVENTS:
        return (
            f"not identifiable: the reference, mixed like the window, is worth {events:.0f} rows of the rarer class, "
            f"{MIN_EVENTS} are needed"
        )
    return None


def with_outcomes(reference: PreparedRows) -> PreparedRows:
    """Return the reference rows whose outcome is known: a part of the traffic may have no label."""
    if TRUE_LABEL not in reference or not np.isnan(reference.values(TRUE_LABEL)).any():
        return reference
    is_known = ~np.isnan(reference.values(TRUE_LABEL))
    return reference.once(
        ("with outcomes",),
        lambda: PreparedRows(
            reference.rows[is_known].reset_index(drop=True), clusters=within(reference.clusters, is_known)
        ),
    )


def outcomes(reference: PreparedRows) -> FloatArray:
    """Return the known outcomes of the reference rows; empty if it was frozen without outcomes."""
    return reference.values(TRUE_LABEL) if TRUE_LABEL in reference else np.array([])


def _fewest_events(labels: FloatArray, weights: FloatArray) -> float:
    """Return the effective number of rows of the rarer class."""
    return min(_effective_rows(weights[labels == 1]), _effective_rows(weights[labels == 0]))


def _effective_rows(weights: FloatArray) -> float:
    """Return the effective sample size (sum w)^2 / sum w^2 (Kish, 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def _curve_basis(log_odds: FloatArray, knots: FloatArray) -> FloatArray:
    """Return the columns 1, x and, with three or more knots, the restricted cubic terms (Harrell, 2015, equation 2.25)."""
    columns = [np.ones_like(log_odds), log_odds]
    if len(knots) >= 3:
        last, before_last = knots[-1], knots[-2]

        def cubed(knot: float) -> FloatArray:
            return np.maximum(log_odds - knot, 0.0) ** 3

        for knot in knots[:-2]:
            share = (last - knot) / (last - before_last)
            bend = cubed(knot) - cubed(before_last) * share + cubed(last) * (share - 1)
            columns.append(bend / (last - knots[0]) ** 2)
    return np.column_stack(columns)


def _midranks(scores: FloatArray) -> FloatArray:
    """Return each score's rank, from 1; ties share their mean rank."""
    from scipy.stats import rankdata

    ranks: FloatArray = rankdata(scores)
    return ranks


def _log_odds(scores: FloatArray) -> FloatArray:
    cut = np.clip(scores, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(cut / (1 - cut)), dtype=np.float64)
