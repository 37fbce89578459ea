"""The rows a shadow model learns from and, strictly later, the rows it is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal.contract import TRUE_LABEL
from selfheal.errors import InvalidDataError
from selfheal.records import TrainingSetInfo

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.contract import ModelContract

EVALUATION_SHARE = 0.3
SPLIT = "split"
TRAIN, EVALUATION = "train", "evaluation"
MIN_ROWS_PER_CLASS = 10
"""Each part needs so many rows of each class: five folds with two of each."""


@dataclass(frozen=True)
class TrainingSet:
    """All features, `true_label` and `split` (`train`, `evaluation`), in the order of time."""

    frame: pd.DataFrame
    info: TrainingSetInfo

    def part(self, split: str) -> pd.DataFrame:
        return self.frame[self.frame[SPLIT] == split]


def training_set(
    rows: pd.DataFrame,
    contract: ModelContract,
    *,
    source: str,
    min_evaluation_rows: int,
    label_coverage_pct: float | None,
    digest: str,
    decision_id: str | None = None,
) -> TrainingSet:
    """Splits labelled rows in time: the last 30 %, but at least `min_evaluation_rows`, are for evaluation.

    Args:
        rows: all features and `true_label`, oldest first; `created_at` where the rows are logged predictions.
        source: where they come from, for people.
        digest: sha256 of the rows.
        decision_id: the decision to train that asked for them.

    Raises:
        InvalidDataError: if a part would hold too few rows of a class to learn or to judge.
    """
    n_evaluation = max(round(len(rows) * EVALUATION_SHARE), min_evaluation_rows)
    n_train = len(rows) - n_evaluation
    frame = rows[[*contract.feature_names, TRUE_LABEL]].copy()
    frame[SPLIT] = [TRAIN] * max(0, n_train) + [EVALUATION] * (len(rows) - max(0, n_train))
    for split in (TRAIN, EVALUATION):
        labels = frame.loc[frame[SPLIT] == split, TRUE_LABEL]
        fewest = int(min(labels.sum(), len(labels) - labels.sum()))
        if fewest < MIN_ROWS_PER_CLASS:
            raise InvalidDataError(
                f"the {split} part has {len(labels)} rows, only {fewest} of one class; at least {MIN_ROWS_PER_CLASS} of "
                f"each are needed: wait for more labels ({len(rows)} now)"
            )
    has_times = "created_at" in rows.columns
    return TrainingSet(
        frame,
        TrainingSetInfo(
            source=source,
            sha256=digest,
            n_train=n_train,
            n_evaluation=n_evaluation,
            n_positive=int(rows[TRUE_LABEL].sum()),
            window_start=rows["created_at"].iloc[0].to_pydatetime() if has_times else None,
            window_end=rows["created_at"].iloc[-1].to_pydatetime() if has_times else None,
            label_coverage_pct=label_coverage_pct,
            decision_id=decision_id,
        ),
    )
