"""Scores of a registered or shadow model for stored rows: to the bit those that the API gives for the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.records import ModelVersion, ShadowModel
from selfheal.domain.retraining.evaluation import Scores, scores_of

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray
    from selfheal.services.repositories import LoopPlatform


def scoring_of(platform: LoopPlatform, model: ModelVersion | ShadowModel) -> Callable[[FloatArray], FloatArray]:
    """Return the function that the model scores with wherever it scores: (n, features) to (n,) probabilities.

    Raises:
        ModelRefusedError, IntegrityError: if the model does not load.
    """
    return served_scoring(platform.registry.load(model), platform.contract)


def try_scores(platform: LoopPlatform, model: ModelVersion | ShadowModel, rows: pd.DataFrame) -> Scores:
    """Return the model's probabilities for rows with all features, and its threshold.

    What a model that fails on the rows said is in `Scores.failure`.

    Raises:
        ModelRefusedError, IntegrityError: if the model does not load.
    """
    return scores_of(scoring_of(platform, model), model.threshold, rows, platform.contract)
