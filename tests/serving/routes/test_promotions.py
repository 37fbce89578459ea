"""`/model/promotions`, `/promotions`, `/rollbacks`, `/retrainings`, `/declarations`: a person's word over the API, with its name, and what it may not do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.adapters.postgres.retraining_requests import MAX_OPEN as MAX_OPEN_REQUESTS
from selfheal.settings import Settings
from serving.database.command_pool import MAX_OPEN_COMMANDS
from tests.serving.history import ADA, API_KEYS, READER
from tests.serving.running import Api, api_in_thread, bodies, load_on, query
from tests.serving.schemas.test_problems import assert_problem
from tests.waiting import eventually

WORD = {"reason": "the auditor wants it"}
SWITCHES = ("/promotions", "/rollbacks", "/retrainings")


@pytest.fixture
def two(two_versions: Settings) -> Iterator[Api]:
    """An API with keys that serves version 1; version 2 waits. The client sends the key of `ada`, who may do everything."""
    with api_in_thread(two_versions.model_copy(update={"api_keys": SecretStr(API_KEYS)})) as api:
        api.client.headers["X-API-Key"] = ADA
        yield api


def promote(api: Api, version: int, **more: Any) -> httpx.Response:
    return api.post("/promotions", WORD | {"model_version": version} | more)


def serves(api: Api, version: int) -> bool:
    return bool(api.info()["model_version"] == version)


def decision_of(api: Api, answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = api.client.get(f"/decisions/{answer.json()['decision_id']}").json()
    return found


def test_a_version_goes_live_and_back_by_the_word_of_a_key(two: Api) -> None:
    promoted = promote(two, 2, from_version=1)
    assert promoted.status_code == 200, promoted.text
    assert (promoted.json()["model_version"], promoted.json()["replaced_version"]) == (2, 1)
    assert promoted.json()["probation_until"] is not None
    eventually(lambda: serves(two, 2), "version 2 is served", 5.0)
    decided = decision_of(two, promoted)
    assert (decided["action"], decided["actor"], decided["reason"]) == ("force_promote", "ada", WORD["reason"])

    returned = two.post("/rollbacks", {"reason": "customers complain"})
    assert returned.status_code == 200, returned.text
    assert (returned.json()["model_version"], returned.json()["replaced_version"]) == (1, 2)
    assert returned.json()["probation_until"] is None
    eventually(lambda: serves(two, 1), "version 1 is served again", 5.0)
    decided = decision_of(two, returned)
    assert (decided["action"], decided["actor"], decided["reason"]) == ("rollback", "ada", "customers complain")

    listed = two.client.get("/model/promotions").json()["promotions"]
    assert [(one["model_version"], one["replaced_version"]) for one in listed] == [(1, 2), (2, 1), (1, None)]
    assert listed[0]["decision_id"] == returned.json()["decision_id"]


def test_a_rollback_under_load_fails_no_request_and_is_served_by_all_soon(two_versions: Settings) -> None:
    with api_in_thread(two_versions) as api, load_on(api, 2) as load:
        assert promote(api, 2).status_code == 200
        eventually(lambda: serves(api, 2), "version 2 is served", 5.0)
        load.wait_for(20)
        assert api.post("/rollbacks", WORD).status_code == 200
        eventually(lambda: serves(api, 1), "version 1 is served again", 5.0)
        load.wait_for(20)
    assert load.failures == []


def test_what_cannot_be_done_is_told_and_changes_nothing(two: Api) -> None:
    before = query(two.settings, "SELECT * FROM model_metadata ORDER BY version")
    assert "the registered versions are 2, 1" in assert_problem(promote(two, 7), 404)["detail"]
    assert assert_problem(promote(two, 1), 409)["type"] == "not_possible"
    assert assert_problem(two.post("/rollbacks", WORD), 409)["detail"].startswith("version 1 replaced nothing")
    assert_problem(two.post("/rollbacks", WORD | {"model_version": 7}), 404)
    assert assert_problem(two.post("/rollbacks", WORD | {"model_version": 2}), 409)["type"] == "not_possible"
    stale = assert_problem(promote(two, 2, from_version=9), 409)
    assert (stale["type"], stale["detail"]) == (
        "promotion_conflict",
        "version 9 was expected in production, but version 1 is",
    )
    assert query(two.settings, "SELECT * FROM model_metadata ORDER BY version") == before
    assert query(two.settings, "SELECT count(*) FROM promotions") == [(1,)]


def test_a_version_that_cannot_answer_is_refused_and_the_old_one_answers_on(two: Api) -> None:
    query(two.settings, "UPDATE model_metadata SET artifact_sha256 = repeat('0', 64) WHERE version = 2")
    refused = assert_problem(promote(two, 2), 409)
    assert refused["type"] == "model_refused"
    assert str(two.settings.data_dir) not in refused["detail"]
    assert serves(two, 1)
    assert two.post("/predict", bodies(1)[0]).json()["model_version"] == 1
    (alert,) = two.client.get("/monitoring/alerts", params={"only_open": "true"}).json()["alerts"]
    assert (alert["kind"], alert["source"], alert["model_version"]) == ("promotion_refused", "promotion", 2)


def test_without_a_version_in_production_there_is_nothing_to_switch_from(without_production: Settings) -> None:
    with api_in_thread(without_production) as api:
        assert assert_problem(promote(api, 1), 409)["type"] == "no_production_model"


@pytest.mark.parametrize("path", SWITCHES)
def test_switching_takes_the_scope_admin(two: Api, path: str) -> None:
    body = WORD | ({"model_version": 2} if path == "/promotions" else {})
    for headers, status in (({"X-API-Key": READER}, 403), ({"X-API-Key": "nobody's"}, 401)):
        assert_problem(two.client.post(path, json=body, headers=headers), status)
    assert query(two.settings, "SELECT count(*) FROM promotions") == [(1,)]
    assert query(two.settings, "SELECT count(*) FROM retraining_requests") == [(0,)]


@pytest.mark.parametrize("path", SWITCHES)
@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": ""},
        {"reason": "  "},
        {"reason": "x" * 1_001},
        {"reason": "a\x00b"},
        {"reason": None},
        {"reason": "because", "resaon": "because"},
        {"reason": "because", "model_version": 0},
        {"reason": "because", "model_version": "2"},
        {"reason": "because", "model_version": 2**31},
    ],
    ids=str,
)
def test_a_wrong_wish_is_named(shared_api: Api, path: str, wrong: dict[str, Any]) -> None:
    named = next(name for name in ("resaon", "model_version", "reason") if name in wrong)
    needed = {"model_version": 1} if path == "/promotions" else {}
    assert named in assert_problem(shared_api.post(path, needed | wrong), 422)["detail"]


def test_a_command_that_waits_delays_nothing_else_and_too_many_are_refused(two: Api) -> None:
    """As while another process promotes."""
    url = two.settings.external_database_url(two.settings.mlops_db_name)
    with psycopg.connect(url) as other, ThreadPoolExecutor(MAX_OPEN_COMMANDS) as callers:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (Lock.PROMOTION,))
        waiting = [callers.submit(promote, two, 2) for _ in range(MAX_OPEN_COMMANDS)]
        refused = eventually(lambda: promote_if_full(two), "the command_pool is full")
        assert refused["type"] == "busy"
        assert two.post("/predict", bodies(1)[0]).status_code == 200
        other.rollback()
        answers = [future.result() for future in waiting]
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * (MAX_OPEN_COMMANDS - 1)


def promote_if_full(api: Api) -> dict[str, Any] | None:
    """The refusal, once as many wait as may; asks for what cannot be done, so as not to take a place for long."""
    answer = promote(api, 7) if api.app is not None and not _has_place(api) else None
    return None if answer is None else assert_problem(answer, 503)


def _has_place(api: Api) -> bool:
    assert api.app is not None
    return len(api.app.state.service.command_pool._bulkhead._open) < MAX_OPEN_COMMANDS


def test_while_postgres_is_away_nothing_is_switched(two: Api, server_url: str) -> None:
    name = two.settings.mlops_db_name
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        for path in SWITCHES:
            answer = two.post(path, WORD | ({"model_version": 2} if path == "/promotions" else {}))
            assert_problem(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
        assert_problem(two.client.get("/model/promotions"), 503)
        assert two.post("/predict", bodies(1)[0]).status_code == 200
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    eventually(lambda: promote(two, 2).status_code == 200, "Postgres is asked again")


def test_a_wish_for_a_retraining_is_written_down_with_its_name_and_they_do_not_pile_up(two: Api) -> None:
    asked = two.post("/retrainings", WORD)
    assert asked.status_code == 202, asked.text
    written = query(two.settings, "SELECT request_id::text, actor, reason, taken_at FROM retraining_requests")
    assert written == [(asked.json()["request_id"], "ada", WORD["reason"], None)]
    for _ in range(MAX_OPEN_REQUESTS - 1):
        assert two.post("/retrainings", WORD).status_code == 202
    assert assert_problem(two.post("/retrainings", WORD), 409)["type"] == "too_many_waiting"


def test_a_declaration_is_recorded_in_the_chain_with_the_name_of_the_key(two: Api) -> None:
    asked = two.post("/declarations", WORD | {"declared": "seasonal", "column": "load_ratio"})
    assert asked.status_code == 200, asked.text
    decided = decision_of(two, asked)
    assert (decided["action"], decided["actor"], decided["reason"]) == ("declare", "ada", WORD["reason"])
    assert decided["declared"] == "seasonal:load_ratio"
    stored = query(two.settings, "SELECT declared FROM retraining_decisions WHERE action = 'declare'")
    assert stored == [("seasonal:load_ratio",)]
    (listed,) = two.client.get("/monitoring/declarations").json()["declarations"]
    assert listed == {
        "subject": "seasonal",
        "column": "load_ratio",
        "is_in_force": True,
        "actor": "ada",
        "declared_at": decided["created_at"],
        "reason": WORD["reason"],
        "decision_id": asked.json()["decision_id"],
    }
    assert two.post("/declarations", WORD | {"declared": "not_seasonal", "column": "load_ratio"}).status_code == 200
    assert [one["is_in_force"] for one in two.client.get("/monitoring/declarations").json()["declarations"]] == [False]
    assert_problem(two.post("/declarations", WORD | {"declared": "sound", "column": "nonsense"}), 409)
    assert_problem(two.post("/declarations", WORD | {"declared": "fine", "column": "load_ratio"}), 422)
