"""Shadow scoring: the challenger's scores of live traffic, before it serves any. Pure: rows and scores in, record out.

Belongs here: comparing the two models without labels. Does not belong here: scoring the rows and measuring the time
(`selfheal.services.live_traffic`), and judging the result (`selfheal.domain.retraining.gates.shadow_scoring`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import IS_LABELLED
from selfheal.domain.monitoring.intervals import wilson
from selfheal.domain.monitoring.shift import ks_distance
from selfheal.domain.records import ShadowScoring, WorthLabelling

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.retraining.evaluation import Scores

MAX_WORTH_LABELLING = 100


@dataclass(frozen=True, slots=True)
class Latency:
    """The challenger's latency in milliseconds: per row in a batch, and for a single row."""

    ms_per_row: float
    ms_single: float


def compare_on_traffic(
    rows: pd.DataFrame, challenger: Scores, latency: Latency | None, model_version: int
) -> ShadowScoring:
    """Compare the challenger with the champion on the same live rows.

    Args:
        rows: the champion's logged predictions, oldest first, at least one: `created_at`, `probability`, `prediction`.
        challenger: its scores of these rows.
        latency: None if the challenger fails.
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
    """Return at most 100 unlabelled predictions on which the models disagree, so that their labels would favour one of them.

    The largest differences of the scores come first; of equal ones, the newest. The label of a row on which both models agree
    counts for or against both alike.

    Args:
        rows: the champion's log: `prediction_id`, `created_at`, `probability`, `prediction`, `IS_LABELLED`.
        challenger: its scores of these rows.
    """
    if challenger.problem is not None:
        return ()
    is_open = ~rows[IS_LABELLED].to_numpy(dtype=bool)
    is_disputed = challenger.predictions != rows["prediction"].to_numpy(dtype=np.int64)
    known = rows[["prediction_id", "created_at", "probability"]]  # a feature may be called as what is added here
    disputed = known.assign(challenger_probability=challenger.probabilities)[is_open & is_disputed]
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
