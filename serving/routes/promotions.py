"""`/model/promotions`, `/promotions`, `/rollbacks`, `/retrainings`, `/declarations`: past promotions, and commands by people."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Query

from selfheal.adapters.postgres.decisions import newest_declarations
from selfheal.adapters.postgres.promotions import promotions_since
from selfheal.adapters.postgres.retraining_requests import add_request
from selfheal.domain.monitoring.declarations import newest_of_each
from selfheal.kit.errors import TooManyRequestsError
from selfheal.services.declarations import declare
from selfheal.services.promotion.going_live import force_promote, rollback
from serving.dependencies import ServiceDependency
from serving.schemas.problems import ProblemError, documented
from serving.schemas.responses import (
    DeclarationInfo,
    DeclarationRecorded,
    DeclarationRequest,
    Declarations,
    LimitParameters,
    ModelVersionSummary,
    PromotionInfo,
    PromotionRequest,
    Promotions,
    QueryParameters,
    RetrainingAccepted,
    RetrainingRequest,
    RollbackRequest,
)
from serving.security.auth import Caller, Scope, requires

if TYPE_CHECKING:
    from selfheal.domain.records import Decision, ModelVersion
    from selfheal.services.platform import Platform

router = APIRouter(tags=["promotions"], responses=documented(401, 403, 422, 429, 503))

Admin = Annotated[Caller, Depends(requires(Scope.ADMIN))]


@router.get("/model/promotions", summary="List promotions and rollbacks", dependencies=[Depends(requires(Scope.READ))])
async def get_promotions(service: ServiceDependency, parameters: Annotated[LimitParameters, Query()]) -> Promotions:
    """Return all promotions and rollbacks, the newest first, with the decision behind each."""
    found = await service.read_pool.run(partial(promotions_since, since=None, limit=parameters.limit))
    return Promotions(promotions=[PromotionInfo.model_validate(promotion) for promotion in found])


@router.post("/promotions", summary="Put a version into production manually", responses=documented(404, 409, 413, 415))
async def post_promotion(service: ServiceDependency, caller: Admin, request: PromotionRequest) -> ModelVersionSummary:
    """Put a version into production without a verdict of the gates, on the responsibility of the key's owner.

    The name of the key and the reason are recorded. The version goes on probation. It must load and score as it did in
    training, or production stays as it is (409). MLflow follows within a minute.
    """

    def promote(platform: Platform) -> ModelVersion:
        return force_promote(
            platform,
            request.model_version,
            reason=request.reason,
            actor=caller.name,
            now=datetime.now(UTC),
            from_version=request.from_version,
            is_projected=False,
        )

    return ModelVersionSummary.model_validate(await service.command_pool.run(promote))


@router.post("/rollbacks", summary="Go back to an earlier version", responses=documented(404, 409, 413, 415))
async def post_rollback(service: ServiceDependency, caller: Admin, request: RollbackRequest) -> ModelVersionSummary:
    """Go back to the version that the present one replaced, or to the named one.

    A version that was itself rolled back is refused. Two requests go back twice, unless `from_version` says from which
    version. MLflow follows within a minute.
    """

    def go_back(platform: Platform) -> ModelVersion:
        return rollback(
            platform,
            to_version=request.model_version,
            reason=request.reason,
            actor=caller.name,
            now=datetime.now(UTC),
            from_version=request.from_version,
            is_projected=False,
        )

    return ModelVersionSummary.model_validate(await service.command_pool.run(go_back))


@router.get("/monitoring/declarations", summary="List declarations", dependencies=[Depends(requires(Scope.READ))])
async def get_declarations(service: ServiceDependency, _: Annotated[QueryParameters, Query()]) -> Declarations:
    """Return what was declared last of each kind about each column, or its withdrawal: who, when, and why."""
    found = newest_of_each(await service.read_pool.run(newest_declarations))
    return Declarations(declarations=[DeclarationInfo.model_validate(one) for one in found.all])


@router.post("/declarations", summary="Declare a column seasonal or sound", responses=documented(409, 413, 415))
async def post_declaration(
    service: ServiceDependency, caller: Admin, request: DeclarationRequest
) -> DeclarationRecorded:
    """Declare that a column moves with the season, or that what the feed check finds in it is no fault.

    The name of the key and the reason are recorded in the chain of decisions. Harm that labels show is heard as ever.
    """

    def record(platform: Platform) -> Decision:
        return declare(
            platform,
            request.declared,
            request.column,
            reason=request.reason,
            actor=caller.name,
            now=datetime.now(UTC),
        )

    decision = await service.command_pool.run(record)
    return DeclarationRecorded(decision_id=decision.decision_id, declared=decision.declared or "")


@router.post("/retrainings", status_code=202, summary="Request a retraining", responses=documented(409, 413, 415))
async def post_retraining(service: ServiceDependency, caller: Admin, request: RetrainingRequest) -> RetrainingAccepted:
    """Record the request, which a Dagster sensor picks up.

    Conditions and gates decide as usual; `GET /decisions` shows the outcome.
    """
    ask = partial(add_request, actor=caller.name, reason=request.reason, now=datetime.now(UTC))
    try:
        return RetrainingAccepted(request_id=await service.read_pool.run(ask))
    except TooManyRequestsError as error:
        raise ProblemError(409, "too_many_waiting", str(error)) from error
