"""`POST /labels`: the true labels of predictions."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from selfheal.kit.errors import JournalUnavailableError, LabelConflictError
from serving.dependencies import ServiceDependency
from serving.schemas.problems import ProblemError, documented
from serving.schemas.requests import LabelBatch, LabelBody, LabelsResponse

router = APIRouter(tags=["label"], responses=documented(409, 422, 503))


@router.post("/labels", response_model=LabelsResponse, summary="Send true labels")
async def post_labels(service: ServiceDependency, body: LabelBody) -> LabelsResponse:
    """Accept true labels, one or many, all or none. A label may arrive before its prediction is in Postgres."""
    labels = body.labels if isinstance(body, LabelBatch) else [body]
    try:
        accepted, duplicates = await asyncio.to_thread(service.labels.accept, labels)
    except LabelConflictError as error:
        raise ProblemError(409, "label_conflict", str(error)) from None
    except JournalUnavailableError:
        detail = "labels cannot be made durable now, so none was acknowledged; see /health"
        raise ProblemError(503, "journal_unavailable", detail, retry_after_seconds=5) from None
    return LabelsResponse(accepted=accepted, duplicates=duplicates)
