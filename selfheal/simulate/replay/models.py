"""Models of a replay: the champion from our own training, a peer's refit with the champion's parameters, and their scores.

Belongs here: what fitting costs and what a model is judged to know. Does not belong here: when to fit (`policy`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.domain.contract import TRUE_LABEL, FloatArray, ModelContract
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.retraining.dataset import training_set
from selfheal.domain.retraining.fitting import build_pipeline, fit, fold_probabilities
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.domain.retraining.training import FOLDS, train
from selfheal.kit.errors import TrainingFailedError
from selfheal.simulate.replay.stream import UNKNOWN, IntArray, LabelArray

if TYPE_CHECKING:
    from selfheal.domain.retraining.dataset import TrainingSet
    from selfheal.domain.retraining.training import TrainedModel

MIN_EVALUATION_ROWS = 200
MIN_PER_CLASS = 10
"""Fewest rows of each class from which a peer refits: two in each of the five folds."""

MAX_REFERENCE_ROWS = 5_000


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled rows: raw inputs by name and labels (0 or 1), one element per row."""

    columns: Mapping[str, FloatArray]
    labels: LabelArray

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: IntArray) -> Rows:
        """Return the rows at these positions."""
        return Rows({name: values[rows] for name, values in self.columns.items()}, self.labels[rows])

    def followed_by(self, later: Rows) -> Rows:
        """Return these rows and then the later ones."""
        columns = {name: np.concatenate([values, later.columns[name]]) for name, values in self.columns.items()}
        return Rows(columns, np.concatenate([self.labels, later.labels]))

    def features(self, contract: ModelContract) -> FloatArray:
        """Return the model's input, shape (rows, features)."""
        return contract.matrix({name: self.columns[name] for name in contract.input_names})


@dataclass(frozen=True, eq=False)
class Training:
    """One of our own trainings: what it gave, and the rows it was given."""

    trained: TrainedModel
    rows: TrainingSet


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted model: what it scores with, its threshold, and rows that it scored without having seen them.

    Args:
        score: from a feature matrix, shape (n, features), to probabilities, shape (n,), as they are served.
        threshold: probability from which a row is flagged.
        parameters: of the pipeline, for a refit.
        seed: of the fit.
        reference: unseen rows with their labels, oldest first.
        reference_probability: their out-of-sample probabilities.
        training: the training as the platform records it; None for a peer's refit.
    """

    contract: ModelContract
    score: Callable[[FloatArray], FloatArray]
    threshold: float
    parameters: Mapping[str, Any]
    seed: int
    reference: Rows
    reference_probability: FloatArray
    training: Training | None = None


def train_champion(rows: Rows, contract: ModelContract, seed: int) -> Model:
    """Train a champion as the platform's bootstrap does: grid search, calibration, threshold, metrics on later rows.

    Raises:
        InvalidDataError: if there are too few rows of a class.
        TrainingFailedError: if no candidate can be fitted.
    """
    import pandas as pd

    frame = contract.feature_frame(pd.DataFrame(dict(rows.columns))).assign(
        **{TRUE_LABEL: rows.labels.astype(np.int64)}
    )
    known = training_set(
        frame,
        contract,
        source="rows before the stream",
        min_evaluation_rows=MIN_EVALUATION_ROWS,
        label_coverage_pct=None,
    )
    return model_of(Training(train(known, contract, seed), known), contract, seed)


def can_refit(labels: LabelArray) -> bool:
    """Return whether there are enough rows of both classes."""
    n_positive = int(labels.sum())
    return min(n_positive, len(labels) - n_positive) >= MIN_PER_CLASS


def refit(champion: Model, rows: Rows, seed: int) -> Model:
    """Fit a model with the champion's parameters; its threshold has the best F1 out of fold.

    Raises:
        TrainingFailedError: if there are fewer than `MIN_PER_CLASS` rows of a class.
    """
    from sklearn.model_selection import StratifiedKFold

    if not can_refit(rows.labels):
        raise TrainingFailedError(
            f"{int(rows.labels.sum())} of {len(rows)} rows are positive; {MIN_PER_CLASS} of each class are needed to refit"
        )
    contract = champion.contract
    pipeline = build_pipeline(contract, seed).set_params(**champion.parameters)
    x, y, weights = rows.features(contract), rows.labels.astype(np.int64), np.ones(len(rows))
    out_of_fold = np.empty(len(y))
    with warnings.catch_warnings(
        action="ignore"
    ):  # of few rows, hundreds of times; what a peer makes of them is its own affair
        for learn, predict in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
            out_of_fold[predict] = fold_probabilities(pipeline, x, y, weights, learn, predict)
        fit(pipeline, x, y, weights)
    newest = np.arange(max(0, len(rows) - MAX_REFERENCE_ROWS), len(rows))
    return Model(
        contract,
        served_scoring(pipeline, contract),
        f1_optimal_threshold(y, out_of_fold),
        champion.parameters,
        seed,
        rows.at(newest),
        out_of_fold[newest],
    )


def model_of(training: Training, contract: ModelContract, seed: int) -> Model:
    """Return the model of one of our own trainings."""
    trained = training.trained
    newest = trained.reference.iloc[-MAX_REFERENCE_ROWS:]
    rows = Rows(
        {name: newest[name].to_numpy(dtype=np.float64) for name in contract.input_names},
        newest[TRUE_LABEL].fillna(UNKNOWN).to_numpy(dtype=np.int8),
    )
    return Model(
        contract,
        served_scoring(trained.pipeline, contract),
        trained.threshold,
        {name: trained.params[name] for name in contract.param_grid if name in trained.params},  # a repair keeps a fit
        seed,
        rows,
        newest["probability"].to_numpy(dtype=np.float64),
        training,
    )
