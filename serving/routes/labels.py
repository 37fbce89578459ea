"""`POST /labels` as OpenAPI shows it. `serving.scoring.fast_path` responds to it."""

from __future__ import annotations

from fastapi import APIRouter

from serving.schemas.problems import answered_before, documented
from serving.schemas.requests import LabelBody, LabelsResponse

router = APIRouter(tags=["label"], responses=documented(409, 422, 503))


@router.post("/labels", response_model=LabelsResponse, summary="Send true labels")
async def post_labels(body: LabelBody) -> LabelsResponse:
    """Accept true labels, one or many, all or none. A label may arrive before its prediction is in Postgres."""
    raise answered_before()
