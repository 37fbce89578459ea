"""Scores of a registered or shadow model for stored rows: to the bit those that the API gives for the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.records import ModelVersion, ShadowModel
from selfheal.domain.retraining.evaluation import Scores
from selfheal.kit.errors import ModelRefusedError

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray
    from selfheal.services.platform import Platform

MAX_FAILURE_CHARACTERS = 300
"""Largest length of a model's own error message, which may contain a whole array."""


def scoring_of(platform: Platform, model: ModelVersion | ShadowModel) -> Callable[[FloatArray], FloatArray]:
    """Return the function that the model scores with wherever it scores: (n, features) to (n,) probabilities.

    Raises:
        ModelRefusedError, IntegrityError: if the model does not load.
    """
    return served_scoring(platform.registry.load(model), platform.contract)


def try_scores(platform: Platform, model: ModelVersion | ShadowModel, rows: pd.DataFrame) -> Scores:
    """Return the model's probabilities for rows with all features, and its threshold.

    What a model that fails on the rows said is in `Scores.failure`.

    Raises:
        ModelRefusedError, IntegrityError: if the model does not load.
    """
    features = rows[list(platform.contract.feature_names)].to_numpy(dtype=np.float64)
    score = scoring_of(platform, model)
    try:
        return Scores(score(features), model.threshold)
    except ModelRefusedError as error:
        failure = str(error)
    except Exception as error:  # a model's own code may raise anything
        failure = f"{type(error).__name__}: {error}"
    return Scores(np.full(len(rows), np.nan), model.threshold, failure[:MAX_FAILURE_CHARACTERS])
