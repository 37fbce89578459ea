"""A background thread that repeats its work until it is stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class PeriodicThread:
    """A daemon thread that works after every pause and survives exceptions of its work.

    Args:
        work: called in the thread after each pause. An exception is logged, and the work is called again after the next
            pause.
        pause_seconds: called before each pause for its length; `request_stop` ends a pause early.
        last_work: called once in the thread after the stop was requested.
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
        """Return whether a stop was requested; work that waits should then end early."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread; it pauses first."""
        self._thread.start()

    def request_stop(self) -> None:
        """End the current pause, and the thread after its current work."""
        self._stopping.set()

    def stop(self, timeout_seconds: float | None = None) -> None:
        """Request the stop and wait for the thread's end, at most `timeout_seconds` (None: without limit).

        It returns at once if the thread never started.
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
