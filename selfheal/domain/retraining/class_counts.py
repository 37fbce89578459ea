"""Class counts: how many rows of each class the parts of a training set have, and how many they lack. Pure.

Below `MIN_ROWS_PER_CLASS` no model can be tuned or judged: a retraining is not started then, and a training set is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TRAIN, EVALUATION, CROSS_FITTED = "train", "evaluation", "cross_fitted"
"""Parts of a training set; a cross-fitted one has one part, which is both."""

MIN_ROWS_PER_CLASS = 10
"""Smallest number of rows of each class in each part: five folds with two of each, on which fitting and tuning take turns."""

ALIKE = "if different cases look alike, say so in the contract: equal_inputs_are_one_case=False"

PURPOSES = {
    TRAIN: "to fit and tune on",
    EVALUATION: "to be judged on (the newest)",
    CROSS_FITTED: "to fit, tune and be judged on in turn",
}


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Rows of one part (`TRAIN`, `EVALUATION` or `CROSS_FITTED`), and how many of them are of class 1.

    `n_copied` more rows were dropped from it because their inputs occur among the evaluation rows.
    """

    part: str
    n_rows: int
    n_positive: int
    n_copied: int = 0

    @property
    def missing(self) -> dict[int, int]:
        """Return how many rows are missing, by class; empty if there are enough of both."""
        have = {0: self.n_rows - self.n_positive, 1: self.n_positive}
        return {label: MIN_ROWS_PER_CLASS - n for label, n in have.items() if n < MIN_ROWS_PER_CLASS}


def shortfall(parts: Sequence[PartCounts]) -> str:
    """Return which part lacks how many rows of which class, in one sentence; empty if none does."""
    return "; ".join(_lacking(part) for part in parts if part.missing)


def _lacking(part: PartCounts) -> str:
    have = {0: part.n_rows - part.n_positive, 1: part.n_positive}
    which = " and ".join(f"{n} more of class {label} (there are {have[label]})" for label, n in part.missing.items())
    copied = f"; {part.n_copied:,} rows that repeat the inputs of evaluation rows do not count ({ALIKE})"
    return (
        f"the {part.n_rows:,} rows {PURPOSES[part.part]} need {which}: at least {MIN_ROWS_PER_CLASS} of each are needed"
        f"{copied if part.n_copied else ''}"
    )
