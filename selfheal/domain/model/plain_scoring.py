"""Vectorised, batch-invariant scoring: a fitted pipeline as one function of an array, each row scored by itself.

A row's score is a function of the row and the model alone. A product of matrices does not keep that rule: BLAS adds up a
row's terms in an order that depends on how many rows there are, where the row stands among them, and the processor. Since
requests are scored in groups of whatever has arrived, an answer would depend on the load. Hence two ways of scoring:

- Steps known here become array functions in which every operation is of one element, or adds column after column. They
  also spare scikit-learn's checks, which cost about a millisecond a call, for one row as for fifty.
- Any other pipeline is called as it is: on the rows as they come if it ends in trees, which compare and never multiply,
  else on blocks that always have the same number of rows, so that BLAS takes the same path each time.

A recalibrated model is the plain function of its classifier and then the correction, element by element.

Belongs here: arithmetic that a scikit-learn class documents. Does not belong here: a model of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from selfheal.kit.errors import ModelRefusedError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.model.recalibrated import RecalibratedClassifier

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Step: TypeAlias = "Callable[[FloatArray], FloatArray]"

TOLERANCE = 1e-13
"""Largest difference between equal probabilities: allows for another order of addition, not for another formula."""

BLOCK_ROWS = (64, 256, 1_024)
"""Rows of a block: multiples of the rows that any kernel of BLAS takes at once, so that none is a remainder."""

TREES = frozenset(
    {
        "DecisionTreeClassifier",
        "ExtraTreesClassifier",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "RandomForestClassifier",
    }
)
ELEMENTWISE = frozenset(
    {"MaxAbsScaler", "MinMaxScaler", "QuantileTransformer", "RobustScaler", "SimpleImputer", "StandardScaler"}
)
"""Classes of scikit-learn that never multiply matrices: what they make of a row does not depend on the other rows."""


def served_scoring(pipeline: Pipeline, contract: ModelContract) -> Step:
    """Return `plain_scoring` of a contract's model: the function that every score of a version comes from."""
    return plain_scoring(pipeline, contract.probe_matrix())


def plain_scoring(pipeline: Pipeline, probe: FloatArray) -> Step:
    """Return a function from a feature matrix, shape (n, features), to the probabilities of class 1, shape (n,).

    Args:
        probe: feature rows on which the plain function must agree with the pipeline; if not, the pipeline itself is used.
    """
    if _is_recalibrated(pipeline):
        inner, correction = plain_scoring(pipeline.classifier, probe), pipeline.correction
        return lambda matrix: correction(inner(matrix))
    plain = _composed(pipeline)
    try:
        if plain is not None and _agree(plain(probe), _predict(pipeline, probe), TOLERANCE):
            return plain
        return _called(pipeline, probe)
    except Exception:  # a model's own code may raise anything on rows of the probe; it says so when it is called
        return _in_blocks(pipeline, BLOCK_ROWS[:1])


def _is_recalibrated(pipeline: Any) -> TypeGuard[RecalibratedClassifier]:
    from selfheal.domain.model.recalibrated import RecalibratedClassifier

    return isinstance(pipeline, RecalibratedClassifier)


def _agree(one: FloatArray, other: FloatArray, tolerance: float) -> bool:
    return bool(np.abs(one - other).max(initial=0.0) <= tolerance)


# The pipeline itself


def _called(pipeline: Pipeline, probe: FloatArray) -> Step:
    """Return a call of the pipeline. Larger blocks are used too if they give the scores of the smallest to the bit."""
    if _is_row_by_row(pipeline):
        return _in_one_thread(pipeline)
    expected = _in_blocks(pipeline, BLOCK_ROWS[:1])(probe)

    def agrees(size: int) -> bool:  # one block, with the rows of the probe again and again: a call for each size
        scores = _predict(pipeline, np.ascontiguousarray(np.resize(probe, (size, probe.shape[1]))))
        return _agree(scores, np.resize(expected, size), 0.0)

    return _in_blocks(pipeline, (BLOCK_ROWS[0], *filter(agrees, BLOCK_ROWS[1:])))


def _predict(pipeline: Pipeline, matrix: FloatArray) -> FloatArray:
    given = np.asarray(pipeline.predict_proba(matrix), dtype=np.float64)
    if given.shape != (len(matrix), 2):
        raise ModelRefusedError(f"it answers {len(matrix)} rows with an array of shape {given.shape}")
    return given[:, 1]


def _in_blocks(pipeline: Pipeline, sizes: Sequence[int]) -> Step:
    """Return a call of the pipeline on blocks of these numbers of rows (ascending), laid out row by row in memory.

    The last block is the smallest that holds the rows that are left, filled up with these rows again.
    """

    def in_blocks(matrix: FloatArray) -> FloatArray:
        scores = np.empty(len(matrix))
        start = 0
        while start < len(matrix):
            n_rows = next((size for size in sizes if size >= len(matrix) - start), sizes[-1])
            block = matrix[start : start + n_rows]
            filled = np.ascontiguousarray(np.resize(block, (n_rows, matrix.shape[1])))
            scores[start : start + n_rows] = _predict(pipeline, filled)[: len(block)]
            start += n_rows
        return scores

    return in_blocks


def _is_row_by_row(pipeline: Pipeline) -> bool:
    """Whether the pipeline is of scikit-learn's own trees, after nothing but steps of one element each."""
    estimators = [estimator for _, estimator in getattr(pipeline, "steps", ())]
    if not all(type(estimator).__module__.startswith("sklearn.") for estimator in estimators):
        return False
    *before, last = [type(estimator).__name__ for estimator in estimators] or [""]
    starts_plainly = getattr(estimators[-1], "init", None) in (None, "zero")  # boosting may begin with any estimator
    return last in TREES and starts_plainly and ELEMENTWISE.issuperset(before)


def _in_one_thread(pipeline: Pipeline) -> Step:
    """Return a call of the pipeline as it is. Trees are added up in the order in which their threads end: there is one."""
    *before, (name, last) = pipeline.steps
    if getattr(last, "n_jobs", None) is not None:
        last = copy(last).set_params(n_jobs=1)  # the caller's is as it was: it may be saved
        pipeline = type(pipeline)([*before, (name, last)])
    return partial(_predict, pipeline)


# Known steps


def _composed(pipeline: Pipeline) -> Step | None:
    """Compose the steps; None if one of them is not known."""
    steps: list[Step] = []
    for _, estimator in getattr(pipeline, "steps", ()):
        step = _step(estimator)
        if step is None:
            return None
        steps.append(step)

    def composed(matrix: FloatArray) -> FloatArray:
        for step in steps:
            matrix = step(matrix)
        return matrix

    return composed if steps else None


def _step(estimator: Any) -> Step | None:
    """Return what a fitted step does; None if it is not known."""
    makers: dict[str, Callable[[Any], Step | None]] = {
        "SimpleImputer": _simple_imputer,
        "StandardScaler": _standard_scaler,
        "QuantileTransformer": _quantile_transformer,
        "OneHotEncoder": _one_hot_encoder,
        "ColumnTransformer": _column_transformer,
        "Pipeline": _composed,
        "LogisticRegression": _logistic_regression,
    }
    is_known = type(estimator).__module__.startswith("sklearn.") and type(estimator).__name__ in makers
    return makers[type(estimator).__name__](estimator) if is_known else None


def _column_transformer(fitted: Any) -> Step | None:
    """Each part's columns, side by side; what is not named is dropped."""
    parts: list[tuple[list[int], Step]] = []
    for _, transformer, columns in fitted.transformers_:
        if transformer == "drop":
            continue
        step = _step(transformer)
        if step is None or not all(isinstance(column, int) for column in columns) or fitted.transformer_weights:
            return None
        parts.append((list(columns), step))
    return lambda matrix: np.concatenate([step(matrix[:, columns]).T for columns, step in parts]).T


def _one_hot_encoder(fitted: Any) -> Step | None:
    """Place a 1 in the column of each value's level; rare and unknown levels share one, if there is one."""
    if fitted.sparse_output or fitted.drop_idx_ is not None:
        return None
    names, parts = fitted.get_feature_names_out(), []
    rare = (
        fitted.infrequent_categories_ if hasattr(fitted, "infrequent_categories_") else [None] * len(fitted.categories_)
    )
    for levels, infrequent in zip(fitted.categories_, rare, strict=True):
        kept = levels if infrequent is None else levels[~_is_among(levels, infrequent)]
        parts.append((kept, infrequent is not None))
    if sum(len(kept) + has_rest for kept, has_rest in parts) != len(names):
        return None

    def transform(matrix: FloatArray) -> FloatArray:
        found = []
        for column, (kept, has_rest) in zip(matrix.T, parts, strict=True):
            is_level = _equal(column, kept)
            found.append(is_level)
            if has_rest:
                found.append(~np.any(is_level, axis=0, keepdims=True))
        return np.concatenate(found).astype(np.float64).T

    return transform


def _equal(column: FloatArray, levels: FloatArray) -> BoolArray:
    """Return whether each value, of shape (n,), is each level, shape (levels, n); a missing value is one, too."""
    found: BoolArray = np.equal(column, levels[:, None]) | (np.isnan(column) & np.isnan(levels)[:, None])
    return found


def _is_among(levels: FloatArray, others: FloatArray) -> BoolArray:
    found: BoolArray = np.any(_equal(levels, np.asarray(others, dtype=np.float64)), axis=0)
    return found


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
    """Map each value to its interpolated rank among the quantiles, from 0 to 1.

    Quantiles may repeat, so it is the mean of approaching from below and from above. Values up to the lowest become 0,
    from the highest on 1. That is a function with a jump at each repeated quantile: a line between the quantiles and
    the numbers next to the repeated ones.
    """
    if fitted.output_distribution != "uniform":
        return None
    lines = [_line(column, fitted.references_) for column in fitted.quantiles_.T]

    def transform(matrix: FloatArray) -> FloatArray:
        placed = np.empty((len(lines), len(matrix)))
        for row, column, (knots, places) in zip(placed, matrix.T, lines, strict=True):
            row[:] = np.interp(column, knots, places)
        return placed.T

    return transform


def _line(quantiles: FloatArray, references: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the knots of one column's line, rising, and what they become."""
    repeated = quantiles[1:][np.diff(quantiles) == 0.0]
    knots = np.unique(np.concatenate([quantiles, np.nextafter(repeated, -np.inf), np.nextafter(repeated, np.inf)]))
    below = np.interp(-knots, -quantiles[::-1], -references[::-1])
    places = 0.5 * (np.interp(knots, quantiles, references) - below)
    return knots, np.where(knots <= quantiles[0], 0.0, np.where(knots >= quantiles[-1], 1.0, places))


def _logistic_regression(fitted: Any) -> Step | None:
    """`1 / (1 + exp(-(X coef_ + intercept_)))` of two classes."""
    from scipy.special import expit

    if fitted.coef_.shape[0] != 1:
        return None
    coefficients, intercept = fitted.coef_[0][:, np.newaxis], fitted.intercept_[0]
    return lambda matrix: np.asarray(expit(sums_in_order(matrix.T, coefficients) + intercept))


def sums_in_order(columns: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Return each row's sum of `columns * coefficients`, shape (n,), added up from the first column to the last.

    Along the first axis numpy adds whole columns one by one; only where each is a single number it adds in pairs, and
    running sums do not.
    """
    terms = np.multiply(columns, coefficients, order="C")
    sums: FloatArray = np.add.accumulate(terms)[-1] if terms.shape[1] == 1 else np.add.reduce(terms)
    return sums


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and np.isnan(value)
