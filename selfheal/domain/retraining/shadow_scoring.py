"""What a challenger would have said of live traffic, before it serves any. Pure: rows and scores in, record out.

Belongs here: comparing the two models where no label is needed. Does not belong here: scoring the rows and measuring how long it
takes (`selfheal.services.live_traffic`), and judging the result (`selfheal.domain.retraining.gates.shadow_scoring`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.monitoring.intervals import wilson
from selfheal.domain.monitoring.shift import ks_distance
from selfheal.domain.records import ShadowScoring, WorthLabelling

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.retraining.evaluation import Scores

MAX_WORTH_LABELLING = 100


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the challenger takes, in milliseconds: for a row among many, and for a row alone."""

    ms_per_row: float
    ms_single: float


def compare_on_traffic(
    rows: pd.DataFrame, challenger: Scores, latency: Latency | None, model_version: int
) -> ShadowScoring:
    """Compare the challenger with what the champion answered on the same live rows.

    Args:
        rows: what the champion logged, oldest first, at least one: `created_at`, `probability`, `prediction`.
        challenger: its scores of these rows.
        latency: None where it fails.
        model_version: the champion's.
    """
    said = rows["prediction"].to_numpy(dtype=np.int64)
    first_at, last_at = (rows["created_at"].iloc[i].to_pydatetime() for i in (0, -1))
    seen = ShadowScoring(model_version, len(rows), first_at, last_at, float(said.mean()), problem=challenger.problem)
    if challenger.problem is not None:
        return seen
    n_agreed = int((challenger.predictions == said).sum())
    scores = rows["probability"].to_numpy(dtype=np.float64)
    differences = np.abs(challenger.probabilities - scores)
    return replace(
        seen,
        challenger_positive_rate=float(challenger.predictions.mean()),
        agreement=n_agreed / len(rows),
        agreement_interval=wilson(n_agreed, len(rows)),
        mean_score_difference=float(differences.mean()),
        largest_score_difference=float(differences.max()),
        ks_distance=ks_distance(challenger.probabilities, scores),
        latency_ms_per_row=None if latency is None else latency.ms_per_row,
        latency_ms_single=None if latency is None else latency.ms_single,
    )


def worth_labelling(rows: pd.DataFrame, challenger: Scores) -> tuple[WorthLabelling, ...]:
    """Return the unlabelled predictions whose labels would separate the models: those on which they disagree, at most 100.

    The most different scores come first, of equally different ones the newest. A row on which both models agree counts for or
    against both alike.

    Args:
        rows: what the champion logged: `prediction_id`, `created_at`, `probability`, `prediction`, `is_labelled`.
        challenger: its scores of these rows.
    """
    if challenger.problem is not None:
        return ()
    is_open = ~rows["is_labelled"].to_numpy(dtype=bool)
    is_disputed = challenger.predictions != rows["prediction"].to_numpy(dtype=np.int64)
    disputed = rows.assign(challenger_probability=challenger.probabilities)[is_open & is_disputed]
    difference = (disputed["challenger_probability"] - disputed["probability"]).abs()
    ordered = disputed.assign(difference=difference).sort_values(["difference", "created_at"], ascending=False)
    return tuple(
        WorthLabelling(
            prediction_id=str(row.prediction_id),
            created_at=row.created_at.to_pydatetime(),
            champion_probability=float(row.probability),
            challenger_probability=float(row.challenger_probability),
        )
        for row in ordered.head(MAX_WORTH_LABELLING).itertuples()
    )
