"""A periodic thread: it goes on through errors, stops without finishing its pause, and does its last work once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from selfheal.kit.periodic_thread import PeriodicThread

TIMEOUT_SECONDS = 30.0
"""For what must happen; a bound for broken code."""

LONG_SECONDS = 1_000.0


def after(n_calls: int, reached: threading.Event) -> Callable[[], None]:
    """Work that sets `reached` with its n-th call."""
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        if len(calls) == n_calls:
            reached.set()

    return work


def test_work_is_repeated_until_the_stop() -> None:
    reached = threading.Event()
    thread = PeriodicThread("test", after(3, reached), lambda: 0.001)
    thread.start()
    assert reached.wait(TIMEOUT_SECONDS)
    thread.stop(TIMEOUT_SECONDS)
    assert thread.is_stopping
    assert not thread._thread.is_alive()


def test_each_pause_is_asked_for_anew() -> None:
    reached = threading.Event()
    pauses = iter([0.0, 0.0, 0.0])
    thread = PeriodicThread("test", after(3, reached), lambda: next(pauses, LONG_SECONDS))
    thread.start()
    assert reached.wait(TIMEOUT_SECONDS)
    thread.stop(TIMEOUT_SECONDS)
    assert not thread._thread.is_alive(), "a stop ends the pause under way"


def test_work_that_fails_is_logged_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    reached = threading.Event()
    count = after(2, reached)

    def failing() -> None:
        count()
        raise ValueError("broken")

    thread = PeriodicThread("copying", failing, lambda: 0.001)
    thread.start()
    assert reached.wait(TIMEOUT_SECONDS), "the thread outlives an error"
    thread.stop(TIMEOUT_SECONDS)
    assert "unexpected error in the thread 'copying'" in caplog.text
    assert "ValueError: broken" in caplog.text


def test_the_last_work_is_done_once_after_the_stop_and_not_before() -> None:
    done: list[bool] = []
    thread = PeriodicThread("test", lambda: None, lambda: 0.001, last_work=lambda: done.append(thread.is_stopping))
    thread.start()
    thread.stop(TIMEOUT_SECONDS)
    assert done == [True]


def test_a_thread_that_never_started_is_not_waited_for() -> None:
    done: list[bool] = []
    PeriodicThread("test", lambda: None, lambda: 0.001, last_work=lambda: done.append(True)).stop()
    assert done == []


def test_a_stop_waits_no_longer_than_its_timeout() -> None:
    began, go_on = threading.Event(), threading.Event()

    def hanging() -> None:
        began.set()
        go_on.wait(TIMEOUT_SECONDS)

    thread = PeriodicThread("test", hanging, lambda: 0.0)
    thread.start()
    assert began.wait(TIMEOUT_SECONDS)
    try:
        thread.stop(timeout_seconds=0.01)
        assert thread._thread.is_alive()
    finally:
        go_on.set()
        thread.stop(TIMEOUT_SECONDS)
