"""`POST /predict` and `POST /predict/batch` as OpenAPI shows them. `serving.scoring.fast_path` responds to them."""

from typing import Annotated

from fastapi import APIRouter, Query

from serving.schemas.problems import answered_before, documented
from serving.schemas.requests import BatchBase, BatchResponse, Prediction, RowBase
from serving.scoring.request_parser import RequestParser

Explain = Annotated[bool, Query(description="adds `explanation` to each prediction")]


def build_router(parser: RequestParser) -> APIRouter:
    """Return the scoring endpoints of one contract."""
    router = APIRouter(tags=["score"], responses=documented(409, 422, 503))

    async def predict(body: RowBase, explain: Explain = False) -> Prediction:
        """Score one row. The response is sent once the prediction is on disk."""
        raise answered_before()

    async def predict_batch(body: BatchBase, explain: Explain = False) -> BatchResponse:
        """Score many rows. A row that breaks the contract is refused without the others."""
        raise answered_before()

    predict.__annotations__["body"] = parser.row_model
    predict_batch.__annotations__["body"] = parser.batch_model
    router.post("/predict", response_model=Prediction, summary="Score one row")(predict)
    router.post("/predict/batch", response_model=BatchResponse, summary="Score many rows")(predict_batch)
    return router
