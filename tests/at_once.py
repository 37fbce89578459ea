"""Calls that begin at the same moment, for tests of what several callers may do at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

ResultT = TypeVar("ResultT")


def at_once(calls: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """What each call gave, in order; every call has a thread and none begins before all are ready. Raises what one raised."""
    ready = threading.Barrier(len(calls), timeout=30)

    def run(call: Callable[[], ResultT]) -> ResultT:
        ready.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))
