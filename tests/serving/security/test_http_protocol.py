"""What arrives on the socket and is not the request one expects: broken, endless, ambiguous, or two requests in one.

Belongs here: bytes on the wire. Does not belong here: what a well-formed request is answered (`test_problems`, `test_http_fast_path`).
"""

from __future__ import annotations

import json
import re
import select
from itertools import count

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.security.http_protocol import MAX_AROUND_BODY_BYTES, MAX_HEAD_BYTES
from tests.serving.raw_http import RawAnswer, RawConnection, chunked, connected, post
from tests.serving.running import Api
from tests.waiting import eventually

GOOD = {"temperature_c": 61.5, "load_ratio": 0.7, "restarts": 1}
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
OFFERS = ("h2c", "HTTP/2.0", "websocket", "WebSocket", "TLS/1.0")


def with_header(*lines: bytes, body: bytes | None = None) -> bytes:
    """A good POST to /predict with these lines in its head."""
    head, blank, own_body = post(GOOD).partition(b"\r\n\r\n")
    return b"\r\n".join([head, *lines]) + blank + (own_body if body is None else body)


def assert_problem(answer: RawAnswer, status: int) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


# One request is one request


def offering(upgrade: str, body: object = GOOD) -> bytes:
    return post(
        body, headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": upgrade, "HTTP2-Settings": "AAMAAABk"}
    )


@pytest.mark.parametrize("upgrade", OFFERS)
def test_a_row_is_scored_though_its_client_offers_another_protocol(shared_api: Api, upgrade: str) -> None:
    """Java's HttpClient offers h2c whenever it was not told otherwise."""
    request = offering(upgrade)
    for pieces in ([request], [request[:30], request[30:]], request.partition(b"{")):
        with connected(shared_api) as connection:
            for piece in pieces:
                connection.send(piece)
                assert shared_api.client.get("/health/live").status_code == 200, (
                    "the server has read what was sent by now"
                )
            assert connection.answer().status == 200
            connection.send(post(GOOD))
            assert connection.answer().status == 200


@pytest.mark.parametrize("upgrade", OFFERS)
@pytest.mark.parametrize("is_in_one_piece", [True, False])
def test_a_body_is_never_taken_for_the_next_request(shared_api: Api, upgrade: str, is_in_one_piece: bool) -> None:
    head, blank, body = offering(upgrade, post(GOOD)).partition(b"\r\n\r\n")
    with connected(shared_api) as connection:
        connection.send(head + blank + (body if is_in_one_piece else b""))
        assert shared_api.client.get("/health/live").status_code == 200, "the server has read what was sent by now"
        connection.send((b"" if is_in_one_piece else body) + LIVE)
        assert_problem(connection.answer(), 422)
        assert connection.answer().json() == {"status": "alive"}


def test_offers_in_one_send_are_passed_over_one_by_one(shared_api: Api) -> None:
    n_requests = 500
    with connected(shared_api) as connection:
        connection.send(offering("h2c", {"colour": "red"}) * n_requests)
        assert {connection.answer().status for _ in range(n_requests)} == {422}


CHUNKED = chunked(GOOD).partition(b"\r\n\r\n")[2]
BROKEN = {
    "a length and chunks": with_header(b"Transfer-Encoding: chunked"),
    "chunks and a length": with_header(b"Transfer-Encoding: chunked", body=CHUNKED),
    "two lengths": with_header(b"Content-Length: 5"),
    "the same length twice": with_header(b"Content-Length: %d" % len(json.dumps(GOOD))),
    "chunks before another coding": post(b"", headers={"Content-Length": "", "Transfer-Encoding": "chunked, identity"}),
    "a coding like chunks": post(b"", headers={"Content-Length": "", "Transfer-Encoding": "xchunked"}),
    "a blank before the colon": with_header(b"Transfer-Encoding : chunked"),
    "a folded header": with_header(b"X-Folded: 1\r\n Transfer-Encoding: chunked"),
    "a line feed in a header": with_header(b"X-Two: 1\nTransfer-Encoding: chunked"),
    "line feeds alone": post(GOOD).replace(b"\r\n", b"\n"),
    "carriage returns alone": post(GOOD).replace(b"\r\n", b"\r"),
    "NUL in a header": with_header(b"X-API-Key: a\0b"),
    "NUL in a name": with_header(b"X-A\0PI-Key: ab"),
    "no name": with_header(b": value"),
    "no path": post(GOOD, path=""),
    "a path that is none": post(GOOD, path="localhost:80"),
    "only a host": post(GOOD, path="http://localhost"),
    "bytes in a path": post(GOOD).replace(b"/predict", b"/pred\x80ict"),
    "a method of nobody": post(GOOD).replace(b"POST", b"SCORE"),
    "a method in small letters": post(GOOD).replace(b"POST", b"post"),
    "a proxy's method": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a version to come": post(GOOD, version="9.9"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 200,
    "no HTTP": b"EHLO there\r\n",
    "no host": post(GOOD, headers={"Host": ""}),
    "two hosts": with_header(b"Host: evil.example"),
    "the same host twice": with_header(b"Host: localhost"),
    "two hosts of an old version": with_header(b"Host: evil.example").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a host with a path": post(GOOD, headers={"Host": "localhost/evil"}),
    "a host with a user": post(GOOD, headers={"Host": "evil@localhost"}),
    "two hosts in one": post(GOOD, headers={"Host": "localhost, evil.example"}),
    "a WebSocket without a host": LIVE.replace(b"Host: localhost", b"Connection: Upgrade\r\nUpgrade: websocket"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_http_is_told_so_and_ends_its_connection_only(shared_api: Api, case: str) -> None:
    with connected(shared_api) as connection:
        connection.send(BROKEN[case])
        answer = connection.answer()
        assert_problem(answer, 400)
        assert answer.headers["connection"] == "close"
        assert connection.is_closed()
    assert shared_api.client.get("/health/live").status_code == 200


# Nothing is endless

ENDLESS = {
    "path": (b"GET /", b"a"),
    "header": (b"GET / HTTP/1.1\r\nX-Long: ", b"a"),
    "name of a header": (b"GET / HTTP/1.1\r\n", b"a"),
    "headers": (b"GET / HTTP/1.1\r\n", b"X: 1\r\n"),
    "size of a chunk": (post(b"", headers={"Content-Length": "", "Transfer-Encoding": "chunked"}) + b"1;", b"a"),
    "trailer": (post(b"", headers={"Content-Length": "", "Transfer-Encoding": "chunked"}) + b"0\r\nX: ", b"a"),
}
PIECE_BYTES = 32_768
QUIET_SECONDS = 0.02
"""Far more than an answer takes; one that comes later is not looked at."""


@pytest.mark.parametrize("case", ENDLESS)
def test_what_surrounds_a_body_must_end(shared_api: Api, case: str) -> None:
    """Its bytes are gathered in one string: each piece would take longer than the last, and everybody would wait."""
    begin, more = ENDLESS[case]
    is_head = b"chunked" not in begin
    with connected(shared_api) as connection:
        connection.send(begin)
        n_bytes = send_until_answered(shared_api, connection, more * (PIECE_BYTES if is_head else 30 * PIECE_BYTES))
        answers = [connection.answer()]
        if answers[0].status != 431:  # what the request itself is answered needs no end of the trailers
            answers.append(connection.answer())
        assert_problem(answers[-1], 431)
        assert connection.is_closed()
    assert n_bytes < (10 * MAX_HEAD_BYTES if is_head else 2 * MAX_AROUND_BODY_BYTES)


@pytest.mark.parametrize("n_bytes", [MAX_HEAD_BYTES + 1, 100_000, 250_000, 400_000, 2_000_000])
@pytest.mark.parametrize("n_headers", [1, 100])
def test_a_large_head_is_refused_in_words_however_it_arrives(shared_api: Api, n_bytes: int, n_headers: int) -> None:
    """In one piece as well; and the client, which still sends, can read the answer."""
    long = [b"X-Long-%d: " % n + b"a" * (n_bytes // n_headers) for n in range(n_headers)]
    request = with_header(*long)
    for n_pieces in (1, 3):
        size = -(-len(request) // n_pieces)
        with connected(shared_api) as connection:
            for start in range(0, len(request), size):
                connection.send(request[start : start + size])
            assert_problem(connection.answer(), 431)
            assert connection.is_closed()


def test_a_head_of_the_largest_size_is_accepted(shared_api: Api) -> None:
    spare = MAX_HEAD_BYTES - len(with_header(b"X-Long: "))
    with connected(shared_api) as connection:
        connection.send(with_header(b"X-Long: " + b"a" * spare))
        assert connection.answer().status == 200


def test_an_old_client_needs_no_host(shared_api: Api) -> None:
    with connected(shared_api) as connection:
        connection.send(post(GOOD, version="1.0", headers={"Host": ""}))
        assert connection.answer().status == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]:8000", "localhost:"])
def test_a_host_may_have_a_port(shared_api: Api, host: str) -> None:
    with connected(shared_api) as connection:
        connection.send(post(GOOD, headers={"Host": host}))
        assert connection.answer().status == 200


def send_until_answered(api: Api, connection: RawConnection, piece: bytes) -> int:
    for n_pieces in count(1):
        connection.send(piece)
        assert api.client.get("/health/live").status_code == 200, "nobody waits"
        if select.select([connection.socket], [], [], 0)[0]:
            return n_pieces * len(piece)
    raise AssertionError


def test_a_head_may_come_in_many_small_pieces_and_so_may_a_body(shared_api: Api) -> None:
    with connected(shared_api) as connection:
        for byte in with_header(b"X-Long: " + b"a" * 1_000):
            connection.send(bytes([byte]))
        assert connection.answer().status == 200
        connection.send(chunked(GOOD | {"prediction_id": None}, n_pieces=70))
        assert connection.answer().status == 200


def test_many_requests_with_large_heads_are_not_one_endless_head(shared_api: Api) -> None:
    request = with_header(b"X-Long: " + b"a" * (MAX_HEAD_BYTES // 2))
    with connected(shared_api) as connection:
        for _ in range(6):
            connection.send(request)
        assert [connection.answer().status for _ in range(6)] == [200] * 6


# Odd, and answered

ODD: dict[str, tuple[bytes, int]] = {
    "two slashes": (post(GOOD, path="//predict"), 404),
    "a slash at the end": (post(GOOD, path="/predict/"), 307),
    "capitals": (post(GOOD, path="/PREDICT"), 404),
    "an encoded path": (post(GOOD, path="/%70redict"), 200),
    "an encoded slash": (post({"instances": [GOOD]}, path="/predict%2Fbatch"), 200),
    "an encoded NUL": (post(GOOD, path="/predict%00"), 404),
    "bad UTF-8 in a path": (post(GOOD, path="/predict%ff"), 404),
    "dots": (post(GOOD, path="/health/../predict"), 404),
    "parameters of a path": (post(GOOD, path="/predict;a=1"), 404),
    "a whole URL": (post(GOOD, path="http://localhost/predict"), 200),
    "a fragment": (post(GOOD, path="/predict#top"), 200),
    "an asterisk": (post(GOOD, path="*"), 404),
    "bad UTF-8 in a query": (post(GOOD, path="/predict?explain=%ff"), 422),
    "no value": (post(GOOD, path="/predict?explain"), 422),
    "an encoded name": (post(GOOD, path="/predict?%65xplain=true"), 200),
    "a parameter twice": (post(GOOD, path="/predict?explain=true&explain=false"), 200),
    "another separator": (post(GOOD, path="/predict?explain=true;x=1"), 422),
    "thousands of parameters": (post(GOOD, path="/predict?" + "a=1&" * 5_000), 422),
    "half an escape": (post(GOOD, path="/predict?explain=%"), 422),
    "bytes in a header": (with_header(b"X-API-Key: \xff\xfe"), 200),
    "a body with GET": (post(GOOD).replace(b"POST", b"GET", 1), 405),
    "a body with GET where there is one": (post(GOOD, path="/health/live").replace(b"POST", b"GET", 1), 200),
    "text with GET": (post(b"x", path="/docs", headers={"Content-Type": ""}).replace(b"POST", b"GET", 1), 200),
    "an old version": (post(GOOD, version="1.0"), 200),
    "an expectation of nobody": (with_header(b"Expect: 200-ok"), 200),
    "empty lines before": (b"\r\n" * 5 + post(GOOD), 200),
    "minus zero": (post(b'{"load_ratio": -0.0, "restarts": -0}'), 200),
    "too large a number": (post(b'{"load_ratio": 1e400, "restarts": 1}'), 422),
    "too small a number": (post(b'{"load_ratio": 1e-400, "restarts": 1}'), 200),
    "too many digits": (post(b'{"load_ratio": 1, "restarts": ' + b"9" * 5_000 + b"}"), 422),
    "many digits": (post(b'{"load_ratio": 0.' + b"0" * 5_000 + b'1, "restarts": 1}'), 200),
    "a key twice": (post(b'{"load_ratio": 99, "load_ratio": 0.7, "restarts": 1}'), 422),
    "half a surrogate": (post(b'{"load_ratio": 0.7, "restarts": 1, "request_source": "\\ud800"}'), 422),
    "a byte order mark": (post(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()), 422),
    "UTF-16": (post(json.dumps(GOOD).encode("utf-16")), 422),
    "two documents": (post(json.dumps(GOOD).encode() * 2), 422),
    "compressed": (with_header(b"Content-Encoding: gzip"), 415),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_request_is_answered_and_the_connection_goes_on(shared_api: Api, case: str) -> None:
    request, status = ODD[case]
    with connected(shared_api) as connection:
        connection.send(request)
        answer = connection.answer()
        assert answer.status == status
        if status >= 400:
            assert_problem(answer, status)
        if answer.headers.get("connection") != "close":
            connection.send(post(GOOD))
            assert connection.answer().status == 200


def statuses_of(api: Api, request: bytes) -> list[int]:
    """What these bytes are answered until the server waits for more, or has hung up."""
    received = b""
    with connected(api) as connection:
        connection.send(request)
        while select.select([connection.socket], [], [], QUIET_SECONDS)[0]:
            piece = connection.socket.recv(65_536)
            received += piece
            if not piece:
                break
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


REQUESTS = [
    post(GOOD),
    post({"instances": [GOOD, {}]}, path="/predict/batch?explain=true"),
    post({"prediction_id": "0198f0f0-5c1e-7000-8000-0000000000ff", "true_label": 1}, path="/labels"),
    chunked(GOOD),
    offering("h2c"),
    LIVE,
]
changes = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 8),
        st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"\0", b":", b" ", b"%", b"\xff", b"HTTP/1.1"]),
    ),
    min_size=1,
    max_size=3,
)


def test_requests_that_nobody_changed_are_answered(shared_api: Api) -> None:
    """Or the property below would hold of a server that says nothing."""
    eventually(lambda: statuses_of(shared_api, b"".join(REQUESTS)) == [200] * len(REQUESTS), "all are answered in time")


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.sampled_from(REQUESTS), second=st.sampled_from(REQUESTS), changes=changes)
def test_no_bytes_whatever_make_the_service_fail_or_keep_a_client_waiting(
    shared_api: Api, first: bytes, second: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    request = first + second
    for at, n_removed, put in changes:
        request = request[:at] + put + request[at + n_removed :]
    assert all(status < 500 for status in statuses_of(shared_api, request))
    assert shared_api.client.get("/health/live").status_code == 200
