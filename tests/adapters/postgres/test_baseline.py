"""The first baseline: written once, and every change of it is refused by name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from selfheal.adapters.postgres import baseline as baseline_queries
from selfheal.adapters.postgres.store import Store
from selfheal.kit.errors import IntegrityError
from tests.times import T0
from tests.traffic import toy_rows


@pytest.fixture
def baseline(store: Store, data_dir: Path) -> pd.DataFrame:
    return baseline_queries.write_baseline(store, toy_rows(100), "100 rows", T0, data_dir)


def tamper(store: Store, statement: str) -> None:
    """A change by somebody who may do everything, the trigger included."""
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE reference_data DISABLE TRIGGER reference_data_is_immutable"))
        connection.execute(text(statement))


def digest(store: Store) -> str:
    row = baseline_queries.baseline_row(store)
    assert row is not None
    return str(row.sha256)


def test_there_is_no_baseline_before_it_is_written(store: Store, data_dir: Path) -> None:
    assert baseline_queries.read_baseline(store, data_dir) is None
    assert not baseline_queries.baseline_path(store, data_dir).exists()


def test_the_baseline_is_the_first_that_was_written(store: Store, data_dir: Path, baseline: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(baseline, toy_rows(100))
    again = baseline_queries.write_baseline(store, toy_rows(50, seed=2), "50 rows", T0, data_dir)
    pd.testing.assert_frame_equal(again, baseline)
    row = baseline_queries.baseline_row(store)
    assert row is not None
    assert (row.n_rows, row.source) == (100, "100 rows")


@pytest.mark.parametrize(
    "statement", ["UPDATE reference_data SET source = 'other'", "DELETE FROM reference_data"], ids=["update", "delete"]
)
def test_the_database_refuses_to_change_the_baseline(store: Store, baseline: pd.DataFrame, statement: str) -> None:
    with pytest.raises(DBAPIError, match="reference_data is written once"), store.engine.begin() as connection:
        connection.execute(text(statement))


def test_the_database_refuses_to_truncate_the_baseline(store: Store, baseline: pd.DataFrame) -> None:
    with pytest.raises(DBAPIError, match="reference_data is written once"), store.engine.begin() as connection:
        connection.execute(text("TRUNCATE reference_data"))


def test_a_changed_table_is_refused_naming_the_digest(store: Store, data_dir: Path, baseline: pd.DataFrame) -> None:
    tamper(store, r"UPDATE reference_data SET parquet = parquet || '\x00'::bytea")
    with pytest.raises(IntegrityError, match=rf"reference_data has changed .*expected sha256 {digest(store)}, found"):
        baseline_queries.read_baseline(store, data_dir)
    with pytest.raises(IntegrityError, match="reference_data has changed"):
        baseline_queries.write_baseline(store, toy_rows(100), "100 rows", T0, data_dir)


def test_a_changed_copy_is_refused_naming_file_and_digest(store: Store, data_dir: Path, baseline: pd.DataFrame) -> None:
    path = baseline_queries.baseline_path(store, data_dir)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match=rf"{path.name} has changed: expected sha256 {digest(store)}, found"):
        baseline_queries.read_baseline(store, data_dir)


def test_a_missing_copy_is_restored_from_the_table(store: Store, data_dir: Path, baseline: pd.DataFrame) -> None:
    path = baseline_queries.baseline_path(store, data_dir)
    data = path.read_bytes()
    path.unlink()
    pd.testing.assert_frame_equal(baseline_queries.read_baseline(store, data_dir), baseline)
    assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]
