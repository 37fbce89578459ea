"""Vectorised scoring: a fitted pipeline as one function of an array, without scikit-learn's checks on every call.

`predict_proba` spends about a millisecond on validating, converting and wrapping, for one row as for fifty; the arithmetic of
a few dozen rows takes a tenth of that. Steps known here become array functions; a pipeline with any other step is called
as it is. Which of the two it is makes no difference to the scores: `plain_scoring` compares them before it is used.

Belongs here: arithmetic that a scikit-learn class documents. Does not belong here: a model of our own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray

Step: TypeAlias = "Callable[[FloatArray], FloatArray]"

TOLERANCE = 1e-13
"""Largest difference of two probabilities that are the same: another order of adding, not another formula."""


def plain_scoring(pipeline: Pipeline, probe: FloatArray) -> Step:
    """Return a function from a feature matrix, shape (n, features), to the probabilities of class 1, shape (n,).

    Args:
        probe: feature rows on which the plain function must agree with the pipeline; else the pipeline itself is called.
    """
    as_it_is = partial(_predict, pipeline)
    plain = _composed(pipeline)
    if plain is None:
        return as_it_is
    try:
        is_same = np.abs(plain(probe) - as_it_is(probe)).max(initial=0.0) <= TOLERANCE
    except (ValueError, ArithmeticError):  # the pipeline may refuse rows of the probe, and says so when it is called
        return as_it_is
    return plain if is_same else as_it_is


def _predict(pipeline: Pipeline, matrix: FloatArray) -> FloatArray:
    return np.asarray(pipeline.predict_proba(matrix)[:, 1], dtype=np.float64)


def _composed(pipeline: Pipeline) -> Step | None:
    """Compose the steps; None if one of them is not known."""
    makers = {
        "SimpleImputer": _simple_imputer,
        "StandardScaler": _standard_scaler,
        "QuantileTransformer": _quantile_transformer,
        "LogisticRegression": _logistic_regression,
    }
    steps: list[Step] = []
    for _, estimator in getattr(pipeline, "steps", ()):
        is_known = type(estimator).__module__.startswith("sklearn.") and type(estimator).__name__ in makers
        step = makers[type(estimator).__name__](estimator) if is_known else None
        if step is None:
            return None
        steps.append(step)

    def composed(matrix: FloatArray) -> FloatArray:
        for step in steps:
            matrix = step(matrix)
        return matrix

    return composed if steps else None


def _simple_imputer(fitted: Any) -> Step | None:
    """`X[missing] = statistics_`, where no column is dropped and none added."""
    statistics = np.asarray(fitted.statistics_, dtype=np.float64)
    if fitted.add_indicator or np.isnan(statistics).any() or not _is_nan(fitted.missing_values):
        return None
    return lambda matrix: np.where(np.isnan(matrix), statistics, matrix)


def _standard_scaler(fitted: Any) -> Step | None:
    """`(X - mean_) / scale_`."""
    mean = 0.0 if fitted.mean_ is None else fitted.mean_
    scale = 1.0 if fitted.scale_ is None else fitted.scale_
    return lambda matrix: (matrix - mean) / scale


def _quantile_transformer(fitted: Any) -> Step | None:
    """Map each value to its place among the quantiles, interpolated.

    Quantiles may repeat, so it is the mean of approaching from below and from above. Values up to the lowest become 0,
    from the highest on 1.
    """
    if fitted.output_distribution != "uniform":
        return None
    references, quantiles = fitted.references_, fitted.quantiles_
    columns = [
        (np.ascontiguousarray(column), np.ascontiguousarray(-column[::-1]), column[0], column[-1])
        for column in quantiles.T
    ]
    downwards = -references[::-1]

    def transform(matrix: FloatArray) -> FloatArray:
        placed = np.empty_like(matrix)
        for j, (upwards, mirrored, lowest, highest) in enumerate(columns):
            values = matrix[:, j]
            place = 0.5 * (np.interp(values, upwards, references) - np.interp(-values, mirrored, downwards))
            place[values >= highest] = 1.0
            place[values <= lowest] = 0.0
            placed[:, j] = place
        return placed

    return transform


def _logistic_regression(fitted: Any) -> Step | None:
    """`1 / (1 + exp(-(X coef_ + intercept_)))` of two classes."""
    from scipy.special import expit

    if fitted.coef_.shape[0] != 1:
        return None
    coefficients, intercept = fitted.coef_[0], fitted.intercept_[0]
    return lambda matrix: np.asarray(expit(matrix @ coefficients + intercept))


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and np.isnan(value)
