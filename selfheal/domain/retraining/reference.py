"""The frozen reference of a version: the newest rows that it was trained or judged on, and what else was served meanwhile.

Belongs here: which rows these are. Their probabilities come from `training`: never from a model that saw the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.retraining.class_counts import EVALUATION
from selfheal.domain.retraining.cross_fitting import SERVED
from selfheal.domain.retraining.dataset import ORIGIN, ORIGINAL

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.retraining.dataset import TrainingSet

MIN_REFERENCE_ROWS, MAX_REFERENCE_ROWS = 1_000, 15_000

MIN_UNLABELLED_SHARE = 0.05
"""Share of the traffic without a label from which on it is in the reference: fewer cannot make the labelled ones another mix."""

CREATED_AT = "created_at"


def reference_part(training_set: TrainingSet) -> pd.DataFrame:
    """Return the labelled rows of a training set that its reference is made of: the newest, as many as are for evaluation, within limits."""
    recent = training_set.frame[training_set.frame[ORIGIN] != ORIGINAL]
    n_evaluation = len(training_set.part(EVALUATION))
    return recent.iloc[-min(max(n_evaluation, MIN_REFERENCE_ROWS), MAX_REFERENCE_ROWS, len(recent)) :]


def labelled_reference(
    training_set: TrainingSet, contract: ModelContract, probabilities: FloatArray, served: FloatArray | None
) -> pd.DataFrame:
    """Return the labelled rows of the reference with their probabilities and times.

    Args:
        training_set: whose newest rows they are.
        contract: its features.
        probabilities: of all recent rows, in order.
        served: what the final model says of them, if it has learned from them; None: it has not.
    """
    newest = reference_part(training_set).reset_index(drop=True)
    columns = [*contract.feature_names, TRUE_LABEL, *((ENTITY,) if ENTITY in newest.columns else ())]
    found = newest[columns].assign(probability=probabilities[-len(newest) :])
    if served is not None:
        found[SERVED] = served[-len(newest) :]
    return found.assign(**{CREATED_AT: newest[CREATED_AT]})


def with_unlabelled(
    labelled: pd.DataFrame,
    unlabelled: pd.DataFrame | None,
    contract: ModelContract,
    score: Callable[[pd.DataFrame], FloatArray],
) -> pd.DataFrame:
    """Return the reference: labelled rows, and those without a label, by time, unless nearly all are labelled.

    Args:
        labelled: `labelled_reference`.
        unlabelled: predictions that are not in the training set: all features and `created_at`.
        contract: their features.
        score: the final model's probabilities.
    """
    import pandas as pd

    times = labelled[CREATED_AT]
    known = labelled.drop(columns=CREATED_AT)
    if unlabelled is not None:
        unlabelled = unlabelled[(unlabelled[CREATED_AT] >= times.iloc[0]) & (unlabelled[CREATED_AT] <= times.iloc[-1])]
    if unlabelled is None or len(unlabelled) < MIN_UNLABELLED_SHARE * (len(unlabelled) + len(known)):
        return known
    others = unlabelled[list(contract.feature_names)].assign(**{TRUE_LABEL: np.nan})
    others["probability"] = score(unlabelled)
    if SERVED in known.columns:
        others[SERVED] = others["probability"]
    both = pd.concat([known.astype({TRUE_LABEL: "float64"}), others], ignore_index=True)
    order = np.argsort(pd.concat([times, unlabelled[CREATED_AT]]).to_numpy(dtype="datetime64[us]"), kind="stable")
    return both.iloc[order[-MAX_REFERENCE_ROWS:]].reset_index(drop=True)
