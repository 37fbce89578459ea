"""What Postgres refuses is said by its kind, and a connection that is refused for what it is, is not used again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError

from selfheal.adapters.postgres.circuit_breaker import ConnectionBreaker, breaker_engine
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.migrate import ensure_database
from selfheal.adapters.postgres.notifications import Listener
from selfheal.adapters.postgres.refusals import SENTENCES, UNAVAILABLE, refusal
from selfheal.adapters.postgres.store import Store, with_driver, with_own_connections
from selfheal.adapters.postgres.tables import build_tables
from selfheal.kit.errors import ServiceUnavailableError
from tests.demotable import Demotable
from tests.toy_use_case import contract

_numbers = itertools.count(1)


def refused(code: str) -> OperationalError:
    """SQLAlchemy's error around the driver's of this SQLSTATE."""
    return OperationalError("SELECT secret", {}, psycopg.errors.lookup(code)("at db.example.org"))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("25006", "accepts no changes"),
        ("53100", "no room on its disk"),
        ("53300", "no connection left"),
        ("28P01", "refuses the user or the password"),
        ("3D000", "no such database"),
        ("42501", "refuses the user a privilege"),
        ("57014", "took too long"),
        ("55P03", "held by another session"),
        ("57P03", f"{UNAVAILABLE}: it is starting"),
        ("08006", f"{UNAVAILABLE}: the connection was lost"),
        ("XX001", "damaged data"),
        ("0A000", "SQLSTATE 0A000"),
    ],
)
def test_each_kind_of_refusal_has_its_sentence(code: str, says: str) -> None:
    sentence = refusal(refused(code))
    assert says in sentence
    assert "example" not in sentence and "secret" not in sentence, "the health page needs no key"


def test_no_two_kinds_share_a_sentence() -> None:
    assert len(set(SENTENCES.values())) == len(SENTENCES)


def test_the_reason_is_found_behind_an_error_of_ours() -> None:
    error = ServiceUnavailableError("Postgres at db.example.org does not answer")
    error.__cause__ = refused("53300")
    assert refusal(error) == SENTENCES["53300"]


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ('FATAL:  password authentication failed for user "ada"', "28"),
        ("FATAL:  sorry, too many clients already", "53300"),
        ("FATAL:  the database system is starting up", "57P03"),
        ("connection failed: session is read-only", "25006"),
    ],
)
def test_a_connection_that_is_not_made_has_the_reason_in_its_text(says: str, code: str) -> None:
    assert refusal(OperationalError("", {}, psycopg.OperationalError(says))) == SENTENCES[code]


@pytest.mark.parametrize(("change", "code"), [({"database": "nowhere"}, "3D000"), ({"username": "nobody"}, "28")])
def test_a_server_that_refuses_a_connection_says_why(server: EmbeddedServer, change: dict[str, str], code: str) -> None:
    breaker = ConnectionBreaker()
    breaker.allow()
    engine = breaker_engine(make_url(with_driver(server.url("postgres"), "psycopg")).set(**change), breaker)
    for _ in range(3):  # of which the breaker may answer some
        with pytest.raises(OperationalError) as caught, engine.connect():
            pass
        assert refusal(caught.value) == SENTENCES[code]


# Failover


@pytest.fixture
def database(demotable: Demotable) -> Iterator[str]:
    """A database of the test's own on a server that can be demoted."""
    name = f"failover{next(_numbers)}"
    ensure_database(demotable.url(name))
    with psycopg.connect(demotable.url(name), autocommit=True) as connection:
        connection.execute("CREATE TABLE things (id integer)")
    yield name
    demotable.restore(name)


@pytest.fixture
def store(demotable: Demotable, database: str) -> Iterator[Store]:
    """The pool of a process that has used it before the failover."""
    breaker = ConnectionBreaker()
    breaker.allow()
    engine = breaker_engine(with_driver(demotable.url(database), "psycopg"), breaker, pool_size=2)
    with engine.connect() as one, engine.connect() as other:
        assert {backend(one), backend(other)} != {backend(one)}
    yield Store(engine, contract, build_tables(contract), breaker)
    engine.dispose()


def backend(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def insert(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("INSERT INTO things VALUES (1)"))


def test_after_a_failover_the_pool_leaves_the_demoted_server(store: Store, demotable: Demotable, database: str) -> None:
    demotable.demote()
    with pytest.raises(InternalError, match="read-only") as caught:
        insert(store)
    assert refusal(caught.value) == SENTENCES["25006"]
    demotable.fail_over(database)
    for _ in range(3):
        insert(store)


def test_readers_leave_the_demoted_server_though_nothing_refuses_them(
    store: Store, demotable: Demotable, database: str
) -> None:
    reading = with_own_connections(store, 1, 5.0)
    with reading.engine.connect() as connection:
        stale = backend(connection)
    demotable.demote()
    demotable.fail_over(database)
    with reading.engine.connect() as connection:
        assert backend(connection) != stale
    reading.close()


def test_while_no_server_accepts_changes_reading_goes_on(store: Store, demotable: Demotable) -> None:
    demotable.demote()
    for _ in range(3):
        with store.engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM things")).scalar() == 0


def test_a_connection_is_dropped_by_the_refusal_itself(store: Store, demotable: Demotable, database: str) -> None:
    """The failover is in the middle of what has begun: no ping notices it."""
    with store.engine.connect() as connection:
        stale = backend(connection)
        connection.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(DBAPIError, match="read-only"):
            connection.execute(text("INSERT INTO things VALUES (1)"))
        assert connection.invalidated
    with store.engine.connect() as connection:
        assert backend(connection) != stale


def test_a_listener_leaves_the_demoted_server(demotable: Demotable, database: str) -> None:
    listener = Listener(lambda: demotable.url(database), "news")
    with closing(listener):
        assert listener.wait(0.0), "it is connected"
        demotable.demote()
        demotable.fail_over(database)
        listener.wait(0.0)
        assert not listener.is_connected
        listener.retry_at_once()
        assert listener.wait(0.0)
        notify(demotable, database)
        assert listener.wait(5.0), "the server that took over notifies"


def notify(demotable: Demotable, database: str) -> None:
    with psycopg.connect(demotable.url(database), autocommit=True) as connection:
        connection.execute("NOTIFY news")
