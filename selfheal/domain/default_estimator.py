"""Default estimator: a logistic regression that suits most tables and whose scores can be explained exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sklearn.pipeline import Pipeline

DEFAULT_GRID: Mapping[str, Sequence[Any]] = {
    "classify__C": (0.03, 0.3, 3.0),
    "classify__class_weight": (None, "balanced"),
}


def default_estimator(seed: int) -> Pipeline:
    """Return an unfitted logistic regression over quantile-transformed features.

    Missing values become the median. Each value is replaced by its empirical distribution function, because the long
    tails of amounts, ratios and counts would dominate a linear model. Each feature enters through a function of itself
    alone, so that its contribution to the log-odds is exact.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import QuantileTransformer

    return Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("quantiles", QuantileTransformer(n_quantiles=100, subsample=None, random_state=seed)),
            ("classify", LogisticRegression(max_iter=2_000, random_state=seed)),
        ]
    )
