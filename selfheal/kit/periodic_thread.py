"""A background thread that does the same work again and again until it is stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class PeriodicThread:
    """A daemon thread that works after every pause and survives whatever its work raises.

    Args:
        work: called in the thread after each pause. An exception is logged, and the work is called again after the next
            pause.
        pause_seconds: asked before each pause, which `request_stop` cuts short.
        last_work: called in the thread once, after the stop was requested.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        pause_seconds: Callable[[], float],
        last_work: Callable[[], None] | None = None,
    ) -> None:
        self._work = work
        self._pause_seconds = pause_seconds
        self._last_work = last_work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was requested: work that waits by itself should end early."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread; it pauses first."""
        self._thread.start()

    def request_stop(self) -> None:
        """End the pause under way, and the thread after the work under way."""
        self._stopping.set()

    def stop(self, timeout_seconds: float | None = None) -> None:
        """Request the stop and wait for the thread's end, at most `timeout_seconds` (None: as long as it takes).

        A thread that never started is not waited for.
        """
        self.request_stop()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_seconds()):
            self._call(self._work)
        if self._last_work is not None:
            self._call(self._last_work)

    def _call(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            logger.exception("unexpected error in the thread %r", self._thread.name)
