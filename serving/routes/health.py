"""`GET /health`, `/health/live` and `/health/ready`: how the service is."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serving.dependencies import Service, ServiceDependency
from serving.schemas.problems import ProblemError
from serving.schemas.responses import (
    Health,
    Liveness,
    Readiness,
)

router = APIRouter(tags=["state"])

LAG_TIMEOUT_SECONDS = 1.0
"""Whoever asks for the health wants it now: what Postgres does not say by then is unknown."""


@router.get("/health", summary="How the service is", responses={503: {"model": Health}})
async def health(service: ServiceDependency, response: Response) -> Health:
    """`ok`, `degraded` (it scores and loses nothing, but something is wrong or unknown) or `not_ready`, with every problem.

    503 only while nothing can be scored. Needs no key. For probes of an orchestrator take `/health/live` and
    `/health/ready`: this one asks Postgres, which may be away without harm.
    """
    lag = await _journal_lag(service)
    hindrance = _hindrance(service)
    champion = service.holder.current
    found = (hindrance, service.holder.problem, _label_hindrance(service), service.ingest_worker.problem)
    problems = list(dict.fromkeys(problem for problem in found if problem is not None))
    if lag is None and not problems:
        problems.append("Postgres is unavailable, so it is unknown how far the journal has been copied")
    if hindrance is not None:
        response.status_code = 503
    return Health(
        status="not_ready" if hindrance is not None else "degraded" if problems else "ok",
        model_version=None if champion is None else champion.version.version,
        problems=problems,
        journal_lag_bytes=lag,
    )


@router.get("/health/live", summary="Whether the process answers")
async def health_live() -> Liveness:
    """Always 200: the event loop turns. If this fails, restart the process. Needs no key."""
    return Liveness()


@router.get("/health/ready", summary="Whether to send requests here", responses={503: {"model": Readiness}})
async def health_ready(service: ServiceDependency, response: Response) -> Readiness:
    """200 if a model is loaded and the journal takes predictions, else 503 with the reasons.

    Postgres is not asked: predictions are acknowledged without it. Needs no key.
    """
    hindrance = _hindrance(service)
    if hindrance is None:
        return Readiness(status="ready", reasons=[])
    response.status_code = 503
    return Readiness(status="not_ready", reasons=[hindrance])


def _hindrance(service: Service) -> str | None:
    """Why nothing can be acknowledged now; None if predictions can."""
    if service.holder.current is None:
        return service.holder.problem or "no model is loaded yet"
    if service.batcher.problem is not None:  # which may name paths, and no key is asked for here
        return "the journal cannot be written, so no prediction can be acknowledged; the service's log says why"
    return None


def _label_hindrance(service: Service) -> str | None:
    if service.labels.problem is None:
        return None
    return "the label journal cannot be written, so labels are refused; the service's log says why"


async def _journal_lag(service: Service) -> int | None:
    """Bytes not yet in Postgres; None if that cannot be told now."""
    try:
        return await service.read_pool.run(
            lambda _: service.ingest_worker.lag_bytes(), timeout_seconds=LAG_TIMEOUT_SECONDS
        )
    except ProblemError:
        return None
