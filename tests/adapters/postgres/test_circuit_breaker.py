"""The breaker before the connections: shut until it is opened, and never a queue before a server that does not answer."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from selfheal.adapters.postgres.circuit_breaker import CONNECT_TIMEOUT_SECONDS, ConnectionBreaker, breaker_engine
from selfheal.adapters.postgres.embedded import EmbeddedServer


class Clock:
    """`time` of the breaker, which a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("selfheal.adapters.postgres.circuit_breaker.time", made)
    return made


class Driver:
    """A driver whose attempts take as long, and end, as a test says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.fails = True
        self.n_attempts = 0

    def connect(self, *_: Any, **parameters: Any) -> dict[str, Any]:
        self.n_attempts += 1
        self._clock.now += self.seconds
        if self.fails:
            raise psycopg.OperationalError("timed out")
        return parameters


def attempt(breaker: ConnectionBreaker, driver: Any) -> Any:
    return breaker.connect(driver, None, [], {"dbname": "x"})


def test_nothing_passes_before_it_is_opened_nor_after_it_is_shut(clock: Clock) -> None:
    breaker, driver = ConnectionBreaker(), Driver(clock)
    driver.fails = False
    with pytest.raises(psycopg.OperationalError, match="has not been reached yet"):
        attempt(breaker, driver)
    breaker.allow()
    assert attempt(breaker, driver) == {"dbname": "x"}
    breaker.allow(host="/tmp/socket")
    assert attempt(breaker, driver) == {"dbname": "x", "host": "/tmp/socket"}
    breaker.block()
    with pytest.raises(psycopg.OperationalError, match="not ours"):
        attempt(breaker, driver)
    assert driver.n_attempts == 2


def test_after_an_attempt_that_timed_out_there_is_none_for_as_long_as_it_took(clock: Clock) -> None:
    breaker, driver = ConnectionBreaker(), Driver(clock)
    breaker.allow()
    driver.seconds = 5.0
    with pytest.raises(psycopg.OperationalError, match="timed out"):
        attempt(breaker, driver)
    for pause_seconds in (0.0, 4.9):
        clock.now += pause_seconds
        with pytest.raises(psycopg.OperationalError, match="did not answer a moment ago"):
            attempt(breaker, driver)
    clock.now += 0.2
    driver.fails = False
    assert attempt(breaker, driver)
    assert attempt(breaker, driver)
    assert driver.n_attempts == 3


def test_a_connection_that_was_refused_at_once_may_be_tried_again_at_once(clock: Clock) -> None:
    breaker, driver = ConnectionBreaker(), Driver(clock)
    breaker.allow()
    for _ in range(5):
        with pytest.raises(psycopg.OperationalError, match="timed out"):
            attempt(breaker, driver)
        clock.now += 0.001
    assert driver.n_attempts == 5


@pytest.mark.usefixtures("clock")  # else the first attempt takes as long as a busy machine makes it take
def test_while_one_caller_tries_again_the_others_are_told_no_at_once() -> None:
    breaker = ConnectionBreaker()
    breaker.allow()
    is_trying, may_end = threading.Event(), threading.Event()

    class Slow:
        n_attempts = 0

        def connect(self, *_: Any, **__: Any) -> None:
            self.n_attempts += 1
            if self.n_attempts > 1:
                is_trying.set()
                may_end.wait(CONNECT_TIMEOUT_SECONDS)
            raise psycopg.OperationalError("timed out")

    driver = Slow()
    with pytest.raises(psycopg.OperationalError, match="timed out"):
        attempt(breaker, driver)

    def try_again() -> None:
        with pytest.raises(psycopg.OperationalError, match="timed out"):
            attempt(breaker, driver)

    other = threading.Thread(target=try_again)
    other.start()
    assert is_trying.wait(CONNECT_TIMEOUT_SECONDS)
    with pytest.raises(psycopg.OperationalError, match="a moment ago"):
        attempt(breaker, driver)
    may_end.set()
    other.join()
    assert driver.n_attempts == 2


def test_an_engine_behind_the_gate_reports_it_as_any_outage_and_works_once_it_is_allowed(
    server: EmbeddedServer,
) -> None:
    breaker = ConnectionBreaker()
    engine = breaker_engine("postgresql+psycopg://postgres@/postgres", breaker)
    with pytest.raises(OperationalError, match="has not been reached yet"), engine.connect():
        pass
    breaker.allow(host=str(server.socket_dir))
    with engine.connect() as connection:
        assert connection.execute(text("SHOW timezone")).scalar() == "UTC"
    engine.dispose()
