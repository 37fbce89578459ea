"""Performance estimation without labels (CBPE) on calibrated scores, with prediction intervals.

Confidence-based performance estimation counts each row as p true and 1 - p false cases. Here p is not the model's raw score.
The score is calibrated on the outcomes in the version's frozen reference (rows the model had not seen), weighted to the
window's mix of inputs: importance-weighted calibration, as in Bialek et al., "Estimating Model Performance Under Covariate
Shift Without Labels" (arXiv:2401.08348). The intervals are predictive: they predict what the labels of *these* rows will
show, so they include the randomness of each outcome and the uncertainty of the calibration.

The estimate assumes that inputs and outcome are related as in the reference (no concept drift). Only labels can test that:
`selfheal.domain.monitoring.relation` does so with the labels that have arrived. An estimate never proves that the model is healthy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.clusters import Clusters, copies_effect, n_entities, uniform_variates
from selfheal.domain.contract import FloatArray
from selfheal.domain.monitoring.intervals import INTERVAL_LEVEL
from selfheal.domain.monitoring.mixture import Mixture, Overlap
from selfheal.domain.monitoring.newton import probability
from selfheal.domain.monitoring.outcome_curve import (
    MIN_EVENTS,
    UNCALIBRATED,
    Calibration,
    curve_basis,
    curve_rows,
    effective_rows,
    fewest_events,
    log_odds_of,
    outcomes,
    with_outcomes,
)
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.prior_shift import MIN_Z, Curve, PriorShift, Side, drawn_curves, prior_shift
from selfheal.domain.records import Estimate, Interval, ScoreMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

N_DRAWS = 1_000
"""Number of simulated label sets; the interval's coverage is then uncertain by half a percentage point at each end."""

N_SECOND_DRAWS = 400
"""Number of label sets under a second assumption, where there is one: its ends are uncertain by 0.8 points, and cost less."""

MAX_CELLS_PER_BLOCK = 65_536
"""Draws x rows simulated at once (256 kB per array), so that a block stays in the processor's cache, whatever the window."""

ENOUGH_DRAWS_ABOVE = 51
"""Draws at or above a limit from which the upper end of their interval is certainly not below it, whatever the others show: the
51st of 1,000 from the top is inside the central 95 %, and so is a tie of so many."""

MAX_UNCOVERED_PCT = 10.0
"""Largest percentage of uncovered rows: with more, the estimate would be about rows without any known outcome."""

MAX_MIXTURE_GAP = 0.2
"""Largest KS distance of an input between the window and the weighted reference, less what chance explains. Above it the
weighting has not reproduced the window's mix (a column stuck at one value, say)."""

KS_AT_1_IN_10_000 = 2.23
"""Divided by the root of the number of rows: the KS distance that one sample in 10,000 exceeds. Each of many inputs is compared."""


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
    if fewest_events(known, np.ones(len(known))) < MIN_EVENTS:
        reason = f"not calibrated: the reference has fewer than {MIN_EVENTS} outcomes of a class, scores are taken as they are"
        basis = Estimate({}, {}, is_identifiable=True, is_calibrated=False, reason=reason, n_calibration_rows=0)
        return simulation.added_to(basis, UNCALIBRATED)
    overlap = overlap_of(current, rows, inputs)
    problem = why_not_identifiable(known, overlap)
    effective = effective_rows(overlap.weights)
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
    if problem is not None:
        return basis
    moved = _moved_base_rate(current, rows, inputs, clusters)
    return simulation.added_to(basis, curve_rows(rows).fit(overlap.weights), moved)


def _moved_base_rate(
    current: pd.DataFrame, rows: PreparedRows, inputs: Sequence[str], clusters: Clusters
) -> tuple[PriorShift, Curve] | None:
    """Return the prior shift that the window's inputs allow beside a covariate shift; None if there is none worth mentioning."""
    before = rows.once(("calibration, all rows alike",), lambda: curve_rows(rows).fit(np.ones(len(rows))))
    known = curve_rows(rows)
    now = log_odds_of(current["probability"].to_numpy(dtype=np.float64))
    curve = Curve(
        before.coefficients,
        before.covariance,
        window=Side(now, curve_basis(now, before.knots), _n_independent(len(now), clusters)),
        reference=Side(known.log_odds, known.basis, _n_independent(len(rows), rows.clusters)),
    )
    found = prior_shift(curve)
    n_rarer = len(current) * min(found.base_rate, 1 - found.base_rate)
    if abs(found.z) < MIN_Z or n_rarer < MIN_EVENTS / 2:
        return None
    mixture = _mixture(rows, inputs)
    distance = mixture.distance(mixture.columns(current, inputs), found.class_weights(known.labels))
    by_chance = KS_AT_1_IN_10_000 * math.sqrt(1 / curve.window.n_independent + 1 / curve.reference.n_independent)
    return (found, curve) if distance <= by_chance else None


def _n_independent(n_rows: int, clusters: Clusters) -> float:
    return float(n_rows) if clusters is None else n_rows / copies_effect(clusters)


def overlap_of(current: pd.DataFrame, reference: pd.DataFrame | PreparedRows, inputs: Sequence[str]) -> Overlap:
    """Weight the reference to the window's mix of these inputs (`selfheal.domain.monitoring.mixture`)."""
    mixture = _mixture(PreparedRows.of(reference), inputs)
    return mixture.overlap(mixture.columns(current, inputs))


def _mixture(rows: PreparedRows, inputs: Sequence[str]) -> Mixture:
    return rows.once(("mixture", *inputs), lambda: Mixture.of(rows, inputs))


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
    curves = rng.multivariate_normal(calibration.coefficients, calibration.covariance, size=N_DRAWS, method="eigh")
    return _simulate(scores, calibration.knots, curves, threshold, rng, enough_auc, clusters)


def _simulate(
    scores: FloatArray,
    knots: FloatArray,
    curves: FloatArray,
    threshold: float,
    rng: np.random.Generator,
    enough_auc: float = math.inf,
    clusters: Clusters = None,
) -> dict[str, FloatArray] | None:
    """Simulate a label set for each of the `curves`, shape (n_draws, k)."""
    n, predicted = len(scores), scores >= threshold
    of_positives = np.column_stack([np.ones(n), predicted, _midranks(scores) / n, 1 - 2 * scores]).astype(np.float32)
    log_odds = log_odds_of(scores)
    basis = curve_basis(log_odds, knots)
    n_draws = len(curves)
    sums = np.empty((n_draws, 4))
    n_predicted, squared_scores = int(predicted.sum()), float((scores**2).sum())
    n_above = 0
    for block in np.array_split(np.arange(n_draws), math.ceil(n_draws * n / MAX_CELLS_PER_BLOCK)):
        chance = probability((log_odds + curves[block] @ basis.T).astype(np.float32))
        is_positive = uniform_variates(rng, chance.shape, clusters) < chance
        sums[block] = is_positive.astype(np.float32) @ of_positives
        aucs = _metrics_of_sums(sums[block], n, n_predicted, squared_scores)["auc_roc"]
        n_above += int(np.count_nonzero((aucs >= enough_auc) & np.isfinite(aucs)))  # an undefined one does not count
        if n_above >= ENOUGH_DRAWS_ABOVE:
            return None
    return _metrics_of_sums(sums, n, n_predicted, squared_scores)


def interval_under_each(*assumed: FloatArray) -> Interval | None:
    """Return the interval that holds the central 95 % of the draws under each assumption about what has shifted.

    Args:
        assumed: draws of the metric, one array for each assumption.

    Returns:
        None if most draws of one do not define the metric.
    """
    found = [prediction_interval(draws) for draws in assumed]
    known = [interval for interval in found if interval is not None]
    if len(known) < len(assumed):
        return None
    return Interval(min(one.low for one in known), max(one.high for one in known))


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

    def added_to(
        self, basis: Estimate, calibration: Calibration, moved: tuple[PriorShift, Curve] | None = None
    ) -> Estimate:
        """Add the expected metrics and their intervals to the estimate; omit a metric that most draws do not define.

        Args:
            moved: a prior shift that the inputs allow, too: values are between what the two assumptions expect, and intervals
                hold under both.
        """
        known = self._expected(calibration.probabilities(self.scores))
        if moved is not None:
            shift, curve = moved
            of_rows = curve.window.offsets + curve.window.basis @ curve.coefficients
            under_shift = self._expected(probability(of_rows + shift.log_odds_shift))
            basis = replace(basis, reason=f"{basis.reason}; {_two_assumptions(known, under_shift, shift)}")
            known = {name: (known[name] + under_shift[name]) / 2 for name in known.keys() & under_shift.keys()}
        enough = math.inf if self.harmful_below_auc is None else self.harmful_below_auc
        draws = simulate_unless(self.scores, calibration, self.threshold, self.seed, enough, self.clusters)
        if draws is None:
            return replace(basis, values=known)
        assumed = [draws]
        if moved is not None:
            rng = np.random.default_rng([self.seed, 1])
            curves = drawn_curves(moved[1], moved[0], N_SECOND_DRAWS, rng)
            shifted = _simulate(self.scores, calibration.knots, curves, self.threshold, rng, clusters=self.clusters)
            assert shifted is not None, "no AUC is infinite"
            assumed.append(shifted)
        found = {name: interval_under_each(*(draws[name] for draws in assumed)) for name in known}
        intervals = {name: interval for name, interval in found.items() if interval is not None}
        return replace(basis, values={name: known[name] for name in intervals}, intervals=intervals)

    def _expected(self, probabilities: FloatArray) -> dict[str, float]:
        """Return the expected metrics by name, of those that are defined."""
        expected = cbpe(probabilities, self.threshold, self.scores)
        values = {name: getattr(expected, name) for name in ("f1", "precision", "recall", "auc_roc", "brier")}
        values["positive_rate"] = float(probabilities.mean())
        return {name: value for name, value in values.items() if value is not None}


def _two_assumptions(unchanged: dict[str, float], moved: dict[str, float], shift: PriorShift) -> str:
    return (
        f"the inputs allow two readings, and the intervals hold under both: their mix has changed (events: "
        f"{100 * unchanged['positive_rate']:.1f} %), or the base rate has moved to {100 * moved['positive_rate']:.1f} % with the "
        f"same inputs in each class (then {shift.log_odds_shift:+.2f} on the log-odds corrects the scores: a proposal, which labels "
        "have to prove)"
    )


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


def why_not_identifiable(known: FloatArray, overlap: Overlap) -> str | None:
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
    events = fewest_events(known, overlap.weights)
    if events < MIN_EVENTS:
        return (
            f"not identifiable: the reference, mixed like the window, is worth {events:.0f} rows of the rarer class, "
            f"{MIN_EVENTS} are needed"
        )
    return None


def _midranks(scores: FloatArray) -> FloatArray:
    """Return each score's rank, from 1; ties share their mean rank."""
    from scipy.stats import rankdata

    ranks: FloatArray = rankdata(scores)
    return ranks
