"""`GET /decisions`: the decisions of the loop and what they are based on."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from selfheal.adapters.postgres.decisions import find_chained, page
from serving.dependencies import ServiceDependency
from serving.schemas.problems import ProblemError, documented
from serving.schemas.responses import DecisionDetail, Decisions, DecisionsParameters, decision_detail, decision_info
from serving.security.auth import Scope, requires

router = APIRouter(
    tags=["decisions"],
    dependencies=[Depends(requires(Scope.READ))],
    responses=documented(401, 403, 422, 429, 503),
)

DecisionId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="as in `decision_id`")]


@router.get("/decisions", summary="List decisions")
async def get_decisions(service: ServiceDependency, parameters: Annotated[DecisionsParameters, Query()]) -> Decisions:
    """Return one page of decisions, the newest first: trainings, promotions, rejections, rollbacks, skips."""
    ask = partial(page, limit=parameters.limit + 1, actions=parameters.action, before=parameters.before)
    found = await service.read_pool.run(ask)
    shown = found[: parameters.limit]
    return Decisions(
        decisions=[decision_info(chained) for chained in shown],
        next_before=shown[-1].position if len(found) > len(shown) else None,
    )


@router.get("/decisions/{decision_id}", summary="Show one decision in full", responses=documented(404))
async def get_decision(service: ServiceDependency, decision_id: DecisionId) -> DecisionDetail:
    """Return a decision with its conditions, gates and digests, and its link in the hash chain."""
    chained = await service.read_pool.run(partial(find_chained, decision_id=decision_id))
    if chained is None:
        raise ProblemError(404, "not_found", f"there is no decision {decision_id}; GET /decisions lists them")
    return decision_detail(chained)
