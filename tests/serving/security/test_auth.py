"""Who gets in: keys, scopes, limits, and the start that is refused without keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.testclient import WebSocketDenialResponse

from selfheal.kit.api_keys import ALL_SCOPES, hashed_entry, new_api_key
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings, load_settings
from serving.app import create_app
from serving.schemas.problems import ProblemError
from serving.security.auth import Authenticator, Caller, Scope, key_of, refuse_unauthenticated_public_host, requires
from tests.conftest import TOY

PLAIN = "a-plain-key-of-some-length"
KEYS: dict[str, tuple[str, frozenset[Scope]]] = {
    "scorer": (new_api_key(), frozenset({Scope.SCORE})),
    "labeller": (new_api_key(), frozenset({Scope.LABEL})),
    "viewer": (new_api_key(), frozenset({Scope.READ})),
    "both": (new_api_key(), frozenset({Scope.SCORE, Scope.LABEL})),
}


def settings_with(*entries: str, **overrides: Any) -> Settings:
    return load_settings(use_case=TOY, api_keys=SecretStr(",".join(entries)), **overrides)


def all_entries() -> list[str]:
    return [PLAIN, *(hashed_entry(name, scopes, key) for name, (key, scopes) in KEYS.items())]


def refusal(ask: Callable[[], object]) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        ask()
    return caught.value


# The start


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.test", ""])
def test_a_door_to_other_hosts_without_a_key_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="API_KEYS is empty"):
        refuse_unauthenticated_public_host(settings_with(api_host=host))
    refuse_unauthenticated_public_host(settings_with(PLAIN, api_host=host))
    refuse_unauthenticated_public_host(settings_with(hashed_entry("a", ALL_SCOPES, "short"), api_host=host))


def test_a_door_to_other_hosts_with_a_key_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="fewer than 16 characters") as caught:
        refuse_unauthenticated_public_host(settings_with(PLAIN, "password", api_host="0.0.0.0"))
    assert "password" not in str(caught.value)
    refuse_unauthenticated_public_host(settings_with("password", api_host="127.0.0.1"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    refuse_unauthenticated_public_host(settings_with(api_host=host))


# The authenticator


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("scope", Scope)
def test_a_key_opens_the_doors_of_its_scopes_and_no_others(name: str, scope: Scope) -> None:
    key, scopes = KEYS[name]
    authenticator = Authenticator(settings_with(*all_entries()))
    if scope in scopes:
        assert authenticator.admit(key, scope) == Caller(name, scopes)
        return
    error = refusal(lambda: authenticator.admit(key, scope))
    assert (error.status, error.kind) == (403, "forbidden")
    assert scope in error.detail
    assert key not in error.detail


def test_a_plain_key_opens_every_door() -> None:
    authenticator = Authenticator(settings_with(*all_entries()))
    assert {authenticator.admit(PLAIN, scope).scopes for scope in Scope} == {ALL_SCOPES}


@given(st.none() | st.text() | st.sampled_from([PLAIN[:-1], PLAIN + "x", PLAIN.upper(), *all_entries(), "x" * 100_000]))
def test_what_is_not_a_key_opens_no_door(key: str | None) -> None:
    authenticator = Authenticator(settings_with(*all_entries()))
    if key == PLAIN:
        return
    error = refusal(lambda: authenticator.admit(key, Scope.READ))
    assert (error.status, error.kind) == (401, "unauthorized")
    assert error.headers == {"WWW-Authenticate": "Bearer"}
    in_the_same_words = refusal(lambda: authenticator.admit("another" if key is not None else None, Scope.READ))
    assert error.detail == in_the_same_words.detail, "it says nothing of the key"
    assert authenticator.n_wrong_keys == (0 if key is None else 2)


def test_without_keys_everybody_is_local_and_may_do_everything() -> None:
    authenticator = Authenticator(settings_with())
    assert not authenticator.asks_for_keys
    for key in (None, "", "whatever"):
        assert {authenticator.admit(key, scope) for scope in Scope} == {Caller("local", ALL_SCOPES)}


def test_wrong_keys_are_told_in_the_log_once_a_minute_without_the_keys(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    authenticator = Authenticator(settings_with(PLAIN), clock=lambda: now)

    def warn_after(n: int) -> list[str]:
        caplog.clear()
        for _ in range(n):
            refusal(lambda: authenticator.admit("a-wrong-key", Scope.READ))
        return [record.getMessage() for record in caplog.records]

    with caplog.at_level(logging.WARNING):
        assert warn_after(5) == ["1 requests with an unknown API key"]
        now += 60
        assert warn_after(1) == ["5 requests with an unknown API key"]
    assert authenticator.n_wrong_keys == 6


# The limit


def test_a_key_that_calls_too_often_is_told_when_to_come_back_and_no_other_key_notices() -> None:
    now = 100.0
    authenticator = Authenticator(settings_with(*all_entries(), rate_limit_per_second=0.4), clock=lambda: now)
    both, viewer = KEYS["both"][0], KEYS["viewer"][0]
    authenticator.admit(both, Scope.SCORE)
    error = refusal(lambda: authenticator.admit(both, Scope.LABEL))
    assert (error.status, error.kind, error.retry_after_seconds) == (429, "rate_limited", 3)
    authenticator.admit(viewer, Scope.READ)
    now += 3
    authenticator.admit(both, Scope.SCORE)


def test_a_call_that_lacks_the_scope_counts_too() -> None:
    authenticator = Authenticator(settings_with(*all_entries(), rate_limit_per_second=1), clock=lambda: 100.0)
    scorer = KEYS["scorer"][0]
    asked = [refusal(lambda: authenticator.admit(scorer, Scope.ADMIN)).status for _ in range(3)]
    assert asked == [403, 403, 429]


def test_wrong_keys_do_not_use_up_anybodys_limit() -> None:
    authenticator = Authenticator(settings_with(PLAIN, rate_limit_per_second=1), clock=lambda: 100.0)
    assert {refusal(lambda: authenticator.admit("wrong", Scope.READ)).status for _ in range(50)} == {401}
    authenticator.admit(PLAIN, Scope.READ)


def test_callers_without_a_key_share_one_limit() -> None:
    authenticator = Authenticator(settings_with(rate_limit_per_second=1), clock=lambda: 100.0)
    authenticator.admit(None, Scope.SCORE)
    authenticator.admit("whatever", Scope.READ)
    assert refusal(lambda: authenticator.admit(None, Scope.SCORE)).status == 429


# Where the key is


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"X-API-Key": "a"}, "a"),
        ({"X-API-Key": ""}, ""),
        ({"Authorization": "Bearer a"}, "a"),
        ({"Authorization": "bearer  a "}, "a"),
        ({"Authorization": "Bearer"}, None),
        ({"Authorization": "Bearer "}, None),
        ({"Authorization": "Basic YTph"}, None),
        ({"Authorization": "a"}, None),
        ({"X-API-Key": "a", "Authorization": "Bearer b"}, "a"),
    ],
)
def test_the_key_is_found_in_either_header(headers: dict[str, str], key: str | None) -> None:
    assert key_of(Headers(headers)) == key


# The app


@pytest.fixture(scope="module")
def locked() -> FastAPI:
    """The app with keys; its lifespan is not run, since a refused request never gets that far."""
    app = create_app(settings_with(*all_entries()))
    app.state.service = None
    return app


DOORS = {"/predict": Scope.SCORE, "/predict/batch": Scope.SCORE, "/labels": Scope.LABEL}


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize(
    "key",
    [None, "", "wrong", f"{PLAIN}, {PLAIN}", PLAIN[:-1], all_entries()[1]],
    ids=["none", "empty", "wrong", "two", "cut off", "a hashed entry"],
)
def test_a_request_without_a_known_key_is_refused(locked: FastAPI, path: str, key: str | None) -> None:
    headers = {} if key is None else {"X-API-Key": key}
    answer = TestClient(locked).post(path, json={}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert PLAIN[:-1] not in answer.text


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("name", KEYS)
def test_each_endpoint_asks_for_its_scope(locked: FastAPI, path: str, name: str) -> None:
    """With the scope the request gets as far as the body, which is wrong."""
    key, scopes = KEYS[name]
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        answer = TestClient(locked).post(path, json={}, headers=headers)
        assert answer.status_code == (422 if DOORS[path] in scopes else 403), answer.text


def test_reading_asks_for_its_scope(locked: FastAPI) -> None:
    client = TestClient(locked)
    assert client.get("/model/info").status_code == 401
    assert client.get("/model/info", headers={"X-API-Key": KEYS["scorer"][0]}).status_code == 403


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize(("key", "status"), [("", 401), (KEYS["viewer"][0], 403)], ids=["no key", "of a viewer"])
def test_a_body_is_not_even_parsed_for_who_may_not_send_it(locked: FastAPI, path: str, key: str, status: int) -> None:
    headers = {"Content-Type": "application/json", "X-API-Key": key}
    assert TestClient(locked).post(path, content=b"[" * 100_000, headers=headers).status_code == status


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_a_body_where_none_is_read_asks_for_nothing(locked: FastAPI, content_type: str) -> None:
    answer = TestClient(locked).request("GET", "/health/live", content=b"{", headers={"Content-Type": content_type})
    assert answer.status_code == 200


def test_a_call_is_counted_once_whatever_its_body() -> None:
    app = create_app(settings_with(PLAIN, rate_limit_per_second=1.5))
    app.state.service = None
    client = TestClient(app, headers={"X-API-Key": PLAIN})
    asked = [client.post("/labels", content=b"{", headers={"Content-Type": "application/json"}), client.post("/labels")]
    asked += [client.post("/labels", json={}) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [422, 422, 422, 429]
    assert asked[-1].headers["retry-after"] == "1"
    assert asked[-1].headers["content-type"] == "application/problem+json"


def test_a_websocket_is_refused_with_a_problem_document_too() -> None:
    router = APIRouter()

    @router.websocket("/echo")
    async def echo(websocket: WebSocket, caller: Caller = Depends(requires(Scope.READ))) -> None:  # noqa: B008
        await websocket.accept()
        await websocket.send_text(caller.name)

    app = create_app(settings_with(*all_entries()))
    app.include_router(router)
    client = TestClient(app)
    for name, status in (("scorer", 403), (None, 401)):
        headers = {} if name is None else {"X-API-Key": KEYS[name][0]}
        with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/echo", headers=headers):
            pass
        assert caught.value.status_code == status
        assert caught.value.json()["status"] == status
    with client.websocket_connect("/echo", headers={"X-API-Key": KEYS["viewer"][0]}) as websocket:
        assert websocket.receive_text() == "viewer"


def test_openapi_shows_the_two_ways_to_send_a_key_where_one_is_asked_for(locked: FastAPI) -> None:
    document = locked.openapi()
    assert document["paths"]["/predict"]["post"]["security"] == [{"APIKeyHeader": []}, {"HTTPBearer": []}]
    assert "security" not in document["paths"]["/health"]["get"]
    assert {"401", "403", "413", "415", "429"} <= set(document["paths"]["/labels"]["post"]["responses"])


def test_openapi_shows_no_keys_where_none_is_asked_for() -> None:
    client = TestClient(
        create_app(settings_with()), base_url="http://localhost"
    )  # other names are refused without keys
    document = client.get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    assert all("security" not in operation for path in document["paths"].values() for operation in path.values())
