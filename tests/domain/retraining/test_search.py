"""Rules of the search: scikit-learn's scores to the bit, with less work, and a failure is a score that is not a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler

from selfheal.domain.retraining.search import SCORING, grid_scores, split_before

C = (0.01, 0.1, 1.0)


def steps(*middle: tuple[str, Any]) -> Pipeline:
    """Fills in, whatever is in the middle, and a logistic regression."""
    return Pipeline([("impute", CountedImputer(strategy="median")), *middle, ("classify", LogisticRegression())])


class CountedImputer(SimpleImputer):
    """Counts how often it is fitted."""

    n_fits = 0

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:  # noqa: N803
        CountedImputer.n_fits += 1
        return super().fit_transform(X, y, **params)


class Raising(StandardScaler):
    """A step that cannot be fitted."""

    def fit(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("out of\nmemory")


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 5))
    x[rng.random(x.shape) < 0.1] = np.nan
    return x, (np.nan_to_num(x[:, 0]) + rng.normal(size=600) > 0.8).astype(np.int64), rng.uniform(0.1, 1, 600)


def searched(pipeline: Pipeline, grid: dict[str, Any], rows: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    """The mean scores of ours and of scikit-learn's search."""
    x, y, weights = rows
    folds = list(StratifiedKFold(4, shuffle=True, random_state=3).split(x, y))
    ours = grid_scores(pipeline, list(ParameterGrid(grid)), x, y, weights, folds, lambda _: None)
    search = GridSearchCV(pipeline, grid, scoring=SCORING, cv=folds, refit=False)
    search.fit(x, y, classify__sample_weight=weights)
    return ours.values.mean(axis=1), search.cv_results_["mean_test_score"]


@pytest.mark.parametrize(
    ("middle", "grid"),
    [
        ([("scale", StandardScaler())], {"classify__C": C}),
        ([("bins", KBinsDiscretizer(4, encode="onehot"))], {"classify__C": C}),
        ([("scale", StandardScaler().set_output(transform="pandas"))], {"classify__C": C}),
        ([("scale", StandardScaler()), ("best", SelectKBest())], {"best__k": [1, 3], "classify__C": C}),
        ([], {"impute__strategy": ["mean", "median"]}),
        ([], {"classify": [LogisticRegression(C=0.1), RandomForestClassifier(5, random_state=1)]}),
    ],
    ids=["last step", "sparse", "frames", "a step in the middle", "the first step", "other estimators"],
)
def test_the_scores_are_those_of_scikit_learn_to_the_bit(
    middle: list[Any], grid: dict[str, Any], rows: tuple[Any, Any, Any]
) -> None:
    ours, theirs = searched(steps(*middle), grid, rows)
    np.testing.assert_array_equal(ours, theirs)


def test_steps_that_are_not_tuned_are_fitted_once_a_fold(rows: tuple[Any, Any, Any]) -> None:
    x, y, weights = rows
    folds = list(StratifiedKFold(4).split(x, y))
    CountedImputer.n_fits = 0
    grid_scores(steps(("best", SelectKBest())), list(ParameterGrid({"best__k": [1, 2, 3], "classify__C": C})), x, y,
                weights, folds, lambda _: None)  # fmt: skip
    assert CountedImputer.n_fits == 4


@pytest.mark.parametrize(
    ("names", "n_before"), [((), 2), (("classify__C",), 2), (("scale",), 1), (("impute__strategy", "classify"), 0)]
)
def test_what_is_tuned_begins_with_the_first_step_that_a_parameter_names(names: tuple[str, ...], n_before: int) -> None:
    head, tail = split_before(steps(("scale", StandardScaler())), names)
    assert (len(head), len(head) + len(tail)) == (n_before, 3)


def test_a_candidate_that_cannot_be_fitted_has_no_score_and_the_others_have(rows: tuple[Any, Any, Any]) -> None:
    x, y, weights = rows
    folds = list(StratifiedKFold(4).split(x, y))
    scores = grid_scores(steps(), [{"classify__C": -1}, {"classify__C": 1}], x, y, weights, folds, lambda _: None)
    assert np.isnan(scores.values[0]).all()
    assert np.isfinite(scores.values[1]).all()
    assert "'C' parameter" in scores.failure


def test_a_step_that_cannot_be_fitted_leaves_no_score_and_is_named(rows: tuple[Any, Any, Any]) -> None:
    x, y, weights = rows
    told: list[int] = []
    pipeline = steps(("scale", Raising()))
    folds = list(StratifiedKFold(4).split(x, y))
    scores = grid_scores(pipeline, [{"classify__C": 1}], x, y, weights, folds, told.append)
    assert np.isnan(scores.values).all()
    assert scores.failure == "RuntimeError: memory"
    assert told == [1, 2, 3, 4]
