"""Fills Postgres behind the journal: COPY in batches, exactly once by `prediction_id`.

How far each file has been read is stored in the transaction that copies, so a crash repeats at most what the primary key
then refuses, and an empty database is refilled from the first line by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert

from selfheal.errors import InvalidDataError
from selfheal.journal import JournalKind, read_chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from selfheal.store import Store


@dataclass
class IngestResult:
    """What one pass did: lines read, rows that were new, and lines whose checksum was wrong."""

    n_read: int = 0
    n_new: int = 0
    corrupt: list[str] = field(default_factory=list)


def ingest(
    store: Store,
    kind: JournalKind,
    data_dir: Path,
    *,
    from_start: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> IngestResult:
    """Copies everything in the journal that has not been copied. `on_progress` is told the bytes read, chunk by chunk.

    Args:
        from_start: read every file again; rows that are there already stay as they are.

    Raises:
        sqlalchemy.exc.OperationalError: if Postgres does not answer; nothing is lost, call again.
    """
    result = IngestResult()
    done = {} if from_start else _positions(store, kind)
    for path in kind.files(data_dir):
        offset = done.get(path.name, 0)
        while path.stat().st_size > offset:
            try:
                chunk = read_chunk(path, offset)
            except InvalidDataError as error:  # one foreign file must not hold up the others
                result.corrupt.append(str(error))
                break
            if chunk.end_offset <= offset:
                break  # only a torn or unfinished line is left
            with store.engine.begin() as connection:
                if chunk.lines:
                    result.n_new += _COPIERS[kind.name](store, connection, chunk.columns, chunk.lines)
                _save_position(store, connection, kind, path.name, chunk.end_offset)
            result.n_read += len(chunk.lines)
            result.corrupt.extend(chunk.corrupt)
            if on_progress is not None:
                on_progress(chunk.end_offset - offset)
            offset = chunk.end_offset
    return result


def lag_bytes(store: Store, kind: JournalKind, data_dir: Path) -> int:
    """Journal bytes that are not in Postgres yet."""
    done = _positions(store, kind)
    return sum(max(0, path.stat().st_size - done.get(path.name, 0)) for path in kind.files(data_dir))


def _positions(store: Store, kind: JournalKind) -> dict[str, int]:
    table = store.tables.journal_positions
    with store.engine.connect() as connection:
        rows = connection.execute(select(table.c.file, table.c.byte_offset).where(table.c.journal == kind.name))
        return {row.file: row.byte_offset for row in rows}


def _save_position(store: Store, connection: Connection, kind: JournalKind, file: str, offset: int) -> None:
    table = store.tables.journal_positions
    statement = insert(table).values(journal=kind.name, file=file, byte_offset=offset, updated_at=func.now())
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["journal", "file"],
            set_={
                "byte_offset": func.greatest(table.c.byte_offset, statement.excluded.byte_offset),
                "updated_at": func.now(),
            },
        )
    )


def _copy_lines(connection: Connection, table: str, columns: tuple[str, ...], lines: tuple[bytes, ...]) -> None:
    names = ", ".join(f'"{name}"' for name in columns)
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT csv)") as copy:
        copy.write(b"\n".join(lines) + b"\n")


def _copy_predictions(store: Store, connection: Connection, columns: tuple[str, ...], lines: tuple[bytes, ...]) -> int:
    table = store.tables.prediction_logs.name
    connection.execute(text(f"CREATE TEMP TABLE incoming (LIKE {table}) ON COMMIT DROP"))
    _copy_lines(connection, "incoming", columns, lines)
    return connection.execute(text(f"INSERT INTO {table} SELECT * FROM incoming ON CONFLICT DO NOTHING")).rowcount


def _copy_labels(store: Store, connection: Connection, columns: tuple[str, ...], lines: tuple[bytes, ...]) -> int:
    """The first label of a prediction stays, unless a correction (the latest of them) was sent."""
    table = store.tables.label_store.name
    connection.execute(text(f"CREATE TEMP TABLE incoming (LIKE {table}, is_correction boolean) ON COMMIT DROP"))
    _copy_lines(connection, "incoming", columns, lines)
    kept = "prediction_id, true_label, labelled_at, received_at, label_source"
    first = connection.execute(
        text(
            f"INSERT INTO {table} ({kept}) SELECT DISTINCT ON (prediction_id) {kept} FROM incoming "
            "WHERE NOT is_correction AND prediction_id NOT IN (SELECT prediction_id FROM incoming WHERE is_correction) "
            "ORDER BY prediction_id, received_at ON CONFLICT DO NOTHING"
        )
    ).rowcount
    corrected = connection.execute(
        text(
            f"INSERT INTO {table} AS old ({kept}) SELECT DISTINCT ON (prediction_id) {kept} FROM incoming "
            "WHERE is_correction ORDER BY prediction_id, received_at DESC "
            "ON CONFLICT (prediction_id) DO UPDATE SET true_label = excluded.true_label, "
            "labelled_at = excluded.labelled_at, received_at = excluded.received_at, "
            "label_source = excluded.label_source WHERE old.received_at < excluded.received_at"
        )
    ).rowcount
    return first + corrected


_COPIERS = {"predictions": _copy_predictions, "labels": _copy_labels}
