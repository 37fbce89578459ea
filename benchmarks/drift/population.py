"""The rows of the benchmark of drift: what the platform is told, the population, and draws from it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from selfheal.adapters.datasets import load_dataset
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.drift import (
    PROBABILITY,
    DriftLimits,
)
from selfheal.domain.monitoring.triage import HarmLimits
from selfheal.settings import load_settings

IntArray: TypeAlias = npt.NDArray[np.int64]
Change: TypeAlias = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]

DAYS = 90
TICKS_PER_DAY = 288
N_TICKS = DAYS * TICKS_PER_DAY
LEARNING_DAYS = 28
TICK = timedelta(days=1) / TICKS_PER_DAY
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
LIMITS = DriftLimits(n_ticks=float(N_TICKS), min_effect=0.05, min_rows=200)
HARM_LIMITS = HarmLimits(min_brier_excess=0.01, min_auc=0.72)
"""The platform's default limits of harm."""

N_REFERENCE = 6_000
SAMPLE_ROWS = 5_000
"""Rows of a day's traffic that are compared."""

RUN_ROWS = 20
NIGHT_SHARE = 0.2
MIX_TILT = 0.5
"""By how much a run of older people (one standard deviation) is likelier in the morning and less likely in the evening."""

N_BINS = 64
DOMAIN_EVERY_TICKS = TICKS_PER_DAY // 4
RATES_PER_HOUR = (2, 20, 200, 2_000)
MAX_LOOKBACK_TICKS = 30 * TICKS_PER_DAY
"""How far a window reaches back that a day does not fill with `LIMITS.min_rows`: MONITORING_MAX_LOOKBACK."""

NAMES = [*contract.feature_names, PROBABILITY]


class World:
    """The population, and draws from it."""

    def __init__(self, data: Path | None, seed: int) -> None:
        settings = load_settings(data=data)
        dataset = load_dataset(settings, contract)
        self.description = dataset.description
        half = len(dataset.frame) // 2
        learn, rest = dataset.frame.iloc[:half], dataset.frame.iloc[half:].reset_index(drop=True)
        features = list(contract.feature_names)
        self.pipeline = contract.build_estimator(seed).fit(
            contract.feature_frame(learn)[features].to_numpy(dtype=np.float64), learn[TRUE_LABEL].to_numpy()
        )
        self.inputs = rest[list(contract.input_names)]
        self.labels = rest[TRUE_LABEL].to_numpy(dtype=np.int64)
        self.rows = self.scored(self.inputs).assign(**{TRUE_LABEL: self.labels})
        age = self.rows["age"].rank().to_numpy()
        in_runs = np.lib.stride_tricks.sliding_window_view(np.concatenate([age, age[:RUN_ROWS]]), RUN_ROWS)
        of_runs = in_runs[: len(age)].mean(axis=1)
        self.run_ages = (of_runs - of_runs.mean()) / of_runs.std()

    def scored(self, inputs: pd.DataFrame) -> pd.DataFrame:
        """Return all features and the model's probability."""
        features = contract.feature_frame(inputs)
        matrix = features[list(contract.feature_names)].to_numpy(dtype=np.float64)
        return features.assign(**{PROBABILITY: self.pipeline.predict_proba(matrix)[:, 1]})

    def draw(self, n_rows: int, rng: np.random.Generator, tilt: FloatArray | None = None) -> IntArray:
        """Draw positions of rows, in runs; `tilt` (one value per run) makes runs of older people likelier."""
        n_runs = -(-n_rows // RUN_ROWS)
        starts = rng.integers(0, len(self.rows), n_runs)
        if tilt is not None:  # rejection sampling: each run is drawn until it is accepted
            redo = np.arange(n_runs)
            while len(redo):
                kept = rng.random(len(redo)) < np.exp(
                    np.minimum(0.0, tilt[redo] * self.run_ages[starts[redo]] - 3 * MIX_TILT)
                )
                redo = redo[~kept]
                starts[redo] = rng.integers(0, len(self.rows), len(redo))
        return ((starts[:, None] + np.arange(RUN_ROWS)) % len(self.rows)).ravel()[:n_rows]

    def reference(self, rng: np.random.Generator) -> pd.DataFrame:
        """Draw a reference."""
        return self.rows.iloc[self.draw(N_REFERENCE, rng)].reset_index(drop=True)
