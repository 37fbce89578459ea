"""`POST /predict` and `POST /predict/batch` as OpenAPI shows them. `serving.scoring.fast_path` responds to them."""

from typing import Annotated

from fastapi import APIRouter, Query

from serving.schemas.problems import ProblemError, documented
from serving.schemas.requests import BatchBase, BatchResponse, Prediction, RowBase
from serving.scoring.request_parser import RequestParser

Explain = Annotated[bool, Query(description="adds `explanation` to each prediction")]


def build_router(parser: RequestParser) -> APIRouter:
    """Return the scoring endpoints of one contract."""
    router = APIRouter(tags=["score"], responses=documented(409, 422, 503))

    async def predict(body: RowBase, explain: Explain = False) -> Prediction:
        """Score one row. The response is sent once the prediction is on disk."""
        raise left_the_fast_path()

    async def predict_batch(body: BatchBase, explain: Explain = False) -> BatchResponse:
        """Score many rows. A row that breaks the contract is refused without the others."""
        raise left_the_fast_path()

    predict.__annotations__["body"] = parser.row_model
    predict_batch.__annotations__["body"] = parser.batch_model
    router.post("/predict", response_model=Prediction, summary="Score one row")(predict)
    router.post("/predict/batch", response_model=BatchResponse, summary="Score many rows")(predict_batch)
    return router


def left_the_fast_path() -> ProblemError:
    """Return what is raised by a route that is there for the documentation only.

    Only a path that ends in a line break gets there: for the framework it is also the path without it.
    """
    return ProblemError(404, "not_found", "there is no such path; it ends in a line break")
