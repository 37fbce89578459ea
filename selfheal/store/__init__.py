"""Postgres: what is stored, the named queries over it, its migrations, and the embedded server.

`Store` is a handle (engine, contract, tables); the modules beside it hold the queries, a module a subject: `predictions`
(logs and labels), `models`, `monitoring` (metrics and alerts), `decisions`, `reference`. Rules that must always hold are
database constraints, in `tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import create_engine

from selfheal.store.tables import Tables, build_tables

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from selfheal.contract import ModelContract
    from selfheal.settings import Settings

DAGSTER_DATABASE = "dagster"
MLFLOW_DATABASE = "mlflow"


@dataclass(frozen=True)
class Store:
    """A handle on the platform's database. Cheap to pass; `close` returns its connections."""

    engine: Engine
    contract: ModelContract
    tables: Tables

    def close(self) -> None:
        self.engine.dispose()


def server_url(settings: Settings, database: str) -> str:
    """The URL (`postgresql://`, no driver) of one database; starts the embedded server if that is what is configured."""
    if settings.has_external_database:
        return settings.external_database_url(database)
    from selfheal.store import embedded

    return embedded.ensure_running(settings.data_dir / "postgres").url(database)


def release_server(settings: Settings) -> None:
    """Lets go of the embedded server, if that is what is used."""
    if not settings.has_external_database:
        from selfheal.store import embedded

        embedded.release(settings.data_dir / "postgres")


def with_driver(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)


def open_store(settings: Settings, contract: ModelContract) -> Store:
    """A store whose schema is up to date: creates databases and runs migrations where needed.

    Raises:
        ServiceUnavailableError: if the server does not answer.
        ConfigurationError: if the database belongs to another contract.
    """
    from selfheal.store.migrate import ensure_database, migrate

    url = server_url(settings, settings.mlops_db_name)
    ensure_database(url)
    engine = create_engine(
        with_driver(url, "psycopg"),
        pool_pre_ping=True,
        pool_size=4,
        max_overflow=8,
        connect_args={"connect_timeout": 5, "options": "-c timezone=UTC"},
    )
    store = Store(engine, contract, build_tables(contract))
    migrate(store)
    return store
