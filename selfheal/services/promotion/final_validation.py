"""Final validation before production: the model loads, answers valid requests, scores as in training, is fast enough.

The gates decide whether a model is better; this module decides whether it can be served at all. It records nothing and sends
no notification.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from selfheal.domain.model.examination import examine
from selfheal.domain.model.plain_scoring import served_scoring
from selfheal.domain.records import ShadowModel
from selfheal.domain.retraining.cross_fitting import SERVED
from selfheal.kit.errors import ModelRefusedError, SelfhealError

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import FloatArray
    from selfheal.domain.records import ModelVersion
    from selfheal.services.repositories import LoopPlatform

Scoring: TypeAlias = "Callable[[FloatArray], FloatArray]"

SCORE_TOLERANCE = 1e-9
"""Largest difference of a reloaded model's probabilities from those of training: rounding, not another model."""

BATCH_ROWS = 256

FLOOR_MS = {1: 2.0, BATCH_ROWS: 10.0}
"""Milliseconds to score this many rows below which differences do not matter: a faster model counts as this slow."""

N_ROUNDS, TIMEOUT_SECONDS = 20, 3.0
"""Number of timings of each model, and the time limit for all of them; at least two rounds are run."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds to score `n_rows` rows: the best of several tries, because other work on the machine only adds time."""

    n_rows: int
    model_ms: float
    champion_ms: float


def validate(platform: LoopPlatform, model: ShadowModel | ModelVersion, champion: ModelVersion | None = None) -> None:
    """Run all checks. Without a champion, or with one that does not load, latency is not checked.

    Raises:
        ModelRefusedError, IntegrityError: saying which check failed.
    """
    pipeline = check_answers(platform, model)
    rows = evaluation_rows(platform, model)
    matrix = platform.contract.matrix_of(rows)
    check_parity(pipeline, matrix, rows["probability"].to_numpy(dtype=np.float64))
    served = None if champion is None else _loaded(platform, champion)
    if served is not None:
        contract = platform.contract
        latencies = measure(served_scoring(pipeline, contract), served_scoring(served, contract), matrix)
        check_latency(latencies, platform.settings.max_latency_ratio)


def check_answers(platform: LoopPlatform, model: ShadowModel | ModelVersion) -> Pipeline:
    """Load the model and check that it answers valid requests (`examine`).

    Raises:
        ModelRefusedError, IntegrityError: if it does not load, is not the recorded one, or returns anything but
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


def check_answers_again(platform: LoopPlatform, version: ModelVersion) -> None:
    """Check a version that was live before.

    If this machine has served it with the currently installed libraries, only its file's digest is checked: loading takes
    seconds, and a rollback is urgent. The API examines the model before it swaps.

    Raises:
        ModelRefusedError, IntegrityError: as `check_answers`, or if its file is missing.
    """
    registry = platform.registry
    if version.contract_hash == platform.contract.hash and registry.has_answered(version):
        registry.model_bytes(version)
    else:
        check_answers(platform, version)


def check_parity(pipeline: Pipeline, matrix: FloatArray, expected: FloatArray) -> None:
    """Check that the reloaded model scores these rows as in training, within `SCORE_TOLERANCE`.

    Raises:
        ModelRefusedError: if it does not.
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
    if not largest <= SCORE_TOLERANCE:  # a NaN fails too
        raise ModelRefusedError(f"the reloaded model scores differently from training (by up to {largest:.3g})")


def check_latency(latencies: Sequence[Latency], max_ratio: float) -> None:
    """Check that the model takes at most `max_ratio` times as long as the champion or `FLOOR_MS`, whichever is longer.

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
    """Time both models on the same rows, alternately, so that other load affects both."""
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


def evaluation_rows(platform: LoopPlatform, model: ShadowModel | ModelVersion) -> pd.DataFrame:
    """Return the newest rows of the model's reference, with the scores of this very model that were stored with it."""
    reference = platform.registry.reference(model)
    n_rows = model.training_set.n_evaluation if isinstance(model, ShadowModel) else int(model.metrics["n_rows"])
    newest = reference.iloc[-min(n_rows, len(reference)) :]
    return newest.assign(probability=newest[SERVED]) if SERVED in newest.columns else newest


def _loaded(platform: LoopPlatform, champion: ModelVersion) -> Pipeline | None:
    """Return the champion's pipeline; None if it does not load."""
    try:
        return platform.registry.load(champion)
    except SelfhealError:
        return None


def _time_ms(score: Scoring, rows: FloatArray) -> float:
    began = time.perf_counter()
    score(rows)
    return 1_000.0 * (time.perf_counter() - began)
