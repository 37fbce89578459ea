"""Queries to Postgres: bounded in time and number, and no burden to anything else."""

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
from serving.database.read_pool import MAX_OPEN_QUERIES, N_THREADS, ReadPool
from serving.schemas.problems import ProblemError


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
    def query(store: Store) -> Any:
        with store.engine.connect() as connection:
            return connection.execute(text(sql)).scalar()

    return query


def refusal(read_pool: ReadPool, query: Any, **options: float) -> ProblemError:
    return asyncio.run(refused(read_pool, query, **options))


async def refused(read_pool: ReadPool, query: Any, **options: float) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await read_pool.run(query, **options)
    assert (caught.value.status, caught.value.kind) == (503, "store_unavailable")
    assert caught.value.retry_after_seconds
    assert caught.value.detail.endswith(", so this endpoint cannot respond. Scoring is not affected. Try again later.")
    return caught.value


def test_a_query_is_answered_on_connections_of_its_own(store: Store, read_pool: ReadPool) -> None:
    taken = [store.engine.connect() for _ in range(4 + 8)]  # all that the platform's pool has
    try:
        assert asyncio.run(read_pool.run(run_sql("SELECT 7"))) == 7
    finally:
        for connection in taken:
            connection.close()


def test_a_query_that_hangs_is_not_waited_for(read_pool: ReadPool) -> None:
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

    async def main() -> None:
        asks = [read_pool.run(hanging, timeout_seconds=0.5) for _ in range(3 * MAX_OPEN_QUERIES)]
        details = [str(outcome) for outcome in await asyncio.gather(*asks, return_exceptions=True)]
        assert sum("too many queries" in detail for detail in details) == 2 * MAX_OPEN_QUERIES
        assert sum("did not respond within 0.5 s" in detail for detail in details) == MAX_OPEN_QUERIES
        assert "too many queries" in (await refused(read_pool, hanging)).detail
        go_on.set()
        while True:
            try:
                return await read_pool.run(lambda _: None)
            except ProblemError:
                await asyncio.sleep(0.02)

    try:
        asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        go_on.set()
    assert 0 < len(asked) <= N_THREADS, "nothing was asked for those who had left"


def test_an_error_of_ours_is_no_outage(read_pool: ReadPool) -> None:
    with pytest.raises(ProgrammingError):
        asyncio.run(read_pool.run(run_sql("SELECT nothing FROM nowhere")))
    assert asyncio.run(read_pool.run(run_sql("SELECT 1"))) == 1
