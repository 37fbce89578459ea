"""`/monitoring/label-quarantines`: labels that are withheld as suspect, and their release by a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Path

from selfheal.adapters.postgres.label_quarantines import label_quarantines
from selfheal.services.label_quarantines import release_labels
from serving.dependencies import ServiceDependency
from serving.schemas.label_quarantines import LabelQuarantineInfo, LabelQuarantines
from serving.schemas.problems import documented
from serving.schemas.responses import ReasonedRequest
from serving.security.auth import Caller, Scope, requires

if TYPE_CHECKING:
    from selfheal.domain.records import LabelQuarantine
    from selfheal.services.platform import Platform

router = APIRouter(
    prefix="/monitoring/label-quarantines", tags=["monitoring"], responses=documented(401, 403, 422, 429, 503)
)

QuarantineId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")]


@router.get("", summary="List withheld labels", dependencies=[Depends(requires(Scope.READ))])
async def get_label_quarantines(service: ServiceDependency) -> LabelQuarantines:
    """Return the periods whose labels contradict what was sent before, the newest first."""
    found = await service.read_pool.run(label_quarantines)
    return LabelQuarantines(quarantines=[LabelQuarantineInfo.model_validate(one) for one in reversed(found)])


@router.post("/{quarantine_id}/release", summary="Release withheld labels", responses=documented(404, 409, 413, 415))
async def post_release(
    service: ServiceDependency,
    caller: Annotated[Caller, Depends(requires(Scope.ADMIN))],
    quarantine_id: QuarantineId,
    request: ReasonedRequest,
) -> LabelQuarantineInfo:
    """Take withheld labels for right, on the responsibility of the key's owner: they count again.

    The name of the key and the reason are recorded as a decision. Later labels of the version and source are not withheld.
    """

    def release(platform: Platform) -> LabelQuarantine:
        now = datetime.now(UTC)
        return release_labels(platform, quarantine_id, reason=request.reason, actor=caller.name, now=now)

    return LabelQuarantineInfo.model_validate(await service.command_pool.run(release))
