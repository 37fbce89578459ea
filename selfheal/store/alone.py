"""One at a time, of all processes, with what Postgres cannot lock: MLflow's versions, aliases and tags."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from selfheal.errors import ServiceUnavailableError

if TYPE_CHECKING:
    from selfheal.store import Store

REGISTRY_LOCK = 7_352_004
"""Key of the advisory lock; any constant of ours will do."""

PATIENCE_SECONDS = 180
"""Longer than a tracking server that does not answer keeps the one who is in there."""

_first_of_this_process = threading.Lock()


@contextmanager
def alone_with_registry(store: Store) -> Iterator[None]:
    """Nobody else who uses this database is in here meanwhile. Not to be nested.

    The threads of a process wait for each other first: each waiting for Postgres would hold a connection that the one in
    here may need.

    Raises:
        ServiceUnavailableError: if others are in here for too long.
    """
    if not _first_of_this_process.acquire(timeout=PATIENCE_SECONDS):
        raise _too_long()
    try:
        with store.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS}s'"))
            try:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": REGISTRY_LOCK})
            except OperationalError as error:
                raise _too_long() from error
            yield
    finally:
        _first_of_this_process.release()


def _too_long() -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"others have been changing MLflow's versions or aliases for {PATIENCE_SECONDS} s; is MLflow slow? Try again later"
    )
