"""The shortcut of `serving.scoring.http_fast_path` gives what uvicorn's own way gives, whatever a client sends and however it behaves."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.settings import Settings
from serving.scoring.fast_path import FastPath
from serving.scoring.http_fast_path import MAX_BODY_BYTES, FastPathProtocol
from serving.security.http_protocol import StrictHttpProtocol
from tests.conftest import TEMPLATE
from tests.serving.blocking import scorer_of, slow_disk, wait_for_rows
from tests.serving.conftest import clone
from tests.serving.history import ADA, API_KEYS, READER
from tests.serving.raw_http import RawAnswer, chunked, connected, post
from tests.serving.running import Api, api_in_thread, journal_rows
from tests.waiting import eventually

WAYS: dict[str, Any] = {"shortcut": FastPathProtocol, "plain": StrictHttpProtocol}
GOOD = {"temperature_c": 71.5, "load_ratio": 0.9, "restarts": 2}
KEY = {"X-API-Key": ADA}
NEW_EACH_TIME = ("date", "prediction_id")


@pytest.fixture(scope="module")
def ways(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Api]]:
    """The same platform served both ways, each asking for keys."""
    with ExitStack() as stack:
        running: dict[str, Api] = {}
        for name, http in WAYS.items():
            data_dir = tmp_path_factory.mktemp(name) / "data"
            settings = clone(server, TEMPLATE, bootstrapped_template, f"way_{name}", data_dir)
            with_keys = settings.model_copy(update={"api_keys": SecretStr(API_KEYS), "journal_fsync": "off"})
            running[name] = stack.enter_context(api_in_thread(with_keys, http=http))
            running[name].client.headers.update(KEY)
        yield running


@pytest.fixture(params=WAYS)
def either(request: pytest.FixtureRequest, ways: dict[str, Api]) -> Api:
    return ways[request.param]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    """For a test that starts an API of its own: uvicorn's `http` option."""
    return WAYS[request.param]


def scored(body: Any, **options: Any) -> bytes:
    return post(body, headers=KEY | options.pop("headers", {}), **options)


# The same answers

SAME: dict[str, tuple[bytes, int]] = {
    "a good row": (scored(GOOD), 200),
    "hyphens": (scored({"Temp-C": 71.5, "load-ratio": 0.9, "restarts": 2.0}), 200),
    "underscores": (scored({"Temp_C": 71.5, "load_ratio": 0.9, "restarts": 2}), 200),
    "a source": (scored(GOOD | {"request_source": "press-7"}), 200),
    "an id": (scored(GOOD | {"prediction_id": "0198f0f0-5c1e-7000-8000-000000000001"}), 200),
    "an explanation": (scored(GOOD | {"explain": True}), 200),
    "an explanation by the query": (scored(GOOD, path="/predict?explain=true"), 200),
    "an unknown field": (scored(GOOD | {"colour": "red"}), 422),
    "a wrong type": (scored(GOOD | {"restarts": "three"}), 422),
    "out of bounds": (scored(GOOD | {"load_ratio": 99.0}), 422),
    "no row": (scored([GOOD]), 422),
    "no JSON": (scored(b'{"load_ratio": NaN'), 422),
    "no UTF-8": (scored(b'{"request_source": "\xff"}'), 422),
    "no body": (scored(b""), 422),
    "no length": (scored(b"", headers={"Content-Length": ""}), 422),
    "an unknown parameter": (scored(GOOD, path="/predict?colour=red"), 422),
    "no key": (post(GOOD), 401),
    "a wrong key": (post(GOOD, headers={"X-API-Key": "not-a-key-of-ours-at-all"}), 401),
    "a key without the scope": (post(GOOD, headers={"X-API-Key": READER}), 403),
    "a bearer token": (post(GOOD, headers={"Authorization": f"Bearer {ADA}"}), 200),
    "a wrong key before a wrong body": (post({"colour": "red"}, headers={"X-API-Key": "wrong"}), 401),
    "text": (scored(GOOD, headers={"Content-Type": "text/plain"}), 415),
    "no type": (scored(GOOD, headers={"Content-Type": ""}), 415),
    "gzip": (scored(GOOD, headers={"Content-Encoding": "gzip"}), 415),
    "the largest body of the shortcut": (scored(b" " * (MAX_BODY_BYTES - 2) + b"{}"), 422),
    "too large for the shortcut": (scored(b" " * MAX_BODY_BYTES + b'{"load_ratio": 0.9, "restarts": 2}'), 200),
    "chunks": (chunked(GOOD, headers=KEY), 200),
    "chunks of no row": (chunked({"colour": "red"}, headers=KEY), 422),
    "an old version": (scored(GOOD, version="1.0"), 200),
    "an old version, refused": (scored({}, version="1.0"), 422),
    "the last request": (scored(GOOD, headers={"Connection": "close"}), 200),
    "the last request, refused": (scored({}, headers={"Connection": "close"}), 422),
    "an old version that goes on": (scored(GOOD, version="1.0", headers={"Connection": "keep-alive"}), 200),
    "an encoded path": (scored(GOOD, path="/%70redict"), 200),
    "a path with a slash": (scored(GOOD, path="/predict/"), 307),
    "a GET": (scored(GOOD).replace(b"POST", b"GET", 1), 405),
    "an upgrade": (scored(b"", headers={"Connection": "upgrade", "Upgrade": "h2c"}), 422),
}


def comparable(answer: RawAnswer) -> tuple[int, dict[str, str], Any]:
    """All of an answer that is not new each time."""
    headers = {name: value for name, value in answer.headers.items() if name not in NEW_EACH_TIME}
    if not answer.body:
        return answer.status, headers, None
    body = answer.json()
    return answer.status, headers, {name: value for name, value in body.items() if name not in NEW_EACH_TIME}


@pytest.mark.parametrize("case", SAME)
def test_both_ways_give_the_same_answer_and_leave_the_connection_the_same(ways: dict[str, Api], case: str) -> None:
    request, status = SAME[case]
    seen = []
    for api in ways.values():
        with connected(api) as connection:
            connection.send(request)
            answer = connection.answer()
            is_last = answer.headers.get("connection") == "close"
            if is_last:
                assert connection.is_closed()
            else:
                connection.send(scored(GOOD))
                assert connection.answer().status == 200
            seen.append((comparable(answer), is_last))
    assert seen[0] == seen[1]
    assert seen[0][0][0] == status


def n_shortcuts(api: Api, request: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many requests go all the way through the shortcut while this one is answered."""
    taken: list[bytes] = []
    submit = FastPath.submit

    def watched(fast_path: FastPath, scope: Any, body: bytes) -> Any:
        answers = submit(fast_path, scope, body)
        taken.extend([body] * (answers is not None))
        return answers

    with monkeypatch.context() as patched, connected(api) as connection:
        patched.setattr(FastPath, "submit", watched)
        connection.send(request)
        assert connection.answer().status == 200
    return len(taken)


def test_the_usual_request_takes_the_shortcut_and_every_other_kind_goes_round(
    ways: dict[str, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the comparison above would compare uvicorn with itself."""
    usual = {
        "a good row",
        "hyphens",
        "underscores",
        "a source",
        "a bearer token",
        "an old version",
        "the last request",
        "an old version that goes on",
        "an encoded path",
    }
    answered = {case: request for case, (request, status) in SAME.items() if status == 200}
    for name, api in ways.items():
        took = {case for case, request in answered.items() if n_shortcuts(api, request, monkeypatch)}
        assert took == (usual if name == "shortcut" else set())


def test_a_client_that_asks_first_is_told_to_go_on(either: Api) -> None:
    request = scored(GOOD, headers={"Expect": "100-continue"})
    with connected(either) as connection:
        head, _, body = request.partition(b"\r\n\r\n")
        connection.send(head + b"\r\n\r\n")
        assert connection.answer().status == 100
        connection.send(body)
        assert connection.answer().status == 200


def test_a_body_may_come_in_pieces(either: Api) -> None:
    with connected(either) as connection:
        request = scored(GOOD | {"restarts": 7})
        head_length = request.index(b"\r\n\r\n") + 4
        cuts = [10, head_length - 2, head_length, head_length + 1, len(request) - 1, len(request)]
        for start, end in zip([0, *cuts], cuts, strict=False):
            connection.send(request[start:end])
            assert either.client.get("/health/live").status_code == 200, "the server has read what was sent by now"
        assert connection.answer().status == 200


def test_requests_in_one_send_are_answered_in_order(either: Api) -> None:
    """Of all kinds: usual ones, refused ones, ones that go round, ones of which the end comes later."""
    refused = scored({"colour": "red"})
    kinds = [
        (scored(GOOD | {"request_source": "first"}), 200),
        (refused, 422),
        (scored(GOOD | {"prediction_id": "0198f0f0-5c1e-7000-8000-000000000002"}), 200),
        (post(GOOD), 401),
        (chunked(GOOD, headers=KEY), 200),
        (scored(GOOD, path="/predict/batch"), 422),
        (scored(GOOD | {"load_ratio": 0.1}), 200),
        (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (scored(GOOD), 200),
    ] * 5
    with connected(either) as connection:
        everything = b"".join(request for request, _ in kinds)
        connection.send(everything[:-20])
        answers = [connection.answer() for _ in kinds[:-1]]
        connection.send(everything[-20:])
        answers.append(connection.answer())
        connection.send(scored(GOOD, headers={"Connection": "close"}) + scored(GOOD))
        assert connection.answer().status == 200
        assert connection.is_closed(), "nothing is answered after the last request"
    assert [answer.status for answer in answers] == [status for _, status in kinds]
    assert answers[2].json()["prediction_id"].endswith("02")
    assert answers[6].json()["probability"] < answers[8].json()["probability"]


def test_what_follows_a_request_and_is_no_http_spoils_the_connection_only(either: Api) -> None:
    with connected(either) as connection:
        connection.send(scored(GOOD) + b"\x00\x01 rubbish\r\n\r\n")
        assert connection.answer().status in {200, 400}
        assert connection.is_closed() or connection.answer().status == 400
    assert either.post("/predict", GOOD).status_code == 200


# Clients and servers that leave


@pytest.mark.parametrize("n_pipelined", [1, 3])
def test_a_client_that_leaves_before_its_answer_breaks_nothing_and_its_row_is_logged(
    api_settings: Settings,
    way: Any,
    n_pipelined: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with api_in_thread(api_settings, http=way) as api:
        with slow_disk(monkeypatch) as disk:
            with connected(api) as connection:
                connection.send(post(GOOD) * n_pipelined)
                disk.wait_for_write()
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
            assert api.client.get("/health/live").status_code == 200, "the server has seen it leave by now"
        answer = api.post("/predict", GOOD | {"request_source": "next"})
        assert answer.status_code == 200
        sources = [row["request_source"] for row in journal_rows(api.settings)]
        assert sources[0] == "api"
        assert "next" in sources
        assert api.health()["status"] == "ok"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    api_settings: Settings, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_in_thread(api_settings, http=way, timeout_keep_alive=0.1) as api, connected(api) as busy:
        busy.send(post(GOOD))
        assert busy.answer().status == 200
        with slow_disk(monkeypatch) as disk:
            busy.send(post(GOOD))
            disk.wait_for_write()
            with connected(api) as idle:
                idle.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert idle.answer().status == 200
                assert idle.is_closed()
        assert busy.answer().status == 200
        assert busy.is_closed()


def test_a_stop_answers_what_waits_first(api_settings: Settings, way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(1) as beside:
        running = ExitStack()
        api = running.enter_context(api_in_thread(api_settings, http=way))
        waiting = [stack.enter_context(connected(api)) for _ in range(5)]
        with slow_disk(monkeypatch) as disk:
            for connection in waiting:
                connection.send(post(GOOD))
            disk.wait_for_write()
            wait_for_rows(api, len(waiting))
            stopped = beside.submit(running.close)
            eventually(lambda: is_refused(api), "no new connection is taken")
            disk.release()
            answers = [connection.answer() for connection in waiting]
            stopped.result()
        assert [answer.status for answer in answers] == [200] * len(waiting)
        assert all(connection.is_closed() for connection in waiting)
        assert {answer.json()["prediction_id"] for answer in answers} == {
            row["prediction_id"] for row in journal_rows(api_settings)
        }


def test_a_stop_refuses_what_it_has_no_time_for(
    api_settings: Settings, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(1) as beside:
        running = ExitStack()
        api = running.enter_context(api_in_thread(api_settings, http=way, timeout_graceful_shutdown=0.2))
        waiting = [stack.enter_context(connected(api)) for _ in range(5)]
        with slow_disk(monkeypatch) as disk:
            for connection in waiting:
                connection.send(post(GOOD))
            disk.wait_for_write()
            wait_for_rows(api, len(waiting))
            stopped = beside.submit(running.close)
            eventually(lambda: scorer_of(api).n_waiting_rows == 0, "what waits is given up")
            disk.release()
            statuses = {connection.answer().status for connection in waiting}
            stopped.result()
        assert statuses <= {500, 503}


def is_refused(api: Api) -> bool:
    url = api.client.base_url
    try:
        socket.create_connection((url.host, url.port or 80)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_client_that_does_not_read_is_waited_for_and_not_buffered_for(
    ways: dict[str, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_requests, small = 600, 4_096
    sizes: list[int] = []
    made, wrote = FastPathProtocol.connection_made, FastPathProtocol._write

    def with_small_buffers(protocol: FastPathProtocol, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, small)
        transport.set_write_buffer_limits(high=small)
        made(protocol, transport)

    def measured(protocol: FastPathProtocol, cycle: Any, body: bytes) -> None:
        wrote(protocol, cycle, body)
        sizes.append(protocol.transport.get_write_buffer_size())

    monkeypatch.setattr(FastPathProtocol, "connection_made", with_small_buffers)
    monkeypatch.setattr(FastPathProtocol, "_write", measured)
    api = ways["shortcut"]
    with connected(api, receive_buffer_bytes=small) as connection, ThreadPoolExecutor(1) as beside:
        n_before = scorer_of(api).n_acknowledged
        sent = beside.submit(connection.send, scored(GOOD) * n_requests)
        wait_while_growing(sizes)
        answers = [connection.answer().status for _ in range(n_requests)]
        sent.result()
    assert answers == [200] * n_requests
    assert scorer_of(api).n_acknowledged == n_before + n_requests
    assert max(sizes) < 3 * small


def wait_while_growing(seen: list[int]) -> None:
    """Until nothing has come for a while: it stands still, or all is done."""
    lengths: list[int] = []
    eventually(
        lambda: lengths.append(len(seen)) or (lengths[-1] > 0 and len(set(lengths[-10:])) == 1), "it stands still"
    )
