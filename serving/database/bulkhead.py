"""Bulkhead: calls that may block get a bounded number of threads and places, and nothing else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

ResultT = TypeVar("ResultT")


class BulkheadFullError(Exception):
    """The limit of open calls is reached; nothing was started."""


class BulkheadTimeoutError(Exception):
    """The call did not finish in time. If it runs in a thread, it continues and occupies the thread until it ends."""


class Bulkhead:
    """Runs blocking calls in threads of its own. To be used from the event loop's thread.

    A call whose caller no longer waits occupies its place, and its thread if it has one, until it ends. So at most `max_open`
    calls exist, however many hang. anyio's `abandon_on_cancel` is not used, because it returns the thread's token at once:
    the number of hanging threads would grow with every time-out.

    Args:
        n_threads: calls that run at the same time.
        max_open: calls that run or wait for a thread.
        runs_abandoned_calls: whether a call that got no thread before its time-out still runs once a thread is free.
    """

    def __init__(self, n_threads: int, max_open: int, *, runs_abandoned_calls: bool = False) -> None:
        self._threads = anyio.CapacityLimiter(n_threads)
        self._max_open = max_open
        self._runs_abandoned_calls = runs_abandoned_calls
        self._open: dict[asyncio.Task[Any], _Call[Any]] = {}

    async def run(self, work: Callable[[], ResultT], timeout_seconds: float) -> ResultT:
        """Return the result of `work`; its exceptions propagate.

        Raises:
            BulkheadFullError: if `max_open` calls are open.
            BulkheadTimeoutError: if it takes longer, including the wait for a thread.
        """
        if len(self._open) >= self._max_open:
            raise BulkheadFullError
        call = _Call(work)
        task = asyncio.create_task(anyio.to_thread.run_sync(call, limiter=self._threads))
        self._open[task] = call
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait((task,), timeout=timeout_seconds)
        finally:
            call.is_dropped = not self._runs_abandoned_calls
        if not task.done():
            raise BulkheadTimeoutError
        return task.result()

    def close(self) -> None:
        """Cancel the calls that wait for a thread, without waiting for running ones."""
        for task, call in self._open.items():
            if not call.has_begun:
                task.cancel()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        del self._open[task]
        if not task.cancelled():
            task.exception()  # retrieve the exception, or asyncio would log that it was never retrieved


class _Call(Generic[ResultT]):
    """One call, from the event loop to its thread and back."""

    def __init__(self, work: Callable[[], ResultT]) -> None:
        self._work = work
        self.has_begun = False
        self.is_dropped = False

    def __call__(self) -> ResultT:
        self.has_begun = True
        if self.is_dropped:
            raise BulkheadTimeoutError
        return self._work()
