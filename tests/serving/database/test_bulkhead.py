"""The bulkhead: what hangs is bounded in number and waited for by nobody."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from serving.database.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError

SOON_SECONDS, LATE_SECONDS = 0.05, 30.0


class Hanging:
    """Work that ends when it is released, and counts its calls."""

    def __init__(self) -> None:
        self.n_begun = 0
        self._released = threading.Event()

    def __call__(self) -> str:
        self.n_begun += 1
        assert self._released.wait(LATE_SECONDS), "never released"
        return "done"

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    work = Hanging()
    yield work
    work.release()


async def until_running(hanging: Hanging, n_calls: int) -> None:
    deadline = time.monotonic() + LATE_SECONDS
    while hanging.n_begun < n_calls:
        assert time.monotonic() < deadline, f"{hanging.n_begun} of {n_calls} calls run"
        await asyncio.sleep(0.001)


def test_a_call_returns_or_raises_what_its_work_does_off_the_event_loop() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, 1)
        assert await bulkhead.run(threading.get_ident, LATE_SECONDS) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await bulkhead.run(lambda: 1 // 0, LATE_SECONDS)
        with pytest.raises(TimeoutError, match="of the work"):
            await bulkhead.run(_time_out, LATE_SECONDS)

    asyncio.run(main())


def _time_out() -> None:
    raise TimeoutError("of the work")


def test_no_more_calls_run_at_once_than_there_are_threads(hanging: Hanging) -> None:
    async def main() -> None:
        bulkhead = Bulkhead(2, 5)
        calls = [asyncio.create_task(bulkhead.run(hanging, LATE_SECONDS)) for _ in range(5)]
        await until_running(hanging, 2)
        await asyncio.sleep(SOON_SECONDS)
        assert hanging.n_begun == 2
        hanging.release()
        assert await asyncio.gather(*calls) == ["done"] * 5

    asyncio.run(main())


def test_a_hanging_call_keeps_its_thread_although_nobody_waits_for_it(hanging: Hanging) -> None:
    """Otherwise each time-out would add a thread."""

    async def main() -> None:
        bulkhead = Bulkhead(1, 3)
        first = asyncio.create_task(bulkhead.run(hanging, SOON_SECONDS))
        await until_running(hanging, 1)
        outcomes = await asyncio.gather(
            first, *(bulkhead.run(hanging, SOON_SECONDS) for _ in range(2)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [BulkheadTimeoutError] * 3
        assert hanging.n_begun == 1
        with pytest.raises(BulkheadFullError):
            await bulkhead.run(hanging, LATE_SECONDS)

    asyncio.run(main())


@pytest.mark.parametrize(("runs_abandoned_calls", "n_begun"), [(False, 1), (True, 3)])
def test_a_call_that_got_no_thread_in_time_is_dropped_or_still_made_as_configured(
    hanging: Hanging, runs_abandoned_calls: bool, n_begun: int
) -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, 4, runs_abandoned_calls=runs_abandoned_calls)
        running = asyncio.create_task(bulkhead.run(hanging, LATE_SECONDS))
        await until_running(hanging, 1)
        late = [bulkhead.run(hanging, SOON_SECONDS) for _ in range(2)]
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [BulkheadTimeoutError] * 2
        hanging.release()
        await running
        assert await bulkhead.run(lambda: "next", LATE_SECONDS) == "next", "it runs after those before it"
        assert hanging.n_begun == n_begun

    asyncio.run(main())


def test_a_call_whose_caller_was_cancelled_frees_its_place_when_it_ends(hanging: Hanging) -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, 1)
        caller = asyncio.create_task(bulkhead.run(hanging, LATE_SECONDS))
        await until_running(hanging, 1)
        caller.cancel()
        await asyncio.wait([caller])
        with pytest.raises(BulkheadFullError):
            await bulkhead.run(lambda: 1, LATE_SECONDS)
        hanging.release()
        deadline = time.monotonic() + LATE_SECONDS
        while bulkhead._open and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        assert await bulkhead.run(lambda: 1, LATE_SECONDS) == 1

    asyncio.run(main())


def test_an_error_that_comes_after_the_timeout_is_not_complained_about(
    hanging: Hanging, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_late() -> None:
        hanging()
        raise ValueError("late")

    async def main() -> None:
        bulkhead = Bulkhead(1, 2)
        with pytest.raises(BulkheadTimeoutError):
            await bulkhead.run(fail_late, SOON_SECONDS)
        hanging.release()
        await bulkhead.run(lambda: None, LATE_SECONDS)

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert caplog.records == []


def test_closing_cancels_what_waits_and_leaves_what_runs(hanging: Hanging) -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, 2)
        running = asyncio.create_task(bulkhead.run(hanging, LATE_SECONDS))
        await until_running(hanging, 1)
        waiting = asyncio.create_task(bulkhead.run(hanging, LATE_SECONDS))
        await asyncio.sleep(0)
        bulkhead.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        hanging.release()
        assert await running == "done"
        assert hanging.n_begun == 1

    asyncio.run(main())
