"""Listening: whatever may have changed ends the wait, and a line that was cut is made again."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import psycopg
import pytest

from selfheal.adapters.postgres.circuit_breaker import accepts_changes
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.notifications import Listener

LONG = 60.0
"""Seconds; a wait that takes them is a failed test, which pytest's own time-out ends."""


@pytest.fixture
def other(server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def listener(server: EmbeddedServer) -> Iterator[Listener]:
    made = Listener(lambda: server.url("postgres"), "test_channel")
    yield made
    made.close()


def cut(other: psycopg.Connection) -> None:
    other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test_channel listener'"
    )


def test_a_new_line_ends_the_wait_since_nothing_was_heard_before(listener: Listener) -> None:
    assert not listener.is_connected
    assert listener.wait(LONG)
    assert listener.is_connected
    assert not listener.wait(0.0), "nothing has happened since"


def test_a_notification_ends_the_wait_and_several_end_it_once(listener: Listener, other: psycopg.Connection) -> None:
    listener.wait(LONG)
    with other.transaction():
        for payload in ("1", "2", "3"):
            other.execute("SELECT pg_notify('test_channel', %s)", (payload,))
    assert listener.wait(LONG)
    assert not listener.wait(0.0)


def test_a_notification_that_comes_during_a_query_of_ours_ends_the_next_wait(
    listener: Listener, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query that asks after each wait whether the server still accepts changes reads what has come as well."""
    listener.wait(LONG)

    def accepts_changes_while_notified(connection: psycopg.Connection) -> bool:
        other.execute("NOTIFY test_channel")
        assert select.select([connection.fileno()], [], [], LONG)[0], "it has come"
        return accepts_changes(connection)

    monkeypatch.setattr("selfheal.adapters.postgres.notifications.accepts_changes", accepts_changes_while_notified)
    assert listener.wait(0.0)
    monkeypatch.undo()
    assert not listener.wait(0.0), "it was one"


def test_a_line_that_is_cut_ends_the_wait_and_so_does_the_next_one(
    listener: Listener, other: psycopg.Connection
) -> None:
    listener.wait(LONG)
    cut(other)
    while listener.is_connected:
        assert listener.wait(LONG), "first comes the server's farewell, then the end"
    other.execute("NOTIFY test_channel")  # unheard
    while not listener.is_connected:
        has_changed = listener.wait(LONG)
    assert has_changed, "what ended the wait is the new line"
    other.execute("NOTIFY test_channel")
    assert listener.wait(LONG)


def test_a_wait_can_be_ended_by_another_thread_before_or_while_it_lasts(listener: Listener) -> None:
    listener.wait(LONG)
    listener.wake()
    assert not listener.wait(LONG)
    waker = threading.Timer(0.05, listener.wake)
    waker.start()
    assert not listener.wait(LONG)
    waker.join()


def test_where_nobody_answers_the_attempts_become_rarer_and_are_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1_000.0
    monkeypatch.setattr("selfheal.adapters.postgres.notifications.time", SimpleNamespace(monotonic=lambda: now))
    attempts = []

    def nowhere() -> str:
        attempts.append(now - 1_000.0)
        return "postgresql://postgres@127.0.0.1:9/x"

    listener = Listener(nowhere, "test_channel")
    for _ in range(1_000):
        assert not listener.wait(0.0)
        now += 0.1
    listener.close()
    assert attempts == pytest.approx([0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5], abs=0.11 * 9)
    assert caplog.text.count("LISTEN test_channel failed") == 1


def test_who_knows_that_postgres_is_back_need_not_wait_for_the_next_attempt(server: EmbeddedServer) -> None:
    urls = iter(["postgresql://postgres@127.0.0.1:9/x"] * 2)
    listener = Listener(lambda: next(urls, server.url("postgres")), "test_channel")
    for _ in range(2):
        listener.retry_at_once()
        assert not listener.wait(0.0)
    listener.retry_at_once()
    assert listener.wait(0.0)
    listener.close()
