"""A limit for joblib backends that have none: at most `n_jobs` tasks at once, on the workers of a cluster.

joblib's backend for Dask (1.6) hands every task to the cluster at once, whatever `n_jobs` says, and lets the tasks of a task use
the whole cluster again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any


class OneAfterAnother:
    """A function that runs one after another whatever it would run in parallel. On a cluster's worker it is called by this."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        from joblib import parallel_config

        with parallel_config(backend="sequential"):
            return self._function(*args, **kwargs)


def limited(backend: type[Any]) -> type[Any]:
    """Return the joblib backend with `AtMost`: its instances run at most `limit` tasks at once (None: as many as they can)."""
    return type(f"Limited{backend.__name__}", (AtMost, backend), {})


class AtMost:
    """Mixin for a joblib backend whose `submit` returns a future: tasks beyond the limit wait here, oldest first."""

    def __init__(self, *args: Any, limit: int | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Any, Callable[..., Any] | None, Future[Any]]] = deque()
        self._running: set[Future[Any]] = set()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks run at once; 2 at least, since joblib runs those of a single job in this process."""
        n_available = int(super().effective_n_jobs(n_jobs))  # type: ignore[misc]
        return max(2, n_available if self._limit is None else min(self._limit, n_available))

    def submit(self, func: Any, callback: Callable[..., Any] | None = None) -> Future[Any]:
        """Run a batch of joblib's now or, with the limit reached, when another has ended; its tasks run nothing in parallel."""
        func.items = [(OneAfterAnother(function), args, kwargs) for function, args, kwargs in func.items]
        future: Future[Any] = Future()
        future.get = future.result  # type: ignore[attr-defined]  # joblib asks for a multiprocessing.AsyncResult
        with self._lock:
            self._waiting.append((func, callback, future))
        self._start_waiting()
        return future

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Forget all tasks, those that have not been started too."""
        with self._lock:
            self._waiting.clear()
            self._running.clear()
        super().abort_everything(ensure_ready)  # type: ignore[misc]

    def _start_waiting(self) -> None:
        while True:
            with self._lock:
                is_full = self._limit is not None and len(self._running) >= self._limit
                if is_full or not self._waiting:
                    return
                func, callback, future = self._waiting.popleft()
                self._running.add(future)
            super().submit(func, callback).add_done_callback(partial(self._end, future))  # type: ignore[misc]

    def _end(self, future: Future[Any], done: Future[Any]) -> None:
        with self._lock:
            self._running.discard(future)
        self._start_waiting()
        try:
            future.set_result(done.result())
        except (Exception, CancelledError) as error:
            future.set_exception(error)
