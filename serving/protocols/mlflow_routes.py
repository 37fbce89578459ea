"""MLflow's scoring server beside `/predict`: its probes, and the endpoint as MLflow's deployments client sees it.

`serving.protocols.middleware` answers what is to be scored. `/health`, which MLflow's server has too, is our own.
"""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from serving.dependencies import ServiceDependency
from serving.protocols.errors import Protocol, documented
from serving.protocols.open_inference_routes import Options
from serving.schemas.mlflow_scoring import (
    DeploymentEndpoint,
    DeploymentEndpoints,
    EndpointModel,
    Invocation,
    Predictions,
)
from serving.schemas.problems import ProblemError, answered_before, not_ready
from serving.security.auth import Scope, requires

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract


def build_router(contract: ModelContract) -> APIRouter:
    """Return the endpoints of one contract."""
    router = APIRouter(tags=["mlflow scoring"])
    scoring = [Depends(requires(Scope.SCORE))]
    of_server = documented(Protocol.MLFLOW, 400, 403, 500, 503)
    with_key = of_server | documented(Protocol.MLFLOW, 401, 404, 429)
    when_scoring = with_key | documented(Protocol.MLFLOW, 409, 413, 415)
    endpoint = DeploymentEndpoint(
        name=contract.name,
        model=EndpointModel(name=contract.name),
        endpoint_url=f"/endpoints/{contract.name}/invocations",
    )

    @router.get("/ping", summary="Check that rows can be scored", responses=of_server)
    async def ping(service: ServiceDependency) -> None:
        """Return 200 if a model is loaded and the journal can be written, else 503. No key is needed."""
        if service.batcher.problem is not None:
            raise not_ready("no prediction can be acknowledged now; see /health/ready")

    @router.get("/version", summary="Show MLflow's version", response_class=PlainTextResponse, responses=of_server)
    async def get_version() -> str:
        """Return the version of MLflow whose scoring protocol this is. No key is needed."""
        return installed_version("mlflow")

    @router.get(
        "/api/2.0/endpoints/{model}", summary="Show MLflow's endpoint", dependencies=scoring, responses=with_key
    )
    async def get_endpoint(model: str) -> DeploymentEndpoint:
        """Return the endpoint of a model."""
        if model != contract.name:
            detail = f"endpoint {model[:100]!r} is not served here; the one endpoint is {contract.name}"
            raise ProblemError(404, "not_found", detail)
        return endpoint

    # After the route of one: for the framework a path that ends in a line break is also the path without it.
    @router.get("/api/2.0/endpoints/", summary="List MLflow's endpoints", dependencies=scoring, responses=with_key)
    async def list_endpoints() -> DeploymentEndpoints:
        """Return the one endpoint: the model."""
        return DeploymentEndpoints(endpoints=[endpoint])

    async def invoke(body: Invocation) -> Predictions:
        """Score rows: all of them, or none. The response is sent once the predictions are on disk."""
        raise answered_before()

    async def invoke_endpoint(model: str, body: Invocation) -> Predictions:
        """Score rows as `POST /invocations` does; MLflow's deployments client calls this."""
        raise answered_before()

    options = Options(summary="Score rows of MLflow's clients", dependencies=scoring, responses=when_scoring)
    router.post("/invocations", **options)(invoke)
    router.post("/endpoints/{model}/invocations", **options)(invoke_endpoint)
    return router
