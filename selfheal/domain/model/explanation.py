"""Explanation of a score: the exact contribution of each feature to the log-odds, and reasons in words.

Belongs here: deciding whether a model's score is a sum with one term per feature, splitting that sum, and choosing the
reasons a lender must give. Does not belong here: the words (the contract has them), approximations (a model whose score
is not such a sum gets no explanation), and anything that reads or writes.

The supported family is "each column by itself, then a linear model with a logit link". With z = preprocess(x), where
every column k depends on one feature only:

    log_odds(x) = intercept + sum_k coefficient_k * z_k(x) = baseline_log_odds + sum_j contribution_j(x)
    contribution_j(x) = term_j(x) - mean over the baseline rows of term_j,   term_j = sum of coefficient_k * z_k over the
    columns k that depend on feature j

Since no term depends on two features, this is also the model's Shapley value; nothing is sampled.

The baseline is the average row of the population that the model was judged on: its frozen reference. Regulation B (12 CFR
1002.9(b)(2), official interpretation, comment 5) names this method for the principal reasons of a refusal: the factors for
which the applicant's score fell furthest below the average score of all applicants for each of those factors. Comment 1:
more than four reasons are not likely to be helpful. Comment 3: a reason need not say how a factor counted. Comment 4: only
factors that were scored count, and no principal one may be left out. Contributions are summed per reason before the choice,
so that features with the same reason appear once and opposite contributions cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from selfheal.domain.model.plain_scoring import sums_in_order
from selfheal.kit.errors import ModelNotExplainableError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import AdverseReason, DerivedFeature, Feature, FloatArray, ModelContract

BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]

MAX_REASONS = 4
"""Largest number of reasons for one row (see comment 1 on Regulation B above)."""

MIN_REASON_LOG_ODDS = 0.01
"""Smallest contribution of a principal reason, in log-odds: it raises the odds by 1 %."""

TOLERANCE_LOG_ODDS = 1e-9
"""Largest difference between the sum of the parts and the model's log-odds, relative to the largest part if above 1."""

MAX_BASELINE_ROWS = 20_000
"""A larger reference is thinned evenly to this many rows: enough for its mean, and loading a model stays fast."""

TRIAL_ROWS = 1_000
"""Rows taken from the baseline, and as many from the use case's stand-in, to find which column depends on which feature."""

TRIAL_ROWS_PER_GAP = 8
"""Trial rows with a missing value, per nullable feature: an imputer may read other columns only then."""

NO_FEATURE = -1


class Baseline(StrEnum):
    """The rows whose average contributions are measured against."""

    REFERENCE = "reference"
    """The rows frozen with this model version."""
    STAND_IN = "stand_in"
    """The use case's synthetic rows, used if the model's reference is not available."""


class Reason(NamedTuple):
    """One reason for class 1, and its contribution (log-odds above the baseline)."""

    code: str
    text: str
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """The parts of the log-odds of n rows. `baseline_log_odds + contributions.sum(axis=1) == log_odds`.

    `log_odds`, shape (n,), is finite even where the probability rounds to 0 or 1. `contributions`, shape (n, features), is
    in the contract's order; above 0 favours class 1. `is_exact`, shape (n,), is False where the preprocessing treats a row
    unlike every trial row (a category never seen before, say): its parts do not add up and must not be shown.
    """

    feature_names: tuple[str, ...]
    baseline: Baseline
    baseline_log_odds: float
    log_odds: FloatArray
    contributions: FloatArray
    is_exact: BoolArray
    reasons: tuple[AdverseReason, ...]
    reason_contributions: FloatArray

    def adverse_reasons(self) -> list[tuple[Reason, ...]]:
        """Return for each row the strongest reasons for class 1, strongest first; none if nothing favours it."""
        strongest = np.argsort(-self.reason_contributions, axis=1, kind="stable")[:, :MAX_REASONS]
        by_how_much = np.take_along_axis(self.reason_contributions, strongest, axis=1)
        return [
            tuple(
                Reason(self.reasons[which].code, self.reasons[which].text, contribution)
                for which, contribution in zip(row, shares, strict=True)
                if contribution > MIN_REASON_LOG_ODDS
            )
            for row, shares in zip(strongest.tolist(), by_how_much.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Explainer:
    """Explains the rows that one model scores. Immutable and safe to share between threads.

    `weights`, shape (columns, features), has each column's coefficient at the feature it depends on, so that `columns @
    weights` are the terms; `reason_members`, shape (features, reasons), has a 1 where a feature has that reason.
    """

    linear: LinearModel
    weights: FloatArray
    baseline: Baseline
    baseline_terms: FloatArray
    baseline_log_odds: float
    feature_names: tuple[str, ...]
    reasons: tuple[AdverseReason, ...]
    reason_members: FloatArray

    def explain(self, matrix: FloatArray) -> Explanation:
        """Split the log-odds of each row of the feature matrix, shape (n, features), NaN where missing, into parts."""
        columns = self.linear.preprocess(matrix)
        log_odds = _product_by_row(columns, self.linear.coefficients) + self.linear.intercept
        contributions = _product_by_row(columns, self.weights) - self.baseline_terms
        largest = np.maximum(1.0, np.abs(contributions).max(axis=1, initial=0.0))
        missing = log_odds - self.baseline_log_odds - contributions.sum(axis=1)
        return Explanation(
            feature_names=self.feature_names,
            baseline=self.baseline,
            baseline_log_odds=self.baseline_log_odds,
            log_odds=log_odds,
            contributions=contributions,
            is_exact=np.abs(missing) <= TOLERANCE_LOG_ODDS * largest,
            reasons=self.reasons,
            reason_contributions=_product_by_row(contributions, self.reason_members),
        )


def build_explainer(pipeline: Pipeline, contract: ModelContract, reference: FloatArray | None) -> Explainer:
    """Build the explainer of a fitted pipeline. It takes a fraction of a second, so call it when a model is loaded.

    Args:
        reference: the features of the rows frozen with the model, shape (n, features). None or no rows if they are not
            available: then the use case's stand-in rows are the baseline, and every explanation says so.

    Raises:
        ModelNotExplainableError: with a sentence for clients, if the model does not belong to the family above. That is
            tested on rows, not inferred from the names of its steps.
    """
    linear = linear_model(pipeline)
    with _refusing_failures():
        stand_in = _stand_in_rows(contract)
        if reference is None or len(reference) == 0:
            baseline, population = Baseline.STAND_IN, stand_in
        else:
            baseline, population = Baseline.REFERENCE, _thinned(reference, MAX_BASELINE_ROWS)
        trial = _trial_rows(population, stand_in, contract)
        _check_link(pipeline, linear, trial)
        sources = _sources(linear, trial, contract.feature_names)
        return _explainer(linear, sources, contract, baseline, population)


def _explainer(
    linear: LinearModel, sources: IntArray, contract: ModelContract, baseline: Baseline, population: FloatArray
) -> Explainer:
    columns = linear.preprocess(population)
    is_constant = (sources == NO_FEATURE) & (linear.coefficients != 0.0)
    constant = linear.coefficients[is_constant] @ _dense(linear.preprocess(population[:1]))[0, is_constant]
    weights = _weights(linear.coefficients, sources, len(contract.feature_names))
    baseline_terms = _product(columns, weights).mean(axis=0)
    reasons = tuple(dict.fromkeys(contract.adverse_reasons))
    return Explainer(
        linear=linear,
        weights=weights,
        baseline=baseline,
        baseline_terms=baseline_terms,
        baseline_log_odds=float(linear.intercept + constant + baseline_terms.sum()),
        feature_names=contract.feature_names,
        reasons=reasons,
        reason_members=np.array([[float(own == reason) for reason in reasons] for own in contract.adverse_reasons]),
    )


# The model's two halves


@dataclass(frozen=True)
class LinearModel:
    """A pipeline as preprocessing, coefficients (one for each of its columns) and an intercept, for class 1."""

    preprocess: Callable[[FloatArray], Any]
    coefficients: FloatArray
    intercept: float

    def log_odds(self, columns: Any) -> FloatArray:
        """Return the log-odds of preprocessed rows, shape (n, columns) -> (n,)."""
        return _product(columns, self.coefficients) + self.intercept


def linear_model(pipeline: Pipeline) -> LinearModel:
    """Split a fitted pipeline (or a bare classifier) into its halves.

    Raises:
        ModelNotExplainableError: if it does not end in a linear model of two classes, 0 and 1.
    """
    steps = getattr(pipeline, "steps", None)
    last = steps[-1][1] if steps else pipeline
    coefficients, intercept = getattr(last, "coef_", None), getattr(last, "intercept_", None)
    if coefficients is None or intercept is None:
        raise _not_a_sum(f"it ends in {type(last).__name__}, which is not linear")
    if list(getattr(last, "classes_", ())) != [0, 1] or np.shape(coefficients) != (1, np.size(coefficients)):
        raise _not_a_sum("it does not tell class 1 from class 0 by one set of coefficients")
    return LinearModel(
        preprocess=pipeline[:-1].transform if steps and len(steps) > 1 else _unchanged,
        coefficients=np.asarray(coefficients, dtype=np.float64)[0],
        intercept=float(np.ravel(intercept)[0]),
    )


def _unchanged(matrix: FloatArray) -> FloatArray:
    return matrix


def _check_link(pipeline: Pipeline, linear: LinearModel, trial: FloatArray) -> None:
    """Check that the probabilities are the logistic function of the linear part, within `TOLERANCE_LOG_ODDS`.

    Probabilities are compared because they stay finite: an error e of the log-odds becomes p (1 - p) e, plus rounding.
    """
    from scipy.special import expit

    columns = linear.preprocess(trial)
    size = np.maximum(1.0, _product(abs(columns), np.abs(linear.coefficients)))
    expected = expit(linear.log_odds(columns))
    given = np.asarray(pipeline.predict_proba(trial), dtype=np.float64)[:, 1]
    allowed = TOLERANCE_LOG_ODDS * size * expected * (1.0 - expected) + 4 * np.finfo(np.float64).eps
    if not np.all(np.abs(given - expected) <= allowed):
        raise _not_a_sum("its probability is not the logistic function of a linear score")


# What depends on what


def _sources(linear: LinearModel, trial: FloatArray, feature_names: tuple[str, ...]) -> IntArray:
    """Return for each preprocessed column the index of the one feature it depends on, or `NO_FEATURE` if it never changed.

    Each feature in turn takes the values of other trial rows while the rest stays fixed. The result is then confirmed:
    all features are shuffled independently, and every column must still follow from its own feature.

    Raises:
        ModelNotExplainableError: if several features enter one column (named), or if a row's columns depend on other rows.
    """
    still = _dense(linear.preprocess(trial))
    if not _is_same(_dense(linear.preprocess(trial[:1])), still[:1]).all():
        raise _not_a_sum("its preprocessing of a row looks at the other rows of the call")
    depends = np.array([_moves(linear, trial, still, j) for j in range(trial.shape[1])])
    depends &= linear.coefficients != 0.0  # a column without a coefficient may depend on anything
    for column in np.flatnonzero(depends.sum(axis=0) > 1):
        names = [feature_names[j] for j in np.flatnonzero(depends[:, column])]
        raise _not_a_sum(f"its preprocessing mixes {' and '.join(names)}")
    sources = np.where(depends.any(axis=0), depends.argmax(axis=0), NO_FEATURE)
    _confirm(linear, trial, still, sources)
    return sources


def _moves(linear: LinearModel, trial: FloatArray, still: FloatArray, feature: int) -> BoolArray:
    """Return which columns change, in any row, when one feature takes the values of other rows; shape (columns,)."""
    moved = trial.copy()
    moved[:, feature] = np.roll(trial[:, feature], 1)
    return np.asarray((~_is_same(_dense(linear.preprocess(moved)), still)).any(axis=0))


def _confirm(linear: LinearModel, trial: FloatArray, still: FloatArray, sources: IntArray) -> None:
    """Shuffle all features independently, to find dependences that show only when several features change together."""
    shifts = 1 + np.arange(trial.shape[1])
    apart = np.column_stack([np.roll(column, shift) for column, shift in zip(trial.T, shifts, strict=True)])
    found = _dense(linear.preprocess(apart))
    for column in np.flatnonzero(linear.coefficients):
        source = sources[column]
        expected = still[0, column] if source == NO_FEATURE else np.roll(still[:, column], shifts[source])
        if not _is_same(found[:, column], expected).all():
            raise _not_a_sum("its preprocessing mixes features")


def _is_same(left: FloatArray, right: FloatArray | float) -> BoolArray:
    """Return where two arrays are equal up to rounding, which may depend on an element's position in the array."""
    return np.isclose(left, right, rtol=1e-12, atol=1e-12, equal_nan=True)


def _weights(coefficients: FloatArray, sources: IntArray, n_features: int) -> FloatArray:
    weights = np.zeros((len(coefficients), n_features))
    known = np.flatnonzero(sources != NO_FEATURE)
    weights[known, sources[known]] = coefficients[known]
    return weights


# Rows


def _stand_in_rows(contract: ModelContract) -> FloatArray:
    """Return rows of the stand-in; if the contract has none, its probe rows."""
    if contract.synthesize is None:
        return contract.probe_matrix()
    rows, _ = contract.without_unusable(contract.feature_frame(contract.synthesize(TRIAL_ROWS, 0)))
    return contract.matrix_of(rows)


def _trial_rows(population: FloatArray, stand_in: FloatArray, contract: ModelContract) -> FloatArray:
    """Return rows of the population, of the stand-in, and with each nullable feature missing."""
    rows = np.vstack([_thinned(population, TRIAL_ROWS), stand_in])
    features: tuple[Feature | DerivedFeature, ...] = (*contract.inputs, *contract.derived)
    gaps = []
    for j, feature in enumerate(features):
        if feature.is_nullable:
            with_gap = rows[:TRIAL_ROWS_PER_GAP].copy()
            with_gap[:, j] = np.nan
            gaps.append(with_gap)
    return np.vstack([rows, *gaps])


def _thinned(rows: FloatArray, max_rows: int) -> FloatArray:
    return rows[:: -(-len(rows) // max_rows)]


# Arithmetic on what preprocessing gives: an array, a frame or a sparse matrix


def _product(columns: Any, right: FloatArray) -> FloatArray:
    return np.asarray(columns @ right, dtype=np.float64)


def _product_by_row(columns: Any, right: FloatArray) -> FloatArray:
    """Return `_product`, each row by itself: what a row is told must not depend on the rows that were asked about with it.

    BLAS adds up a row's terms in an order that depends on their number (`selfheal.domain.model.plain_scoring`).
    """
    if hasattr(columns, "toarray"):
        return _product(columns, right)  # a sparse product goes from row to row
    dense = _dense(columns)
    product = np.empty((len(dense), *right.shape[1:]))
    for place in np.ndindex(right.shape[1:]):
        coefficients = right[(slice(None), *place)]
        product[(slice(None), *place)] = sums_in_order(dense.T, coefficients[:, np.newaxis])
    return product


def _dense(columns: Any) -> FloatArray:
    return np.asarray(columns.toarray() if hasattr(columns, "toarray") else columns, dtype=np.float64)


# Refusals


def _not_a_sum(why: str) -> ModelNotExplainableError:
    return ModelNotExplainableError(
        f"the model has no exact explanation: {why}; one exists for preprocessing of each feature by itself followed by "
        "a logistic regression"
    )


@contextmanager
def _refusing_failures() -> Iterator[None]:
    """Turn any failure on trial rows into a refusal: the pipeline may still serve, it is only not explained."""
    try:
        yield
    except ModelNotExplainableError:
        raise
    except Exception as error:
        raise _not_a_sum(f"it fails on trial rows ({type(error).__name__})") from error
