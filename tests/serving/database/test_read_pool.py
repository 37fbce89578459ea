"""Questions to Postgres: bounded in time and number, and no burden to anybody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from selfheal.adapters.postgres.store import Store
from selfheal.services.platform import open_platform
from selfheal.settings import Settings
from serving.database.read_pool import MAX_OPEN_QUESTIONS, N_THREADS, ReadPool
from serving.schemas.problems import ProblemError
from tests.serving.running import eventually


@pytest.fixture
def store(api_settings: Settings) -> Iterator[Store]:
    platform = open_platform(api_settings)
    yield platform.store
    platform.close()


@pytest.fixture
def read_pool(store: Store) -> Iterator[ReadPool]:
    made = ReadPool(store)
    yield made
    made.close()


def run_sql(sql: str) -> Any:
    def question(store: Store) -> Any:
        with store.engine.connect() as connection:
            return connection.execute(text(sql)).scalar()

    return question


def refusal(read_pool: ReadPool, question: Any, **patience: float) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        asyncio.run(read_pool.run(question, **patience))
    assert caught.value.status == 503
    assert caught.value.retry_after_seconds
    return caught.value


def test_a_question_is_answered_on_connections_of_its_own(store: Store, read_pool: ReadPool) -> None:
    taken = [store.engine.connect() for _ in range(4 + 8)]  # all that the platform's pool has
    try:
        assert asyncio.run(read_pool.run(run_sql("SELECT 7"))) == 7
    finally:
        for connection in taken:
            connection.close()


def test_a_question_that_hangs_is_not_waited_for(read_pool: ReadPool) -> None:
    problem = refusal(read_pool, run_sql("SELECT pg_sleep(3)"), timeout_seconds=0.05)
    assert "within 0.05 s" in problem.detail


def test_postgres_gives_up_a_statement_that_nobody_waits_for(read_pool: ReadPool) -> None:
    timeout = asyncio.run(
        read_pool.run(run_sql("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'"))
    )
    assert 0 < timeout <= 10_000


def test_what_hangs_stays_bounded_and_the_rest_is_refused_at_once(read_pool: ReadPool) -> None:
    """However many ask while all threads hang, and whether or not they still wait."""
    go_on = threading.Event()
    asked: list[int] = []

    def hanging(_: Store) -> None:
        asked.append(1)
        go_on.wait(30)

    async def ask_often() -> list[str]:
        asks = [read_pool.run(hanging, timeout_seconds=0.2) for _ in range(3 * MAX_OPEN_QUESTIONS)]
        answers = await asyncio.gather(*asks, return_exceptions=True)
        return [str(answer) for answer in answers]

    try:
        told = asyncio.run(ask_often())
        assert sum("too many questions" in one for one in told) == 2 * MAX_OPEN_QUESTIONS
        assert sum("did not answer within" in one for one in told) == MAX_OPEN_QUESTIONS
        assert "too many questions" in refusal(read_pool, hanging).detail
    finally:
        go_on.set()

    def answers_again() -> bool:
        try:
            return asyncio.run(read_pool.run(lambda _: True))
        except ProblemError:
            return False

    eventually(answers_again, "there is room again")
    assert len(asked) == N_THREADS, "nothing was asked for those who had left"


def test_an_error_of_ours_is_no_outage(read_pool: ReadPool) -> None:
    with pytest.raises(ProgrammingError):
        asyncio.run(read_pool.run(run_sql("SELECT nothing FROM nowhere")))
    assert asyncio.run(read_pool.run(run_sql("SELECT 1"))) == 1
