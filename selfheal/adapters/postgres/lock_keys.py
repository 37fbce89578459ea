"""Lock keys: the numbers of Postgres' advisory locks, all in one place so that no two uses share one."""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class Lock(IntEnum):
    """Work that only one process does at a time. The numbers are arbitrary, distinct constants."""

    MIGRATION = 7_352_001
    PROMOTION = 7_352_002
    """Stages of versions change."""
    CHAIN = 7_352_003
    """A decision is appended."""
    ROLLUPS = 7_352_004
    """Predictions and labels are counted; taken by the triggers of migration 0004."""
    MAINTENANCE = 7_352_005
    """Old rows and files are deleted."""
    REQUESTS = 7_352_006
    """Requests for a retraining are counted."""
    REGISTRY = 7_352_007
    """MLflow's versions, aliases and tags change (`mutex.exclusive`)."""
    JUDGING = 7_352_008
    """The gates judge a challenger (`mutex.exclusive`)."""
