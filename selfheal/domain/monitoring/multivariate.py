"""Multivariate drift by a domain classifier: it detects changed relations between columns.

A classifier learns on one half of the time whether a row comes from the window or from the reference, and predicts the other
half; then the halves swap. Without drift it can only guess: its AUC on unseen rows is a rank statistic around 1/2 with a
known spread. (Classifier two-sample test: Lopez-Paz and Oquab, 2017; spread: Mann and Whitney, 1947.)

A category's codes have no order. The classifier gets the places of its levels by commonness, as scikit-learn's categorical features,
whose splits are sets of levels; the rarest levels are one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.shift import rank_shift

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray

MAX_DOMAIN_ROWS = 2_000
"""Rows per side, taken evenly over time: enough to find material drift, and a tick stays fast."""

TREES = 40
"""Of the whole classifier."""

FIRST_TREES = 13
"""After so many the AUC is looked at for the first time."""

FIRST_PROMISING_ERRORS = 1.0
"""Standard errors above 1/2 of that AUC from which the other trees are grown. What all trees report has nearly always more than
2.5 errors here already; five of six calm looks end here."""

PROMISING_ERRORS = 2.0
"""Standard errors above 1/2 of the first half's AUC from which the other half's is computed. The average of both is reported from
about 5 errors on, so what it would report has a first AUC below 2 hardly ever; a calm look nearly always has."""

MAX_LEVELS = 255
"""Levels of a category that the classifier tells apart, the most that scikit-learn can; the last one stands for all rarer ones."""

MATERIAL_AUC = 0.55
"""Smallest AUC that is material; drift below it is not reported."""


class DomainCheck(NamedTuple):
    """How well the classifier separates window and reference: AUC 0.5 not at all, 1 perfectly. The p-value is one-sided."""

    auc: float
    p_value: float


def domain_check(
    current: pd.DataFrame | PreparedRows, reference: pd.DataFrame | PreparedRows, columns: Sequence[str], seed: int
) -> DomainCheck:
    """Test whether these columns separate window from reference; rows of both are in chronological order.

    An AUC that is near 1/2 after a few trees, or after all of one half, is the result. Otherwise it is averaged with that of the
    halves swapped.
    """
    sides = PreparedRows.of(current), PreparedRows.of(reference)
    now, then = (_thinned(side.matrix(columns)) for side in sides)
    categories = [place for place, name in enumerate(columns) if any(side.is_category(name) for side in sides)]
    for place in categories:
        now[:, place], then[:, place] = _by_commonness(now[:, place], then[:, place])
    n_now, n_then = len(now) // 2, len(then) // 2
    halves = [(now[:n_now], then[:n_then]), (now[n_now:], then[n_then:])]
    error = math.sqrt((n_now + n_then + 1) / (12 * n_now * n_then))
    auc = _auc(halves[0], halves[1], seed, 0.5 + FIRST_PROMISING_ERRORS * error, categories)
    if auc >= 0.5 + PROMISING_ERRORS * error:
        auc = (auc + _auc(halves[1], halves[0], seed, categories=categories)) / 2
    # The two AUCs may be dependent, so their average is no more certain than one of them. It exceeds a bound only if one
    # of them does, so the p-value is twice that of one.
    return DomainCheck(auc, min(1.0, math.erfc((auc - 0.5) / error / math.sqrt(2))))


def _auc(
    learn: tuple[FloatArray, FloatArray],
    ask: tuple[FloatArray, FloatArray],
    seed: int,
    promising: float = 0.0,
    categories: Sequence[int] = (),
) -> float:
    """Return the AUC of all trees, or of the first few if that is below `promising`.

    Args:
        categories: places of the columns whose values are numbers of levels, below `MAX_LEVELS`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, origin = np.concatenate(learn), np.repeat([1, 0], [len(part) for part in learn])
    has_values = ~np.isnan(rows).all(axis=0)
    is_category = np.isin(np.arange(rows.shape[1]), categories)[has_values]
    # Small trees with many rows per leaf: larger ones overfit a few hundred rows.
    classifier = HistGradientBoostingClassifier(
        max_leaf_nodes=8,
        min_samples_leaf=30,
        early_stopping=False,
        warm_start=True,
        random_state=seed,
        categorical_features=is_category if is_category.any() else None,
    )
    auc = 0.5
    if not has_values.any():
        return auc
    for n_trees in (FIRST_TREES, TREES) if promising else (TREES,):
        classifier.set_params(max_iter=n_trees).fit(rows[:, has_values], origin)
        now, then = (classifier.predict_proba(part[:, has_values])[:, 1] for part in ask)
        auc = (rank_shift(now, then) + 1) / 2
        if auc < promising:
            break
    return auc


def _by_commonness(now: FloatArray, then: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the place of each level's code among all levels of both sides, the commonest first; NaN where it is missing.

    It depends on the pooled counts alone, so that it tells nothing of the side that a row is from.
    """
    codes = np.concatenate([now, then])
    is_known = ~np.isnan(codes)
    _, which, counts = np.unique(codes[is_known], return_inverse=True, return_counts=True)
    places = np.empty(len(counts))
    places[np.argsort(-counts, kind="stable")] = np.minimum(np.arange(len(counts)), MAX_LEVELS - 1)
    codes[is_known] = places[which]
    return codes[: len(now)], codes[len(now) :]


def _thinned(rows: FloatArray) -> FloatArray:
    taken = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_DOMAIN_ROWS)).astype(np.int64))
    largest = np.finfo(np.float32).max  # the classifier accepts missing values but no infinities
    return np.clip(rows[taken], -largest, largest)
