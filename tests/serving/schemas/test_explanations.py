"""Rules of an answered explanation: it is what the API's documents promise, and nothing is answered that does not add up."""

from __future__ import annotations

import dataclasses

import numpy as np
import orjson
import pytest

from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.model.explanation import MAX_REASONS, build_explainer
from selfheal.domain.model.explanation import Explanation as ExplainedRows
from serving.schemas.explanations import Explanation, plain_explanations
from tests.toy_use_case import contract


@pytest.fixture(scope="module")
def explanation() -> ExplainedRows:
    """Of the 200 rows that a model of the toy use case learned from."""
    rows = contract.synthesize(200, 1)
    matrix = contract.feature_frame(rows).to_numpy(dtype=np.float64)
    pipeline = contract.build_estimator(0).fit(matrix, rows[TRUE_LABEL])
    return build_explainer(pipeline, contract, matrix).explain(matrix)


def test_the_answer_is_what_the_documents_promise_and_adds_up_after_json(explanation: ExplainedRows) -> None:
    for row in orjson.loads(orjson.dumps(plain_explanations(explanation))):
        answer = Explanation.model_validate(row, strict=True)
        assert answer.model_dump(mode="json") == row
        assert list(answer.contributions) == list(contract.feature_names)
        assert answer.baseline_log_odds + sum(answer.contributions.values()) == pytest.approx(answer.log_odds, abs=1e-9)


def test_rows_come_in_order_with_their_own_reasons(explanation: ExplainedRows) -> None:
    answers = plain_explanations(explanation)
    for answer, log_odds, reasons in zip(
        answers, explanation.log_odds.tolist(), explanation.adverse_reasons(), strict=True
    ):
        assert answer is not None
        assert answer["log_odds"] == log_odds
        assert answer["reasons"] == [reason._asdict() for reason in reasons]
    assert any(answer["reasons"] for answer in answers if answer)


def test_a_row_whose_parts_do_not_add_up_is_answered_without_any(explanation: ExplainedRows) -> None:
    is_exact = np.ones(200, dtype=bool)
    is_exact[7] = False
    answers = plain_explanations(dataclasses.replace(explanation, is_exact=is_exact))
    assert [row for row, answer in enumerate(answers) if answer is None] == [7]


def test_the_documents_name_as_many_reasons_as_are_ever_given() -> None:
    assert Explanation.model_json_schema()["properties"]["reasons"]["maxItems"] == MAX_REASONS
