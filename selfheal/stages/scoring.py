"""What a registered or shadow model says of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.records import (
    ModelVersion,
    ShadowModel,
)
from selfheal.retraining.gates import Scores

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.platform import Platform


def score_rows(platform: Platform, model: ModelVersion | ShadowModel, rows: pd.DataFrame) -> Scores:
    """A registered or shadow model's probabilities for rows with all features, and its threshold."""
    features = rows[list(platform.contract.feature_names)].to_numpy(dtype=np.float64)
    return Scores(platform.registry.load(model).predict_proba(features)[:, 1], model.threshold)
