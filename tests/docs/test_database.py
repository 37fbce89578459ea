"""docs/database.md describes the schema there is: every table, column, type, constraint and trigger."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from sqlalchemy import Column
from sqlalchemy.dialects.postgresql.base import PGDialect

from selfheal.adapters.postgres.tables import build_tables, feature_columns
from selfheal.services.platform import Platform
from tests.docs.pages import fenced, tables_by_heading, text_of
from tests.toy_use_case import contract

PAGE = "docs/database.md"
SCHEMA = build_tables(contract).metadata
SHORT = {"TIMESTAMP WITH TIME ZONE": "timestamptz", "DOUBLE PRECISION": "double"}
PAGED = tables_by_heading(PAGE)


def described(column: Column[Any]) -> tuple[str, str]:
    declared = column.type.compile(dialect=PGDialect())  # type: ignore[no-untyped-call]
    name = f"**`{column.name}`**" if column.primary_key else f"`{column.name}`"
    return name, SHORT.get(declared, declared.lower()) + (" or null" if column.nullable else "")


@pytest.mark.parametrize("table", sorted(SCHEMA.tables))
def test_a_table_is_described_column_by_column_in_order(table: str) -> None:
    features = {column.name for column in feature_columns(contract)} if table == "prediction_logs" else set()
    rows = [row for row in PAGED[table] if not row[0].startswith("*a column for each feature")]
    assert [(row[0], row[1]) for row in rows] == [
        described(column) for column in SCHEMA.tables[table].columns if column.name not in features
    ]
    assert [row[0] for row in rows if len(row) != 3 or not row[2]] == []


def test_no_table_is_described_that_is_not_there() -> None:
    headed = {heading for heading in PAGED if re.fullmatch(r"[a-z_]+", heading)}
    assert headed == set(SCHEMA.tables)


def test_every_invariant_of_a_migrated_database_is_named(platform: Platform) -> None:
    invariants = """
        SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace
        UNION SELECT indexrelid::regclass::text FROM pg_index WHERE indisunique AND indpred IS NOT NULL
        UNION SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
    """
    text = text_of(PAGE)
    with platform.store.engine.connect() as connection:
        names = set(connection.exec_driver_sql(invariants).scalars())
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_the_queries_of_the_page_run(platform: Platform) -> None:
    url = platform.settings.external_database_url(platform.settings.mlops_db_name)
    queries = fenced(PAGE, "sql")
    assert len(queries) == 3
    with psycopg.connect(url) as connection:
        for query in queries:
            assert connection.execute(query).description  # type: ignore[arg-type]
