"""The rows and scores that a verdict rests on. Pure.

Belongs here: both models' scores of the evaluation rows, overall and within each segment. The gates judge them
(`selfheal.domain.retraining.gates`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfheal.domain.clusters import Clusters, design_effect, row_clusters, within, worth
from selfheal.domain.contract import TRUE_LABEL, FloatArray, ModelContract, Segment
from selfheal.domain.levels import is_text, normal
from selfheal.domain.records import GateStatus, SegmentDifference
from selfheal.domain.retraining.class_counts import EVALUATION
from selfheal.domain.retraining.dataset import EVALUATION_SHARE, TrainingSet, evaluation_share
from selfheal.domain.retraining.evidence import (
    CHALLENGER_SAYS_SO,
    CHAMPION_SAYS_SO,
    IntArray,
    counts_worth,
    f1,
    f1_difference_bounds,
    kinds_of,
)
from selfheal.kit.errors import ModelRefusedError

if TYPE_CHECKING:
    import pandas as pd

MAX_FAILURE_CHARACTERS = 300
"""Largest length of a model's own error message, which may contain a whole array."""

MIN_SEGMENT_ROWS = 30
"""Smallest number of rows from which a band is evaluated."""

MAX_LEVEL_BANDS = 10
"""Levels of a category that are bands; all bands share the level of their tests."""

SEGMENTS_LEVEL = 0.05
"""Probability that any segment is called better or worse when none is; shared by the segments and the two sides."""


@dataclass(frozen=True)
class Scores:
    """One model's probabilities, shape (n,), and its decision threshold. NaN: the model does not score that row.

    `failure` says why a failed model scores no row at all. `decisions`, 0 or 1, are those of a cross-fitted challenger, whose
    threshold is another one for each block of rows.
    """

    probabilities: FloatArray
    threshold: float
    failure: str | None = None
    decisions: IntArray | None = None

    @property
    def problem(self) -> str | None:
        """Return what is wrong with the probabilities; None if every row has a valid one."""
        if self.failure is not None:
            return self.failure
        is_wrong = ~((self.probabilities >= 0) & (self.probabilities <= 1))  # NaN compares as False
        n_wrong = int(is_wrong.sum())
        return f"no probability for {n_wrong:,} of {len(is_wrong):,} rows" if n_wrong else None

    @property
    def predictions(self) -> IntArray:
        """Return 1 where the probability reaches the threshold, else 0; shape (n,)."""
        if self.decisions is not None:
            return self.decisions
        return (self.probabilities >= self.threshold).astype(np.int64)


@dataclass(frozen=True)
class Evaluation:
    """The rows that both models are judged on.

    Args:
        labels: the true labels, shape (n,).
        challenger: the challenger's scores.
        champion: the champion's scores. None at bootstrap: the gates that compare are then not applicable.
        label_coverage_pct: percentage of the champion's predictions with a label; None if rows are not logged predictions.
        n_labels: number of the champion's labelled predictions, of which the rows are a part.
        bands: which rows are in each segment's band, by its name (`segment_bands`).
        clusters: the entity of each row; None if every row is its own.
        share: of the labels that are for evaluation.
    """

    labels: IntArray
    challenger: Scores
    champion: Scores | None
    label_coverage_pct: float | None = None
    n_labels: int = 0
    bands: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    clusters: Clusters = None
    share: float = EVALUATION_SHARE

    @property
    def n_rows(self) -> int:
        """Return how many rows the models are judged on."""
        return len(self.labels)

    @property
    def n_independent_rows(self) -> float:
        """Return how many independent rows they are worth, by how alike the outcomes of an entity are."""
        return self.n_rows / design_effect(self.labels.astype(np.float64), self.clusters)

    def one_row_of_each_entity(self) -> Evaluation:
        """Return the evaluation on the newest row of each entity: what has no bound for recurring rows is judged on those."""
        if self.clusters is None:
            return self
        newest = np.sort(len(self.clusters) - 1 - np.unique(self.clusters[::-1], return_index=True)[1])

        def of(scores: Scores) -> Scores:
            decisions = None if scores.decisions is None else scores.decisions[newest]
            return replace(scores, probabilities=scores.probabilities[newest], decisions=decisions)

        return replace(
            self,
            labels=self.labels[newest],
            challenger=of(self.challenger),
            champion=None if self.champion is None else of(self.champion),
            bands={name: is_within[newest] for name, is_within in self.bands.items()},
            clusters=None,
        )

    @property
    def worth(self) -> str:
        """Return what the rows are worth, for a sentence; empty if every row is its own."""
        return worth(self.n_rows, self.clusters, self.n_rows / self.n_independent_rows)

    @property
    def kinds(self) -> IntArray:
        """Return each row's kind (`selfheal.domain.retraining.evidence`); there must be a champion."""
        assert self.champion is not None, "kinds of row compare two models"
        return kinds_of(self.labels, self.challenger.predictions, self.champion.predictions)

    @property
    def problem(self) -> tuple[GateStatus, str] | None:
        """Return the status and reason if the models cannot be compared; None if they can.

        A challenger that does not score every row fails. With a champion that does not, the comparison is inconclusive.
        """
        if self.challenger.problem is not None:
            return GateStatus.FAIL, f"the challenger cannot be judged: {self.challenger.problem}"
        if self.champion is not None and self.champion.problem is not None:
            return GateStatus.INCONCLUSIVE, f"the champion cannot be compared with: {self.champion.problem}"
        return None


def evaluation_on(
    rows: TrainingSet, contract: ModelContract, challenger: Scores, champion: Scores | None, n_labels: int
) -> Evaluation:
    """Return what the gates judge: both models' scores of the evaluation rows of a training set."""
    evaluation = rows.part(EVALUATION)
    return Evaluation(
        labels=evaluation[TRUE_LABEL].to_numpy(dtype=np.int64),
        challenger=challenger,
        champion=champion,
        label_coverage_pct=rows.info.label_coverage_pct,
        n_labels=n_labels,
        bands=segment_bands(evaluation, contract.segments),
        clusters=row_clusters(evaluation, contract),
        share=evaluation_share(is_cross_fitted=rows.is_cross_fitted),
    )


def scores_of(
    score: Callable[[FloatArray], FloatArray], threshold: float, rows: pd.DataFrame, contract: ModelContract
) -> Scores:
    """Return a model's scores for rows with all features; what it says if it fails on them is in `Scores.failure`."""
    features = contract.matrix_of(rows)
    try:
        return Scores(score(features), threshold)
    except ModelRefusedError as error:
        failure = str(error)
    except Exception as error:  # a model's own code may raise anything
        failure = f"{type(error).__name__}: {error}"
    return Scores(np.full(len(rows), np.nan), threshold, failure[:MAX_FAILURE_CHARACTERS])


def segment_bands(rows: pd.DataFrame, segments: Sequence[Segment]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which rows are in each band of each segment that has at least 30 of them; an edge belongs to the band above.

    A band of a category is one of its `MAX_LEVEL_BANDS` commonest levels.
    """
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for segment in segments:
        if is_text(rows[segment.feature].dtype):
            found |= _level_bands(rows[segment.feature])
            continue
        bands = np.digitize(rows[segment.feature].to_numpy(dtype=np.float64), segment.edges)
        bounds = ("-inf", *(f"{edge:g}" for edge in segment.edges), "inf")
        for band in range(len(segment.edges) + 1):
            is_within = bands == band
            if is_within.sum() >= MIN_SEGMENT_ROWS:
                found[f"{segment.feature} in [{bounds[band]}, {bounds[band + 1]})"] = is_within
    return found


def _level_bands(column: pd.Series) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which rows have each of the commonest levels."""
    levels = column.map(normal, na_action="ignore")
    counts = levels.value_counts()
    commonest = counts[counts >= MIN_SEGMENT_ROWS].index[:MAX_LEVEL_BANDS]
    return {f"{column.name} is {level!r}": (levels == level).to_numpy(dtype=np.bool_) for level in sorted(commonest)}


def segment_differences(evaluation: Evaluation, seed: int) -> tuple[SegmentDifference, ...]:
    """Return F1 of both models within each band, with bounds that hold for all bands together (Bonferroni).

    A band's own level is `SEGMENTS_LEVEL` divided by the number of bands, half of it on each side. The result is empty if the
    models cannot be compared.
    """
    champion = evaluation.champion
    if champion is None or evaluation.problem is not None:
        return ()
    level = SEGMENTS_LEVEL / (2 * max(1, len(evaluation.bands)))
    kinds = evaluation.kinds
    return tuple(
        _segment_difference(name, kinds[is_within], within(evaluation.clusters, is_within), level, seed)
        for name, is_within in evaluation.bands.items()
    )


def _segment_difference(name: str, kinds: IntArray, clusters: Clusters, level: float, seed: int) -> SegmentDifference:
    counts = counts_worth(kinds, clusters)
    champion, challenger = (float(f1(counts, says_so)) for says_so in (CHAMPION_SAYS_SO, CHALLENGER_SAYS_SO))
    bounds = f1_difference_bounds(counts, level, seed)
    return SegmentDifference(name, len(kinds), champion, challenger, bounds.low, bounds.high)
