"""Grid search by cross-validation: the steps before the first tuned one are fitted once a fold, not once a candidate.

The scores are those of scikit-learn's `GridSearchCV`, bit for bit; filling in and scaling take most of the time of a
training, and a grid rarely tunes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from selfheal.domain.retraining.fitting import weight_argument
from selfheal.kit.one_thread import one_thread

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray
    from selfheal.domain.retraining.fitting import Folds, IntArray

SCORING = "neg_log_loss"
"""A proper score: the threshold is tuned separately afterwards, and monitoring relies on calibrated probabilities."""

Candidate = Mapping[str, Any]


class Scores(NamedTuple):
    """The score of each candidate (row) in each fold (column), NaN where it could not be fitted, and the last reason for that."""

    values: FloatArray
    failure: str


@dataclass(frozen=True)
class PreparedFold:
    """A fold after the steps that are not tuned. What they return may be an array, sparse, or a frame."""

    x_learn: Any
    y_learn: IntArray
    weights: FloatArray
    x_predict: Any
    y_predict: IntArray


def split_before(pipeline: Pipeline, names: Collection[str]) -> tuple[Pipeline, Pipeline]:
    """Return the steps before the first one that one of the parameters concerns, and the others: at least the last one."""
    tuned = {name.partition("__")[0] for name in names}
    place = next((place for place, (name, _) in enumerate(pipeline.steps) if name in tuned), len(pipeline.steps) - 1)
    return pipeline[:place], pipeline[place:]


def prepare(
    head: Pipeline, x: FloatArray, y: IntArray, weights: FloatArray, learn: IntArray, predict: IntArray
) -> PreparedFold:
    """Fit a copy of the steps to the rows at `learn`, and transform those and the ones at `predict`."""
    from sklearn.base import clone

    x_learn, x_predict = x[learn], x[predict]
    if len(head):
        copy = clone(head)
        with one_thread():
            x_learn, x_predict = copy.fit_transform(x_learn, y[learn]), copy.transform(x_predict)
    return PreparedFold(x_learn, y[learn], weights[learn], x_predict, y[predict])


def grid_scores(
    pipeline: Pipeline,
    candidates: Sequence[Candidate],
    x: FloatArray,
    y: IntArray,
    weights: FloatArray,
    folds: Folds,
    on_fits: Callable[[int], None],
) -> Scores:
    """Score every candidate in every fold, with joblib's backend in force.

    Args:
        weights: of the rows, for the last step.
        on_fits: called with the number of fits done.
    """
    from joblib import effective_n_jobs
    from sklearn.utils.parallel import Parallel, delayed  # joblib's, and warnings are suppressed in workers, too

    head, tail = split_before(pipeline, {name for candidate in candidates for name in candidate})
    scores = Scores(np.full((len(candidates), len(folds)), math.nan), "the score of every candidate is not a number")
    n_at_once = effective_n_jobs(None)  # of `parallel_config`: without an argument it is the number of cores
    for places in _portions(range(len(folds)), math.ceil(n_at_once / len(candidates))):
        with _quiet():
            try:
                prepared = [prepare(head, x, y, weights, *folds[place]) for place in places]
            except Exception as error:  # the contract's own code may raise anything
                scores = scores._replace(failure=_said(error))
                prepared = []
            found = Parallel()(delayed(score)(tail, candidate, fold) for fold in prepared for candidate in candidates)
        for number, (value, failure) in enumerate(found):
            scores.values[number % len(candidates), places[number // len(candidates)]] = value
            scores = scores if failure is None else scores._replace(failure=failure)
        on_fits((places[-1] + 1) * len(candidates))
    return scores


def score(tail: Pipeline, candidate: Candidate, fold: PreparedFold) -> tuple[float, str | None]:
    """Return the score of a candidate in a fold; NaN and the reason, if it cannot be fitted or scored."""
    from sklearn.base import clone
    from sklearn.metrics import get_scorer

    copy = clone(tail).set_params(**{name: clone(value, safe=False) for name, value in candidate.items()})
    try:
        with one_thread():
            copy.fit(fold.x_learn, fold.y_learn, **weight_argument(copy, fold.weights))
            return float(get_scorer(SCORING)(copy, fold.x_predict, fold.y_predict)), None
    except Exception as error:  # the contract's own code may raise anything
        return math.nan, _said(error)


def _said(error: Exception) -> str:
    """Return an error's last line, which names the fault where the ones before it name the steps."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['without a word'])[-1]}"


def _portions(places: range, size: int) -> Iterator[range]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _quiet() -> Any:
    """Suppress warnings of candidates that fail or do not converge: they lose by their score; only the best one is checked."""
    import warnings

    return warnings.catch_warnings(action="ignore")
