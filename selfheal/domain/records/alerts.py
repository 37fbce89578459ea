"""Alerts and their severity."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """Urgency of an alert, least urgent first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Return the position in the order of urgency, from 1; the stored text sorts differently."""
        return list(Severity).index(self) + 1


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing a person should know. While open, at most one per kind and model version (a database constraint)."""

    kind: str
    severity: Severity
    message: str
    metrics: dict[str, float | int | str | None] = field(default_factory=dict)
