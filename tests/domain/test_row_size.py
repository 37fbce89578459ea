"""A contract that does not fit into a row of Postgres is refused when it is loaded, with counts and remedy."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Double, Integer, SmallInteger, Text, Uuid
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.schema import CreateTable

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.tables import build_tables
from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import Feature, Label, ModelContract
from selfheal.domain.entity_key import PSEUDONYM_CHARACTERS
from selfheal.domain.row_size import (
    ENTITY_COLUMN,
    FLOAT,
    MAX_COLUMNS,
    MAX_ROW_BYTES,
    OWN_COLUMNS,
    SIZES,
    ColumnSize,
    row_bytes,
    row_problem,
)
from selfheal.kit.errors import ConfigurationError


def contract_of(kinds: list[str]) -> ModelContract:
    inputs = tuple(Feature(f"input_{i}", kind, 0, 9, "", "", 1) for i, kind in enumerate(kinds))  # type: ignore[arg-type]
    return ModelContract("wide", "", Label("fell", ""), inputs)


def most(kinds: list[str]) -> int:
    """How many times these kinds fit."""
    return next(n for n in range(1, 2_000) if row_problem(kinds * n) is not None) - 1


def test_the_platforms_own_columns_are_those_of_the_table() -> None:
    sizes = {
        Uuid: ColumnSize(16, 1),
        Integer: SIZES["int"],
        SmallInteger: ColumnSize(2, 2),
        Double: SIZES["float"],
        Text: ColumnSize(65, 1),
    }
    columns = build_tables(contract_of(["float"])).prediction_logs.columns
    own = [sizes.get(type(column.type), SIZES["float"]) for column in columns if column.name not in {"input_0", ENTITY}]
    assert tuple(own) == OWN_COLUMNS


def test_the_key_of_an_entity_takes_room_only_where_there_is_one() -> None:
    kinds = ["float"] * most(["float"])
    assert row_problem(kinds) is None
    assert row_problem(kinds, has_entity_key=True) is not None
    assert ENTITY_COLUMN.n_bytes == PSEUDONYM_CHARACTERS + 1


@pytest.mark.parametrize("kinds", [["float"], ["int"], ["int", "float"]], ids="-".join)
def test_the_largest_contract_fits_into_a_row_and_a_larger_one_is_refused(
    server: EmbeddedServer, kinds: list[str]
) -> None:
    n = most(kinds)
    contract = contract_of(kinds * n)
    table = build_tables(contract).prediction_logs
    values = {"request_source": "'" + "x" * 64 + "'", "prediction_id": "gen_random_uuid()", "created_at": "now()"}
    row = ", ".join(values.get(column.name, "0") for column in table.columns)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        definition = str(CreateTable(table).compile(dialect=dialect()))
        connection.execute(definition.replace("CREATE TABLE", "CREATE TEMP TABLE"))  # type: ignore[arg-type]
        connection.execute("ALTER TABLE prediction_logs ALTER COLUMN request_source SET STORAGE PLAIN")
        connection.execute(f"INSERT INTO prediction_logs VALUES ({row})")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="features need"):
        contract_of(kinds * (n + 1))


def test_the_refusal_says_counts_limits_and_remedy_in_one_line() -> None:
    with pytest.raises(ConfigurationError) as caught:
        contract_of(["float"] * 1_700)
    said = str(caught.value)
    assert "its 1,700 features need 1,709 columns and 13,976 bytes" in said
    assert f"{MAX_COLUMNS:,} columns and {MAX_ROW_BYTES:,} bytes" in said
    assert "leave out or combine features" in said
    assert "\n" not in said


def test_the_bound_is_that_of_postgres(server: EmbeddedServer) -> None:
    """A row of 8,160 bytes is stored, one of 8,168 is not; the value that is missing makes Postgres write the bitmap."""
    fits = next(n for n in range(900, 1_100) if row_bytes([FLOAT] * (n + 1)) > MAX_ROW_BYTES)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for n_floats in (fits, fits + 1):
            columns = ", ".join(f"c{i} float8" for i in range(n_floats))
            connection.execute(f"CREATE TEMP TABLE wide{n_floats} (absent float8, {columns})")  # type: ignore[arg-type]
            row = f"INSERT INTO wide{n_floats} VALUES (NULL, {', '.join(['0'] * n_floats)})"
            if n_floats == fits:
                connection.execute(row)  # type: ignore[arg-type]
                continue
            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=f"maximum size {MAX_ROW_BYTES}"):
                connection.execute(row)  # type: ignore[arg-type]
