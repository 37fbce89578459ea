"""Alerts and their severity."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How urgent an alert is, the least urgent first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """The place in the order of urgency, from 1 (text, as which a severity is stored, sorts otherwise)."""
        return list(Severity).index(self) + 1


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing a person should know. While open, at most one per kind and model version (a database constraint)."""

    kind: str
    severity: Severity
    message: str
    metrics: dict[str, float | int | str | None] = field(default_factory=dict)
