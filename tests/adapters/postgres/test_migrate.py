"""Migrations give the declared schema; the features' columns follow the contract; what cannot be is one clear error."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text
from tenacity import stop_after_attempt

from selfheal.adapters.journal import prediction_journal
from selfheal.adapters.postgres import cluster, migrate
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.open import open_store
from selfheal.adapters.postgres.store import Store, with_driver
from selfheal.adapters.postgres.tables import build_tables
from selfheal.domain.contract import Feature, ModelContract
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from selfheal.settings import Settings
from tests.at_once import at_once
from tests.conftest import settings_for
from tests.toy_use_case import contract
from tests.traffic import journal_predictions, toy_rows

OBJECTS = """
    SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
    UNION ALL
    SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
    WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
    ORDER BY 1
"""
"""Every constraint and index with its whole definition: alembic compares neither checks nor conditions."""


@pytest.fixture
def migrated_store(settings: Settings) -> Iterator[Store]:
    """A store on a fresh database, brought to the schema by the migrations."""
    opened = open_store(settings, contract)
    yield opened
    opened.close()


@pytest.fixture
def opened_with(settings: Settings) -> Iterator[Callable[[ModelContract], Store]]:
    """Opens the same database for one contract after another."""
    stores: list[Store] = []

    def opened(of: ModelContract) -> Store:
        stores.append(open_store(settings, of))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def differences(store: Store, connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, store.tables.metadata))


def grown(**changes: object) -> ModelContract:
    """The contract with one more input, of which it changes what a test is about."""
    humidity = Feature("humidity_pct", "float", 0.0, 100.0, "percent", "Humidity of the air", 40.0, is_nullable=True)
    return replace(contract, inputs=(*contract.inputs, humidity), **changes)


def columns_of(store: Store) -> dict[str, str]:
    found = inspect(store.engine).get_columns("prediction_logs")
    return {column["name"]: str(column["type"]) for column in found}


def test_the_migrations_give_exactly_the_declared_schema(migrated_store: Store) -> None:
    with migrated_store.engine.connect() as connection:
        assert differences(migrated_store, connection) == []


def test_the_migrations_give_the_declared_checks_and_partial_indexes(
    migrated_store: Store, server: EmbeddedServer
) -> None:
    url = server.url(f"{migrated_store.engine.url.database}_declared")
    migrate.ensure_database(url)
    declared = create_engine(with_driver(url, "psycopg"))
    build_tables(contract).metadata.create_all(declared)
    with migrated_store.engine.connect() as migrated, declared.connect() as created:
        found = migrated.execute(text(OBJECTS)).scalars().all()
        assert found == created.execute(text(OBJECTS)).scalars().all()
    declared.dispose()
    assert any("WHERE (stage = 'Production'::text)" in definition for definition in found)


def test_a_change_that_no_migration_makes_would_be_seen(migrated_store: Store) -> None:
    """The comparison above is worth something only if it can find something."""
    with migrated_store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE label_store DROP COLUMN label_source"))
        assert len(differences(migrated_store, connection)) == 1


def test_migrating_twice_changes_nothing(migrated_store: Store) -> None:
    before = columns_of(migrated_store)
    migrate.migrate(migrated_store)
    assert columns_of(migrated_store) == before
    with migrated_store.engine.connect() as connection:
        assert differences(migrated_store, connection) == []


def test_a_database_that_a_newer_release_has_migrated_is_told_apart_and_left_alone(
    migrated_store: Store, settings: Settings
) -> None:
    with migrated_store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = columns_of(migrated_store)
    wanted = rf"a newer release \(migration 9999, this release has {migrate.head_revision()}\); upgrade this process"
    with pytest.raises(ServiceUnavailableError, match=wanted):
        open_store(settings, contract)
    assert columns_of(migrated_store) == before


def test_several_processes_may_open_a_fresh_database_at_once(settings: Settings) -> None:
    stores = at_once([partial(open_store, settings, contract)] * 4)
    with stores[0].engine.connect() as connection:
        assert differences(stores[0], connection) == []
    for store in stores:
        store.close()


def test_every_migration_can_be_taken_back(migrated_store: Store) -> None:
    from alembic import command

    with migrated_store.engine.begin() as connection:
        command.downgrade(migrate.alembic_config(migrated_store, connection), "base")
    assert inspect(migrated_store.engine).get_table_names() == ["alembic_version"]
    migrate.migrate(migrated_store)
    with migrated_store.engine.connect() as connection:
        assert differences(migrated_store, connection) == []


def test_a_feature_added_to_the_contract_adds_a_column_and_keeps_the_rows(
    opened_with: Callable[[ModelContract], Store], settings: Settings
) -> None:
    store = opened_with(contract)
    rows = toy_rows(5)
    sent = journal_predictions(settings.data_dir, contract, rows, rows["load_ratio"].to_numpy() / 2)
    ingest(store, prediction_journal(contract), settings.data_dir)
    wider = opened_with(grown())
    assert columns_of(wider)["humidity_pct"] == "DOUBLE PRECISION"
    journal_predictions(settings.data_dir, grown(), rows.assign(humidity_pct=55.5), sent.probabilities)
    ingest(wider, prediction_journal(grown()), settings.data_dir)
    with wider.engine.connect() as connection:
        humidity = connection.execute(text("SELECT humidity_pct FROM prediction_logs ORDER BY prediction_id"))
        assert humidity.scalars().all() == [None] * 5 + [55.5] * 5


def test_the_journal_of_a_narrower_contract_can_still_be_replayed(
    opened_with: Callable[[ModelContract], Store], settings: Settings
) -> None:
    rows = toy_rows(5)
    journal_predictions(settings.data_dir, contract, rows, rows["load_ratio"].to_numpy() / 2)
    store = opened_with(grown())
    assert ingest(store, prediction_journal(grown()), settings.data_dir).n_new == 5


def test_a_contract_whose_feature_has_another_type_is_refused(
    opened_with: Callable[[ModelContract], Store],
) -> None:
    store = opened_with(contract)
    before = columns_of(store)
    *others, restarts = grown().inputs[0], grown().inputs[1], grown().inputs[3], contract.inputs[2]
    clashing = replace(contract, inputs=(*others, replace(restarts, kind="float")))
    with pytest.raises(ConfigurationError, match=r"prediction_logs\.restarts is INTEGER .* but DOUBLE PRECISION"):
        opened_with(clashing)
    assert columns_of(store) == before, "a refused contract leaves no column behind"


def test_a_database_that_is_missing_and_may_not_be_created_is_a_clear_error(server: EmbeddedServer) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS pauper")
        connection.execute("CREATE ROLE pauper LOGIN")
    url = server.url("not_there").replace("postgres@", "pauper@")
    with pytest.raises(ConfigurationError, match="database 'not_there' is missing and cannot be created: permission"):
        migrate.ensure_database(url)


def test_a_database_that_is_there_is_used_by_a_user_who_may_create_none(server: EmbeddedServer, migrated: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
    migrate.ensure_database(server.url(migrated).replace("postgres@", "guest@"))


def test_a_user_whom_the_server_lets_into_no_other_database_uses_the_own_one(
    server: EmbeddedServer, migrated: str
) -> None:
    """As on a hosted server."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS tenant")
        connection.execute("CREATE ROLE tenant LOGIN")
        connection.execute("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
        try:
            migrate.ensure_database(server.url(migrated).replace("postgres@", "tenant@"), is_patient=False)
            with pytest.raises(ServiceUnavailableError, match="does not answer"):
                migrate.ensure_database(server.url("not_there").replace("postgres@", "tenant@"), is_patient=False)
        finally:
            connection.execute("GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC")


FILLING_AND_KILLED = """
import os, signal, sys
import psycopg
from selfheal.adapters.postgres.migrate import ensure_database

def fill(url):
    psycopg.connect(url, autocommit=True).execute("CREATE TABLE first (n int)")
    os.kill(os.getpid(), signal.SIGKILL)

ensure_database(sys.argv[1], fill=fill)
"""


def test_a_database_whose_maker_is_killed_is_made_anew(server: EmbeddedServer) -> None:
    def fill(url: str) -> None:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE first (n int)")
            connection.execute("CREATE TABLE second (n int)")

    url = server.url("filled")
    killed = subprocess.run([sys.executable, "-c", FILLING_AND_KILLED, url], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    migrate.ensure_database(url, fill=fill)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('second') IS NOT NULL").fetchone() == (True,)
        names = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'filled%'").fetchall()
        assert names == [("filled",)], "nothing is left of the first attempt"


ADDRESSES = {
    "postgres://": "postgres://postgres@/any?host={socket}&port={port}",
    "a driver": "postgresql+psycopg2://postgres@{socket}/any?port={port}",
    "libpq's words": "host='{folder}' port={port} user=postgres dbname=any",
    "a host that is away": "postgresql://postgres@%2Fnowhere,{socket}/any?port={port}",
    "options of the session": "postgres://postgres@/any?host={socket}&port={port}&options=-c%20search_path%3Dpublic,theirs",
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_a_store_opens_by_every_form_of_the_servers_address(
    server: EmbeddedServer, migrated: str, tmp_path: Path, address: str
) -> None:
    url = address.format(socket=quote(str(server.socket_dir), safe=""), folder=server.socket_dir, port=cluster.PORT)
    store = open_store(settings_for(server, tmp_path, migrated.removesuffix("_platform"), database_url=url), contract)
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT current_database()")).scalar() == migrated
        assert connection.execute(text("SHOW timezone")).scalar() == "UTC"
        path = connection.execute(text("SHOW search_path")).scalar()
        assert (path == "public,theirs") == ("search_path" in address), "options of the address and ours both count"
    store.close()


def test_a_server_that_does_not_answer_is_a_clear_error_without_the_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(migrate._create_if_missing.retry, "stop", stop_after_attempt(2))  # type: ignore[attr-defined]
    with pytest.raises(
        ServiceUnavailableError, match=r"(?s)does not answer.*check DATABASE_URL or POSTGRES_"
    ) as caught:
        migrate.ensure_database(f"postgresql://somebody:secret@/selfheal?host={tmp_path}")
    assert "somebody" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_platform_whose_database_does_not_answer_does_not_open(
    monkeypatch: pytest.MonkeyPatch, server: EmbeddedServer, tmp_path: Path
) -> None:
    monkeypatch.setattr(migrate._create_if_missing.retry, "stop", stop_after_attempt(2))  # type: ignore[attr-defined]
    dead = settings_for(server, tmp_path, "dead", database_url="postgresql://somebody@127.0.0.1:9/selfheal")
    with pytest.raises(ServiceUnavailableError, match=r"127\.0\.0\.1:9"):
        open_store(dead, contract)
