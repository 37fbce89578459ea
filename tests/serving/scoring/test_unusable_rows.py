"""A row of which `derive` makes something unusable is refused before it is acknowledged, and no other row with it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.kit.ids import new_id
from serving.scoring.explanations import NOT_FOR_THIS_ROW
from serving.scoring.isolation import isolate
from tests.conftest import TEMPLATE
from tests.serving.conftest import clone
from tests.serving.running import Api, api_in_thread, bodies, journal_rows
from tests.touchy_use_case import FAILS, INFINITE, MISSING, contract
from tests.traffic import journal_predictions, toy_rows

SAID = {
    INFINITE: "computed from this row (load_ratio x temperature_c / 100) it is infinite; a number within ±3.4e+38 is needed",
    MISSING: "computed from this row (load_ratio x temperature_c / 100) it is missing",
    FAILS: "cannot be computed from this row: correct its inputs",
}
OLD_ID = new_id()


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, bootstrapped_template: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API of the touchy use case, whose journal has a row of an earlier release that would be refused now."""
    data_dir = tmp_path_factory.mktemp("touchy") / "data"
    settings = clone(server, TEMPLATE, bootstrapped_template, "touchy", data_dir)
    old = toy_rows(1, seed=3).assign(load_ratio=INFINITE, temperature_c=50.0, restarts=1.0)
    journal_predictions(data_dir, contract, old, np.array([0.75]), prediction_ids=[OLD_ID])
    with api_in_thread(settings.model_copy(update={"use_case": "tests.touchy_use_case:contract"})) as running:
        yield running


def a_row(load_ratio: float | None = None, **changes: Any) -> dict[str, Any]:
    row = bodies(1)[0]
    return (row if load_ratio is None else row | {"load_ratio": load_ratio}) | changes


def n_journaled(api: Api) -> int:
    return len(journal_rows(api.settings))


@pytest.mark.parametrize("query", ["", "?explain=true"])
@pytest.mark.parametrize("load_ratio", [INFINITE, MISSING, FAILS])
def test_a_row_with_an_unusable_derived_value_is_refused_by_its_name(api: Api, load_ratio: float, query: str) -> None:
    before = n_journaled(api)
    answer = api.post(f"/predict{query}", a_row(load_ratio))
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid_request")
    (error,) = answer.json()["errors"]
    assert error["field"] == "strain"
    assert error["message"].startswith(SAID[load_ratio])
    assert "secret" not in answer.text
    assert n_journaled(api) == before, "what is refused is not recorded"


@pytest.mark.parametrize("query", ["", "?explain=true"])
@pytest.mark.parametrize("n_others", [1, 300], ids=["in the event loop", "in a thread"])
def test_a_batch_is_judged_row_by_row_by_what_is_derived_too(api: Api, n_others: int, query: str) -> None:
    before, sound = n_journaled(api), bodies(4 + n_others, seed=8)
    rows = [sound[0], a_row(INFINITE), sound[1], a_row(FAILS), {"load_ratio": "plenty"}, a_row(MISSING), *sound[2:]]
    answer = api.post(f"/predict/batch{query}", {"instances": rows})
    assert answer.status_code == 200
    found = answer.json()
    assert [place for place, one in enumerate(found["predictions"]) if one is None] == [1, 3, 4, 5]
    assert found["n_refused"] == 4
    of_derived = [error for error in found["errors"] if error["row"] != 4]
    assert [(error["row"], error["field"]) for error in of_derived] == [(1, "strain"), (3, "strain"), (5, "strain")]
    for error, load_ratio in zip(of_derived, (INFINITE, FAILS, MISSING), strict=True):
        assert error["message"].startswith(SAID[load_ratio])
    alone = [api.post("/predict", row).json()["probability"] for row in sound[:3]]
    scores = [one["probability"] for one in found["predictions"] if one is not None]
    assert scores[:3] == alone
    assert not query or all(one["explanation"] for one in found["predictions"] if one is not None)
    assert n_journaled(api) == before + len(sound) + 3


def test_a_batch_of_refused_rows_only_records_nothing(api: Api) -> None:
    before = n_journaled(api)
    found = api.post("/predict/batch", {"instances": [a_row(INFINITE), a_row(FAILS)]}).json()
    assert (found["predictions"], found["n_refused"]) == ([None, None], 2)
    assert n_journaled(api) == before


def test_a_refused_row_fails_no_request_that_is_scored_with_it(api: Api) -> None:
    kinds = itertools.cycle([None, INFINITE, None, FAILS, None, MISSING])
    rows = [a_row(next(kinds)) for _ in range(120)]
    with ThreadPoolExecutor(24) as clients:
        statuses = list(clients.map(lambda row: api.post("/predict", row).status_code, rows))
    assert statuses == [422 if row["load_ratio"] in SAID else 200 for row in rows]


def test_a_refused_row_has_not_used_its_id(api: Api) -> None:
    own_id = str(uuid4())
    refused = a_row(INFINITE, prediction_id=own_id)
    found = api.post("/predict/batch", {"instances": [refused, refused]}).json()
    assert [(error["row"], error["field"]) for error in found["errors"]] == [(0, "strain"), (1, "strain")]
    assert api.post("/predict", refused).status_code == 422
    assert api.post("/predict", a_row(prediction_id=own_id)).json()["prediction_id"] == own_id


def test_what_an_earlier_release_has_answered_is_answered_again_without_an_explanation(api: Api) -> None:
    row = {"load_ratio": INFINITE, "temperature_c": 50.0, "restarts": 1, "prediction_id": str(OLD_ID)}
    answer = api.post("/predict?explain=true", row | {"request_source": "test"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["probability"] == 0.75
    assert (answer.json()["explanation"], answer.json()["explanation_unavailable"]) == (None, NOT_FOR_THIS_ROW)


def test_a_derivation_that_fails_is_in_the_log_once_a_request(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        api.post("/predict/batch", {"instances": [a_row(FAILS), a_row(), a_row(FAILS)]})
    (record,) = (one for one in caplog.records if "derive fails" in one.message)
    assert record.message == "derive fails on 2 of 3 rows of a request"
    assert record.exc_text is not None
    assert "secret of the contract" in record.exc_text


def test_few_failing_rows_among_many_are_found_in_few_calls() -> None:
    calls = []

    def compute(part: slice) -> Any:
        calls.append(part)
        if any(place in (3, 700) for place in range(part.start, part.stop)):
            raise ValueError
        return np.arange(part.start, part.stop) * 2.0

    found = isolate(compute, 1_000)
    assert sorted(found.failures) == [3, 700]
    assert found.results == {place: 2.0 * place for place in range(1_000) if place not in (3, 700)}
    assert len(calls) < 50
