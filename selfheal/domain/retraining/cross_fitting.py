"""Cross-fitting in blocks of time: every row is learned from, and judged by what has not seen its block. Pure.

After a change of the relation labels are few. Cut in two, half of them only teach and the other half only judge. Cut in blocks, each
block is scored by a model of the same making that was fitted to the other blocks, with a threshold and a repair that were chosen
without it; the model that goes live is fitted to all (Stone, 1974, JRSS B 36; for inference Chernozhukov and others, 2018,
Econometrics Journal 21). What is judged is thus the making, and what goes live has more rows than any model that was judged.

Belongs here: the blocks, and decisions by thresholds of the other blocks. Does not belong here: fitting (`training`), and which rows
count (`dataset`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.retraining.threshold import f1_optimal_threshold

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.clusters import Clusters
    from selfheal.domain.contract import FloatArray
    from selfheal.domain.retraining.fitting import Folds, IntArray


SERVED = "served_probability"
"""Column of a cross-fitted version's reference: the probability by the model that goes live, which has learned from the row."""

MIN_LEARNED_PER_CLASS = 5
"""Rows of each class outside of each block; where time has put them otherwise, folds are drawn at random."""


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """What a challenger is judged by, one element per evaluation row: its block's model did not see it.

    Args:
        probabilities: of class 1, by the model of the other blocks.
        decisions: 0 or 1, at the threshold of the other blocks.
    """

    probabilities: FloatArray
    decisions: IntArray

    def to_frame(self) -> pd.DataFrame:
        """Return it as a frame, in the order of the evaluation rows."""
        import pandas as pd

        return pd.DataFrame({"probability": self.probabilities, "decision": self.decisions})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> CrossFitted:
        """Return what `to_frame` was given."""
        return cls(frame["probability"].to_numpy(), frame["decision"].to_numpy())


def blocks_of_time(labels: IntArray, n_blocks: int, groups: Clusters) -> list[tuple[IntArray, IntArray]] | None:
    """Return folds of neighbouring rows, oldest first; the rows of a group are all in the block of its newest row.

    None if a block has rows of one class only, which no log loss is defined on, or nearly all rows of a class.

    Args:
        labels: of rows in the order of time.
        n_blocks: of about the same number of rows.
        groups: the entity of each row; None if every row is its own.
    """
    rows = np.arange(len(labels))
    block = rows * n_blocks // max(1, len(labels))
    if groups is not None:
        who = np.unique(groups, return_inverse=True)[1]
        newest = np.zeros(int(who.max()) + 1, dtype=np.int64)
        newest[who] = block  # the last of several assignments stays
        block = newest[who]
    folds = [(rows[block != one], rows[block == one]) for one in range(n_blocks)]
    least = {0: MIN_LEARNED_PER_CLASS, 1: 1}  # to learn from, and to predict
    is_enough = all(
        int((labels[part] == label).sum()) >= least[place]
        for fold in folds
        for place, part in enumerate(fold)
        for label in (0, 1)
    )
    return folds if is_enough else None


def decisions_of_others(labels: IntArray, probabilities: FloatArray, folds: Folds) -> IntArray:
    """Return each row's decision at the threshold that is best on the rows of the other folds."""
    found = np.zeros(len(labels), dtype=np.int64)
    for learn, predict in folds:
        threshold = f1_optimal_threshold(labels[learn], probabilities[learn])
        found[predict] = probabilities[predict] >= threshold
    return found
