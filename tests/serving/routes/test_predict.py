"""`POST /predict` and `/predict/batch`: right scores, on disk before they are answered, in Postgres soon after."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings
from tests.serving.running import (
    Api,
    api_in_thread,
    bodies,
    expected_probabilities,
    journal_rows,
    logged_probabilities,
    query,
)
from tests.waiting import eventually


@pytest.fixture(scope="module")
def model(shared_api: Api) -> Iterator[Platform]:
    """The shared API's platform, opened beside it: what its model says is asked here."""
    opened = open_platform(shared_api.settings)
    yield opened
    opened.close()


def test_one_row_scores_as_the_model_itself_scores_it(shared_api: Api, model: Platform) -> None:
    rows = bodies(20)
    answers = [shared_api.post("/predict", row).json() for row in rows]
    for answer, expected in zip(answers, expected_probabilities(model, 1, rows), strict=True):
        assert answer["probability"] == expected
        assert answer["prediction"] == int(expected >= answer["threshold"])
        assert (answer["model_name"], answer["model_version"]) == ("machine_failure", 1)


def test_a_batch_scores_row_by_row_in_order(shared_api: Api, model: Platform) -> None:
    rows = bodies(500)
    answer = shared_api.post("/predict/batch", {"instances": rows}).json()
    assert answer["errors"] == []
    scores = [prediction["probability"] for prediction in answer["predictions"]]
    assert scores == expected_probabilities(model, 1, rows)
    assert len({prediction["prediction_id"] for prediction in answer["predictions"]}) == len(rows)


def test_requests_that_are_scored_together_get_their_own_answers(shared_api: Api, model: Platform) -> None:
    """Single rows and batches of different sizes at once: a mix-up within a group would show."""
    rows = bodies(400, seed=9)
    requests = [rows[i : i + 1 + i % 4] for i in range(0, len(rows), 4)]

    def ask(instances: list[dict[str, object]]) -> list[float]:
        if len(instances) == 1:
            return [shared_api.post("/predict", instances[0]).json()["probability"]]
        answer = shared_api.post("/predict/batch", {"instances": instances}).json()
        return [prediction["probability"] for prediction in answer["predictions"]]

    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(ask, requests))
    expected = expected_probabilities(model, 1, [row for request in requests for row in request])
    assert [score for answer in answers for score in answer] == expected


def test_the_contracts_aliases_are_accepted(shared_api: Api, model: Platform) -> None:
    row = {"temperature_c": 71.0, "load_ratio": 0.9, "restarts": 2}
    (expected,) = expected_probabilities(model, 1, [row])
    for alias in ("Temp-C", "Temp_C", "temperature-c"):
        answer = shared_api.post("/predict", {alias: 71.0, "load-ratio": 0.9, "restarts": 2.0})
        assert answer.status_code == 200, answer.text
        assert answer.json()["probability"] == expected


def test_a_nullable_feature_may_be_null_or_absent(shared_api: Api) -> None:
    absent = shared_api.post("/predict", {"load_ratio": 0.9, "restarts": 2}).json()
    null = shared_api.post("/predict", {"load_ratio": 0.9, "restarts": 2, "temperature_c": None}).json()
    assert absent["probability"] == null["probability"]


def test_an_answered_prediction_is_in_the_journal_when_the_answer_arrives(api: Api) -> None:
    row = {"temperature_c": None, "load_ratio": 0.1 + 0.2, "restarts": 3, "request_source": "press-7"}
    answer = api.post("/predict", row).json()
    (line,) = journal_rows(api.settings)
    assert line["prediction_id"] == answer["prediction_id"]
    assert float(line["probability"]) == answer["probability"]
    assert (line["model_version"], line["prediction"]) == ("1", str(answer["prediction"]))
    assert (line["temperature_c"], line["load_ratio"], line["restarts"]) == ("", repr(0.1 + 0.2), "3")
    assert float(line["strain"]) == pytest.approx((0.1 + 0.2) * 60.0 / 100.0)
    assert line["request_source"] == "press-7"


def test_every_answered_prediction_is_in_postgres_soon(api: Api) -> None:
    answers = api.post("/predict/batch", {"instances": bodies(100)}).json()["predictions"]
    answers.append(api.post("/predict", bodies(1)[0]).json())
    expected = {answer["prediction_id"]: answer["probability"] for answer in answers}
    eventually(lambda: len(logged_probabilities(api.settings)) == len(expected), "the journal is copied")
    assert logged_probabilities(api.settings) == expected
    eventually(lambda: api.health()["journal_lag_bytes"] == 0, "no lag is left")


def test_a_journal_that_rotates_loses_nothing(api_settings: Settings) -> None:
    with api_in_thread(api_settings.model_copy(update={"journal_max_mb": 0.01})) as api:
        ids = {api.post("/predict", row).json()["prediction_id"] for row in bodies(150)}
        assert {row["prediction_id"] for row in journal_rows(api.settings)} == ids
        eventually(lambda: set(logged_probabilities(api.settings)) == ids, "all files are copied")
    assert query(api.settings, "SELECT count(*) > 1 FROM journal_positions WHERE journal = 'predictions'") == [(True,)]


def test_a_batch_with_bad_rows_answers_the_good_ones(api: Api) -> None:
    good = bodies(2)
    bad = good[0] | {"restarts": "three"}, good[1] | {"load_ratio": 99.0, "colour": "red"}
    answer = api.post("/predict/batch", {"instances": [good[0], bad[0], good[1], bad[1]]})
    assert answer.status_code == 200
    predictions, errors = answer.json()["predictions"], answer.json()["errors"]
    assert [prediction is None for prediction in predictions] == [False, True, False, True]
    assert {(error["row"], error["field"]) for error in errors} == {(1, "restarts"), (3, "load_ratio"), (3, "colour")}
    assert len(journal_rows(api.settings)) == 2


def test_a_batch_of_bad_rows_only_journals_nothing(api: Api) -> None:
    answer = api.post("/predict/batch", {"instances": [{"load_ratio": -1}]}).json()
    assert answer["predictions"] == [None]
    assert {error["field"] for error in answer["errors"]} == {"load_ratio", "restarts"}
    assert journal_rows(api.settings) == []


def test_clients_that_go_away_before_the_answer_disturb_nobody(api: Api) -> None:
    host, port = api.client.base_url.host, api.client.base_url.port
    body = b'{"load_ratio": 0.5, "restarts": 1}'
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for sent in (head.encode() + body, head.encode() + body[:10]):
        for _ in range(20):
            with socket.create_connection((host, port or 80)) as connection:
                connection.sendall(sent)
    assert [api.post("/predict", row).status_code for row in bodies(20)] == [200] * 20
    assert api.health()["status"] == "ok"


def test_a_disk_that_refuses_to_write_means_503_and_no_acknowledgement(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only way to fill a disk here is to say it is full."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("selfheal.adapters.journal.os.fdatasync", full)
        answers = [api.post("/predict", bodies(1)[0]), api.post("/predict/batch", {"instances": bodies(3)})]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["type"] == "journal_unavailable"
        assert answer.headers["retry-after"]
    eventually(lambda: api.post("/predict", bodies(1)[0]).status_code == 200, "predictions are acknowledged again")
    answer = api.post("/predict", bodies(1)[0])
    assert answer.json()["prediction_id"] in {row["prediction_id"] for row in journal_rows(api.settings)}
