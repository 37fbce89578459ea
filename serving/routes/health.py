"""`GET /health`, `/health/live` and `/health/ready`: the state of the service."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.exc import DBAPIError

from selfheal.adapters.postgres.refusals import refusal
from serving.database.read_pool import StoreUnavailableError
from serving.dependencies import Service, ServiceDependency
from serving.schemas.responses import Health, Liveness, Readiness

router = APIRouter(tags=["state"])

LAG_TIMEOUT_SECONDS = 1.0
"""Time limit of Postgres within a health check, which must respond soon; afterwards the value is unknown."""


@router.get("/health", summary="Show the state of the service", responses={503: {"model": Health}})
async def health(service: ServiceDependency, response: Response) -> Health:
    """Return `ok`, `degraded` or `not_ready`, with all problems.

    Degraded means that it scores and loses nothing, but something is wrong or unknown.

    The status is 503 only while nothing can be scored. No key is needed. For an orchestrator's probes use
    `/health/live` and `/health/ready`: this endpoint asks Postgres, which may be unavailable without harm.
    """
    lag, lag_problem = await _journal_lag(service)
    blocking = _blocking_problem(service)
    champion = service.holder.current
    found = (blocking, service.holder.problem, _label_problem(service), service.ingest_worker.problem)
    problems = list(dict.fromkeys(problem for problem in found if problem is not None))
    if lag_problem is not None and not problems:
        problems.append(lag_problem)
    if blocking is not None:
        response.status_code = 503
    return Health(
        status="not_ready" if blocking is not None else "degraded" if problems else "ok",
        model_version=None if champion is None else champion.version.version,
        problems=problems,
        journal_lag_bytes=lag,
    )


@router.get("/health/live", summary="Check that the process responds")
async def health_live() -> Liveness:
    """Return 200 as long as the event loop runs. If this fails, restart the process. No key is needed."""
    return Liveness()


@router.get("/health/ready", summary="Check that the service can score", responses={503: {"model": Readiness}})
async def health_ready(service: ServiceDependency, response: Response) -> Readiness:
    """Return 200 if a model is loaded and the journal can be written, else 503 with the reasons.

    Postgres is not asked: predictions are acknowledged without it. No key is needed.
    """
    blocking = _blocking_problem(service)
    if blocking is None:
        return Readiness(status="ready", reasons=[])
    response.status_code = 503
    return Readiness(status="not_ready", reasons=[blocking])


def _blocking_problem(service: Service) -> str | None:
    """Return why no prediction can be acknowledged now; None if predictions can."""
    if service.holder.current is None:
        return service.holder.problem or "no model is loaded yet"
    if service.batcher.problem is not None:  # the text may contain paths, and this endpoint needs no key
        return "the journal cannot be written, so no prediction can be acknowledged; see the service's log"
    return None


def _label_problem(service: Service) -> str | None:
    if service.labels.problem is None:
        return None
    return "the label journal cannot be written, so labels are refused; see the service's log"


async def _journal_lag(service: Service) -> tuple[int | None, str | None]:
    """Return the bytes not yet in Postgres; None, and why that is unknown, if it is."""
    try:
        lag = await service.read_pool.run(service.ingest_worker.lag_bytes, timeout_seconds=LAG_TIMEOUT_SECONDS)
    except StoreUnavailableError as error:
        return None, f"{error.why}, so it is unknown how far the journal has been copied"
    except DBAPIError as error:  # Postgres answers, and refuses
        return None, f"{refusal(error)}, so it is unknown how far the journal has been copied"
    return lag, None
