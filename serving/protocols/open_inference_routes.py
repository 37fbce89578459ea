"""Open Inference Protocol v2 (`/v2`): health and metadata. `serving.protocols.middleware` answers what is to be scored."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any, TypedDict

from fastapi import APIRouter, Depends, Response
from fastapi.params import Depends as DependsMarker

from serving.dependencies import Service, ServiceDependency
from serving.protocols import open_inference
from serving.protocols.errors import Protocol, documented
from serving.protocols.middleware import current_version
from serving.schemas.open_inference import (
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from serving.schemas.problems import ProblemError, answered_before
from serving.security.auth import Scope, requires

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract

SERVER_NAME = "selfheal"


class Options(TypedDict, total=False):
    """Options that routes share."""

    summary: str
    dependencies: list[DependsMarker]
    responses: dict[int | str, dict[str, Any]]


def build_router(contract: ModelContract) -> APIRouter:
    """Return the endpoints of one contract."""
    router = APIRouter(tags=["open inference protocol"])
    scoring = [Depends(requires(Scope.SCORE))]
    of_server = documented(Protocol.OPEN_INFERENCE, 400, 403, 500, 503)
    of_model = of_server | documented(Protocol.OPEN_INFERENCE, 404)
    with_key = of_model | documented(Protocol.OPEN_INFERENCE, 401, 429)
    when_scoring = with_key | documented(Protocol.OPEN_INFERENCE, 409, 413, 415)

    @router.get("/v2", summary="Show what serves", responses=of_server)
    async def get_server_metadata() -> ServerMetadata:
        """Return name, version and extensions. No key is needed."""
        extensions = list(open_inference.EXTENSIONS)
        return ServerMetadata(name=SERVER_NAME, version=installed_version("selfheal"), extensions=extensions)

    @router.get("/v2/health/live", summary="Check that the process responds", responses=of_server)
    async def get_live() -> ServerLive:
        """Return 200 as long as the event loop runs. No key is needed."""
        return ServerLive()

    @router.get(
        "/v2/health/ready",
        summary="Check that rows can be scored",
        responses=of_server | {503: {"model": ServerReady}},
    )
    async def get_ready(service: ServiceDependency, response: Response) -> ServerReady:
        """Return 200 if a model is loaded and the journal can be written, else 503. No key is needed."""
        is_ready = service.batcher.problem is None
        if not is_ready:
            response.status_code = 503
        return ServerReady(ready=is_ready)

    def metadata(service: Service, model: str, version: str | None) -> ModelMetadata:
        check_model(model)
        return open_inference.model_metadata(contract, current_version(service, version))

    def readiness(service: Service, response: Response, model: str, version: str | None) -> ModelReady:
        check_model(model)
        is_ready = service.batcher.problem is None
        if is_ready:
            current_version(service, version)
        else:
            response.status_code = 503
        return ModelReady(name=model, ready=is_ready)

    def check_model(name: str) -> None:
        if name != contract.name:
            detail = f"model {name[:100]!r} is not served here; call /v2/models/{contract.name}"
            raise ProblemError(404, "not_found", detail)

    show = Options(summary="Show the model", dependencies=scoring, responses=with_key)
    check = Options(summary="Check that the model can score", responses=of_model | {503: {"model": ModelReady}})
    score = Options(summary="Score rows", dependencies=scoring, responses=when_scoring)

    @router.get("/v2/models/{model}", **show)
    async def get_model(model: str, service: ServiceDependency) -> ModelMetadata:
        """Return the inputs in the order of a matrix' columns, the outputs, and the version that scores."""
        return metadata(service, model, None)

    @router.get("/v2/models/{model}/versions/{version}", **show)
    async def get_model_version(model: str, version: str, service: ServiceDependency) -> ModelMetadata:
        """Return the same, if this version scores now."""
        return metadata(service, model, version)

    @router.get("/v2/models/{model}/ready", **check)
    async def get_model_ready(model: str, service: ServiceDependency, response: Response) -> ModelReady:
        """Return 200 if the model can score, else 503. No key is needed."""
        return readiness(service, response, model, None)

    @router.get("/v2/models/{model}/versions/{version}/ready", **check)
    async def get_version_ready(model: str, version: str, service: ServiceDependency, response: Response) -> ModelReady:
        """Return the same, if this version scores now."""
        return readiness(service, response, model, version)

    @router.post("/v2/models/{model}/infer", **score)
    async def infer(model: str, body: InferenceRequest) -> InferenceResponse:
        """Score rows: all of them, or none. The response is sent once the predictions are on disk."""
        raise answered_before()

    @router.post("/v2/models/{model}/versions/{version}/infer", **score)
    async def infer_version(model: str, version: str, body: InferenceRequest) -> InferenceResponse:
        """Score rows as without a version, if this version scores now."""
        raise answered_before()

    return router
