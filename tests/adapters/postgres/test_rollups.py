"""The rollups are what counting anew would give, whatever was written, deleted or emptied, in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from sqlalchemy import Connection, text

from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.postgres import migrate, predictions
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.store import Store
from selfheal.domain.records import Window
from tests.at_once import at_once
from tests.times import T0
from tests.toy_use_case import contract
from tests.traffic import SECOND, journal_labels, journal_predictions, toy_rows

COUNTED_ANEW = """
    SELECT date_trunc('minute', p.created_at, 'UTC'), p.model_version, count(*), sum(p.prediction),
           round(sum(p.probability)::numeric, 9), round((count(*) * var_pop(p.probability))::numeric, 9),
           round(sum(entropy_bits(p.probability))::numeric, 9), min(p.created_at), max(p.created_at),
           count(l.prediction_id), max(l.received_at)
    FROM prediction_logs p LEFT JOIN label_store l USING (prediction_id) GROUP BY 1, 2 ORDER BY 1, 2
"""

KEPT = """
    SELECT bucket_start, model_version, n_predictions, n_positive, round(sum_probability::numeric, 9),
           round(squared_deviations::numeric, 9), round(sum_entropy::numeric, 9), first_at, last_at, n_labels,
           last_label_at
    FROM prediction_rollups ORDER BY 1, 2
"""

PLACES = """
    SELECT l.prediction_id, l.predicted_at, l.model_version, p.created_at, p.model_version
    FROM label_store l LEFT JOIN prediction_logs p USING (prediction_id)
    WHERE (l.predicted_at, l.model_version) IS DISTINCT FROM (p.created_at, p.model_version)
"""


def problems(store: Store) -> list[Any]:
    """Rollups that differ from what the rows say, and labels that do not know their prediction."""
    with store.engine.connect() as connection:
        counted, kept, misplaced = (connection.execute(text(query)).all() for query in (COUNTED_ANEW, KEPT, PLACES))
    return [*set(counted).symmetric_difference(kept), *misplaced]


def identifier(number: int) -> UUID:
    return UUID(int=number)


def insert_predictions(
    connection: Connection, numbers: Sequence[int], at: datetime, version: int = 1, step: timedelta = SECOND
) -> None:
    rows = [
        {"id": identifier(number), "at": at + i * step, "version": version, "p": (number * 37 % 101) / 100}
        for i, number in enumerate(numbers)
    ]
    statement = """
        INSERT INTO prediction_logs (prediction_id, created_at, model_version, prediction, probability, threshold,
                                     request_source, latency_ms)
        VALUES (:id, :at, :version, CAST(:p > 0.5 AS int), :p, 0.5, 'test', 1) ON CONFLICT DO NOTHING
    """
    for row in rows:
        connection.execute(text(statement.replace(":p ", "CAST(:p AS float8) ")), row)


def insert_label(connection: Connection, number: int, received_at: datetime = T0) -> None:
    statement = """
        INSERT INTO label_store (prediction_id, true_label, labelled_at, received_at, label_source)
        VALUES (:id, 1, :at, :at, 'test') ON CONFLICT (prediction_id) DO UPDATE SET received_at = excluded.received_at
    """
    connection.execute(text(statement), {"id": identifier(number), "at": received_at})


def truncate(store: Store, *tables: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(tables)}"))


numbers = st.integers(0, 11)
moments = st.integers(0, 200).map(lambda seconds: T0 + timedelta(seconds=seconds))
versions = st.integers(1, 2)
which = st.lists(numbers, min_size=1, max_size=5).map(lambda chosen: [identifier(number) for number in chosen])
OPERATIONS = st.one_of(
    st.tuples(st.just("predict"), st.lists(numbers, min_size=1, max_size=6), moments, versions),
    st.tuples(st.just("label"), numbers, moments),
    st.tuples(st.just("DELETE FROM prediction_logs WHERE prediction_id = ANY(:which)"), which),
    st.tuples(st.just("DELETE FROM label_store WHERE prediction_id = ANY(:which)"), which),
    st.tuples(
        st.just(
            "UPDATE prediction_logs SET created_at = created_at + interval '70 s', model_version = 3 - model_version "
            "WHERE prediction_id = ANY(:which)"
        ),
        which,
    ),
    st.tuples(st.sampled_from(["TRUNCATE prediction_logs", "TRUNCATE label_store"])),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATIONS, min_size=1, max_size=14))
def test_the_rollups_are_what_counting_anew_gives_after_any_story(store: Store, story: list[tuple[Any, ...]]) -> None:
    truncate(store, "prediction_logs", "label_store")
    with store.engine.begin() as connection:
        for operation, *arguments in story:
            if operation == "predict":
                insert_predictions(connection, *arguments, step=7 * SECOND)
            elif operation == "label":
                insert_label(connection, *arguments)
            else:
                connection.execute(text(operation), {"which": arguments[0]} if arguments else {})
    assert problems(store) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(-30, 400), st.integers(0, 400))
def test_a_window_is_exact_wherever_it_begins_and_ends(store: Store, begins: int, lasts: int) -> None:
    """At the start of a minute, at its end, within it, with whole minutes between or none."""
    with store.engine.begin() as connection:
        if connection.execute(text("SELECT count(*) FROM prediction_logs")).scalar() == 0:
            for first in range(0, 180, 60):
                insert_predictions(connection, range(first, first + 60), T0 + first * 2 * SECOND, step=2 * SECOND)
                insert_predictions(connection, range(500 + first, 510 + first), T0 + first * SECOND, version=2)
            for number in (*range(0, 180, 7), 505):
                insert_label(connection, number, T0 + number * SECOND)
        start, end = T0 + begins * SECOND, T0 + (begins + lasts) * SECOND
        query = """
            SELECT count(*), count(l.prediction_id), max(l.received_at), max(created_at), avg(prediction)::float8,
                   avg(probability), stddev_samp(probability), avg(entropy_bits(probability))
            FROM prediction_logs p LEFT JOIN label_store l USING (prediction_id)
            WHERE p.model_version = 1 AND created_at > :start AND created_at <= :end
        """
        n, n_labels, last_label_at, last_at, *expected = connection.execute(
            text(query), {"start": start, "end": end}
        ).one()
    found = predictions.window_of(store, 1, start, end)
    if found is None:
        assert n == 0
        return
    assert (found.n_predictions, found.n_labels, found.last_label_at, found.end) == (
        n,
        n_labels,
        last_label_at,
        last_at,
    )
    proxy = predictions.proxy_metrics(store, found)
    values = [proxy.positive_rate, proxy.probability_mean, proxy.probability_std, proxy.entropy]
    for value, wanted in zip(values, expected, strict=True):
        assert value == (None if wanted is None else pytest.approx(wanted, rel=1e-12, abs=1e-12))


def test_predictions_that_are_all_alike_have_no_spread(store: Store) -> None:
    """Sums of squares would leave a spread of 1e-8 where there is none."""
    with store.engine.begin() as connection:
        for minute in range(30):
            insert_predictions(
                connection, [101 * i + 7 for i in range(10 * minute, 10 * minute + 10)], T0 + 60 * minute * SECOND
            )
    found = predictions.window_of(store, 1, T0 - SECOND)
    assert found is not None
    assert predictions.proxy_metrics(store, found).probability_std < 1e-12  # type: ignore[operator]


def test_a_late_row_is_counted_in_the_minute_it_was_made(store: Store, data_dir: Path) -> None:
    journal_predictions(data_dir, contract, toy_rows(5), np.full(5, 0.5), start=T0 + timedelta(hours=1))
    ingest(store, prediction_journal(contract), data_dir)
    late = journal_predictions(data_dir, contract, toy_rows(3), np.full(3, 0.25), start=T0 + SECOND)
    ingest(store, prediction_journal(contract), data_dir)
    found = predictions.window_of(store, 1, T0, T0 + timedelta(minutes=30))
    assert found is not None
    assert (found.n_predictions, found.end) == (3, late.last_at)


def test_replaying_the_journal_doubles_nothing_and_refills_what_was_emptied(store: Store, data_dir: Path) -> None:
    sent = journal_predictions(data_dir, contract, toy_rows(150), np.linspace(0, 1, 150))
    journal_labels(data_dir, sent.prediction_ids[::3], [1] * 50)
    kinds = (prediction_journal(contract), LABEL_JOURNAL)
    for kind in kinds:
        ingest(store, kind, data_dir)
    before = predictions.window_of(store, 1, T0)
    for emptied in ((), ("prediction_logs",), ("label_store",), ("prediction_logs", "label_store")):
        if emptied:
            truncate(store, *emptied)
        for kind in kinds:
            ingest(store, kind, data_dir, from_start=True)
        assert predictions.window_of(store, 1, T0) == before, emptied
        assert problems(store) == []


@pytest.mark.parametrize("comes_first", ["label", "prediction"])
def test_a_label_and_its_prediction_that_are_written_at_the_same_moment_find_each_other(
    store: Store, comes_first: str
) -> None:
    """The second has begun before the first is committed."""
    write = {"label": lambda c: insert_label(c, 1), "prediction": lambda c: insert_predictions(c, [1], T0)}
    second = write["prediction" if comes_first == "label" else "label"]

    def write_second() -> None:
        with store.engine.begin() as other:
            second(other)

    thread = threading.Thread(target=write_second)
    with store.engine.begin() as connection:
        write[comes_first](connection)
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive(), "it waits for the first"
    thread.join(timeout=20)
    assert predictions.count_labels(store) == (1, 1)
    assert problems(store) == []


def test_writers_at_the_same_time_lose_no_count(store: Store) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 30):
            with store.engine.begin() as connection:
                insert_label(connection, 119 - number)
                insert_predictions(connection, [number], T0)

    at_once([lambda first=first: write(first) for first in range(0, 120, 30)])
    assert predictions.count_labels(store) == (120, 120)
    assert problems(store) == []


def test_a_database_from_before_the_rollups_gets_them_filled(store: Store) -> None:
    from alembic import command

    with store.engine.begin() as connection:
        command.downgrade(migrate.alembic_config(store, connection), "0003")
        insert_predictions(connection, range(200), T0)
        for number in (*range(0, 200, 3), 900):
            insert_label(connection, number)
    migrate.migrate(store)
    assert problems(store) == []
    assert predictions.count_labels(store) == (200, 67)
    assert predictions.count_orphan_labels(store) == 1


# The sample


@dataclass(frozen=True)
class Logged:
    window: Window
    n_rows: int


@pytest.fixture
def logged(store: Store) -> Logged:
    """30,000 rows over five hours whose ids count upwards, and as many of another version in the same time."""
    statement = """
        INSERT INTO prediction_logs (prediction_id, created_at, model_version, prediction, probability, threshold,
                                     request_source, latency_ms, strain)
        SELECT lpad(to_hex(:first + n), 32, '0')::uuid, :start + n * interval '600 ms', :version, 0, n / 30001.0, 0.5,
               'test', 1, 0.5
        FROM generate_series(1, 30000) n
    """
    start = T0 + timedelta(minutes=17)
    with store.engine.begin() as connection:
        for version in (1, 2):
            connection.execute(text(statement), {"first": 100_000 * version, "start": start, "version": version})
    found = predictions.window_of(store, 1, start)
    assert found is not None
    return Logged(found, 30_000)


def test_a_sample_is_the_rows_with_the_smallest_hashes_oldest_first(store: Store, logged: Logged) -> None:
    middle = replace(logged.window, start=logged.window.start + timedelta(hours=1, minutes=7))
    query = """
        SELECT probability FROM (
            SELECT * FROM prediction_logs WHERE model_version = 1 AND created_at > :start
            ORDER BY uuid_hash(prediction_id), prediction_id LIMIT 700
        ) chosen ORDER BY created_at
    """
    with store.engine.connect() as connection:
        expected = connection.execute(text(query), {"start": middle.start}).scalars().all()
    for n_believed in (1, 23_300, 30_000, 100_000_000):
        found = predictions.window_rows(store, replace(middle, n_predictions=n_believed), 700)
        assert found["probability"].tolist() == expected, n_believed


def test_a_sample_is_spread_evenly_over_the_window(store: Store, logged: Logged) -> None:
    rows = predictions.window_rows(store, logged.window, 2_000)
    assert len(rows) == 2_000
    assert kstest(rows["probability"], "uniform").pvalue > 0.01
    assert len(predictions.newest_rows(store, logged.window, 2_000)) == 2_000


def test_a_sample_is_looked_up_in_its_index_on_a_table_that_was_never_analysed(
    store: Store, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        predictions, "read_frame", lambda _store, query, values: asked.append((query, values)) or [0] * 300
    )
    predictions.window_rows(store, logged.window, 300, usable_only=False)
    ((query, values),) = asked
    url = store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}", values))
    assert "prediction_logs_by_hour_and_hash" in plan
    assert "Seq Scan on prediction_logs" not in plan
    assert "prediction_logs_by_version_and_time" not in plan, "it would read the whole window"


def test_a_window_with_fewer_rows_than_a_sample_gives_them_all(store: Store, logged: Logged) -> None:
    assert len(predictions.window_rows(store, logged.window, 100_000)) == logged.n_rows
    assert len(predictions.window_rows(store, logged.window, logged.n_rows)) == logged.n_rows
