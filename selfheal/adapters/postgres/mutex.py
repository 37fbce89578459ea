"""One at a time, of all processes, with what no single transaction holds: MLflow's versions and aliases, a verdict of the gates."""

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
"""Longer than a tracking server that does not answer keeps the one who is in there."""

_first_of_this_process: defaultdict[Lock, threading.Lock] = defaultdict(threading.Lock)


@contextmanager
def exclusive(store: Store, lock: Lock) -> Iterator[None]:
    """Nobody else who uses this database is in here with this lock meanwhile. Not to be nested.

    The threads of a process wait for each other first: each waiting for Postgres would hold a connection that the one in
    here may need.

    Raises:
        ServiceUnavailableError: if others are in here for too long.
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
        f"another process has been busy with the same ({lock.name.lower()}) for {TIMEOUT_SECONDS} s; is MLflow slow? "
        "Try again later"
    )
