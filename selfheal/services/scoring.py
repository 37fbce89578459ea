"""Scores of a registered or shadow model for stored rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.records import ModelVersion, ShadowModel
from selfheal.domain.retraining.evaluation import Scores

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.services.platform import Platform


def score_rows(platform: Platform, model: ModelVersion | ShadowModel, rows: pd.DataFrame) -> Scores:
    """Return a registered or shadow model's probabilities for rows with all features, and its threshold."""
    features = rows[list(platform.contract.feature_names)].to_numpy(dtype=np.float64)
    return Scores(platform.registry.load(model).predict_proba(features)[:, 1], model.threshold)


MAX_FAILURE_CHARACTERS = 300
"""Of a model's own message, which may hold a whole array."""


def try_scores(platform: Platform, model: ModelVersion | ShadowModel, rows: pd.DataFrame) -> Scores:
    """As `score_rows`; what a model that fails on the rows said is in `Scores.failure`.

    Raises:
        ModelRefusedError, IntegrityError: if the model does not load.
    """
    features = rows[list(platform.contract.feature_names)].to_numpy(dtype=np.float64)
    pipeline = platform.registry.load(model)
    try:
        given = np.asarray(pipeline.predict_proba(features), dtype=np.float64)
    except Exception as error:  # a model's own code may raise anything
        failure = f"{type(error).__name__}: {error}"[:MAX_FAILURE_CHARACTERS]
    else:
        if given.shape == (len(rows), 2):
            return Scores(given[:, 1], model.threshold)
        failure = f"it answers {len(rows)} rows with an array of shape {given.shape}"
    return Scores(np.full(len(rows), np.nan), model.threshold, failure)
