"""Baseline: the first reference data (`reference_data`), written once and checked by digest on every read."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.errors import IntegrityError

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Row

    from selfheal.adapters.postgres.store import Store


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Return the frame as a Parquet file, without its index."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def from_parquet(data: bytes) -> pd.DataFrame:
    """Return the frame of a Parquet file."""
    import pandas as pd

    return pd.read_parquet(io.BytesIO(data))


def baseline_path(store: Store, data_dir: Path) -> Path:
    """Return the path of the copy on disk."""
    return data_dir / "reference" / f"{store.contract.name}.parquet"


def write_baseline(store: Store, frame: pd.DataFrame, source: str, now: datetime, data_dir: Path) -> pd.DataFrame:
    """Write `frame` as the baseline if there is none, and return the baseline in force.

    Raises:
        IntegrityError: if the stored baseline, or its copy on disk, differs from what was first written.
    """
    data = to_parquet(frame)
    values = {
        "model_name": store.contract.name,
        "created_at": now,
        "source": source,
        "n_rows": len(frame),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parquet": data,
    }
    with store.engine.begin() as connection:
        connection.execute(insert(store.tables.reference_data).values(**values).on_conflict_do_nothing())
    baseline = read_baseline(store, data_dir)
    assert baseline is not None
    return baseline


def read_baseline(store: Store, data_dir: Path) -> pd.DataFrame | None:
    """Return the baseline, or None before the first bootstrap. A missing copy on disk is written again.

    Raises:
        IntegrityError: if the table or the copy on disk has changed.
    """
    row = baseline_row(store)
    if row is None:
        return None
    found = hashlib.sha256(row.parquet).hexdigest()
    if found != row.sha256:
        raise IntegrityError(
            f"table reference_data has changed for {row.model_name!r}: expected sha256 {row.sha256}, found {found}; "
            "restore the row from a backup"
        )
    _check_copy(baseline_path(store, data_dir), row.parquet, row.sha256)
    return from_parquet(row.parquet)


def baseline_row(store: Store) -> Row[Any] | None:
    """Return the baseline's row, unchecked; None before the first bootstrap."""
    table = store.tables.reference_data
    with store.engine.connect() as connection:
        return connection.execute(select(table).where(table.c.model_name == store.contract.name)).first()


def _check_copy(path: Path, data: bytes, expected: str) -> None:
    if not path.exists():
        write_atomic(path, data)
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise IntegrityError(
            f"{path} has changed: expected sha256 {expected}, found {found}; delete it to have it restored from Postgres"
        )
