"""What is refused before it is read: by its length, by its type, and however its length is lied about."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from serving.protocols.errors import protocol_of
from serving.schemas.problems import ProblemError
from serving.security.body_limit import MAX_BODY_BYTES, MAX_COMMAND_BYTES, BodyLimit, check_body, is_json, read_body
from tests.serving.running import Api
from tests.serving.schemas.test_problems import GOOD, PATHS, assert_problem
from tests.waiting import TIMEOUT_SECONDS

# The headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, None),
        ({"content-length": "0"}, None),
        ({"content-length": "2", "content-type": "application/json"}, None),
        ({"transfer-encoding": "chunked", "content-type": "application/json; charset=utf-8"}, None),
        ({"content-length": "2", "content-type": "application/json", "content-encoding": "Identity"}, None),
        ({"content-length": ""}, 400),
        ({"content-length": "-1"}, 400),
        ({"content-length": "+1"}, 400),
        ({"content-length": "1_000"}, 400),
        ({"content-length": "0x10"}, 400),
        ({"content-length": "2, 2"}, 400),
        ({"content-length": "\u0663"}, 400),
        ({"content-length": "\u00b2"}, 400),
        ({"content-length": "two"}, 400),
        ({"content-length": str(MAX_BODY_BYTES + 1)}, 413),
        ({"content-length": "9" * 5_000}, 413),
        ({"content-length": "2"}, 415),
        ({"transfer-encoding": "chunked"}, 415),
        ({"content-length": "2", "content-type": "text/plain"}, 415),
        ({"content-length": "2", "content-type": "application/json", "content-encoding": "gzip"}, 415),
    ],
)
def test_a_body_is_judged_by_its_headers_first(headers: dict[str, str], status: int | None) -> None:
    if status is None:
        check_body(headers)
        return
    with pytest.raises(ProblemError) as caught:
        check_body(headers)
    assert caught.value.status == status
    assert len(caught.value.detail) < 200


def test_a_refused_body_is_never_asked_for() -> None:
    sent: list[Any] = []

    async def never(*_: object) -> Any:
        raise AssertionError("the body or the application was asked")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"-1")]}
    asyncio.run(BodyLimit(never)(scope, never, send))
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["type"] == "invalid_request"


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON ; charset=utf-8", True),
        ("application/problem+json", True),
        ("", False),
        ("json", False),
        ("text/json", False),
        ("application/jsonp", False),
        ("text/plain; a=application/json", False),
    ],
)
def test_json_is_told_by_its_media_type(content_type: str, expected: bool) -> None:
    assert is_json(content_type) is expected


# Reading


def read(messages: Iterable[dict[str, Any]]) -> bytes:
    remaining = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(remaining)

    return asyncio.run(read_body(receive))


def pieces_of(pieces: list[bytes]) -> list[dict[str, Any]]:
    return [
        {"type": "http.request", "body": piece, "more_body": position < len(pieces) - 1}
        for position, piece in enumerate(pieces)
    ]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8))
def test_a_body_is_read_whole_however_it_is_cut(pieces: list[bytes]) -> None:
    assert read(pieces_of(pieces)) == b"".join(pieces)


def test_a_body_is_refused_with_the_first_byte_too_many() -> None:
    assert len(read(pieces_of([b" " * MAX_BODY_BYTES]))) == MAX_BODY_BYTES
    with pytest.raises(ProblemError):
        read(pieces_of([b" " * MAX_BODY_BYTES, b" "]))
    endless = ({"type": "http.request", "body": b" " * 1_000_000, "more_body": True} for _ in iter(int, 1))
    with pytest.raises(ProblemError) as caught:
        read(endless)
    assert caught.value.status == 413


@pytest.mark.parametrize("n_pieces", [0, 1])
def test_a_client_that_leaves_halfway_has_sent_no_body(n_pieces: int) -> None:
    begun = [{"type": "http.request", "body": b"{", "more_body": True}] * n_pieces
    with pytest.raises(ClientDisconnect):
        read([*begun, {"type": "http.disconnect"}])


# The running service


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("is_announced", [True, False])
def test_a_body_that_is_too_large_is_refused_before_it_fills_the_memory(
    shared_api: Api, path: str, is_announced: bool
) -> None:
    piece = b" " * 1_000_000
    n_pieces = MAX_BODY_BYTES // len(piece) + 1
    content = piece * n_pieces if is_announced else (piece for _ in range(n_pieces))
    answer = shared_api.client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert assert_problem(answer, 413)["type"] == "too_large"


def raw(api: Api, request: bytes) -> bytes:
    """What the server answers to these bytes, after which the client says no more."""
    host, port = api.client.base_url.host, api.client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    return received


BODY = json.dumps(GOOD).encode()
LIES = {
    "no number": (b"Content-Length: two", BODY),
    "negative": (b"Content-Length: -5", BODY),
    "hexadecimal": (b"Content-Length: 0x10", BODY),
    "too many digits": (b"Content-Length: " + b"9" * 400, BODY),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 6", BODY),
    "longer than the body": (b"Content-Length: 5000", BODY),
    "shorter than the body": (b"Content-Length: 5", BODY),
    "none": (b"X-Nothing: 1", BODY),
    "chunks without a size": (b"Transfer-Encoding: chunked", b"zz\r\n" + BODY),
    "chunks that never end": (b"Transfer-Encoding: chunked", b"5\r\n{    \r\n"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_the_length_is_never_a_failure_of_ours(shared_api: Api, path: str, lie: str) -> None:
    """Some are refused by the server below the application, in its own words; some have nobody left to answer."""
    header, body = LIES[lie]
    head = b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n%s\r\n\r\n" % (path.encode(), header)
    received = raw(shared_api, head + body)
    assert received == b"" or received.startswith(b"HTTP/1.1 4")
    assert not any(word in received for word in (b"Traceback", b".py", b"Exception"))
    assert shared_api.client.get("/model/info").status_code == 200


# Requests other than rows and labels


def commands(api: Api) -> list[str]:
    """The path of every documented operation that takes a body and is neither rows nor labels."""
    operations = api.client.get("/openapi.json").json()["paths"]
    found = [
        path for path, methods in operations.items() for operation in methods.values() if "requestBody" in operation
    ]
    return [
        path.replace("{alert_id}", "0198f0f0-5c1e-7000-8000-000000000000")
        for path in found
        if path not in PATHS and not protocol_of(path)
    ]


def test_a_command_is_small_and_has_each_name_once(shared_api: Api) -> None:
    paths = commands(shared_api)
    assert len(paths) >= 4
    for path in paths:
        large = {"reason": "x" * MAX_COMMAND_BYTES}
        assert assert_problem(shared_api.post(path, large), 413)["type"] == "too_large"
        twice = b'{"reason": "one reason", "note": "a", "reason": "another reason"}'
        answer = shared_api.client.post(path, content=twice, headers={"Content-Type": "application/json"})
        assert_problem(answer, 422, "reason")
