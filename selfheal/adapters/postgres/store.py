"""Store: the handle on the platform's database (engine, contract, tables), and the URL of its server."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from selfheal.adapters.postgres.circuit_breaker import ConnectionBreaker, breaker_engine
from selfheal.adapters.postgres.tables import Tables
from selfheal.kit.postgres_url import parse_postgres_url, postgres_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from selfheal.adapters.postgres.embedded import Lease
    from selfheal.domain.contract import ModelContract
    from selfheal.settings import Settings


DAGSTER_DATABASE = "dagster"
MLFLOW_DATABASE = "mlflow"

IN_UTC = "-c timezone=UTC"
"""Option of a session, whatever the server's or the host's time zone."""


@dataclass(frozen=True)
class Store:
    """A handle on the platform's database; the owner must `close` it.

    Its breaker allows connections once the schema has been checked.
    """

    engine: Engine
    contract: ModelContract
    tables: Tables
    breaker: ConnectionBreaker = field(default_factory=ConnectionBreaker, repr=False)

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


def with_own_connections(store: Store, n_connections: int, statement_seconds: float) -> Store:
    """Return a store of the same database with `n_connections` of its own: a bulkhead between readers and writers.

    Postgres cancels a statement on them after `statement_seconds`. No connection is opened before the first query.
    """
    engine = breaker_engine(
        store.engine.url,
        store.breaker,
        options=f"{IN_UTC} -c statement_timeout={round(1000 * statement_seconds)}",
        pool_size=n_connections,
        max_overflow=0,
        pool_timeout=statement_seconds,
    )
    return replace(store, engine=engine)


def server_url(settings: Settings, database: str) -> str:
    """Return the URL (`postgresql://`, no driver) of one database; start the embedded server if it is configured."""
    if settings.has_external_database:
        return settings.external_database_url(database)
    from selfheal.adapters.postgres import embedded

    return embedded.ensure_running(settings.data_dir / "postgres").url(database)


def lease_server(settings: Settings) -> Lease | None:
    """Lease the embedded server, so that this process does not release it meanwhile; None if another server is used."""
    if settings.has_external_database:
        return None
    from selfheal.adapters.postgres import embedded

    return embedded.Lease(settings.data_dir / "postgres")


def library_url(settings: Settings, database: str, fill: Callable[[str], None] | None = None) -> str:
    """Return the URL of a database for Dagster and MLflow, which make their own connections; create the database if need be.

    Args:
        fill: makes the tables of a new database, as in `ensure_database`; given such a URL.

    Raises:
        ConfigurationError, ServiceUnavailableError: naming what is wrong with the server.
    """
    from selfheal.adapters.postgres.migrate import ensure_database

    url = server_url(settings, database)
    ensure_database(url, fill=None if fill is None else lambda unfinished: fill(_for_library(unfinished)))
    return _for_library(url)


def _for_library(url: str) -> str:
    """Return the URL with the driver's name, for sessions in UTC: Dagster reads the times of another zone as UTC."""
    parts = parse_postgres_url(url)
    options = f"{parts.get('options', '')} {IN_UTC}".strip()
    return with_driver(postgres_url(parts | {"options": options}, parts["dbname"]), "psycopg2")


def with_driver(url: str, driver: str) -> str:
    """Return a `postgresql://` URL with SQLAlchemy's driver name."""
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)
