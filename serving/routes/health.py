"""`GET /health` and its parts, `GET /model/info` and `GET /model/versions`: how the service is, and what answers."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from selfheal.adapters.postgres.model_versions import list_versions
from serving.dependencies import Service, ServiceDependency
from serving.schemas.problems import ProblemError, documented, not_ready
from serving.schemas.responses import (
    Health,
    Liveness,
    ModelInfo,
    Readiness,
    Versions,
    VersionsQuestion,
    model_info,
    version_info,
)
from serving.security.auth import Scope, requires

router = APIRouter(tags=["state"])
reading = [Depends(requires(Scope.READ))]

LAG_PATIENCE_SECONDS = 1.0
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
    found = (hindrance, service.holder.problem, _label_hindrance(service), service.sink.problem)
    problems = list(dict.fromkeys(problem for problem in found if problem is not None))
    if lag is None and not problems:
        problems.append("Postgres does not answer: it is unknown how far the journal has been copied")
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


@router.get(
    "/model/info",
    summary="The version that answers now",
    dependencies=reading,
    responses=documented(401, 403, 429, 503),
)
async def get_model_info(service: ServiceDependency) -> ModelInfo:
    """Where the model that this worker answers with came from, what it was judged by, and what it sees."""
    champion = service.holder.current
    if champion is None:
        raise not_ready(service.holder.problem or "no model is loaded yet")
    return model_info(champion.version, service.platform.contract.feature_names)


@router.get(
    "/model/versions",
    summary="All versions of the model",
    dependencies=reading,
    responses=documented(401, 403, 422, 429, 503),
)
async def get_model_versions(service: ServiceDependency, question: Annotated[VersionsQuestion, Query()]) -> Versions:
    """Every registered version: when it went live and ended, why it was trained, its metrics and digests, and the decision
    that let it through."""
    found = await service.inquiries.ask(partial(list_versions, limit=question.limit, stage=question.stage))
    return Versions(versions=[version_info(version) for version in found])


def _hindrance(service: Service) -> str | None:
    """Why nothing can be acknowledged now; None if predictions can."""
    if service.holder.current is None:
        return service.holder.problem or "no model is loaded yet"
    if service.scorer.problem is not None:  # which may name paths, and no key is asked for here
        return "the journal cannot be written, so no prediction can be acknowledged; the service's log says why"
    return None


def _label_hindrance(service: Service) -> str | None:
    if service.labels.problem is None:
        return None
    return "the label journal cannot be written, so labels are refused; the service's log says why"


async def _journal_lag(service: Service) -> int | None:
    """Bytes not yet in Postgres; None if that cannot be told now."""
    try:
        return await service.inquiries.ask(lambda _: service.sink.lag_bytes(), patience_seconds=LAG_PATIENCE_SECONDS)
    except ProblemError:
        return None
