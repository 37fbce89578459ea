"""The last look at a model before production: it loads, answers what the API lets in, scores as in training, and is no slower
than it may be.

What the gates ask is whether a model is better; here, whether it can be served at all. Nothing is kept and nobody is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from selfheal.domain.model.examination import examine
from selfheal.domain.model.plain_scoring import plain_scoring
from selfheal.domain.records import ShadowModel
from selfheal.kit.errors import ModelRefusedError, SelfhealError

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform

Scoring: TypeAlias = "Callable[[FloatArray], FloatArray]"

SCORE_TOLERANCE = 1e-9
"""How far a reloaded model's probabilities may lie from those of training: rounding, not another model."""

BATCH_ROWS = 256

FLOOR_MS = {1: 2.0, BATCH_ROWS: 10.0}
"""Milliseconds to score so many rows below which nobody sees a difference: a model that is quicker counts as being as slow."""

N_ROUNDS, TIMEOUT_SECONDS = 20, 3.0
"""Timings of each model, and how long all of them together may take (but two rounds)."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds to score `n_rows` rows, the best of several tries: what else the machine does only makes it longer."""

    n_rows: int
    model_ms: float
    champion_ms: float


def validate(platform: Platform, model: ShadowModel | ModelVersion, champion: ModelVersion | None = None) -> None:
    """All checks. Without a champion, or with one that does not load, nothing is said about speed.

    Raises:
        ModelRefusedError, IntegrityError: saying which check failed.
    """
    pipeline = check_answers(platform, model)
    rows = evaluation_rows(platform, model)
    matrix = rows[list(platform.contract.feature_names)].to_numpy(dtype=np.float64)
    check_parity(pipeline, matrix, rows["probability"].to_numpy(dtype=np.float64))
    served = None if champion is None else _loaded(platform, champion)
    if served is not None:
        contract = platform.contract
        latencies = measure(_as_served(pipeline, contract), _as_served(served, contract), matrix)
        check_latency(latencies, platform.settings.max_latency_ratio)


def check_answers(platform: Platform, model: ShadowModel | ModelVersion) -> Pipeline:
    """Loads the model and lets it answer what the API lets in (`examine`).

    Raises:
        ModelRefusedError, IntegrityError: if it does not load, is not the one recorded, or answers with anything but
            probabilities.
    """
    pipeline = platform.registry.load(model)
    try:
        examine(pipeline, platform.contract)
    except SelfhealError:
        raise
    except Exception as error:  # whatever a model's code raises
        raise ModelRefusedError(f"the model does not score: {type(error).__name__}: {error}") from error
    return pipeline


def check_answers_again(platform: Platform, version: ModelVersion) -> None:
    """Of a version that was live before. One that this machine served with the libraries of today is not opened, which takes
    seconds where a way back is wanted at once: it is there, and the same to the bit. The API examines it before it swaps.

    Raises:
        ModelRefusedError, IntegrityError: as `check_answers`, or if its file is gone.
    """
    registry = platform.registry
    if version.contract_hash == platform.contract.hash and registry.cache.has_answered(version):
        registry.model_bytes(version)
    else:
        check_answers(platform, version)


def check_parity(pipeline: Pipeline, matrix: FloatArray, expected: FloatArray) -> None:
    """Raises:
    ModelRefusedError: if the reloaded model does not score these rows as it did in training.
    """
    if len(matrix) == 0:
        raise ModelRefusedError("the model has no evaluation rows to compare its scores on")
    try:
        scores = np.asarray(pipeline.predict_proba(matrix), dtype=np.float64)[:, 1]
    except Exception as error:  # whatever a model's code raises
        raise ModelRefusedError(f"the model does not score: {type(error).__name__}: {error}") from error
    if not (np.isfinite(scores).all() and (scores >= 0.0).all() and (scores <= 1.0).all()):
        raise ModelRefusedError("the model gives probabilities that are not numbers from 0 to 1")
    largest = float(np.abs(scores - expected).max())
    if not largest <= SCORE_TOLERANCE:  # a NaN is no parity either
        raise ModelRefusedError(f"the reloaded model scores differently from training (by up to {largest:.3g})")


def check_latency(latencies: Sequence[Latency], max_ratio: float) -> None:
    """A model may take `max_ratio` times as long as the champion, or as `FLOOR_MS` if the champion is quicker than that.

    Raises:
        ModelRefusedError: if it takes longer.
    """
    for latency in latencies:
        limit_ms = max_ratio * max(latency.champion_ms, FLOOR_MS[latency.n_rows])
        if latency.model_ms > limit_ms:
            rows = "one row" if latency.n_rows == 1 else f"{latency.n_rows} rows"
            raise ModelRefusedError(
                f"the model takes {latency.model_ms:.1f} ms for {rows} and the one in production {latency.champion_ms:.1f} "
                f"ms; MAX_LATENCY_RATIO={max_ratio:g} allows {limit_ms:.1f} ms"
            )


def measure(model: Scoring, champion: Scoring, matrix: FloatArray) -> list[Latency]:
    """Both models on the same rows, turn by turn, so that a busy moment meets both."""
    found = []
    deadline = time.perf_counter() + TIMEOUT_SECONDS
    for n_rows in FLOOR_MS:
        rows = np.resize(matrix, (n_rows, matrix.shape[1]))
        best_ms = [float("inf"), float("inf")]
        for n_done in range(N_ROUNDS):
            if n_done >= 2 and time.perf_counter() > deadline:
                break
            best_ms = [min(best, _time_ms(score, rows)) for best, score in zip(best_ms, (model, champion), strict=True)]
        found.append(Latency(n_rows, *best_ms))
    return found


def evaluation_rows(platform: Platform, model: ShadowModel | ModelVersion) -> pd.DataFrame:
    """The newest rows of the model's reference: those that its own scores are kept of."""
    reference = platform.registry.reference(model)
    n_rows = model.training_set.n_evaluation if isinstance(model, ShadowModel) else int(model.metrics["n_rows"])
    return reference.iloc[-min(n_rows, len(reference)) :]


def _loaded(platform: Platform, champion: ModelVersion) -> Pipeline | None:
    """None if it does not load: then it is no model to be measured against, and all the more to be replaced."""
    try:
        return platform.registry.load(champion)
    except SelfhealError:
        return None


def _as_served(pipeline: Pipeline, contract: ModelContract) -> Scoring:
    return plain_scoring(pipeline, contract.matrix(contract.probe_rows()))


def _time_ms(score: Scoring, rows: FloatArray) -> float:
    began = time.perf_counter()
    score(rows)
    return 1_000.0 * (time.perf_counter() - began)
