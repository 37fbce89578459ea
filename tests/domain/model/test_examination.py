"""Models that load, and must not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from selfheal import credit_risk
from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.model.examination import examine
from selfheal.kit.errors import ModelRefusedError
from tests import toy_use_case


class Scores:
    """A classifier that gives what it is told, for as many rows as it is asked."""

    def __init__(self, give: Callable[[Any], Any], classes: tuple[int, ...] = (0, 1)) -> None:
        self._give = give
        self.classes_ = np.array(classes)

    def predict_proba(self, matrix: Any) -> Any:
        return self._give(matrix)


def two_columns(scores: Any) -> Any:
    return np.column_stack([1.0 - scores, scores])


def within_the_batch(matrix: Any) -> Any:
    """Scales by the rows at hand: the commonest mistake in scoring code."""
    return two_columns(np.clip((matrix[:, 1] - matrix[:, 1].min() + 0.1) / (np.ptp(matrix[:, 1]) + 1.0), 0.0, 1.0))


def without_missing_values(matrix: Any) -> Any:
    if np.isnan(matrix).any():
        raise ValueError("Input X contains NaN.")
    return two_columns(np.full(len(matrix), 0.5))


def half(matrix: Any) -> Any:
    return two_columns(np.full(len(matrix), 0.5))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Scores(lambda m: two_columns(np.full(len(m), np.nan))), "gives nan to nan as probabilities"),
        (Scores(lambda m: two_columns(np.full(len(m), 1.5))), "gives -0.5 to 1.5 as probabilities"),
        (Scores(lambda m: np.full((len(m), 1), 0.5)), r"an array of shape \(4, 1\), not \(4, 2\)"),
        (Scores(lambda m: np.full((len(m), 3), 1 / 3)), r"of shape \(4, 3\)"),
        (Scores(lambda m: np.full((1, 2), 0.5)), r"of shape \(1, 2\)"),
        (Scores(half, classes=(1, 0)), r"its classes are \[1, 0\]"),
        (Scores(half, classes=(0, 2)), r"its classes are \[0, 2\]"),
        (Scores(half, classes=()), r"its classes are \[\]"),
        (Scores(within_the_batch), "the score of a row depends on the rows scored with it"),
    ],
)
def test_a_model_that_gives_no_probabilities_of_two_classes_is_refused(model: Any, reason: str) -> None:
    with pytest.raises(ModelRefusedError, match=reason):
        examine(model, toy_use_case.contract)


def test_a_model_that_fails_on_what_the_doors_let_in_is_refused() -> None:
    with pytest.raises(ValueError, match="contains NaN"):
        examine(Scores(without_missing_values), toy_use_case.contract)  # type: ignore[arg-type]


@pytest.mark.parametrize("contract", [toy_use_case.contract, credit_risk.contract], ids=lambda contract: contract.name)
def test_a_sound_model_of_each_use_case_passes(contract: ModelContract) -> None:
    rows = contract.synthesize(500, 3)
    matrix = contract.feature_frame(rows).to_numpy(dtype=np.float64)
    pipeline = contract.build_estimator(0).fit(matrix, rows[TRUE_LABEL])
    examine(pipeline, contract)
