"""How long a client may take, how many may be connected, and that neither disturbs anybody else."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.kit.errors import ConfigurationError
from selfheal.settings import Settings
from serving.security import connection_limits, http_protocol
from serving.security.connection_limits import (
    BODY_TIMEOUT_SECONDS,
    HEAD_TIMEOUT_SECONDS,
    MAX_CONNECTIONS,
    MIN_BODY_BYTES_PER_SECOND,
    MIN_CONNECTIONS,
    RESERVED_DESCRIPTORS,
    IdleSearch,
    ReadingClock,
    WaitingFor,
    connections_for,
)
from tests.serving.blocking import slow_disk
from tests.serving.raw_http import RawConnection, connected, post
from tests.serving.running import Api, api_process
from tests.serving.security.test_http_protocol import assert_problem
from tests.waiting import eventually

GOOD = {"temperature_c": 61.5, "load_ratio": 0.7, "restarts": 1}
ROW = post(GOOD)
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = WaitingFor(is_body=False, after=None)
BODY = WaitingFor(is_body=True, after=None)
SHORT_SECONDS = 0.3


# The rules, without a server


def test_a_head_that_does_not_end_is_overdue_after_its_time() -> None:
    clock = ReadingClock(100.0)
    assert not clock.is_overdue(HEAD, 0, 100.0 + HEAD_TIMEOUT_SECONDS)
    assert clock.is_overdue(HEAD, 0, 100.1 + HEAD_TIMEOUT_SECONDS)


@given(st.lists(st.sampled_from([None, HEAD, BODY]), min_size=1, max_size=40))
def test_only_the_time_that_a_client_is_waited_for_counts(seen: list[WaitingFor | None]) -> None:
    """Checked every 7 s: it is overdue if, and only if, the same part was missing for long enough."""
    clock = ReadingClock(0.0)
    began_at = 0.0
    for n, waiting_for in enumerate(seen):
        now = 7.0 * n
        began_at = now if n and waiting_for != seen[n - 1] else began_at
        limit = BODY_TIMEOUT_SECONDS if waiting_for == BODY else HEAD_TIMEOUT_SECONDS
        assert clock.is_overdue(waiting_for, 0, now) == (waiting_for is not None and now - began_at > limit)


def test_a_body_gets_more_time_for_what_has_arrived() -> None:
    clock = ReadingClock(0.0)
    earlier_bytes = 123_456
    assert not clock.is_overdue(BODY, earlier_bytes, 0.0)
    in_time = BODY_TIMEOUT_SECONDS + 10
    assert not clock.is_overdue(BODY, earlier_bytes + 10 * MIN_BODY_BYTES_PER_SECOND, in_time)
    assert clock.is_overdue(BODY, earlier_bytes + 9 * MIN_BODY_BYTES_PER_SECOND, in_time)


def test_clients_get_the_descriptors_that_the_service_itself_does_not_need() -> None:
    assert connections_for(1_024) == 1_024 - RESERVED_DESCRIPTORS
    assert connections_for(1_000_000) == MAX_CONNECTIONS
    with pytest.raises(ConfigurationError, match=r"may open 100 files.*ulimit -n"):
        connections_for(100)
    assert connections_for(RESERVED_DESCRIPTORS + MIN_CONNECTIONS) == MIN_CONNECTIONS


class Connection:
    """Idle since a moment, or in use; counts how often it is asked."""

    n_asked = 0

    def __init__(self, clock: list[float], idle_since: float | None) -> None:
        self.clock, self.idle_since = clock, idle_since

    def idle_seconds(self) -> float:
        Connection.n_asked += 1
        return 0.0 if self.idle_since is None else self.clock[0] - self.idle_since


def test_the_connections_that_were_idle_for_long_enough_are_found_the_longest_first() -> None:
    clock = [100.0]
    first, second, third = (Connection(clock, since) for since in (90.0, 92.0, 97.0))
    everybody = [second, third, Connection(clock, None), first]
    search = IdleSearch()
    assert search.next(everybody, clock[0], 5.0) is first
    first.idle_since = second.idle_since = None
    assert search.next(everybody, clock[0], 5.0) is None, "the one is being closed, the other in use again"
    clock[0] = 102.0
    assert search.next(everybody, clock[0], 5.0) is third, "as soon as it has been idle for long enough"


def test_to_be_full_costs_a_new_client_no_look_at_every_connection() -> None:
    clock = [100.0]
    everybody = [Connection(clock, None) for _ in range(1_000)]
    everybody[7].idle_since = 99.0
    search = IdleSearch()
    Connection.n_asked = 0
    for _ in range(100):
        assert search.next(everybody, clock[0], 5.0) is None
    assert Connection.n_asked <= 1_000
    for connection in everybody:
        connection.idle_since = 90.0
    clock[0] = 104.0
    Connection.n_asked = 0
    assert all(search.next(everybody, clock[0], 5.0) for _ in range(100))
    assert Connection.n_asked <= 1_000 + 100


# Time


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_TIMEOUT_SECONDS", SHORT_SECONDS)
    monkeypatch.setattr(connection_limits, "BODY_TIMEOUT_SECONDS", SHORT_SECONDS)
    monkeypatch.setattr(http_protocol, "CHECKED_EVERY_SECONDS", SHORT_SECONDS / 10)


def trickle(connection: RawConnection, request: bytes) -> None:
    """Send a byte at a time until the server has had enough."""
    connection.socket.setblocking(True)
    try:
        for byte in request:
            connection.send(bytes([byte]))
            time.sleep(SHORT_SECONDS / 8)
    except (BrokenPipeError, ConnectionResetError):
        pass


@pytest.mark.usefixtures("impatient")
def test_a_client_that_says_nothing_is_not_waited_for(shared_api: Api) -> None:
    with connected(shared_api) as connection:
        assert connection.is_closed()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sent_first", [b"", LIVE], ids=["new", "kept open"])
def test_a_head_that_comes_too_slowly_is_refused(shared_api: Api, sent_first: bytes) -> None:
    with connected(shared_api) as connection:
        if sent_first:
            connection.send(sent_first)
            assert connection.answer().status == 200
        trickle(connection, LIVE[:20])
        assert_problem(connection.answer(), 408)
        assert connection.is_closed()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/labels", "/rollbacks", "/nothing"])
def test_a_body_that_comes_too_slowly_is_refused(shared_api: Api, path: str) -> None:
    """At every endpoint, whether or not it reads a body; what the request itself is answered comes first."""
    head, blank, body = post({"instances": [GOOD]}, path=path).partition(b"\r\n\r\n")
    with connected(shared_api) as connection:
        connection.send(head + blank)
        trickle(connection, body[:20])
        answers = [connection.answer()]
        if answers[0].status == 404:
            answers.append(connection.answer())
        assert_problem(answers[-1], 408)
        assert connection.is_closed()
    assert shared_api.client.get("/health/live").status_code == 200


@pytest.mark.usefixtures("impatient")
def test_a_client_that_asks_again_and_again_is_never_cut_off(shared_api: Api) -> None:
    with connected(shared_api) as connection:
        ends_at = time.monotonic() + 3 * SHORT_SECONDS
        while time.monotonic() < ends_at:
            connection.send(ROW)
            assert connection.answer().status == 200


@pytest.mark.usefixtures("impatient")
def test_the_time_of_the_service_itself_is_not_counted(shared_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the request that waits, nor for the one behind it that is not even read."""
    with connected(shared_api) as connection:
        with slow_disk(monkeypatch) as disk:
            connection.send(ROW + ROW + ROW[:-5])
            disk.wait_for_write()
            time.sleep(3 * SHORT_SECONDS)
        connection.send(ROW[-5:])
        assert [connection.answer().status for _ in range(3)] == [200] * 3


# Number


@pytest.fixture
def three_places(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    """One of the three is the API's own client's."""
    api.client.get("/health/live")
    monkeypatch.setattr(http_protocol, "max_connections", lambda: 3)


def half_a_request(connection: RawConnection) -> None:
    connection.send(ROW[:-5])


@pytest.mark.usefixtures("three_places")
def test_a_new_client_gets_the_place_of_the_one_that_was_idle_longest(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "MIN_IDLE_SECONDS", 0.05)
    with ExitStack() as stack:
        silent = stack.enter_context(connected(api))
        time.sleep(0.02)  # the event loop's clock counts milliseconds
        idle = stack.enter_context(connected(api))
        idle.send(LIVE)
        assert idle.answer().status == 200
        time.sleep(0.1)
        api.client.get("/health/live")
        newest = stack.enter_context(connected(api))
        newest.send(ROW)
        assert newest.answer().status == 200
        assert silent.is_closed()
        idle.send(LIVE)
        assert idle.answer().status == 200


@pytest.mark.usefixtures("three_places")
def test_where_every_place_is_in_use_a_new_client_is_told_so_and_nobody_is_cut_off(api: Api) -> None:
    with ExitStack() as stack:
        busy = [stack.enter_context(connected(api)) for _ in range(2)]
        for connection in busy:
            half_a_request(connection)
        api.client.get("/health/live")
        with connected(api) as newest:
            answer = newest.answer()
            assert_problem(answer, 503)
            assert answer.headers["retry-after"] == "1"
            assert newest.is_closed()
        for connection in busy:
            connection.send(ROW[-5:])
            assert connection.answer().status == 200


def is_let_in(api: Api) -> bool:
    with connected(api) as connection:
        try:
            connection.send(LIVE)
            return connection.answer().status == 200
        except (OSError, ValueError):  # it was refused, and closed before it could be read
            return False


def test_silent_clients_do_not_use_up_the_files_that_a_process_may_open(api_settings: Settings) -> None:
    with (
        api_process(api_settings, max_open_files=256) as (api, process),
        ExitStack() as stack,
    ):
        for _ in range(300):
            stack.enter_context(connected(api))
        assert api.post("/predict", GOOD).status_code == 200
        eventually(lambda: is_let_in(api), "the longest idle ones make room for a new client")
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert f"up to {256 - RESERVED_DESCRIPTORS} clients at once: 256 files may be open" in output
