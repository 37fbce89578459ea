"""`explain=true`: exact parts of the score where there are any, a reason where there are none, and the same log either way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn
from uuid import uuid4

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from selfheal.adapters.mlflow_registry import Registry
from selfheal.domain.contract import TRUE_LABEL
from serving.champion.holder import ChampionHolder, ready_champion
from serving.schemas.explanations import Explanation
from tests.serving.running import Api, bodies, journal_rows
from tests.toy_use_case import contract

ROW = {"temperature_c": 71.5, "load_ratio": 0.9, "restarts": 2}


def adds_up(answer: dict[str, Any]) -> bool:
    """The parts give the log-odds, and those the probability."""
    explained = Explanation.model_validate(answer["explanation"])
    assert answer["explanation_unavailable"] is None
    assert list(explained.contributions) == list(contract.feature_names)
    total = explained.baseline_log_odds + sum(explained.contributions.values())
    assert total == pytest.approx(explained.log_odds, abs=1e-9)
    return bool(1 / (1 + math.exp(-total)) == pytest.approx(answer["probability"], abs=1e-12))


ASKED: dict[str, Callable[[Api, dict[str, Any]], Any]] = {
    "by the query": lambda api, row: api.post("/predict?explain=true", row),
    "by the query, as Python writes it": lambda api, row: api.post("/predict?explain=True", row),
    "by the query, as a number": lambda api, row: api.post("/predict?explain=1", row),
    "by the body": lambda api, row: api.post("/predict", row | {"explain": True}),
    "by both": lambda api, row: api.post("/predict?explain=true", row | {"explain": True}),
}
NOT_ASKED: dict[str, Callable[[Api, dict[str, Any]], Any]] = {
    "not at all": lambda api, row: api.post("/predict", row),
    "by the query": lambda api, row: api.post("/predict?explain=false", row),
    "by the query, as a number": lambda api, row: api.post("/predict?explain=0", row),
    "by the body": lambda api, row: api.post("/predict", row | {"explain": False}),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_an_explanation_is_given_to_whoever_asks_for_it(shared_api: Api, ask: Any) -> None:
    answer = ask(shared_api, ROW).json()
    assert adds_up(answer)
    assert answer["explanation"]["baseline"] in {"reference", "stand_in"}


@pytest.mark.parametrize("ask", NOT_ASKED.values(), ids=NOT_ASKED)
def test_nobody_else_pays_for_one(shared_api: Api, ask: Any) -> None:
    answer = ask(shared_api, ROW)
    assert answer.status_code == 200
    assert not answer.json().keys() & {"explanation", "explanation_unavailable"}


@pytest.mark.parametrize("query", ["explain=yes", "explain=", "explain=2", "explian=true", "explain=true&colour=red"])
def test_a_question_that_is_none_is_refused_by_name(shared_api: Api, query: str) -> None:
    for path, body in (("/predict", ROW), ("/predict/batch", {"instances": [ROW]})):
        answer = shared_api.post(f"{path}?{query}", body)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["field"] in query


def test_in_a_batch_all_rows_are_explained_or_those_that_ask(shared_api: Api) -> None:
    rows = bodies(20)
    rows[3] = rows[3] | {"explain": True}
    rows[7] = {"restarts": "three", "explain": True}
    some = shared_api.post("/predict/batch", {"instances": rows}).json()["predictions"]
    every = shared_api.post("/predict/batch?explain=true", {"instances": rows}).json()["predictions"]
    assert [which for which, one in enumerate(some) if one is not None and "explanation" in one] == [3]
    assert adds_up(some[3])
    assert [which for which, one in enumerate(every) if one is None] == [7]
    assert all(adds_up(one) for one in every if one is not None)
    assert len({str(one["explanation"]["contributions"]) for one in every if one is not None}) > 10


def test_an_explanation_changes_neither_the_score_nor_the_log(shared_api: Api) -> None:
    def logged(answer: dict[str, Any]) -> dict[str, str]:
        (line,) = [one for one in journal_rows(shared_api.settings) if one["prediction_id"] == answer["prediction_id"]]
        return {name: value for name, value in line.items() if name not in NEW_EACH_TIME}

    explained, plain = (shared_api.post("/predict", ROW | {"explain": flag}).json() for flag in (True, False))
    assert explained["probability"] == plain["probability"]
    assert logged(explained) == logged(plain)


NEW_EACH_TIME = ("prediction_id", "created_at", "latency_ms")


def test_a_repeated_id_may_be_asked_about_later(shared_api: Api) -> None:
    row = ROW | {"prediction_id": str(uuid4())}
    first = shared_api.post("/predict", row).json()
    explained = shared_api.post("/predict?explain=true", row).json()
    assert adds_up(explained)
    assert {name: explained[name] for name in first} == first
    assert shared_api.post("/predict", row).json() == first, "what is remembered is the answer without it"


def holder_of(api: Api) -> ChampionHolder:
    assert api.app is not None
    holder: ChampionHolder = api.app.state.service.holder
    return holder


def test_a_model_without_exact_parts_scores_and_says_why_there_are_none(api: Api) -> None:
    rows = contract.synthesize(300, 1)
    matrix = contract.feature_frame(rows).to_numpy(dtype=np.float64)
    trees = make_pipeline(SimpleImputer(), GradientBoostingClassifier(n_estimators=3)).fit(matrix, rows[TRUE_LABEL])
    holder = holder_of(api)
    assert holder.current is not None
    holder.current = ready_champion(holder.current.version, trees, contract)
    for answer in (
        api.post("/predict?explain=true", ROW).json(),
        api.post("/predict/batch?explain=true", {"instances": [ROW]}).json()["predictions"][0],
    ):
        assert answer["explanation"] is None
        assert len(answer["explanation_unavailable"]) > 20
        assert 0 <= answer["probability"] <= 1


def test_a_reference_that_could_not_be_read_is_asked_for_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def baseline() -> str:
        answer = api.post("/predict?explain=true", ROW).json()
        assert adds_up(answer)
        return str(answer["explanation"]["baseline"])

    def unreachable(*_: object) -> NoReturn:
        raise OSError("no route to host")

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "reference", unreachable)
        assert baseline() == "stand_in"
    assert baseline() == "stand_in", "not each request asks an MLflow that is away"
    monkeypatch.setattr("serving.scoring.explanations.REFERENCE_RETRY_SECONDS", 0.0)
    assert baseline() == "reference"


def test_an_answer_of_a_version_that_is_gone_is_not_explained_by_another(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its id it is answered as before, whatever is served now."""
    row = ROW | {"prediction_id": str(uuid4())}
    first = api.post("/predict", row).json()
    holder = holder_of(api)
    current = holder.current
    assert current is not None
    other = replace(current, version=replace(current.version, version=7))
    monkeypatch.setattr(holder, "refresh", lambda: None)  # the version in production would be swapped in again
    holder.current = other
    again = api.post("/predict?explain=true", row).json()
    assert {name: again[name] for name in first} == first
    assert again["explanation"] is None
    assert "version 1 is no longer loaded" in again["explanation_unavailable"]
