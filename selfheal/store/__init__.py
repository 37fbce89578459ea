"""Postgres: what is stored, the named queries over it, its migrations, and the embedded server.

`Store` is a handle (engine, contract, tables); the modules beside it hold the queries, a module a subject: `predictions`
(logs and labels), `models`, `monitoring` (metrics and alerts), `decisions`, `reference`. Rules that must always hold are
database constraints, in `tables`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from selfheal.store.gate import Gate, gated_engine
from selfheal.store.tables import Tables, build_tables

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from selfheal.contract import ModelContract
    from selfheal.settings import Settings
    from selfheal.store.embedded import Lease

DAGSTER_DATABASE = "dagster"
MLFLOW_DATABASE = "mlflow"


@dataclass(frozen=True)
class Store:
    """A handle on the platform's database. Cheap to pass; `close` returns its connections.

    Its gate lets connections through once the schema is known to be right.
    """

    engine: Engine
    contract: ModelContract
    tables: Tables
    gate: Gate = field(default_factory=Gate, repr=False)

    def close(self) -> None:
        self.engine.dispose()


def with_own_connections(store: Store, n_connections: int, statement_seconds: float) -> Store:
    """The same database over at most `n_connections` others, on which Postgres gives up a statement after that time.

    For readers that must not take the connections of those who write. Nothing is connected before the first query.
    """
    engine = gated_engine(
        store.engine.url,
        store.gate,
        options=f"-c timezone=UTC -c statement_timeout={round(1000 * statement_seconds)}",
        pool_size=n_connections,
        max_overflow=0,
        pool_timeout=statement_seconds,
    )
    return replace(store, engine=engine)


def server_url(settings: Settings, database: str) -> str:
    """The URL (`postgresql://`, no driver) of one database; starts the embedded server if that is what is configured."""
    if settings.has_external_database:
        return settings.external_database_url(database)
    from selfheal.store import embedded

    return embedded.ensure_running(settings.data_dir / "postgres").url(database)


def lease_server(settings: Settings) -> Lease | None:
    """Keeps this process from letting go of the embedded server until the lease ends; None if another server is used."""
    if settings.has_external_database:
        return None
    from selfheal.store import embedded

    return embedded.Lease(settings.data_dir / "postgres")


def with_driver(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)


def open_store(settings: Settings, contract: ModelContract, *, wait_for_database: bool = True) -> Store:
    """A store whose schema is up to date: creates databases and runs migrations where needed.

    Args:
        wait_for_database: False contacts nothing. Every query then fails at once until `prepare_store` succeeds.

    Raises:
        ServiceUnavailableError: if the server does not answer.
        ConfigurationError: if the database belongs to another contract.
    """
    gate = Gate()
    engine = gated_engine(_engine_url(settings), gate, pool_size=4, max_overflow=8)
    store = Store(engine, contract, build_tables(contract), gate)
    if wait_for_database:
        prepare_store(settings, store, is_patient=True)
    return store


def prepare_store(settings: Settings, store: Store, *, is_patient: bool) -> None:
    """Finds or creates the database, brings its schema up to date, and opens the store's gate. May be repeated.

    Args:
        is_patient: try for 10 s before giving up on a server that does not answer.

    Raises:
        ServiceUnavailableError: if the server does not answer; the gate stays as it was.
        ConfigurationError: if the database belongs to another contract; the gate is shut.
    """
    from sqlalchemy.exc import OperationalError

    from selfheal.errors import ConfigurationError, ServiceUnavailableError
    from selfheal.store.migrate import ensure_database, migrate

    url = server_url(settings, settings.mlops_db_name)
    ensure_database(url, is_patient=is_patient)
    own_gate = Gate()
    own_gate.open()
    engine = gated_engine(with_driver(url, "psycopg"), own_gate)
    try:
        migrate(replace(store, engine=engine))
    except ConfigurationError:
        store.gate.shut()
        raise
    except OperationalError as error:
        raise ServiceUnavailableError(
            f"Postgres stopped answering while its schema was checked: {error.orig}"
        ) from error
    finally:
        engine.dispose()
    store.gate.open(host=None if settings.has_external_database else str(engine.url.query["host"]))


def _engine_url(settings: Settings) -> str:
    """The platform's database; the embedded server's folder is left to the gate: it is known once that server runs."""
    if settings.has_external_database:
        return with_driver(settings.external_database_url(settings.mlops_db_name), "psycopg")
    return f"postgresql+psycopg://postgres@/{settings.mlops_db_name}"
