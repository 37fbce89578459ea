"""The WebSocket `/live`: what happens is told as it happens, to those who may listen, and nobody waits for a slow reader."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from jsonschema_rs import validator_for
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.domain.records import Action, Verdict
from serving.observability import live as live_module
from serving.observability.live import MAX_EVENTS, MAX_QUEUED_MESSAGES, Listener, Live
from serving.routes.live import POLICY_VIOLATION, TRY_AGAIN_LATER
from tests import builders
from tests.candidates import put_live
from tests.conftest import TEMPLATE
from tests.serving.conftest import clone
from tests.serving.history import ADA, READER, SCORER, add_decision, add_tick, add_version, alert, platform_of
from tests.serving.running import Api, api_in_thread, bodies
from tests.waiting import TIMEOUT_SECONDS, eventually

Message = dict[str, Any]

CLOSE_FRAME = 8
"""The opcode of RFC 6455."""


def address_of(api: Api) -> tuple[str, int]:
    host, port = api.client.base_url.host, api.client.base_url.port
    assert port is not None
    return host, port


@contextmanager
def listening(api: Api, **options: Any) -> Iterator[ClientConnection]:
    host, port = address_of(api)
    url = f"ws://{host}:{port}/live"
    with connect(url, proxy=None, open_timeout=TIMEOUT_SECONDS, compression=None, **options) as connection:
        yield connection


def next_message(connection: ClientConnection, wanted: Callable[[Message], Any] = lambda _: True) -> Message:
    """The next message that is wanted; those before it are passed over."""

    def observe() -> Message | None:
        message: Message = json.loads(connection.recv(timeout=TIMEOUT_SECONDS))
        return message if wanted(message) else None

    found: Message = eventually(observe, "the message comes")
    return found


def of_type(kind: str) -> Callable[[Message], bool]:
    return lambda message: message["type"] == kind


def n_listeners(api: Api) -> int:
    assert api.app is not None
    n: int = api.app.state.service.live.n_listeners
    return n


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "INTERVAL_SECONDS", 0.1)


@pytest.fixture(scope="module")
def live_api(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """One API for the tests that mind nobody's past but do more than ask."""
    data_dir = tmp_path_factory.mktemp("live_api") / "data"
    with api_in_thread(clone(server, TEMPLATE, bootstrapped_template, "live_api", data_dir)) as running:
        yield running


@pytest.fixture
def quiet_api(live_api: Api) -> Api:
    """The same, once nobody listens any more."""
    eventually(lambda: n_listeners(live_api) == 0, "the listeners of the test before have left")
    return live_api


# What is told


def test_a_snapshot_tells_what_answers_how_often_and_what_is_known_of_it(api: Api) -> None:
    with listening(api) as connection:
        first = next_message(connection)
        assert first["type"] == "snapshot"
        assert (first["serving_version"], first["production_version"], first["n_open_alerts"]) == (1, 1, 0)
        assert first["predictions_per_second"] is None, "one count is no rate"
        assert first["verdict"] is first["feature_drift_ratio"] is first["tick_at"] is first["problem"] is None
        idle = next_message(connection)
        assert idle["predictions_per_second"] == 0.0
        assert idle["latency_p50_ms"] is idle["latency_p99_ms"] is None, "nothing was asked: no latency, not 0"
        assert api.post("/predict/batch", {"instances": bodies(200)}).status_code == 200
        busy = next_message(connection)
        since = datetime.fromisoformat(busy["at"]) - datetime.fromisoformat(idle["at"])
        assert busy["predictions_per_second"] * since.total_seconds() == pytest.approx(200, rel=0.2)
        assert 0 < busy["latency_p50_ms"] <= busy["latency_p99_ms"]
        with platform_of(api.settings) as platform:
            add_tick(platform, datetime.now(UTC), alerts=[alert("dataset_drift")])
        seen = next_message(connection, lambda m: m.get("tick_at") and m["n_open_alerts"])
        assert (seen["verdict"], seen["feature_drift_ratio"], seen["n_open_alerts"]) == ("harmful_shift", 0.5, 1)


def test_events_are_told_as_they_happen_once_and_as_documented(api: Api) -> None:
    now = datetime.now(UTC)
    with platform_of(api.settings) as platform:
        add_tick(platform, now - timedelta(hours=1), alerts=[alert("feature_drift")])
        add_decision(platform, "before", Action.SKIP)
        with listening(api) as connection:
            told = [next_message(connection)]
            add_tick(platform, now, alerts=[alert("feature_drift"), alert("harmful_shift")])
            told.append(next_message(connection, of_type("alert_opened")))
            add_decision(platform, "meanwhile", Action.PROMOTE)
            told.append(next_message(connection, of_type("decision")))
            add_version(platform, 2)
            put_live(platform.store, 2, 1, now)
            told.append(next_message(connection, of_type("promotion")))
            add_tick(platform, now + timedelta(minutes=1), model_version=2, verdict=Verdict.STABLE)
            told += [
                next_message(connection, of_type(kind)) for kind in ("verdict", "alert_resolved", "alert_resolved")
            ]
            told.append(next_message(connection))
    snapshot, opened, decision, promotion, verdict, first, second, last = told
    assert snapshot["type"] == last["type"] == "snapshot", "what is told is told once"
    assert opened["alert"]["kind"] == "harmful_shift"
    assert (decision["decision"]["decision_id"], decision["decision"]["action"]) == ("meanwhile", "promote")
    assert (promotion["version"]["model_version"], promotion["version"]["previous_version"]) == (2, 1)
    assert (verdict["tick"]["model_version"], verdict["tick"]["verdict"]) == (2, "stable")
    assert {first["alert"]["kind"], second["alert"]["kind"]} == {"feature_drift", "harmful_shift"}
    assert first["alert"]["resolved_by"] == "monitoring"
    assert (last["production_version"], last["serving_version"]) == (2, 1), "version 2 has no file to load"
    schema = api.client.get("/live/schema").json()
    validator = validator_for(schema)
    for message in told:
        validator.validate(message)
    assert not validator.is_valid(snapshot | {"type": "other"})


def test_what_happened_while_nobody_listened_is_not_told_later(quiet_api: Api) -> None:
    with listening(quiet_api) as connection:
        next_message(connection)
    eventually(lambda: n_listeners(quiet_api) == 0, "the service has seen the listener leave")
    with platform_of(quiet_api.settings) as platform:
        add_decision(platform, "missed", Action.SKIP)
        with listening(quiet_api) as connection:
            assert next_message(connection)["type"] == "snapshot"
            add_decision(platform, "heard", Action.SKIP)
            heard = next_message(connection, of_type("decision"))
            assert heard["decision"]["decision_id"] == "heard"


def test_while_postgres_hangs_snapshots_go_on_and_say_what_is_unknown(quiet_api: Api) -> None:
    url = quiet_api.settings.external_database_url(quiet_api.settings.mlops_db_name)
    with listening(quiet_api) as connection:
        assert next_message(connection)["problem"] is None
        with psycopg.connect(url) as locking:
            locking.execute("LOCK TABLE monitoring_alerts IN ACCESS EXCLUSIVE MODE")
            unknown = next_message(connection, lambda m: m["problem"])
            assert "Postgres did not respond" in unknown["problem"]
            for name in ("production_version", "verdict", "feature_drift_ratio", "n_open_alerts"):
                assert unknown[name] is None
            assert unknown["serving_version"] == 1
            assert unknown["predictions_per_second"] == 0.0
        assert next_message(connection, lambda m: m["problem"] is None)["production_version"] == 1


def test_postgres_is_asked_only_while_somebody_listens() -> None:
    class Counting:
        n_asked = 0

        async def run(self, *_: Any, **__: Any) -> None:
            self.n_asked += 1
            raise asyncio.CancelledError

    async def run(is_heard: bool) -> int:
        read_pool = Counting()
        feed = Live(None, None, read_pool)  # type: ignore[arg-type]  # it comes to ask, or not, before it needs them
        listener = feed.join()
        assert listener is not None
        if not is_heard:
            feed.leave(listener)
        await asyncio.wait([asyncio.create_task(feed.run())], timeout=0.05)
        return read_pool.n_asked

    assert asyncio.run(run(is_heard=True)) == 1
    assert asyncio.run(run(is_heard=False)) == 0


# Who may listen


def refusal_of(api: Api, **options: Any) -> tuple[int, Message]:
    with pytest.raises(InvalidStatus) as caught, listening(api, **options):
        pass
    response = caught.value.response
    assert response.headers["content-type"] == "application/problem+json"
    problem: Message = json.loads(response.body or b"")
    return response.status_code, problem


def with_key(key: str) -> dict[str, Any]:
    return {"subprotocols": ["selfheal", f"selfheal.key.{key}"]}


@pytest.mark.parametrize(
    ("options", "subprotocol"),
    [
        ({"additional_headers": {"X-API-Key": READER}}, None),
        ({"additional_headers": {"Authorization": f"Bearer {ADA}"}}, None),
        (with_key(READER), "selfheal"),
        (with_key(READER) | {"origin": "https://dashboard.example"}, "selfheal"),
    ],
    ids=["header", "bearer", "subprotocol", "subprotocol of a page elsewhere"],
)
def test_a_key_that_may_read_may_listen_and_is_not_echoed(
    watched_api: Api, options: dict[str, Any], subprotocol: str | None
) -> None:
    with listening(watched_api, **options) as connection:
        assert connection.subprotocol == subprotocol
        assert connection.response is not None
        assert not [value for value in connection.response.headers.values() if ADA in value or READER in value]
        assert next_message(connection)["type"] == "snapshot"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 401),
        ({"subprotocols": ["selfheal"]}, 401),
        ({"additional_headers": {"X-API-Key": "wrong"}}, 401),
        (with_key("wrong"), 401),
        ({"additional_headers": {"X-API-Key": SCORER}}, 403),
        (with_key(SCORER), 403),
    ],
    ids=["no key", "only the protocol", "wrong header", "wrong subprotocol", "scorer's header", "scorer's subprotocol"],
)
def test_without_a_key_that_may_read_there_is_no_connection(
    watched_api: Api, options: dict[str, Any], status: int
) -> None:
    found, problem = refusal_of(watched_api, **options)
    assert found == problem["status"] == status
    assert n_listeners(watched_api) == 0


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "http://localhost.evil.example", "null", "http://[", ""]
)
def test_without_keys_a_page_of_another_origin_may_not_listen(shared_api: Api, origin: str) -> None:
    status, problem = refusal_of(shared_api, additional_headers={"Origin": origin})
    assert (status, problem["type"]) == (403, "foreign_origin")


def test_without_keys_a_page_whose_name_was_made_to_resolve_here_may_not_listen(shared_api: Api) -> None:
    _, port = address_of(shared_api)
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        host = f"{name}:{port}"
        answer = handshake(shared_api, host=host, origin=f"http://{host}")
        assert answer.startswith(b"HTTP/1.1 403"), name
        assert b"foreign_host" in answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_without_keys_a_page_of_this_host_may_listen(shared_api: Api, host: str) -> None:
    _, port = address_of(shared_api)
    authority = f"{host}:{port}"
    assert handshake(shared_api, host=authority, origin=f"http://{authority}").startswith(b"HTTP/1.1 101")


# Listeners that behave differently


def opened_socket(api: Api, host: str, origin: str | None = None) -> tuple[socket.socket, bytes]:
    """A raw connection after its handshake, with a small receive buffer, and what the server answered."""
    connection = socket.socket()
    connection.settimeout(TIMEOUT_SECONDS)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect(address_of(api))
    key = base64.b64encode(os.urandom(16)).decode()
    lines = ["GET /live HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    lines += [] if origin is None else [f"Origin: {origin}"]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(1)
        assert piece, answer
        answer += piece
    return connection, answer


def handshake(api: Api, host: str, origin: str) -> bytes:
    """All that the server answers, and then the connection is closed."""
    connection, answer = opened_socket(api, host, origin)
    with closing(connection):
        while b" 403" in answer.partition(b"\r\n")[0] and (piece := connection.recv(65_536)):
            answer += piece
    return answer


def read_until_closed(connection: socket.socket) -> tuple[int, int, bytes]:
    """How many bytes came before the server's close frame, and its code and reason."""
    n_bytes = 0
    with connection.makefile("rb") as stream:
        while True:
            first, second = stream.read(2)
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(stream.read(2 if length == 126 else 8))
            payload = stream.read(length)
            assert len(payload) == length, "the stream ended without a close frame"
            if first & 0x0F == CLOSE_FRAME:
                return n_bytes, int.from_bytes(payload[:2]), payload[2:]
            n_bytes += length


def test_a_slow_reader_is_dropped_and_told_why_while_others_go_on(
    quiet_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never reads while 12 MB are sent: the server keeps what fits its bounds and lets go of the listener."""
    monkeypatch.setattr(live_module, "MAX_QUEUED_MESSAGES", 8)
    monkeypatch.setattr(live_module, "INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr("serving.routes.live.CLOSE_TIMEOUT_SECONDS", TIMEOUT_SECONDS)  # this test reads when it is done
    n_batches, batch, reason = 8, 3, "x" * 500_000
    host, port = address_of(quiet_api)
    slow, answer = opened_socket(quiet_api, f"{host}:{port}")
    assert answer.startswith(b"HTTP/1.1 101")
    with closing(slow), platform_of(quiet_api.settings) as platform, listening(quiet_api) as good:
        next_message(good)
        assert n_listeners(quiet_api) == 2
        for number in range(n_batches):
            for position in range(batch):
                decisions.append(platform.store, builders.decision(decision_id=f"{number}-{position}", reason=reason))
            last = f"{number}-{batch - 1}"
            next_message(good, lambda m, last=last: m["type"] == "decision" and m["decision"]["decision_id"] == last)
        eventually(lambda: n_listeners(quiet_api) == 1, "the slow reader is dropped")
        next_message(good, of_type("snapshot"))
        n_bytes, code, why = read_until_closed(slow)
    assert n_bytes < n_batches * batch * len(reason) / 2, "most of it was not kept for the slow reader"
    assert code == TRY_AGAIN_LATER
    assert b"too slowly" in why


def test_a_reader_that_never_reads_again_is_not_waited_for(quiet_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.routes.live.CLOSE_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(live_module, "MAX_QUEUED_MESSAGES", 12)
    host, port = address_of(quiet_api)
    stalled, _ = opened_socket(quiet_api, f"{host}:{port}")
    with closing(stalled), platform_of(quiet_api.settings) as platform:
        eventually(lambda: n_listeners(quiet_api) == 1, "it listens")
        for number in range(25):
            decisions.append(platform.store, builders.decision(decision_id=f"stalled-{number}", reason="x" * 900_000))
        eventually(lambda: n_listeners(quiet_api) == 0, "it is dropped")
        with listening(quiet_api) as good:
            assert next_message(good)["type"] == "snapshot"


def test_a_listeners_queue_holds_all_that_one_look_may_tell_and_no_more_than_its_bound() -> None:
    listener = Listener()
    for n_told in range(MAX_QUEUED_MESSAGES):
        listener.offer(str(n_told))
        assert not listener.is_too_slow.is_set()
    assert MAX_QUEUED_MESSAGES >= 2 * MAX_EVENTS + 2 * MAX_EVENTS, "decisions, and alerts both opened and resolved"
    for _ in range(1_000):
        listener.offer("more")
    assert listener.is_too_slow.is_set()
    assert asyncio.run(listener.next_message()) == "0"


def test_listeners_are_bounded_and_whoever_leaves_makes_room(quiet_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_LISTENERS", 2)
    with listening(quiet_api) as one, listening(quiet_api) as two:
        assert {next_message(one)["type"], next_message(two)["type"]} == {"snapshot"}
        with listening(quiet_api) as three, pytest.raises(ConnectionClosed) as refused:
            three.recv(timeout=TIMEOUT_SECONDS)
        assert refused.value.rcvd is not None
        assert (refused.value.rcvd.code, "try again later" in refused.value.rcvd.reason) == (TRY_AGAIN_LATER, True)
        two.close()
        eventually(lambda: n_listeners(quiet_api) == 1, "the service has seen one leave")
        with listening(quiet_api) as four:
            assert next_message(four)["type"] == "snapshot"


def test_a_listener_that_speaks_is_sent_away(quiet_api: Api) -> None:
    with listening(quiet_api) as connection:
        connection.send("hello")
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(10):
                connection.recv(timeout=TIMEOUT_SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == POLICY_VIOLATION
    eventually(lambda: n_listeners(quiet_api) == 0, "it no longer counts")
