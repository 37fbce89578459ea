"""Training a shadow model: tuning and decision threshold on training rows only, metrics on later rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from selfheal.contract import TRUE_LABEL, FloatArray, ModelContract
from selfheal.monitoring.performance import score_metrics
from selfheal.records import ScoreMetrics
from selfheal.retraining.dataset import EVALUATION, TRAIN, TrainingSet

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

FOLDS = 5
SCORING = "neg_log_loss"
"""A proper score: the threshold is tuned by itself afterwards, and monitoring relies on honest probabilities."""

MIN_REFERENCE_ROWS, MAX_REFERENCE_ROWS = 1_000, 15_000


@dataclass(frozen=True)
class TrainedModel:
    """A fitted pipeline, what is needed to use it, and what it learned from.

    `reference` is the frozen reference window that travels with the model: the newest rows of the training set with all
    features, `probability` (never from a model that saw the row) and `true_label`.
    """

    pipeline: Pipeline
    threshold: float
    params: dict[str, Any]
    metrics: ScoreMetrics
    reference: pd.DataFrame


def train(training_set: TrainingSet, contract: ModelContract, seed: int, n_jobs: int = 1) -> TrainedModel:
    """Grid search by cross-validation, F1-optimal threshold on out-of-fold probabilities, metrics on evaluation rows."""
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict

    learn, judge = training_set.part(TRAIN), training_set.part(EVALUATION)
    features = list(contract.feature_names)
    x_learn, y_learn = learn[features].to_numpy(dtype=np.float64), learn[TRUE_LABEL].to_numpy(dtype=np.int64)
    x_judge, y_judge = judge[features].to_numpy(dtype=np.float64), judge[TRUE_LABEL].to_numpy(dtype=np.int64)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    grid = {name: list(values) for name, values in contract.param_grid.items()}
    search = GridSearchCV(contract.build_estimator(seed), grid, scoring=SCORING, cv=folds, n_jobs=n_jobs)
    search.fit(x_learn, y_learn)
    pipeline: Pipeline = search.best_estimator_
    out_of_fold = cross_val_predict(pipeline, x_learn, y_learn, cv=folds, method="predict_proba", n_jobs=n_jobs)[:, 1]
    threshold = f1_optimal_threshold(y_learn, out_of_fold)
    judged = pipeline.predict_proba(x_judge)[:, 1]
    return TrainedModel(
        pipeline=pipeline,
        threshold=threshold,
        params={**search.best_params_, "threshold": threshold, "folds": FOLDS, "scoring": SCORING, "seed": seed},
        metrics=score_metrics(y_judge, judged, threshold),
        reference=_reference(training_set.frame, features, np.concatenate([out_of_fold, judged]), len(judge)),
    )


def f1_optimal_threshold(labels: npt.NDArray[np.int64], probabilities: FloatArray) -> float:
    """The threshold that gives the highest F1; halfway to the next lower probability, so that it is not a knife's edge."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    best = int(np.argmax(f1))
    below = thresholds[best - 1] if best else 0.0
    return float((thresholds[best] + below) / 2)


def _reference(frame: pd.DataFrame, features: list[str], probabilities: FloatArray, n_evaluation: int) -> pd.DataFrame:
    n_rows = min(max(n_evaluation, MIN_REFERENCE_ROWS), MAX_REFERENCE_ROWS, len(frame))
    newest = frame[[*features, TRUE_LABEL]].assign(probability=probabilities).iloc[-n_rows:]
    return newest.reset_index(drop=True)
