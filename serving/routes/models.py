"""`GET /model/info` and `GET /model/versions`: the version that scores, and all versions."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from selfheal.adapters.postgres.model_versions import list_versions
from serving.dependencies import ServiceDependency
from serving.schemas.problems import documented, not_ready
from serving.schemas.responses import ModelInfo, Versions, VersionsParameters, model_info, version_info
from serving.security.auth import Scope, requires

router = APIRouter(tags=["state"])
reading = [Depends(requires(Scope.READ))]


@router.get(
    "/model/info",
    summary="Show the version that scores now",
    dependencies=reading,
    responses=documented(401, 403, 429, 503),
)
async def get_model_info(service: ServiceDependency) -> ModelInfo:
    """Return the version that this worker scores with: its origin, metrics, digests and features."""
    champion = service.holder.current
    if champion is None:
        raise not_ready(service.holder.problem or "no model is loaded yet")
    return model_info(champion.version, service.platform.contract.feature_names)


@router.get(
    "/model/versions",
    summary="List all versions of the model",
    dependencies=reading,
    responses=documented(401, 403, 422, 429, 503),
)
async def get_model_versions(
    service: ServiceDependency, parameters: Annotated[VersionsParameters, Query()]
) -> Versions:
    """Return all registered versions, the newest first.

    Each has the time in production, the reason for its training, its metrics and digests, and the decision that
    promoted it.
    """
    found = await service.read_pool.run(partial(list_versions, limit=parameters.limit, stage=parameters.stage))
    return Versions(versions=[version_info(version) for version in found])
