"""The age from which labels are complete: what the labels of a version show, beside what settings and contract declare."""

from __future__ import annotations

from dataclasses import replace
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


def delay_for_judging(platform: LoopPlatform, model_version: int, since: datetime, until: datetime) -> LabelDelay:
    """Return the delay of a version's labels as `delay_of_labels`; unknown where models may not be judged by them."""
    found = delay_of_labels(platform, model_version, since, until)
    policy = platform.contract.label_policy
    why_not = "" if policy is None else policy.why_not_judged()
    return replace(found, matured_after_s=None, reason=why_not) if why_not else found
