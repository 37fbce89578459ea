"""Watching a promoted version: `watch_probation`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from selfheal.contract import TRUE_LABEL
from selfheal.monitoring.drift import PROBABILITY
from selfheal.probation import judge_probation
from selfheal.promotion import rollback
from selfheal.records import (
    ProbationReport,
)
from selfheal.stages.scoring import score_rows
from selfheal.store import models, predictions

if TYPE_CHECKING:
    from selfheal.platform import Platform


def watch_probation(platform: Platform, now: datetime) -> ProbationReport:
    """Compares the champion with its predecessor on what it served since (`judge_probation`); rolls back if worse."""
    champion = models.champion(platform.store)
    rows = predictions.labelled_rows(
        platform.store,
        since=champion.promoted_at,
        model_version=champion.version,
        max_rows=platform.settings.monitoring_max_rows,
    )
    previous = (
        None if champion.previous_version is None else models.model_version(platform.store, champion.previous_version)
    )
    report = judge_probation(
        champion,
        rows[TRUE_LABEL].to_numpy(dtype=np.int64),
        rows[PROBABILITY].to_numpy(dtype=np.float64),
        None if previous is None or rows.empty else score_rows(platform, previous, rows).probabilities,
        platform.settings.min_probation_labels,
        now,
    )
    if report.is_harmful:
        rollback(platform, to_version=None, reason=report.reason, actor="probation", now=now)
    return report
