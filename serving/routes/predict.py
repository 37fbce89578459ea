"""`POST /predict` and `POST /predict/batch`."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body
from pydantic import ValidationError

from serving.problems import documented, validation_problems
from serving.schemas import BatchRequest, BatchResponse, Prediction, RowBase, RowError, example_row
from serving.scoring import Row, Scored
from serving.service import ServiceDependency

if TYPE_CHECKING:
    from selfheal.contract import ModelContract


def build_router(contract: "ModelContract", model: type[RowBase]) -> APIRouter:
    """The scoring endpoints for one contract."""
    router = APIRouter(tags=["score"], responses=documented(422, 503))
    batch_example = {"instances": [example_row(contract), example_row(contract)]}

    async def predict(service: ServiceDependency, body: RowBase) -> Prediction:
        """Scores one row. The answer is sent once the prediction is on disk."""
        (scored,) = await service.scorer.score([_row(contract, body)])
        return _answer(scored)

    predict.__annotations__["body"] = model
    router.post("/predict", response_model=Prediction)(predict)

    @router.post("/predict/batch", response_model=BatchResponse)
    async def predict_batch(
        service: ServiceDependency, body: Annotated[BatchRequest, Body(examples=[batch_example])]
    ) -> BatchResponse:
        """Scores many rows. Rows that break the contract are refused one by one; the others are answered."""
        rows, errors = _valid_rows(contract, model, body.instances)
        scored = await service.scorer.score(list(rows.values())) if rows else []
        answers: list[Prediction | None] = [None] * len(body.instances)
        for position, one in zip(rows, scored, strict=True):
            answers[position] = _answer(one)
        return BatchResponse(predictions=answers, errors=errors)

    return router


def _valid_rows(
    contract: "ModelContract", model: type[RowBase], instances: list[dict[str, Any]]
) -> tuple[dict[int, Row], list[RowError]]:
    rows: dict[int, Row] = {}
    errors: list[RowError] = []
    for position, instance in enumerate(instances):
        try:
            rows[position] = _row(contract, model.model_validate(instance))
        except ValidationError as error:
            errors.extend(RowError(row=position, **problem) for problem in validation_problems(error.errors()))
    return rows, errors


def _row(contract: "ModelContract", body: RowBase) -> Row:
    return Row([getattr(body, name) for name in contract.input_names], body.request_source)


def _answer(scored: Scored) -> Prediction:
    version = scored.champion.version
    return Prediction.model_construct(
        prediction_id=scored.prediction_id,
        prediction=1 if scored.prediction else 0,
        probability=scored.probability,
        threshold=version.threshold,
        model_name=version.model_name,
        model_version=version.version,
    )
