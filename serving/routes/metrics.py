"""`GET /metrics`: metrics for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from serving.observability.metrics import MetricsPage
from serving.schemas.problems import documented
from serving.security.auth import Scope, requires

router = APIRouter(tags=["state"])


class PrometheusText(PlainTextResponse):
    """A response in Prometheus' text format."""

    media_type = CONTENT_TYPE_LATEST


@router.get(
    "/metrics",
    summary="Show metrics for Prometheus",
    response_class=PrometheusText,
    dependencies=[Depends(requires(Scope.READ))],
    responses=documented(401, 403, 429),
)
async def get_metrics(request: Request) -> PrometheusText:
    """Return the metrics in Prometheus' text format.

    They are counts of predictions, refusals and labels, latency, journal lag and the metrics of the process. With
    several workers each series has a label `worker`; sum over it.
    """
    page: MetricsPage = request.app.state.metrics
    return PrometheusText(await asyncio.to_thread(page.text))
