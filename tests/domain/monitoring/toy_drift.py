"""Drift of the toy use case's rows, with the limits of a deployment that is looked at every five minutes for 90 days."""

from __future__ import annotations

from typing import Any

import pandas as pd

from selfheal.domain.monitoring.drift import DriftLimits, detect_drift
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.records import DriftReport
from tests.builders import window
from tests.toy_use_case import contract

LIMITS = DriftLimits(n_ticks=90 * 288, min_effect=0.1, min_rows=200)


def detected(current: pd.DataFrame | PreparedRows, reference: pd.DataFrame, **options: Any) -> DriftReport:
    """The report of a window; `options` are those of `detect_drift`."""
    return detect_drift(
        window(),
        current,
        reference,
        features=contract.feature_names,
        reference_version=3,
        limits=LIMITS,
        **options,
    )
