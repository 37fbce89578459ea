"""Outcome of a demo: the record behind its summary and behind `--json`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DemoOutcome:
    """The content of `--json`. Seconds are wall-clock time; events that did not happen are None."""

    healed: bool = False
    dataset: str = ""
    version_before: int | None = None
    version_after: int | None = None
    f1_before: float | None = None
    f1_after: float | None = None
    auc_before: float | None = None
    auc_after: float | None = None
    predictions: int = 0
    failed_requests: int = 0
    seconds_drift_to_alert: float | None = None
    seconds_alert_to_served: float | None = None
    seconds_total: float | None = None
