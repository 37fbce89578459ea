"""NannyML's estimate of performance without labels (CBPE), and a retraining when it leaves its thresholds.

Calibrator, estimate and thresholds (three standard deviations over the reference's chunks) are NannyML's own with its defaults;
nothing is rendered, and its usage statistics are switched off. A daily job estimates F1 and AUC of the newest chunk, each chunk of rows
that no estimate has seen.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.models import Model
from selfheal.simulate.replay.peers.calendar import DAY, rolling_window
from selfheal.simulate.replay.policy import Action, Keep, Retrain, View

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("roc_auc", "f1")
CHUNKS_OF_REFERENCE, MIN_CHUNK_ROWS = 10, 200
"""A chunk is a tenth of the reference: NannyML's thresholds come from the spread over the reference's chunks."""


@dataclass
class NannyEstimate:
    """Retrain on the rolling window when NannyML's estimate alerts, and promote."""

    _estimator: Any = field(default=None, init=False)
    _version: int = field(default=-1, init=False)
    _next_check: np.datetime64 | None = field(default=None, init=False)
    _n_estimated: int = field(default=0, init=False)

    def decide(self, view: View) -> Action:
        """Return an alarm and a retraining if the newest chunk's estimate is beyond NannyML's thresholds."""
        if self._next_check is not None and view.now < self._next_check:
            return Keep()
        self._next_check = view.now + DAY
        if self._version != view.version:
            self._estimator, self._version = fitted_cbpe(view.model), view.version
        first = view.n_rows - chunk_rows(view.model)
        if first < max(view.row_at(view.model_since), self._n_estimated):
            return Keep()
        self._n_estimated = view.n_rows
        alerts = alerting_metrics(self._estimator, view.probability[first:], view.model.threshold)
        if not alerts:
            return Keep()
        alarm = f"estimated {' and '.join(alerts)} beyond the thresholds"
        rows, n_original = rolling_window(view)
        return Retrain(rows, n_original=n_original, alarm=alarm) if len(rows) else Keep(alarm)


def chunk_rows(model: Model) -> int:
    """Return the number of rows of a chunk."""
    return max(MIN_CHUNK_ROWS, len(model.reference) // CHUNKS_OF_REFERENCE)


def fitted_cbpe(model: Model) -> Any:
    """Return NannyML's CBPE, fitted to the model's reference.

    Raises:
        ConfigurationError: if NannyML is not installed.
    """
    estimator = _new_cbpe(chunk_rows(model))
    rows = _frame(model.reference_probability, model.threshold).assign(label=model.reference.labels.astype(np.int64))
    with warnings.catch_warnings(action="ignore"):
        return estimator.fit(rows)


def alerting_metrics(estimator: Any, probability: npt.NDArray[np.float64], threshold: float) -> list[str]:
    """Return the metrics whose estimate for these rows, one chunk, is beyond NannyML's thresholds."""
    with warnings.catch_warnings(action="ignore"):
        table = estimator.estimate(_frame(probability, threshold)).filter(period="analysis").to_df()
    return [metric for metric in METRICS if bool(table[metric, "alert"].iloc[-1])]


def _frame(probability: npt.NDArray[np.float64], threshold: float) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"probability": probability, "flag": (probability >= threshold).astype(np.int64)})


def _new_cbpe(chunk_size: int) -> Any:
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # read when the package is imported
    try:
        from nannyml.performance_estimation.confidence_based import CBPE
    except ImportError as error:
        raise ConfigurationError(
            "the policy 'nannyml' needs NannyML, which is not for Python 3.13 and later; install it with `pip install "
            f"'selfheal[replay]'`, or leave the policy out ({error})"
        ) from error
    return CBPE(
        problem_type="classification_binary",
        y_pred_proba="probability",
        y_pred="flag",
        y_true="label",
        metrics=list(METRICS),
        chunk_size=chunk_size,
    )
