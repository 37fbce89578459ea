"""A store of the toy use case, empty for each test: its database is cloned from one that was migrated once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.open import open_store
from selfheal.adapters.postgres.store import Store
from selfheal.services.platform import open_platform
from tests.conftest import settings_for
from tests.toy_use_case import contract

MIGRATED = "migrated"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def migrated(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with the schema and no rows."""
    platform = open_platform(settings_for(server, tmp_path_factory.mktemp("migrated"), MIGRATED))
    platform.close()
    return f"{MIGRATED}_platform"


@pytest.fixture
def database(server: EmbeddedServer, migrated: str) -> str:
    """The name (without `_platform`) of a fresh copy of it."""
    name = f"store{next(_numbers)}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}_platform TEMPLATE {migrated}")
    return name


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def open_again(server: EmbeddedServer, database: str, data_dir: Path) -> Iterator[Callable[[], Store]]:
    """Opens the test's database: each store has connections of its own."""
    stores: list[Store] = []

    def opened() -> Store:
        stores.append(open_store(settings_for(server, data_dir, database), contract))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_again: Callable[[], Store]) -> Store:
    return open_again()
