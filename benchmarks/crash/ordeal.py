"""What is done to the API processes, what came of it, and the targets.

Belongs here: the records. Does not belong here: doing it (`benchmarks.crash.api`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

TARGETS = {
    "lost": ("<=", 0),
    "duplicated": ("<=", 0),
    "wrong_values": ("<=", 0),
    "labels_lost": ("<=", 0),
    "retries_answered_differently": ("<=", 0),
    "other_answers": ("<=", 0),
    "damaged_lines": ("<=", 0),
    "disk_full_acknowledged_lost": ("<=", 0),
    "disk_full_acknowledged_meanwhile": ("<=", 0),
    "eio_acknowledged_after": ("<=", 0),
    "eio_said_ready": ("<=", 0),
    "eio_synced_again": ("<=", 0),
    "replay_lost": ("<=", 0),
    "replay_differences": ("<=", 0),
    "lag_bytes_at_end": ("<=", 0),
}


@dataclass(frozen=True, slots=True)
class ApiPlan:
    """How much is done, and how long it may take."""

    n_kills: int
    n_postgres_kills: int
    most_minutes: float


FULL, QUICK = ApiPlan(250, 5, 15), ApiPlan(12, 1, 3)


@dataclass(slots=True)
class Ordeal:
    """What was done to the service, and what it did then."""

    kills: int = 0
    torn_files: int = 0
    postgres_kills: int = 0
    postgres_away_s_max: float = 0.0
    cold_recovery_seconds: list[float] = field(default_factory=list)
    warm_recovery_seconds: list[float] = field(default_factory=list)
    disk_full_by: str = ""
    disk_full_refused: int = 0
    disk_full_acknowledged_meanwhile: int = 0
    disk_full_files_added: int = 0
    disk_full_recovery_s: float = 0.0
    disk_full_numbers: range = range(0)
    eio_refused: int = 0
    eio_acknowledged_after: int = 0
    eio_said_ready: int = 0
    eio_synced_again: int = 0


@dataclass(frozen=True, slots=True)
class ApiOutcome:
    """All that is measured; `lost`, `duplicated` and `wrong_values` count rows, `_s` are seconds.

    `recovery_s_max` is from a kill to the first answer of `python -m serving`, started at once; `recovery_warm_s_max` is the
    same if its imports were done before.
    """

    kills: int
    acknowledged: int
    lost: int
    duplicated: int
    recovery_s_max: float
    recovery_s_median: float
    recovery_warm_s_max: float
    wrong_values: int
    labels_acknowledged: int
    labels_lost: int
    broken_requests: int
    retried: int
    asked_again: int
    retries_answered_differently: int
    retried_twice_logged: int
    other_answers: int
    torn_files: int
    torn_files_found: int
    damaged_lines: int
    postgres_kills: int
    postgres_away_s_max: float
    disk_full_by: str
    disk_full_acknowledged: int
    disk_full_acknowledged_lost: int
    disk_full_refused: int
    disk_full_acknowledged_meanwhile: int
    disk_full_files_added: int
    disk_full_recovery_s: float
    eio_refused: int
    eio_acknowledged_after: int
    eio_said_ready: int
    eio_synced_again: int
    replay_lost: int
    replay_differences: int
    journal_files: int
    lag_bytes_at_end: int
    minutes: float


def is_met(name: str, value: float | str) -> bool:
    """Return whether a measured value meets its target; without a target it does."""
    comparison, target = TARGETS.get(name, ("", 0))
    if not comparison:
        return True
    return float(value) >= target if comparison == ">=" else float(value) <= target
