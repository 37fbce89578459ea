"""Regret: what the champion loses against the quality that its frozen reference lets expect on the same labelled rows.

The expectation is for today's mix of inputs (`selfheal.domain.monitoring.estimation`), so that a riskier mix alone is no regret.
It is itself estimated from the reference's rows: every test here has both variances, that of the outcomes of these rows and that
of the reference. A signed loss hides harm where the model says too much: its Brier score then falls, and its ranking may be gone.

Belongs here: realised against expected quality. Does not belong here: from where on a regret is harm
(`triage`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.clusters import uniform_variates
from selfheal.domain.records import Regret, ScorePart, ScoreParts, Shortfall

if TYPE_CHECKING:
    from selfheal.domain.contract import FloatArray
    from selfheal.domain.monitoring.relation import Relation

REGRET_LEVEL = 5e-5
"""Level of each test. A day of labels is tested four times and more while it slides through the window, and 90 days have 360 looks at
6 hours: a calm deployment is to be called harmful in hardly more than 5 % of them. The price is power: `benchmarks.trust`, W9."""

PART_LEVEL = 0.01
"""Level at which a part of the score is named beside a changed relation, which has a stricter test of its own."""

N_DRAWS = 199
"""Simulated label sets, enough for `PART_LEVEL`."""


def regret(relation: Relation, threshold: float, seed: int) -> Regret:
    """Compare the realised quality of labelled rows with the expected one.

    Args:
        relation: labelled rows beside what the reference lets expect of them.
        threshold: from which probability on the champion decides for class 1.
        seed: of the simulated labels.
    """
    p_value = relation.p_value_of_tails()
    return Regret(
        n_rows=len(relation.labels),
        relation_p_value=p_value,
        f1=f1_shortfall(relation, threshold),
        auc_roc=auc_shortfall(relation),
        parts=score_parts(relation, seed) if p_value < REGRET_LEVEL else None,
    )


def f1_shortfall(relation: Relation, threshold: float) -> Shortfall | None:
    """Return by how much F1 is below the expected one; None if no row is flagged and none is expected to have the event.

    With c the expected F1, sum (2 d - c) y - c d over the rows (d: flagged) is 0 in expectation, and F1 - c is exactly this sum
    over the numbers of flagged rows and events: a score test along 2 d - c, without a linearisation.
    """
    flagged = (relation.scores >= threshold).astype(np.float64)
    n_either = float(flagged.sum() + relation.labels.sum())
    expected = 2 * float(relation.expected @ flagged) / float(flagged.sum() + relation.expected.sum())
    if n_either == 0 or expected == 0:
        return None
    realised = 2 * float(relation.labels @ flagged) / n_either
    return Shortfall(realised, expected, relation.lower_tail(2 * flagged - expected))


def auc_shortfall(relation: Relation) -> Shortfall | None:
    """Return by how much the area under the ROC curve is below the expected one; None where there is only one class.

    The test is the delta method's: a row's influence is the number of pairs that it wins with its label less those that it wins
    without it (Hoeffding, 1948; DeLong's variance is the same sum for labels that are given).
    """
    n_positive = float(relation.labels.sum())
    if not 0 < n_positive < len(relation.labels):
        return None
    values, row_of = np.unique(relation.scores, return_inverse=True)
    below = _mass_below(1 - relation.expected, row_of, len(values))
    above = relation.expected.sum() - _mass_below(relation.expected, row_of, len(values))
    positives, negatives = float(relation.expected.sum()), float((1 - relation.expected).sum())
    with_itself = float(relation.expected @ (1 - relation.expected))  # a row is no pair
    pairs = positives * negatives - with_itself
    expected = (float(relation.expected @ below) - with_itself / 2) / pairs
    won = float(relation.labels @ _mass_below(1 - relation.labels, row_of, len(values)))
    realised = won / (n_positive * (len(relation.labels) - n_positive))
    return Shortfall(realised, expected, relation.lower_tail(below - above - expected * (negatives - positives)))


def score_parts(relation: Relation, seed: int) -> ScoreParts:
    """Return the expected skill, and the miscalibration and discrimination of the Brier score against label sets by chance.

    The Brier score is miscalibration - discrimination + uncertainty, by the isotonic fit (CORP: Dimitriadis, Gneiting and Jordan,
    2021, PNAS 118). The forecast is the expected probability: the score as the reference calibrates it. A perfect forecast has a
    miscalibration above 0, too, so both parts are compared with those of labels drawn from the forecast itself, with a curve from
    the distribution of the reference's curve for each label set. The skill is uncertainty less score, expected of the forecast.
    """
    order = np.argsort(relation.expected, kind="stable")
    forecast, labels = relation.expected[order], relation.labels[order]
    ties = np.unique(forecast, return_index=True)[1]
    found = _parts(forecast, labels, ties)
    rng = np.random.default_rng(seed)
    drawn = _drawn_parts(relation, order, ties, N_DRAWS, rng)
    rate = float(forecast.mean())
    skill = rate * (1 - rate) - float((forecast * (1 - forecast)).mean())
    return ScoreParts(skill, _part(found[0], drawn[:, 0], is_upper=True), _part(found[1], drawn[:, 1], is_upper=False))


def _drawn_parts(
    relation: Relation, order: np.ndarray, ties: np.ndarray, n_draws: int, rng: np.random.Generator
) -> FloatArray:
    """Return miscalibration and discrimination of label sets by chance, shape (n_draws, 2)."""
    forecast, chances = relation.expected[order], relation.drawn_expectations(n_draws, rng)[:, order]
    clusters = None if relation.clusters is None else relation.clusters[order]
    sets = uniform_variates(rng, chances.shape, clusters) < chances
    return np.array([_parts(forecast, one, ties) for one in sets.astype(np.float64)])


def _parts(forecast: FloatArray, labels: FloatArray, ties: np.ndarray) -> tuple[float, float]:
    """Return miscalibration and discrimination of an ascending forecast; `ties` are the places at which each value begins."""
    from scipy.optimize import isotonic_regression

    sizes = np.diff(ties, append=len(labels)).astype(np.float64)
    fitted = isotonic_regression(np.add.reduceat(labels, ties) / sizes, weights=sizes).x
    squares = float(sizes @ fitted**2)  # of a fit by blocks, fit'y = fit'fit
    n, total = len(labels), float(labels.sum())
    score = float(forecast @ forecast) - 2 * float(forecast @ labels) + total
    return (score - (total - squares)) / n, (squares - total * total / n) / n


def _part(value: float, drawn: FloatArray, *, is_upper: bool) -> ScorePart:
    n_as_far = int((drawn >= value).sum() if is_upper else (drawn <= value).sum())
    return ScorePart(value, float(drawn.mean()), (1 + n_as_far) / (1 + len(drawn)))


def _mass_below(mass: FloatArray, row_of: np.ndarray, n_values: int) -> FloatArray:
    """Return the mass of the rows with a smaller score, equal ones counting half."""
    by_value = np.bincount(row_of, weights=mass, minlength=n_values)
    return np.asarray((np.cumsum(by_value) - by_value / 2)[row_of])
