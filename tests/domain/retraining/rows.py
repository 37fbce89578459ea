"""Labelled rows of the toy use case with times, and the training set of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.retraining.dataset import TrainingSet, training_set
from tests.times import T0
from tests.toy_use_case import contract

FEATURES = list(contract.feature_names)


def labelled(n_rows: int, seed: int = 1) -> pd.DataFrame:
    """Rows a minute apart, oldest first."""
    raw = contract.synthesize(n_rows, seed)
    times = [T0 + timedelta(minutes=i) for i in range(n_rows)]
    return contract.feature_frame(raw).assign(**{TRUE_LABEL: raw[TRUE_LABEL], "created_at": pd.DatetimeIndex(times)})


def split(
    rows: pd.DataFrame, min_evaluation_rows: int = 100, use_case: ModelContract = contract, **options: Any
) -> TrainingSet:
    return training_set(
        rows,
        use_case,
        source="test rows",
        min_evaluation_rows=min_evaluation_rows,
        label_coverage_pct=50.0,
        **options,
    )


def shifted(n_rows: int, seed: int, *, warmer_by: float = 0.0, is_reversed: bool = False) -> pd.DataFrame:
    """Rows of machines that run warmer (the relation stays); or of those where it is the idle ones that fail (it has changed)."""
    rng = np.random.default_rng(seed)
    temperature, load = rng.normal(60.0 + warmer_by, 12.0, n_rows), rng.uniform(0.1, 1.2, n_rows)
    restarts = rng.poisson(1.5, n_rows).astype(float)
    log_odds = 2.5 - 5.0 * load if is_reversed else -4.0 + 0.05 * (temperature - 60.0) + 3.0 * load + 0.5 * restarts
    inputs = pd.DataFrame({"temperature_c": temperature, "load_ratio": load, "restarts": restarts})
    rows = contract.feature_frame(inputs)
    rows[TRUE_LABEL] = (rng.random(n_rows) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    return rows
