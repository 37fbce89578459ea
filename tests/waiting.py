"""The one way tests wait for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TIMEOUT_SECONDS = 30.0
"""How long to wait for what must happen: a bound for broken code, not a promise."""

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.01, 0.25


def eventually(condition: Callable[[], T], what: str, timeout_seconds: float = TIMEOUT_SECONDS) -> T:
    """Poll until the condition holds, and return what it returned.

    The pauses grow: what happens soon is seen soon, and a condition that scans processes does not load the machine.

    Raises:
        AssertionError: it did not hold in time; the message names `what`.
    """
    deadline = time.monotonic() + timeout_seconds
    pause_seconds = FIRST_PAUSE_SECONDS
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 1.5, LAST_PAUSE_SECONDS)
    raise AssertionError(f"not within {timeout_seconds:.0f} s: {what}")
