"""What a person may switch over the API: promotions and rollbacks by hand, one after the other, beside the event loop.

The event in Postgres and the decision's file are done when the answer goes out; this service follows at once, like every
other. MLflow, which may be slow or away, is left to Dagster's `registry_sensor`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from selfheal.adapters.postgres.store import with_own_connections
from selfheal.kit.errors import (
    IntegrityError,
    ModelRefusedError,
    NoProductionModelError,
    PermanentError,
    PromotionConflictError,
    ServiceUnavailableError,
    UnknownVersionError,
)
from serving.database.read_pool import OUTAGES, retrieve_exception, store_unavailable
from serving.schemas.problems import ProblemError

if TYPE_CHECKING:
    from selfheal.domain.records import ModelVersion
    from selfheal.services.platform import Platform

logger = logging.getLogger(__name__)

MAX_OPEN = 4
"""Switches under way or waiting; more are refused at once. People make them, a few a year."""

N_CONNECTIONS = 2
STATEMENT_SECONDS = 10.0

TIMEOUT_SECONDS = 60.0
"""For a model whose file has to be fetched first. What takes longer goes on; its caller is told where to look."""


class CommandPool:
    """`switch` is for the event loop's thread."""

    def __init__(self, platform: Platform) -> None:
        self._platform = replace(
            platform, store=with_own_connections(platform.store, N_CONNECTIONS, STATEMENT_SECONDS), server_lease=None
        )
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="switch")
        self._places = threading.BoundedSemaphore(MAX_OPEN)

    async def run(self, work: Callable[[Platform], ModelVersion]) -> ModelVersion:
        """The version that is in production after the work.

        Raises:
            ProblemError: 404 for a version that is not registered, 409 for what cannot be done as things are, 503 if
                Postgres does not answer or the work takes too long.
        """
        if not self._places.acquire(blocking=False):
            raise _busy("other promotions and rollbacks are under way")
        future = self._threads.submit(work, self._platform)
        future.add_done_callback(self._leave)
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(retrieve_exception)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), TIMEOUT_SECONDS)
        except TimeoutError:
            raise _busy(
                "this takes longer than expected and goes on; GET /model/promotions tells what became of it"
            ) from None
        except OUTAGES as error:
            logger.warning("Postgres does not answer a promotion or rollback: %s", error)
            raise store_unavailable("Postgres does not answer") from None
        except (PermanentError, NoProductionModelError, ServiceUnavailableError) as error:
            raise _problem(error) from error

    def close(self) -> None:
        """Lets go of the thread and the connections; what waits is not begun, what is under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._platform.store.close()

    def _leave(self, future: Future[ModelVersion]) -> None:
        self._places.release()
        if not future.cancelled() and future.exception() is not None:
            logger.info("a promotion or rollback over the API was not done: %s", future.exception())


def _busy(why: str) -> ProblemError:
    return ProblemError(503, "busy", why, retry_after_seconds=5)


def _problem(error: Exception) -> ProblemError:
    if isinstance(error, ServiceUnavailableError):
        return _busy(str(error))
    if isinstance(error, UnknownVersionError):
        return ProblemError(404, "not_found", str(error))
    return ProblemError(409, _kind_of_conflict(error), str(error))


def _kind_of_conflict(error: Exception) -> str:
    if isinstance(error, PromotionConflictError):
        return "promotion_conflict"
    if isinstance(error, ModelRefusedError | IntegrityError):
        return "model_refused"
    return "no_production_model" if isinstance(error, NoProductionModelError) else "not_possible"
