"""Other programs' pages keep the rules of our API: origins always, keys where there are keys."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from selfheal.kit.api_keys import ALL_SCOPES, Scope, hashed_entry, new_api_key, parse_api_keys
from selfheal.kit.page_guard import PageGuard

ADMIN, READER = new_api_key(), new_api_key()
KEYS = ",".join([hashed_entry("ada", ALL_SCOPES, ADMIN), hashed_entry("rob", frozenset({Scope.READ}), READER)])
HOST = ("Host", "127.0.0.1:3000")


def basic(user: str, password: str) -> tuple[str, str]:
    return "Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def answers(*headers: tuple[str, str], keys: str = "", kind: str = "http", path: str = "/graphql") -> list[Any]:
    """What a client is sent; the guarded application itself sends its one word."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send("passed")

    async def receive() -> Any:
        return {"type": f"{kind}.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": kind, "method": "POST", "path": path, "headers": raw, "query_string": b""}
    guard = PageGuard(app, parse_api_keys(keys), open_paths=("/server_info",))
    asyncio.run(guard(scope, receive, send))
    return sent


def status(*headers: tuple[str, str], **request: str) -> int:
    """200 if the request is passed on."""
    sent = answers(*headers, **request)
    return 200 if sent == ["passed"] else int(sent[0]["status"])


def test_without_keys_programs_of_this_machine_are_let_in_and_foreign_pages_are_not() -> None:
    assert status(HOST) == 200
    assert status(HOST, ("Origin", "http://127.0.0.1:3000")) == 200
    assert status(HOST, ("Origin", "https://evil.example")) == 403
    assert status(("Host", "evil.example")) == 403


@pytest.mark.parametrize(
    "sent",
    [
        ("X-API-Key", ADMIN),
        ("Authorization", f"Bearer {ADMIN}"),
        basic("", ADMIN),
        basic("anyone", ADMIN),
        basic(ADMIN, ""),
    ],
    ids=["header", "bearer", "password", "user and password", "user"],
)
def test_a_key_is_accepted_however_it_is_sent_but_from_no_foreign_page(sent: tuple[str, str]) -> None:
    assert status(HOST, sent, keys=KEYS) == 200
    assert status(("Host", "dagster.example"), sent, keys=KEYS) == 200
    assert status(HOST, sent, ("Origin", "https://evil.example"), keys=KEYS) == 403


@pytest.mark.parametrize(
    "sent",
    [
        ("X-Nothing", "1"),
        ("X-API-Key", "wrong"),
        ("X-API-Key", "x" * 100_000),
        ("Authorization", "Basic"),
        ("Authorization", "Basic %%%"),
        ("Authorization", "Basic /w=="),
        ("Authorization", f"Digest {ADMIN}"),
        basic("ada", "wrong"),
        basic(ADMIN, "wrong"),
    ],
    ids=[
        "none",
        "wrong",
        "endless",
        "no password",
        "not encoded",
        "not text",
        "another way",
        "wrong password",
        "as user",
    ],
)
def test_without_a_known_key_nothing_is_passed_on_and_a_browser_is_asked_for_one(sent: tuple[str, str]) -> None:
    start, body = answers(HOST, sent, keys=KEYS)
    assert start["status"] == 401
    challenges = [value for name, value in start["headers"] if name == b"www-authenticate"]
    assert [challenge.split()[0] for challenge in challenges] == [b"Basic", b"Bearer"]
    assert ADMIN.encode() not in body["body"]


def test_a_key_without_the_scope_is_refused() -> None:
    assert status(HOST, ("X-API-Key", READER), keys=KEYS) == 403


def test_whether_the_program_runs_may_be_asked_without_a_key_but_not_by_a_foreign_page() -> None:
    assert status(HOST, keys=KEYS, path="/server_info") == 200
    assert status(HOST, ("Origin", "https://evil.example"), keys=KEYS, path="/server_info") == 403
    assert status(HOST, keys=KEYS, path="/server_info/") == 401


@pytest.mark.parametrize("hosts", [[], [HOST, HOST], [HOST, ("Host", "evil.example")]])
def test_a_request_has_exactly_one_host(hosts: list[tuple[str, str]]) -> None:
    assert status(*hosts, ("X-API-Key", ADMIN), keys=KEYS) == 400


def test_a_websocket_is_closed_before_it_is_accepted() -> None:
    evil = ("Origin", "https://evil.example")
    assert answers(HOST, ("Origin", "http://127.0.0.1:3000"), kind="websocket") == ["passed"]
    for sent in (answers(HOST, evil, kind="websocket"), answers(HOST, keys=KEYS, kind="websocket")):
        assert [message["type"] for message in sent] == ["websocket.close"]


def test_starting_and_stopping_is_not_a_request() -> None:
    assert answers(keys=KEYS, kind="lifespan") == ["passed"]
