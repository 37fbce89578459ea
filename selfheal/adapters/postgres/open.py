"""Opening a store: find or create the database, update its schema, and allow connections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from selfheal.adapters.postgres import cluster
from selfheal.adapters.postgres.circuit_breaker import ConnectionBreaker, breaker_engine
from selfheal.adapters.postgres.refusals import refusal
from selfheal.adapters.postgres.store import Store, server_url, with_driver
from selfheal.adapters.postgres.tables import build_tables

if TYPE_CHECKING:
    from selfheal.domain.contract import ModelContract
    from selfheal.settings import Settings


def open_store(settings: Settings, contract: ModelContract, *, wait_for_database: bool = True) -> Store:
    """Open a store whose schema is up to date: create databases and run migrations where needed.

    Args:
        wait_for_database: False contacts nothing. Every query then fails at once until `prepare_store` succeeds.

    Raises:
        ServiceUnavailableError: if the server does not answer.
        ConfigurationError: if the database belongs to another contract.
    """
    breaker = ConnectionBreaker()
    engine = breaker_engine(_engine_url(settings), breaker, pool_size=4, max_overflow=8)
    store = Store(engine, contract, build_tables(contract), breaker)
    if wait_for_database:
        prepare_store(settings, store, is_patient=True)
    return store


def prepare_store(settings: Settings, store: Store, *, is_patient: bool) -> None:
    """Find or create the database, update its schema, and allow connections. May be repeated.

    Args:
        is_patient: try for 10 s before giving up on a server that does not respond.

    Raises:
        ServiceUnavailableError: if the server does not respond; the breaker is unchanged.
        ConfigurationError: if the database belongs to another contract; the breaker then blocks.
    """
    from sqlalchemy.exc import InternalError, OperationalError

    from selfheal.adapters.postgres.migrate import ensure_database, migrate
    from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError

    url = server_url(settings, settings.mlops_db_name)
    ensure_database(url, is_patient=is_patient)
    own_breaker = ConnectionBreaker()
    own_breaker.allow()
    engine = breaker_engine(with_driver(url, "psycopg"), own_breaker)
    try:
        migrate(replace(store, engine=engine))
    except ConfigurationError:
        store.breaker.block()
        raise
    except (OperationalError, InternalError) as error:
        raise ServiceUnavailableError(
            f"{refusal(error)}: its schema could not be checked or brought up to date: {error.orig}"
        ) from error
    finally:
        engine.dispose()
    store.breaker.allow(host=None if settings.has_external_database else str(engine.url.query["host"]))


def _engine_url(settings: Settings) -> str:
    """Return the database's URL; the breaker adds the embedded server's folder, which is known once that server runs."""
    if settings.has_external_database:
        return with_driver(settings.external_database_url(settings.mlops_db_name), "psycopg")
    return f"postgresql+psycopg://postgres@/{settings.mlops_db_name}?port={cluster.PORT}"
