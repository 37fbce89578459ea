"""`GET /model/info` and `GET /model/versions`: which version answers, and all there are."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from selfheal.adapters.postgres.model_versions import list_versions
from serving.dependencies import ServiceDependency
from serving.schemas.problems import documented, not_ready
from serving.schemas.responses import ModelInfo, Versions, VersionsQuestion, model_info, version_info
from serving.security.auth import Scope, requires

router = APIRouter(tags=["state"])
reading = [Depends(requires(Scope.READ))]


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
    found = await service.read_pool.run(partial(list_versions, limit=question.limit, stage=question.stage))
    return Versions(versions=[version_info(version) for version in found])
