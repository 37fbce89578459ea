"""`GET /health` and `GET /model/info`: how the service is, and what answers."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from serving.problems import documented, not_ready
from serving.schemas import Health, ModelInfo
from serving.service import ServiceDependency

router = APIRouter(tags=["state"])


@router.get("/health", response_model=Health, responses={503: {"model": Health}})
async def health(service: ServiceDependency, response: Response) -> Health:
    """503 while nothing can be scored. `degraded` still scores and loses nothing."""
    champion = service.holder.current
    problems = [problem for problem in (service.holder.problem, service.sink.problem) if problem is not None]
    lag = await asyncio.to_thread(service.sink.lag_bytes)
    if champion is None:
        response.status_code = 503
        return Health(status="not_ready", model_version=None, problems=problems, journal_lag_bytes=lag)
    return Health(
        status="degraded" if problems else "ok",
        model_version=champion.version.version,
        problems=problems,
        journal_lag_bytes=lag,
    )


@router.get("/model/info", response_model=ModelInfo, responses=documented(503))
async def model_info(service: ServiceDependency) -> ModelInfo:
    """The version that answers now."""
    champion = service.holder.current
    if champion is None:
        raise not_ready(service.holder.problem or "no model is loaded yet")
    version = champion.version
    return ModelInfo(
        model_name=version.model_name,
        model_version=version.version,
        stage=version.stage.value,
        promoted_at=version.promoted_at,
        trigger_reason=version.trigger_reason,
        previous_version=version.previous_version,
        threshold=version.threshold,
        metrics=version.metrics,
        contract_hash=version.contract_hash,
        artifact_sha256=version.artifact_sha256,
        mlflow_run_id=version.mlflow_run_id,
        features=list(service.platform.contract.feature_names),
    )
