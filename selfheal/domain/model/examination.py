"""Examination of a model before it may serve: does it return probabilities for rows that the API accepts?

Run before a promotion and before each swap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import DTYPES, UNSEEN_LEVELS
from selfheal.domain.levels import codes_of
from selfheal.kit.errors import ModelRefusedError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from selfheal.domain.contract import Columns, FloatArray, ModelContract
    from selfheal.domain.features import Example, Feature

WARM_UP_ROWS = 64
"""Largest group of rows that warms up a new model; small, because it runs beside the old champion's requests."""

N_UNSEEN = 32
"""Levels that no training has, by which it shows whether a model reads their codes as numbers."""

GROUP_TOLERANCE = 1e-6
"""Largest difference (rounding) between a row's score alone and in a group. Requests are scored in groups."""


def examine(pipeline: Pipeline, contract: ModelContract) -> None:
    """Warm up the model and check that it returns probabilities for rows that the API accepts.

    The rows are the contract's example, the example without its nullable values, and the lowest and highest accepted
    values, unless `derive` makes something unusable of them.

    Raises:
        ModelRefusedError: if its output is not a probability for each of two classes, or if a row's score depends on
            the rows beside it.
    """
    matrix = contract.usable_matrix(_probe_columns(contract))
    expected = _checked(pipeline.predict_proba(matrix), len(matrix))
    classes = np.asarray(getattr(pipeline, "classes_", ())).tolist()
    if classes != [0, 1]:
        raise ModelRefusedError(f"its classes are {classes}, not [0, 1]")
    alone = [np.array([row]) for row in range(len(matrix))]
    for rows in (*alone, np.resize(np.arange(len(matrix)), WARM_UP_ROWS)):
        scores = _checked(pipeline.predict_proba(matrix[rows]), len(rows))
        difference = float(np.abs(scores - expected[rows]).max())
        if difference > GROUP_TOLERANCE:
            raise ModelRefusedError(f"the score of a row depends on the rows scored with it (by {difference:.3g})")
    _refuse_codes_as_numbers(pipeline, contract)


def _probe_columns(contract: ModelContract) -> Columns:
    return {feature.name: np.array(_probe_values(feature), dtype=DTYPES[feature.kind]) for feature in contract.inputs}


def _probe_values(feature: Feature) -> list[Example | None]:
    extremes = UNSEEN_LEVELS if feature.kind == "category" else (feature.lower, feature.upper)
    return [feature.example, None if feature.is_nullable else feature.example, *extremes]


def _refuse_codes_as_numbers(pipeline: Pipeline, contract: ModelContract) -> None:
    """Check that levels which nobody has seen are all alike to the model: their codes mean nothing."""
    unseen = codes_of(f"unseen {number}" for number in range(N_UNSEEN))
    for name, place in zip(contract.category_names, contract.category_positions, strict=True):
        rows = np.tile(contract.matrix(_probe_columns(contract))[:1], (N_UNSEEN, 1))
        rows[:, place] = unseen
        scores = _checked(pipeline.predict_proba(rows), N_UNSEEN)
        if np.ptp(scores) > GROUP_TOLERANCE:
            raise ModelRefusedError(
                f"it gives levels of {name!r} that it has never seen different scores ({scores.min():.3g} to "
                f"{scores.max():.3g}), as if their codes were numbers: let build_estimator encode the columns "
                "contract.category_positions (OneHotEncoder, OrdinalEncoder, TargetEncoder)"
            )


def _checked(probabilities: object, n_rows: int) -> FloatArray:
    """Return the probabilities of class 1 if they are valid output of `predict_proba` for this many rows."""
    given = np.asarray(probabilities, dtype=np.float64)
    if given.shape != (n_rows, 2):
        raise ModelRefusedError(f"it answers {n_rows} rows with an array of shape {given.shape}, not ({n_rows}, 2)")
    if not (np.isfinite(given).all() and (given >= 0.0).all() and (given <= 1.0).all()):
        raise ModelRefusedError(f"it gives {given.min():g} to {given.max():g} as probabilities")
    return given[:, 1]
