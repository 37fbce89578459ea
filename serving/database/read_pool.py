"""Asking Postgres for the reading endpoints, on threads, connections and time of their own.

A Postgres that hangs, a lock that is held, or too many readers cost readers an answer (503) and nobody else: scoring, labels
and the sink never wait for a thread or a connection taken here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from selfheal.adapters.postgres.store import with_own_connections
from serving.schemas.problems import ProblemError

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

logger = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")

N_THREADS = 4
"""Questions that Postgres works on at the same time. Each takes milliseconds."""

MAX_OPEN_QUESTIONS = 32
"""Being worked on or waiting; more are refused at once. What hangs stays bounded by this, however long it hangs."""

TIMEOUT_SECONDS = 5.0
"""How long one question may take, here and (as its statement timeout) in Postgres."""

RETRY_AFTER_SECONDS = 5

OUTAGES = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""Postgres is away, going down, a standby, or out of time. Any other error is ours and stays one."""


class ReadPool:
    """One for each kind of asker, whom the others' questions must not hold up. `ask` is for the event loop's thread."""

    def __init__(self, store: Store, max_open: int = MAX_OPEN_QUESTIONS) -> None:
        self._store = with_own_connections(store, N_THREADS, TIMEOUT_SECONDS)
        self._threads = ThreadPoolExecutor(N_THREADS, thread_name_prefix="ask")
        self._places = threading.BoundedSemaphore(max_open)

    async def run(self, question: Callable[[Store], AnswerT], *, timeout_seconds: float = TIMEOUT_SECONDS) -> AnswerT:
        """What the question finds in Postgres.

        Raises:
            ProblemError: 503 if Postgres does not answer, or not in time.
        """
        if not self._places.acquire(blocking=False):
            raise store_unavailable("too many questions to Postgres are open")
        is_abandoned = threading.Event()
        answer = asyncio.wrap_future(self._threads.submit(self._work, question, is_abandoned))
        answer.add_done_callback(retrieve_exception)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), timeout_seconds)
        except TimeoutError:
            raise store_unavailable(f"Postgres did not answer within {timeout_seconds:g} s") from None
        except OUTAGES as error:
            logger.warning("Postgres does not answer a reading endpoint: %s", error)
            raise store_unavailable("Postgres does not answer") from None
        finally:
            is_abandoned.set()

    def close(self) -> None:
        """Lets go of the threads and connections; a question that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    def _work(self, question: Callable[[Store], AnswerT], is_abandoned: threading.Event) -> AnswerT:
        try:
            if is_abandoned.is_set():
                raise TimeoutError  # nobody waits any more: do not ask for nobody
            return question(self._store)
        finally:
            self._places.release()


def retrieve_exception(answer: asyncio.Future[AnswerT]) -> None:
    """Keeps asyncio from complaining of an error that came after nobody waited any more."""
    if not answer.cancelled():
        answer.exception()


def store_unavailable(why: str) -> ProblemError:
    detail = f"{why}, so this cannot be told now; scoring goes on without it. Try again later"
    return ProblemError(503, "store_unavailable", detail, retry_after_seconds=RETRY_AFTER_SECONDS)
