"""Migrations: bring a database to the declared schema: alembic for the fixed part, the contract for its columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.adapters.postgres.tables import feature_columns
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError

if TYPE_CHECKING:
    from alembic.config import Config

    from selfheal.adapters.postgres.store import Store

MIGRATIONS = Path(__file__).parent / "migrations"


def ensure_database(url: str, *, is_patient: bool = True) -> None:
    """Create the database of `url` on its server if it is missing.

    Raises:
        ServiceUnavailableError: if the server does not answer, within 10 s if patient.
        ConfigurationError: if the database is missing and may not be created.
    """
    target = make_url(url).set(drivername="postgresql+psycopg")
    create = _create_if_missing if is_patient else _create_if_missing_at_once
    try:
        create(target.set(database="postgres").render_as_string(hide_password=False), str(target.database))
    except OperationalError as error:
        raise ServiceUnavailableError(
            f"Postgres at {target.render_as_string()} does not answer: {error.orig}; check DATABASE_URL or POSTGRES_*"
        ) from error


@retry(retry=retry_if_exception_type(OperationalError), stop=stop_after_delay(10), wait=wait_fixed(0.2), reraise=True)
def _create_if_missing(server: str, database: str) -> None:
    _create_if_missing_at_once(server, database)


def _create_if_missing_at_once(server: str, database: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": Lock.MIGRATION})
            exists = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": database})
            if exists.first() is None:
                connection.execute(text(f'CREATE DATABASE "{database}"'))
    except ProgrammingError as error:
        raise ConfigurationError(f"database {database!r} is missing and cannot be created: {error.orig}") from error
    finally:
        engine.dispose()


def database_exists(url: str) -> bool:
    """Return whether the database of a `postgresql://` URL is on its server.

    Raises:
        ServiceUnavailableError: if the server does not answer.
    """
    import psycopg

    target = make_url(url)
    server = target.set(database="postgres").render_as_string(hide_password=False)
    try:
        with psycopg.connect(server, connect_timeout=5) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (target.database,))
            return found.fetchone() is not None
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"Postgres at {target.render_as_string()} does not answer: {' '.join(str(error).split())}; "
            "check DATABASE_URL or POSTGRES_*"
        ) from error


def table_names(url: str) -> list[str]:
    """Return the tables of a database that exists."""
    import psycopg

    query = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    with psycopg.connect(url, connect_timeout=5) as connection:
        return [name for (name,) in connection.execute(query)]


def head_revision() -> str:
    """Return the newest migration's revision; the files are named by it, in order."""
    return max(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def alembic_config(store: Store, connection: Connection) -> Config:
    """Return alembic's configuration for the store's schema, on a connection that is open already."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    config.attributes["metadata"] = store.tables.metadata
    return config


def migrate(store: Store) -> None:
    """Run pending migrations and add columns of features that are new in the contract. One process at a time.

    Raises:
        ConfigurationError: if a feature's column exists with another type.
    """
    with store.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": Lock.MIGRATION})
        if not _is_at_head(connection):
            from alembic import command  # a second to import: only when there is something to migrate

            command.upgrade(alembic_config(store, connection), "head")
        _add_feature_columns(store, connection)


def _is_at_head(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == head_revision()


def _add_feature_columns(store: Store, connection: Connection) -> None:
    table = store.tables.prediction_logs.name
    existing = {column["name"]: column["type"] for column in inspect(connection).get_columns(table)}
    for column in feature_columns(store.contract):
        declared = column.type.compile(dialect=connection.dialect)
        found = existing.get(column.name)
        if found is None:
            connection.execute(text(f'ALTER TABLE {table} ADD COLUMN "{column.name}" {declared}'))
        elif found.compile(dialect=connection.dialect) != declared:
            raise ConfigurationError(
                f"{table}.{column.name} is {found} in the database but {declared} in contract "
                f"{store.contract.name!r}; use another MLOPS_DB_NAME for another use case"
            )
