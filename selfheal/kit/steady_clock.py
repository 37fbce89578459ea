"""Monotonic clocks: time that goes on evenly while somebody, or NTP, sets the wall clock.

The wall clock says *when* something was; whatever orders events, or measures how long something lasts, uses these.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SteadyClock:
    """A time of day that steps of the wall clock do not move: `set` once, and carried on by the monotonic clock.

    Args:
        start: the time it begins with; None: what the wall clock shows now.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self.set(datetime.now(UTC) if start is None else start)

    def set(self, moment: datetime) -> None:
        """Go on from this time."""
        self._moment, self._set_at = moment, time.monotonic()

    def now(self) -> datetime:
        """Return the time it was set to, and what has passed since."""
        return self._moment + timedelta(seconds=time.monotonic() - self._set_at)


@cache
def boot_id() -> str:
    """Return what tells one run of the operating system from another: monotonic times of the same run compare.

    Empty where the system has no such id; monotonic times then count as of one run.
    """
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
