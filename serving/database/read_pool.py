"""Read pool: a bulkhead for queries to Postgres, with its own threads, connections and time limit.

If Postgres hangs, another session holds a lock, or there are too many readers, only readers are affected (503): scoring,
labels and the ingest worker never wait for a thread or a connection of this pool.
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
"""Number of concurrent queries. Each takes milliseconds."""

MAX_OPEN_QUERIES = 32
"""Largest number of running and waiting queries; more are refused at once. It also bounds the number of hanging queries."""

TIMEOUT_SECONDS = 5.0
"""Time limit of one query, here and (as its statement timeout) in Postgres."""

RETRY_AFTER_SECONDS = 5

OUTAGES = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""Errors if Postgres is unavailable, shutting down, a standby, or too slow. Any other error is a bug and propagates."""


class ReadPool:
    """Runs queries. Each group of callers that others must not delay has its own pool."""

    def __init__(self, store: Store, max_open: int = MAX_OPEN_QUERIES) -> None:
        self._store = with_own_connections(store, N_THREADS, TIMEOUT_SECONDS)
        self._bulkhead = Bulkhead(N_THREADS, max_open)

    async def run(self, query: Callable[[Store], ResultT], *, timeout_seconds: float = TIMEOUT_SECONDS) -> ResultT:
        """Return the query's result. A query whose caller has left before it got a thread is not run.

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
        """Cancel waiting queries and close the connections, without waiting for hanging queries."""
        self._bulkhead.close()
        self._store.close()


class StoreUnavailableError(ProblemError):
    """An endpoint that needs Postgres does not get it (503); `why` is the reason alone."""

    def __init__(self, why: str) -> None:
        detail = f"{why}, so this endpoint cannot respond. Scoring is not affected. Try again later."
        super().__init__(503, "store_unavailable", detail, retry_after_seconds=RETRY_AFTER_SECONDS)
        self.why = why
