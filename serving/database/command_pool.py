"""Command pool: a bulkhead for promotions and rollbacks over the API, which run one after the other.

When a command is answered, its promotion is in Postgres and the decision's file is written; this service follows the
promotion like every other. MLflow, which may be slow or unavailable, is left to Dagster's `registry_sensor`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from selfheal.adapters.postgres.refusals import refusal
from selfheal.adapters.postgres.store import with_own_connections
from selfheal.kit.errors import (
    IntegrityError,
    ModelRefusedError,
    NoProductionModelError,
    PermanentError,
    PromotionConflictError,
    ServiceUnavailableError,
    UnknownQuarantineError,
    UnknownVersionError,
)
from serving.database.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError
from serving.database.read_pool import OUTAGES, StoreUnavailableError
from serving.schemas.problems import ProblemError

if TYPE_CHECKING:
    from selfheal.services.platform import Platform

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

MAX_OPEN_COMMANDS = 4
"""Largest number of running and waiting commands; more are refused at once. People send a few per year."""

N_CONNECTIONS = 2
STATEMENT_TIMEOUT_SECONDS = 10.0

TIMEOUT_SECONDS = 60.0
"""Time limit of a command, long enough to download a model first. A command that takes longer continues, and the response
says where to find its outcome."""


class CommandPool:
    """Runs commands, one at a time."""

    def __init__(self, platform: Platform) -> None:
        store = with_own_connections(platform.store, N_CONNECTIONS, STATEMENT_TIMEOUT_SECONDS)
        self._platform = replace(platform, store=store, server_lease=None)
        self._bulkhead = Bulkhead(1, MAX_OPEN_COMMANDS, runs_abandoned_calls=True)

    async def run(self, command: Callable[[Platform], Result]) -> Result:
        """Return what the command came to: the version that is in production after it, the quarantine that it released.

        Raises:
            ProblemError: 404 for a version or quarantine that is not registered, 409 if the current state does not allow the command, 503
                if Postgres does not respond or the command takes too long.
        """
        try:
            return await self._bulkhead.run(partial(_run, command, self._platform), TIMEOUT_SECONDS)
        except BulkheadFullError:
            raise _busy("other promotions and rollbacks are running; try again later") from None
        except BulkheadTimeoutError:
            raise _busy(
                "this takes longer than expected and continues; GET /model/promotions shows the outcome"
            ) from None
        except OUTAGES as error:
            logger.warning("Postgres is unavailable to a promotion or rollback: %s", error)
            raise StoreUnavailableError(refusal(error)) from None
        except (PermanentError, NoProductionModelError, ServiceUnavailableError) as error:
            raise _problem(error) from error

    def close(self) -> None:
        """Cancel waiting commands and close the connections, without waiting for a running command."""
        self._bulkhead.close()
        self._platform.store.close()


def _run(command: Callable[[Platform], Result], platform: Platform) -> Result:
    try:
        return command(platform)
    except Exception as error:  # also for a command whose caller has left
        logger.info("promotion or rollback requested over the API failed: %s", error)
        raise


def _busy(why: str) -> ProblemError:
    return ProblemError(503, "busy", why, retry_after_seconds=5)


def _problem(error: Exception) -> ProblemError:
    if isinstance(error, ServiceUnavailableError):
        return _busy(str(error))
    if isinstance(error, UnknownVersionError | UnknownQuarantineError):
        return ProblemError(404, "not_found", str(error))
    return ProblemError(409, _kind_of_conflict(error), str(error))


def _kind_of_conflict(error: Exception) -> str:
    if isinstance(error, PromotionConflictError):
        return "promotion_conflict"
    if isinstance(error, ModelRefusedError | IntegrityError):
        return "model_refused"
    return "no_production_model" if isinstance(error, NoProductionModelError) else "not_possible"
