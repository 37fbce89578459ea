"""Shadow scoring of live traffic: compare a challenger with the champion, and find the labels that would decide."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.records import JUDGED, Action, ShadowScoring, WorthLabelling
from selfheal.domain.retraining.shadow_scoring import Latency, compare_on_traffic, worth_labelling
from selfheal.services.scoring import try_scores

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.records import ModelVersion, ShadowModel
    from selfheal.services.repositories import LoopPlatform

SINGLE_ROWS = 20
"""Rows that are scored one by one; their median is the latency of a single row."""


@dataclass(frozen=True)
class LiveScores:
    """Result of scoring the champion's newest traffic with a challenger."""

    scoring: ShadowScoring
    disputed: tuple[WorthLabelling, ...]


@dataclass(frozen=True)
class WantedLabels:
    """The predictions worth labelling first, and the reason for them or for their absence."""

    reason: str
    predictions: tuple[WorthLabelling, ...] = ()


def score_live_traffic(platform: LoopPlatform, shadow: ShadowModel, champion: ModelVersion) -> LiveScores | None:
    """Compare the challenger with the champion on its newest MONITORING_MAX_ROWS predictions; None if there are none.

    Raises:
        ModelRefusedError, IntegrityError: if the challenger does not load.
    """
    rows = platform.traffic.newest_of_version(champion.version, platform.settings.monitoring_max_rows)
    if rows.empty:
        return None
    scores = try_scores(platform, shadow, rows)
    latency = _latency(platform, shadow, rows) if scores.problem is None else None
    return LiveScores(compare_on_traffic(rows, scores, latency, champion.version), worth_labelling(rows, scores))


def wanted_labels(platform: LoopPlatform) -> WantedLabels:
    """Return the predictions worth labelling first, if the newest verdict was inconclusive.

    Raises:
        MissingArtifactError, ModelRefusedError, IntegrityError: if the challenger of that verdict does not load.
    """
    champion = platform.versions.champion()
    newest = next(iter(platform.decisions.newest(limit=1, actions=JUDGED)), None)
    if newest is None or newest.champion_version != champion.version:
        return WantedLabels(f"no challenger of version {champion.version} has been judged yet")
    if newest.action is not Action.INCONCLUSIVE or newest.mlflow_run_id is None:
        return WantedLabels(f"the newest verdict is not open ({newest.action.value}): {newest.reason}")
    live = score_live_traffic(platform, platform.registry.shadow_of_run(newest.mlflow_run_id), champion)
    return WantedLabels(newest.reason, () if live is None else live.disputed)


def _latency(platform: LoopPlatform, shadow: ShadowModel, rows: pd.DataFrame) -> Latency:
    """Measure the latency (wall-clock time) of the model after warming it up."""
    pipeline = platform.registry.load(shadow)
    features = platform.contract.matrix_of(rows)

    def took_ms(matrix: np.ndarray) -> float:
        began = time.perf_counter()
        pipeline.predict_proba(matrix)
        return 1_000 * (time.perf_counter() - began)

    singles = [took_ms(features[i : i + 1]) for i in range(min(SINGLE_ROWS, len(features)))]
    return Latency(ms_per_row=took_ms(features) / len(features), ms_single=float(np.median(singles)))
