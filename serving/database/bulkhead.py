"""A bulkhead: calls that may block get a bounded number of threads and places, and nothing else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

ResultT = TypeVar("ResultT")


class BulkheadFullError(Exception):
    """As many calls are open as are allowed; nothing was started."""


class BulkheadTimeoutError(Exception):
    """The call did not finish in time. If it is in a thread it runs on and keeps its thread until it ends."""


class Bulkhead:
    """Runs blocking calls in threads of its own. For the event loop's thread.

    A call that its caller no longer waits for keeps its place, and its thread if it has one, until it ends: however
    many calls hang and however long, at most `max_open` exist. That is why anyio's `abandon_on_cancel` is not used: it
    gives the thread's token back at once, and the number of hanging threads would grow with every time-out.

    Args:
        n_threads: calls that run at the same time.
        max_open: calls that run or wait for a thread.
        runs_abandoned_calls: whether a call that got no thread before its time-out still runs when there is one.
    """

    def __init__(self, n_threads: int, max_open: int, *, runs_abandoned_calls: bool = False) -> None:
        self._threads = anyio.CapacityLimiter(n_threads)
        self._max_open = max_open
        self._runs_abandoned_calls = runs_abandoned_calls
        self._open: dict[asyncio.Task[Any], _Call[Any]] = {}

    async def run(self, work: Callable[[], ResultT], timeout_seconds: float) -> ResultT:
        """Return what `work` returns; what it raises is raised here.

        Raises:
            BulkheadFullError: if `max_open` calls are open.
            BulkheadTimeoutError: if it takes longer, waiting for a thread included.
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
        """Cancel the calls that wait for a thread; those that run are not waited for."""
        for task, call in self._open.items():
            if not call.has_begun:
                task.cancel()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        del self._open[task]
        if not task.cancelled():
            task.exception()  # or asyncio would complain about an error that nobody waited for


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
