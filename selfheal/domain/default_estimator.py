"""Default estimator: a logistic regression that suits most tables and whose scores can be explained exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

DEFAULT_GRID: Mapping[str, Sequence[Any]] = {
    "classify__C": (0.03, 0.3, 3.0),
    "classify__class_weight": (None, "balanced"),
}


MIN_LEVEL_ROWS = 20
"""Rows of a level from which it gets a coefficient of its own; rarer levels share one, and so do those never seen."""

MAX_LEARNED_LEVELS = 100
"""Levels of a category that get a coefficient of their own, the commonest."""


def default_estimator(seed: int, categories: Sequence[int] = (), n_features: int = 0) -> Pipeline:
    """Return an unfitted logistic regression over quantile-transformed features.

    Missing values become the median. Each value is replaced by its empirical distribution function, because the long
    tails of amounts, ratios and counts would dominate a linear model. A category becomes one column per level, a missing
    one being a level. Each feature enters through functions of itself alone, so that its contribution to the log-odds is exact.

    Args:
        seed: of the transformer and the classifier.
        categories: columns of the matrix that are categories.
        n_features: number of columns, if there are categories.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    classify = ("classify", LogisticRegression(max_iter=2_000, random_state=seed))
    if not categories:
        return Pipeline([*_of_numbers(seed), classify])
    numbers = [place for place in range(n_features) if place not in set(categories)]
    parts = [("numbers", Pipeline(_of_numbers(seed)), numbers)] if numbers else []
    return Pipeline([("columns", ColumnTransformer([*parts, ("levels", level_encoder(), list(categories))])), classify])


def level_encoder() -> OneHotEncoder:
    """Return an unfitted encoder of categories that knows the commonest levels and takes any other."""
    from sklearn.preprocessing import OneHotEncoder

    return OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=MIN_LEVEL_ROWS,
        max_categories=MAX_LEARNED_LEVELS,
        sparse_output=False,
    )


def _of_numbers(seed: int) -> list[tuple[str, Any]]:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import QuantileTransformer

    return [
        ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
        ("quantiles", QuantileTransformer(n_quantiles=100, subsample=None, random_state=seed)),
    ]
