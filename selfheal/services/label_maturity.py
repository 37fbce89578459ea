"""The age from which labels are complete: what the labels of a version show, beside what settings and contract declare."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from selfheal.domain.monitoring.label_delay import label_delay

if TYPE_CHECKING:
    from selfheal.domain.records import LabelDelay
    from selfheal.services.repositories import LoopPlatform


def delay_of_labels(platform: LoopPlatform, model_version: int, since: datetime, until: datetime) -> LabelDelay:
    """Return the delay of a version's labels, from predictions made in (since, until], as known then (`label_delay`)."""
    hours = platform.settings.label_maturity_hours
    declared = None if hours is None else timedelta(hours=hours)
    sample = platform.traffic.label_delay_sample(model_version, since, until)
    return label_delay(sample, declared, platform.contract.label_policy)
