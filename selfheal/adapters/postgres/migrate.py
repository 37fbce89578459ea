"""Migrations to the declared schema: alembic for the fixed part, the contract for the features' columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, NullPool, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.adapters.postgres.tables import feature_columns
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.kit.postgres_url import parse_postgres_url, postgres_url

if TYPE_CHECKING:
    from alembic.config import Config

    from selfheal.adapters.postgres.store import Store

Fill = Callable[[str], None]

MIGRATIONS = Path(__file__).parent / "migrations"

UNFINISHED = "_unfinished"
"""Ends the name of a database whose tables are being made."""

MAINTENANCE_DATABASES = ("postgres", "template1")
"""From which another database can be created: as with libpq's own programs, the first that lets us in."""


def ensure_database(url: str, *, is_patient: bool = True, fill: Fill | None = None) -> None:
    """Create the database of `url` on its server if it is missing.

    Args:
        fill: makes the tables of a new database, given its URL. It gets its name only when that is done: a process that is
            killed in between leaves nothing that looks finished. No connection may be left open.

    Raises:
        ServiceUnavailableError: if the server does not respond (within 10 s if patient).
        ConfigurationError: if the database is missing and may not be created.
    """
    target = make_url(url).set(drivername="postgresql+psycopg")
    create = _create_if_missing if is_patient else _create_if_missing_at_once
    parts = parse_postgres_url(url)
    try:
        create(target, None if fill is None else lambda name: fill(postgres_url(parts, name)))
    except OperationalError as error:
        raise ServiceUnavailableError(
            f"Postgres at {target.render_as_string()} does not answer: {error.orig}; check DATABASE_URL or POSTGRES_*"
        ) from error


@retry(retry=retry_if_exception_type(OperationalError), stop=stop_after_delay(10), wait=wait_fixed(0.2), reraise=True)
def _create_if_missing(target: URL, fill: Fill | None) -> None:
    _create_if_missing_at_once(target, fill)


def _create_if_missing_at_once(target: URL, fill: Fill | None) -> None:
    """Connect to the database itself first: on a hosted server it may be the only one that lets this user in."""
    try:
        with _connected(target):
            return
    except OperationalError:
        if not _is_created_from_another(target, fill):
            raise
    with _connected(target):  # it was there, or another process has just created it
        return


def _is_created_from_another(target: URL, fill: Fill | None) -> bool:
    """Create the database while connected to one that every server has; return False if none lets this user in."""
    for other in MAINTENANCE_DATABASES:
        with suppress(OperationalError), _connected(target.set(database=other)) as connection:
            _create(connection, target, fill)
            return True
    return False


def _create(connection: Connection, target: URL, fill: Fill | None) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": Lock.MIGRATION})
    exists = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": target.database})
    if exists.first() is not None:
        return
    unfinished = f"{target.database}{UNFINISHED}"
    try:
        if fill is None:
            connection.execute(text(f'CREATE DATABASE "{target.database}"'))
            return
        connection.execute(text(f'DROP DATABASE IF EXISTS "{unfinished}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{unfinished}"'))
    except ProgrammingError as error:
        raise ConfigurationError(
            f"database {target.database!r} is missing and cannot be created: {error.orig}"
        ) from error
    fill(unfinished)
    connection.execute(text(f'ALTER DATABASE "{unfinished}" RENAME TO "{target.database}"'))


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args={"connect_timeout": 5})
    with engine.connect() as connection:
        yield connection


def database_exists(url: str) -> bool:
    """Return whether the database of a `postgresql://` URL is on its server.

    Raises:
        ServiceUnavailableError: if the server does not answer.
    """
    import psycopg

    target = make_url(url)
    refusal = ""
    for name in (
        target.database,
        *MAINTENANCE_DATABASES,
    ):  # itself first: it may be the only one that lets this user in
        server = target.set(database=name).render_as_string(hide_password=False)
        try:
            with psycopg.connect(server, connect_timeout=5) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (target.database,))
                return found.fetchone() is not None
        except psycopg.OperationalError as error:
            refusal = " ".join(str(error).split())
    raise ServiceUnavailableError(
        f"Postgres at {target.render_as_string()} does not answer: {refusal}; check DATABASE_URL or POSTGRES_*"
    )


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
    """Return alembic's configuration for the store's schema, on an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    config.attributes["metadata"] = store.tables.metadata
    return config


def migrate(store: Store) -> None:
    """Run pending migrations and add columns for new features of the contract. One process at a time.

    Raises:
        ConfigurationError: if a feature's column exists with another type.
        ServiceUnavailableError: if a newer release has migrated the database. In an upgrade this one is about to be
            replaced, and the API serves until then from what it has.
    """
    with store.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": Lock.MIGRATION})
        found = _revision(connection)
        if found is not None and found > head_revision():
            raise ServiceUnavailableError(
                f"the database has the schema of a newer release (migration {found}, this release has {head_revision()}); "
                "upgrade this process too, or restore the backup from before the upgrade"
            )
        if found != head_revision():
            from alembic import command  # takes 1 s to import, so only if there is something to migrate

            command.upgrade(alembic_config(store, connection), "head")
        _add_feature_columns(store, connection)


def _revision(connection: Connection) -> str | None:
    """Return the newest migration that the database has; None if it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _add_feature_columns(store: Store, connection: Connection) -> None:
    table = store.tables.prediction_logs.name
    existing = {column["name"]: column["type"] for column in inspect(connection).get_columns(table)}
    missing: list[str] = []
    for column in feature_columns(store.contract):
        declared = column.type.compile(dialect=connection.dialect)
        found = existing.get(column.name)
        if found is None:
            missing.append(f'ADD COLUMN "{column.name}" {declared}')
        elif found.compile(dialect=connection.dialect) != declared:
            raise ConfigurationError(
                f"{table}.{column.name} is {found} in the database but {declared} in contract "
                f"{store.contract.name!r}; use another MLOPS_DB_NAME for another use case"
            )
    if missing:
        connection.execute(text(f"ALTER TABLE {table} {', '.join(missing)}"))
