"""`POST /predict` and `POST /predict/batch`, as documentation shows them. The answers are given by `serving.scoring.fast_path`."""

from typing import Annotated

from fastapi import APIRouter, Query

from serving.schemas.problems import documented
from serving.schemas.requests import BatchBase, BatchResponse, Prediction, RowBase
from serving.scoring.request_parser import RequestParser

Explain = Annotated[bool, Query(description="adds `explanation` to each answer")]


def build_router(parser: RequestParser) -> APIRouter:
    """The scoring endpoints for one contract."""
    router = APIRouter(tags=["score"], responses=documented(409, 422, 503))

    async def predict(body: RowBase, explain: Explain = False) -> Prediction:
        """Scores one row. The answer is sent once the prediction is on disk."""
        raise _left_the_fast_path()

    async def predict_batch(body: BatchBase, explain: Explain = False) -> BatchResponse:
        """Scores many rows. Rows that break the contract are refused one by one; the others are answered."""
        raise _left_the_fast_path()

    predict.__annotations__["body"] = parser.row_model
    predict_batch.__annotations__["body"] = parser.batch_model
    router.post("/predict", response_model=Prediction)(predict)
    router.post("/predict/batch", response_model=BatchResponse)(predict_batch)
    return router


def _left_the_fast_path() -> AssertionError:
    return AssertionError("serving.scoring.fast_path answers scoring requests before the framework sees them")
