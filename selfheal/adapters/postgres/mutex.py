"""Mutex: cross-process mutual exclusion, on advisory locks, for work that spans more than one transaction.

Such work is changing MLflow's versions and aliases, and a verdict of the gates.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.kit.errors import ServiceUnavailableError

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

TIMEOUT_SECONDS = 180
"""Time limit: longer than an unresponsive tracking server blocks the process that has the lock."""

_first_of_this_process: defaultdict[Lock, threading.Lock] = defaultdict(threading.Lock)


@contextmanager
def exclusive(store: Store, lock: Lock) -> Iterator[None]:
    """Exclude every other process and thread that enters with the same lock on this database. It must not be nested.

    The threads of a process first wait for each other in memory: waiting in Postgres would occupy a connection per thread,
    which the thread with the lock may need.

    Raises:
        ServiceUnavailableError: if the lock is not free within `TIMEOUT_SECONDS`.
    """
    first = _first_of_this_process[lock]
    if not first.acquire(timeout=TIMEOUT_SECONDS):
        raise _too_long(lock)
    try:
        with store.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{TIMEOUT_SECONDS}s'"))
            try:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock})
            except OperationalError as error:
                raise _too_long(lock) from error
            yield
    finally:
        first.release()


def _too_long(lock: Lock) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"the lock {lock.name.lower()!r} has been in use for {TIMEOUT_SECONDS} s by another process; check that MLflow responds, "
        "and try again"
    )
