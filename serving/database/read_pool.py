"""The read pool: a bulkhead for queries to Postgres, with threads, connections and time of their own.

A Postgres that hangs, a lock that another session has, or too many readers cost readers a response (503) and nobody
else: scoring, labels and the ingest worker never wait for a thread or a connection of this pool.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from selfheal.adapters.postgres.refusals import refusal
from selfheal.adapters.postgres.store import with_own_connections
from serving.database.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError
from serving.schemas.problems import ProblemError

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

N_THREADS = 4
"""Queries that Postgres works on at the same time. Each takes milliseconds."""

MAX_OPEN_QUERIES = 32
"""Queries that run or wait; more are refused at once. This bounds what hangs, however long it hangs."""

TIMEOUT_SECONDS = 5.0
"""For one query, here and (as its statement timeout) in Postgres."""

RETRY_AFTER_SECONDS = 5

OUTAGES = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""Postgres is away, shutting down, a standby, or out of time. Any other error is ours and is raised as it is."""


class ReadPool:
    """Runs queries. One pool for each group of callers that another group's queries must not delay."""

    def __init__(self, store: Store, max_open: int = MAX_OPEN_QUERIES) -> None:
        self._store = with_own_connections(store, N_THREADS, TIMEOUT_SECONDS)
        self._bulkhead = Bulkhead(N_THREADS, max_open)

    async def run(self, query: Callable[[Store], ResultT], *, timeout_seconds: float = TIMEOUT_SECONDS) -> ResultT:
        """Return what the query finds in Postgres. A query whose caller has left before it got a thread is not run.

        Raises:
            ProblemError: 503 if Postgres does not respond, or not in time.
        """
        try:
            return await self._bulkhead.run(partial(query, self._store), timeout_seconds)
        except BulkheadFullError:
            raise StoreUnavailableError("too many queries are waiting for Postgres") from None
        except BulkheadTimeoutError:
            raise StoreUnavailableError(f"Postgres did not respond within {timeout_seconds:g} s") from None
        except OUTAGES as error:
            logger.warning("Postgres is unavailable to the reading endpoints: %s", error)
            raise StoreUnavailableError(refusal(error)) from None

    def close(self) -> None:
        """Cancel waiting queries and close the connections; a query that hangs is not waited for."""
        self._bulkhead.close()
        self._store.close()


class StoreUnavailableError(ProblemError):
    """An endpoint that needs Postgres does not get it (503); `why` is the reason alone."""

    def __init__(self, why: str) -> None:
        detail = f"{why}, so this endpoint cannot respond. Scoring is not affected. Try again later."
        super().__init__(503, "store_unavailable", detail, retry_after_seconds=RETRY_AFTER_SECONDS)
        self.why = why
