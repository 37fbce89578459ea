"""Ids of the client's own: the same request has one answer and one line in the log, however often and wherever it is sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from selfheal.adapters.journal import prediction_journal
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.predictions import stored_predictions
from selfheal.domain.entity_key import pseudonym
from selfheal.services.platform import open_platform
from selfheal.settings import Settings
from serving.ingest.worker import IngestWorker
from serving.scoring import idempotency
from tests.at_once import at_once
from tests.forwarder import forwarded
from tests.serving.running import (
    Api,
    api_in_thread,
    bodies,
    journal_rows,
    logged_probabilities,
)
from tests.waiting import eventually

ROW = {"temperature_c": 71.5, "load_ratio": 0.1 + 0.2, "restarts": 2}
OTHER_ROW = ROW | {"restarts": 3}


def new_id() -> str:
    return str(uuid4())


def own(prediction_id: str, row: dict[str, Any] = ROW, **more: Any) -> dict[str, Any]:
    return row | {"prediction_id": prediction_id} | more


def answered(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refused(answer: httpx.Response, prediction_id: str) -> bool:
    body = answer.json()
    assert (answer.status_code, body["type"]) == (409, "prediction_id_conflict"), answer.text
    return prediction_id in body["detail"]


def n_lines(settings: Settings, prediction_id: str) -> int:
    return [row["prediction_id"] for row in journal_rows(settings)].count(prediction_id)


# One after the other


@pytest.mark.parametrize(
    "again",
    [
        lambda body: body,
        lambda body: body | {"prediction_id": body["prediction_id"].upper()},
        lambda body: body | {"prediction_id": body["prediction_id"].replace("-", "")},
        lambda body: dict(reversed(body.items())),
        lambda body: {{"load_ratio": "load-ratio"}.get(name, name): value for name, value in body.items()},
        lambda body: body | {"restarts": 2.0},
        lambda body: body | {"request_source": "api"},
    ],
    ids=["itself", "upper case", "no hyphens", "another order", "another name", "another number format", "a default"],
)
def test_the_same_request_gets_the_same_answer_and_is_logged_once(shared_api: Api, again: Any) -> None:
    prediction_id = new_id()
    first = answered(shared_api.post("/predict", own(prediction_id)))
    assert first["prediction_id"] == prediction_id
    assert answered(shared_api.post("/predict", again(own(prediction_id)))) == first
    assert n_lines(shared_api.settings, prediction_id) == 1


@pytest.mark.parametrize(
    "other",
    [OTHER_ROW, ROW | {"load_ratio": 0.3}, ROW | {"temperature_c": None}, ROW | {"request_source": "press-7"}],
    ids=["a feature", "the last bit", "a missing value", "the source"],
)
def test_another_request_under_the_id_is_a_conflict_and_is_not_logged(shared_api: Api, other: Any) -> None:
    prediction_id = new_id()
    first = answered(shared_api.post("/predict", own(prediction_id)))
    assert refused(shared_api.post("/predict", own(prediction_id, other)), prediction_id)
    assert answered(shared_api.post("/predict", own(prediction_id))) == first
    assert n_lines(shared_api.settings, prediction_id) == 1


@pytest.mark.parametrize("wrong", ["", "7", "not-a-uuid", 7, "0198f0f0-5c1e-7000-8000-00000000000g", {}])
def test_an_id_that_is_no_uuid_is_refused_by_name(shared_api: Api, wrong: Any) -> None:
    answer = shared_api.post("/predict", own(wrong))
    assert answer.status_code == 422
    assert {error["field"] for error in answer.json()["errors"]} == {"prediction_id"}


def test_a_request_that_failed_may_be_sent_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction_id = new_id()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("selfheal.adapters.journal.os.fdatasync", full)
        assert api.post("/predict", own(prediction_id)).status_code == 503
    again = eventually(
        lambda: answer if (answer := api.post("/predict", own(prediction_id))).status_code == 200 else None, "room"
    )
    assert again.json()["prediction_id"] == prediction_id
    assert n_lines(api.settings, prediction_id) == 1


# In batches


def test_within_a_batch_an_id_is_scored_once_and_a_conflict_is_the_rows_own(shared_api: Api) -> None:
    known, twice = new_id(), new_id()
    first = answered(shared_api.post("/predict", own(known)))
    rows = [
        own(twice),
        own(known),
        ROW,
        own(twice, OTHER_ROW),
        own(twice.upper()),
        own(known, OTHER_ROW),
        own("not-a-uuid"),
    ]
    answer = answered(shared_api.post("/predict/batch", {"instances": rows}))
    predictions, errors = answer["predictions"], answer["errors"]
    assert [prediction is not None for prediction in predictions] == [True, True, True, False, True, False, False]
    assert predictions[0] == predictions[4]
    assert predictions[1] == first
    assert predictions[2]["prediction_id"] not in {known, twice}
    assert [(error["row"], error["field"]) for error in errors] == [
        (3, "prediction_id"),
        (5, "prediction_id"),
        (6, "prediction_id"),
    ]
    assert twice in errors[0]["message"]
    assert known in errors[1]["message"]
    assert [n_lines(shared_api.settings, one) for one in (known, twice)] == [1, 1]


def test_a_batch_sent_again_gets_the_same_answers_and_only_what_is_new_is_logged(shared_api: Api) -> None:
    rows = [own(new_id(), row) for row in bodies(50)]
    first = answered(shared_api.post("/predict/batch", {"instances": rows[:30]}))["predictions"]
    n_before = len(journal_rows(shared_api.settings))
    again = answered(shared_api.post("/predict/batch", {"instances": rows}))["predictions"]
    assert again[:30] == first
    assert len(journal_rows(shared_api.settings)) == n_before + 20


# At the same moment


def test_many_clients_at_once_get_one_answer_and_leave_one_line(shared_api: Api) -> None:
    prediction_id = new_id()
    alone = partial(shared_api.post, "/predict", own(prediction_id))
    within = partial(shared_api.post, "/predict/batch", {"instances": [ROW, own(prediction_id), ROW]})
    answers = [answered(one) for one in at_once([alone, within] * 8)]
    seen = [one if "prediction_id" in one else one["predictions"][1] for one in answers]
    assert len({one["probability"] for one in seen}) == 1
    assert {one["prediction_id"] for one in seen} == {prediction_id}
    assert n_lines(shared_api.settings, prediction_id) == 1


def test_of_two_rows_that_fight_for_an_id_one_wins_for_everybody(shared_api: Api) -> None:
    prediction_id = new_id()
    calls = [partial(shared_api.post, "/predict", own(prediction_id, row)) for row in (ROW, OTHER_ROW)]
    answers = at_once(calls * 6)
    statuses = [answer.status_code for answer in answers]
    winner = statuses.index(200) % 2
    assert statuses == [200 if which % 2 == winner else 409 for which in range(12)]
    assert n_lines(shared_api.settings, prediction_id) == 1


def test_overlapping_batches_never_wait_for_each_other_in_a_circle(shared_api: Api) -> None:
    ids = [new_id() for _ in range(4)]
    pairs = [(ids[i], ids[j]) for i in range(4) for j in range(4) if i != j]
    calls = [partial(shared_api.post, "/predict/batch", {"instances": [own(a), own(b)]}) for a, b in pairs]
    for answer in at_once(calls):
        assert answered(answer)["errors"] == []
    assert [n_lines(shared_api.settings, one) for one in ids] == [1] * 4


# Across restarts and outages


def same_again(api: Api, first: dict[str, Any]) -> bool:
    rows = dict(zip(first, bodies(3), strict=True))
    given = {one: answered(api.post("/predict", own(one, rows[one]))) for one in first}
    conflicts = [refused(api.post("/predict", own(one, OTHER_ROW)), one) for one in first]
    return given == first and all(conflicts)


def answer_three(api: Api) -> dict[str, Any]:
    ids = [new_id() for _ in range(3)]
    return {one: answered(api.post("/predict", own(one, row))) for one, row in zip(ids, bodies(3), strict=True)}


def test_what_a_crash_left_in_the_journal_is_still_known(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was copied: the sink never runs, before nor after."""
    monkeypatch.setattr(IngestWorker, "copy_new_lines", lambda sink: None)
    with api_in_thread(api_settings) as api:
        first = answer_three(api)
    assert logged_probabilities(api_settings) == {}
    with api_in_thread(api_settings) as api:
        assert same_again(api, first)
    assert [n_lines(api_settings, one) for one in first] == [1] * 3


def test_what_only_postgres_has_is_still_known(api_settings: Settings) -> None:
    with api_in_thread(api_settings) as api:
        first = answer_three(api)
    assert logged_probabilities(api_settings).keys() == first.keys()
    shutil.rmtree(api_settings.data_dir / "audit")
    with api_in_thread(api_settings) as api:
        assert same_again(api, first)
    assert journal_rows(api_settings) == []


def test_what_left_the_memory_is_asked_of_postgres(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_REMEMBERED", 2)
    first = answer_three(api)
    eventually(lambda: logged_probabilities(api.settings).keys() == first.keys(), "the journal is copied")
    assert same_again(api, first)
    assert [n_lines(api.settings, one) for one in first] == [1] * 3


def test_a_journal_that_cannot_be_read_at_the_start_stops_nothing(
    api_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    folder = api_settings.data_dir / "audit" / "predictions"
    folder.mkdir(parents=True)
    (folder / "20260101T000000000000Z-1-00000000.csv").write_text("no,journal\n1,2\n")
    with api_in_thread(api_settings) as api:
        assert api.post("/predict", own(new_id())).status_code == 200
    assert "repeated requests may be logged twice" in caplog.text


def test_without_postgres_what_is_in_memory_is_known_and_new_ids_are_scored(
    api_settings: Settings, server: EmbeddedServer
) -> None:
    with forwarded(api_settings, server.socket_dir) as (settings, network):
        network.mend()
        with api_in_thread(settings) as api:
            first = answer_three(api)
            network.cut()
            eventually(lambda: api.health()["status"] == "degraded", "Postgres is away")
            assert same_again(api, first)
            during = answer_three(api)
            assert same_again(api, during)
            network.mend()
            eventually(lambda: api.health()["status"] == "ok", "Postgres is back")
            assert same_again(api, first)
            assert same_again(api, during)
    assert sorted(row["prediction_id"] for row in journal_rows(api_settings)) == sorted([*first, *during])


def test_a_postgres_that_hangs_holds_up_ids_of_ones_own_for_a_moment_and_nothing_else(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more of them than there are threads to ask with."""
    monkeypatch.setattr(idempotency, "LOOKUP_TIMEOUT_SECONDS", 0.2)
    url = api.settings.external_database_url(api.settings.mlops_db_name)
    first = answer_three(api)
    with psycopg.connect(url) as connection, ThreadPoolExecutor(40) as clients:
        connection.execute("LOCK TABLE prediction_logs IN ACCESS EXCLUSIVE MODE")
        waiting = [clients.submit(api.post, "/predict", own(new_id())) for _ in range(40)]
        assert api.post("/predict", ROW).status_code == 200
        assert same_again(api, first)
        assert api.post("/predict?explain=true", ROW).status_code == 200
        assert [one.result().status_code for one in waiting] == [200] * 40
    eventually(lambda: len(logged_probabilities(api.settings)) == 45, "the journal is copied")


# The key of an entity


def test_a_key_is_journaled_and_stored_as_its_pseudonym_and_an_id_is_of_one_entity(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(use_case="tests.toy_use_case:keyed", entity_secret=SecretStr("a secret of the tests"))
    prediction_id, expected = new_id(), pseudonym("A-1", b"a secret of the tests")
    with api_in_thread(settings) as api:
        first = answered(api.post("/predict", own(prediction_id, machine="A-1")))
        assert answered(api.post("/predict", own(prediction_id, machine="A-1"))) == first
        assert refused(api.post("/predict", own(prediction_id, machine="A-2")), prediction_id)
    (row,) = [row for row in journal_rows(settings) if row["prediction_id"] == prediction_id]
    assert row["_entity"] == expected
    assert not [path for path in settings.data_dir.rglob("*.csv") if "A-1" in path.read_text()]
    platform = open_platform(settings)
    try:
        ingest(platform.store, prediction_journal(platform.contract), settings.data_dir)
        (stored,) = stored_predictions(platform.store, [prediction_id])
        assert stored["_entity"] == expected
        version = platform.versions.champion()
        assert list(platform.traffic.newest_of_version(version.version, 10)["_entity"]) == [expected]
    finally:
        platform.close()
    with api_in_thread(settings) as api:  # from the journal's end or Postgres
        assert answered(api.post("/predict", own(prediction_id, machine="A-1"))) == first
        assert refused(api.post("/predict", own(prediction_id, machine="A-2")), prediction_id)
