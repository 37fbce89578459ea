"""Labelled rows beside what the frozen reference lets expect of them: has the relation of score and outcome changed?

Belongs here: tests with the variance of these rows' outcomes and that of the reference. Does not belong here: which quality is lost
(`regret`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.clusters import Clusters, cluster_sums
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.estimation import overlap_of, why_not_identifiable
from selfheal.domain.monitoring.newton import probability
from selfheal.domain.monitoring.outcome_curve import (
    MIN_EVENTS,
    Calibration,
    curve_basis,
    curve_rows,
    fewest_events,
    log_odds_of,
    outcomes,
    with_outcomes,
)
from selfheal.domain.monitoring.prepared_rows import PreparedRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

NEAR_THE_MEAN, MAX_SADDLE_STEPS, SADDLE_TOLERANCE = 2.0, 100, 1e-9
"""Standard errors within which a tail is the normal one, because nothing is decided there; and when the search ends."""

ANGLES = tuple(eighth * math.pi / 4 for eighth in range(4))
"""Directions between level and slope: none lies farther than a sixteenth of a turn from one of them or its opposite."""

SMALLEST_WEIGHT, LARGEST_EXPONENT = 1e-12, 500.0
"""Keep quotients and exponentials finite."""


@dataclass(frozen=True, eq=False)
class Relation:
    """Labelled rows beside the outcomes that the reference, mixed like them, lets expect.

    Shapes: `scores`, `labels`, `expected` (n,), `basis` (n, k): the curve's columns. Rows of one entity, which `clusters` tells, share
    one outcome.
    """

    scores: FloatArray
    labels: FloatArray
    expected: FloatArray
    basis: FloatArray
    calibration: Calibration
    clusters: Clusters = None

    @classmethod
    def of(
        cls,
        labelled: pd.DataFrame,
        reference: pd.DataFrame | PreparedRows,
        inputs: Sequence[str],
        clusters: Clusters = None,
    ) -> Relation | None:
        """Compare labelled rows with the reference.

        Args:
            labelled: `inputs`, `probability` and `true_label` of matured rows, so that both outcomes have had time to arrive.
            clusters: the entity of each of them; None if every row is its own.

        Returns:
            None if either side has too few events of a class, or if the reference has no rows like the labelled ones.
        """
        rows = with_outcomes(PreparedRows.of(reference))
        known = outcomes(rows)
        if labelled.empty or fewest_events(known, np.ones(len(known))) < MIN_EVENTS:
            return None
        overlap = overlap_of(labelled, rows, inputs)
        if why_not_identifiable(known, overlap) is not None:
            return None
        calibration = curve_rows(rows).fit(overlap.weights)
        scores, labels = (labelled[name].to_numpy(dtype=np.float64) for name in ("probability", TRUE_LABEL))
        expected = calibration.probabilities(scores)
        once = 1.0 if clusters is None else 1.0 / np.bincount(clusters)[clusters]
        if min((once * expected).sum(), (once * (1 - expected)).sum()) < MIN_EVENTS / 2:
            return None
        return cls(scores, labels, expected, curve_basis(log_odds_of(scores), calibration.knots), calibration, clusters)

    def p_value(self) -> float:
        """Return the p-value of the labels if score and outcome are related as in the reference.

        This is the score test for a changed level or slope of the calibration. Under the old relation,
        U = sum (y - p) (1, log-odds of the score) has mean 0 and covariance C = G + G_c V G_c', where V is the calibration's own
        uncertainty; U' C^-1 U is chi-square with two degrees of freedom (Cox and Hinkley, Theoretical Statistics, 1974, 9.3). The
        parts of U of one entity's rows are added before they are squared in G.
        """
        shift, covariance = self._along(self.basis[:, :2])  # level and slope
        statistic = float(shift @ np.linalg.pinv(covariance) @ shift)
        return math.exp(-max(0.0, statistic) / 2)

    def p_value_of_tails(self) -> float:
        """Return the p-value for a changed level or slope by the exact tails of `lower_tail`, which hold at small levels, too.

        It is Bonferroni's over the two sides of level, slope and what lies between them, made uncorrelated by their covariance.
        With rare events the chi-square of `p_value` is far out ten times as often as it says at a level of 1e-5.
        """
        line = self.basis[:, :2]
        values, vectors = np.linalg.eigh(self._along(line)[1])
        known = values > SMALLEST_WEIGHT * max(values.max(), SMALLEST_WEIGHT)
        axes = line @ (vectors[:, known] / np.sqrt(values[known]))
        if axes.shape[1] < 2:
            directions = axes.T
        else:
            directions = np.array([math.cos(turn) * axes[:, 0] + math.sin(turn) * axes[:, 1] for turn in ANGLES])
        tails = [self.lower_tail(sign * one) for one in directions for sign in (1.0, -1.0)]
        return min(1.0, len(tails) * min(tails))

    def lower_tail(self, direction: FloatArray) -> float:
        """Return the probability of a sum (y - p) x at most as large as the realised one, for a direction x, shape (n,).

        The sum is one of independent outcomes and, for the reference's uncertainty, a normal variable. Its tail is Lugannani and
        Rice's saddlepoint formula (1980): events are rare and weights skewed, so that a normal tail is several times too light. An
        entity counts as one outcome with the weights of all of its rows, and their mean chance.
        """
        weights = -direction / max(SMALLEST_WEIGHT, float(np.abs(direction).max()))
        spread = self.expected * (1 - self.expected)
        to_curve = (weights * spread) @ self.basis
        value = float(weights @ (self.labels - self.expected))
        of_curve = max(0.0, float(to_curve @ self.calibration.covariance @ to_curve))
        if self.clusters is None:
            return _upper_tail(value, weights, self.expected, of_curve)
        n_rows = np.maximum(1, np.bincount(self.clusters))
        chances = cluster_sums(self.expected, self.clusters) / n_rows
        return _upper_tail(value, cluster_sums(weights, self.clusters), chances, of_curve)

    def drawn_expectations(self, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """Return what curves drawn from the distribution of the reference's curve let expect, shape (n_draws, n)."""
        curves = rng.multivariate_normal(
            self.calibration.coefficients, self.calibration.covariance, size=n_draws, method="eigh"
        )
        return probability(log_odds_of(self.scores) + curves @ self.basis.T)

    def _along(self, directions: FloatArray) -> tuple[FloatArray, FloatArray]:
        spread = (self.expected * (1 - self.expected))[:, None]
        of_labels = (directions * spread).T @ directions
        if self.clusters is not None:
            shared = cluster_sums(directions * np.sqrt(spread), self.clusters)
            of_labels = shared.T @ shared
        to_curve = (directions * spread).T @ self.basis
        covariance = of_labels + to_curve @ self.calibration.covariance @ to_curve.T
        return directions.T @ (self.labels - self.expected), covariance


def _upper_tail(value: float, weights: FloatArray, chances: FloatArray, normal_variance: float) -> float:
    """Return P(sum w (y - p) + e >= value) for independent y with these chances and a normal e."""
    mean = float(weights @ chances)
    variance = float((weights**2 * chances * (1 - chances)).sum()) + normal_variance
    if variance <= 0:
        return 1.0
    normal = NormalDist()
    z = value / math.sqrt(variance)
    if abs(z) < NEAR_THE_MEAN:
        return 1 - normal.cdf(z)
    # Newton's method within a bracket: one entity of many rows makes the slope a staircase, on which it would jump to and fro.
    side = math.copysign(1.0, value)
    distance, low, high = abs(value) / variance, 0.0, math.inf
    is_found = False
    for _ in range(MAX_SADDLE_STEPS):
        tilted, _ = _tilted(side * distance * weights, chances)
        beyond = side * (float(weights @ tilted) - mean - value) + normal_variance * distance
        low, high = (low, distance) if beyond > 0 else (distance, high)
        step = beyond / (float((weights**2 * tilted * (1 - tilted)).sum()) + normal_variance + SMALLEST_WEIGHT)
        following = distance - step
        if not low < following < high:
            following = 2 * distance if math.isinf(high) else (low + high) / 2
        is_found = abs(following - distance) <= SADDLE_TOLERANCE * distance
        distance = following
        if is_found:
            break
    point = side * distance
    tilted, cumulant = _tilted(point * weights, chances)
    curvature = float((weights**2 * tilted * (1 - tilted)).sum()) + normal_variance
    exponent = max(0.0, point * (value + mean) - cumulant - normal_variance * point**2 / 2)
    if not is_found or exponent == 0 or curvature <= 0:
        return math.exp(-exponent) if side > 0 else 1.0  # Chernoff's bound holds at any point
    root = math.copysign(math.sqrt(2 * exponent), point)
    tail = 1 - normal.cdf(root + math.log(point * math.sqrt(curvature) / root) / root)
    return min(tail, math.exp(-exponent)) if side > 0 else tail


def _tilted(exponents: FloatArray, chances: FloatArray) -> tuple[FloatArray, float]:
    """Return the chances after exponential tilting, and the sum of the logarithms of what normalises them."""
    raised = chances * np.exp(np.clip(exponents, -LARGEST_EXPONENT, LARGEST_EXPONENT))
    total = 1 - chances + raised
    return raised / total, float(np.log(total).sum())


def relation_p_value(
    labelled: pd.DataFrame,
    reference: pd.DataFrame | PreparedRows,
    inputs: Sequence[str],
    clusters: Clusters = None,
) -> float | None:
    """Return `Relation.p_value`; None if there is no `Relation`."""
    relation = Relation.of(labelled, reference, inputs, clusters)
    return None if relation is None else relation.p_value()
