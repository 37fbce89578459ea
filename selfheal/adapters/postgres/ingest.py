"""Ingest: copy the journal to Postgres in batches (COPY), idempotently, exactly once by `prediction_id`.

The position in each file is stored in the transaction that copies. After a crash, at most one batch is repeated, whose rows
the primary key refuses; the same code refills an empty database from the first line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psycopg
from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from selfheal.adapters.journal import (
    COMPRESSED_SUFFIX,
    NO_ROOM,
    Chunk,
    JournalKind,
    compress,
    compressed_path,
    file_key,
    folder_id,
    has_writer,
    read_chunk,
    text_size,
)
from selfheal.adapters.postgres.predictions import FIRST_LABEL, LABEL_OVERRULES, LABEL_RANK
from selfheal.adapters.storable_lines import BlankedLine, blanked_lines
from selfheal.domain.levels import ESCAPES
from selfheal.kit.errors import InvalidDataError

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

ResultT = TypeVar("ResultT")


@dataclass
class IngestResult:
    """What one pass did.

    `n_read` lines were read and `n_new` rows were new. `n_torn` files ended in a line torn by a crash (which was never
    acknowledged). `corrupt` says where lines were skipped, and why. `unusable` says which lines were copied without a
    derived value that its column cannot hold. `n_conflicts` labels contradict the one that counts: two processes accepted
    them before either knew of the other.
    """

    n_read: int = 0
    n_new: int = 0
    n_torn: int = 0
    n_conflicts: int = 0
    corrupt: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def ingest(
    store: Store,
    kind: JournalKind,
    data_dir: Path,
    *,
    from_start: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> IngestResult:
    """Copy everything in the journal that has not been copied yet.

    A line that is damaged, or that Postgres refuses, is skipped and reported; the lines after it are copied. Only a derived
    value that its column cannot hold is left out alone: the prediction was acknowledged, and its label needs it.

    Args:
        from_start: read every file again; existing rows are unchanged.
        on_progress: called with the number of bytes read, chunk by chunk.

    Raises:
        sqlalchemy.exc.OperationalError: if Postgres does not respond; nothing is lost, call again.
    """
    result = IngestResult()
    done = {} if from_start else copied_positions(store, kind)
    for path in kind.files(data_dir):
        offset = done.get(file_key(path), 0)
        read = partial(_ingest_file, store, kind, offset=offset, result=result, on_progress=on_progress)
        try:
            under_either_name(read, path)
        except InvalidDataError as error:  # one foreign file must not stop the others
            result.corrupt.append(str(error))
    return result


def under_either_name(read: Callable[[Path], ResultT], path: Path) -> ResultT | None:
    """Read a listed file, which another process may be compressing; return None if it was deleted (it had no record)."""
    for name in (path, compressed_path(path)):
        with suppress(FileNotFoundError):
            return read(name)
    return None


def _ingest_file(
    store: Store,
    kind: JournalKind,
    path: Path,
    offset: int,
    result: IngestResult,
    on_progress: Callable[[int], None] | None,
) -> None:
    while (size := text_size(path)) > offset:
        is_finished = not has_writer(path)  # checked before reading: without a writer, a torn line remains torn
        chunk = read_chunk(path, offset)
        end_offset = chunk.end_offset
        if end_offset <= offset:
            if not is_finished:
                return
            result.n_torn += 1
            end_offset = size
        with store.engine.begin() as connection:
            segment = _save_position(store, connection, kind, path, end_offset)
            if chunk.lines:
                copied = _copy_chunk(store, connection, kind, path, chunk, segment)
                result.n_new += copied.n_new
                result.n_conflicts += copied.n_conflicts
                result.corrupt.extend(copied.refused)
                result.unusable.extend(copied.unusable)
        result.n_read += len(chunk.lines)
        result.corrupt.extend(chunk.corrupt)
        if on_progress is not None:
            on_progress(end_offset - offset)
        offset = end_offset


def compress_copied(store: Store, kind: JournalKind, data_dir: Path) -> list[Path]:
    """Compress the files that are finished and completely in Postgres; return their new paths.

    Stops early on a full disk.
    """
    done = copied_positions(store, kind)
    compressed: list[Path] = []
    for path in kind.files(data_dir):
        try:
            if path.suffix == COMPRESSED_SUFFIX:
                # A crash between the two steps of `compress` leaves both.
                path.with_name(file_key(path)).unlink(missing_ok=True)
                continue
            is_finished = not has_writer(path)  # from here on the file does not grow
            if is_finished and path.stat().st_size <= done.get(file_key(path), 0):
                compressed.append(compress(path))
        except FileNotFoundError:
            continue  # another process has just compressed it
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            break
    return compressed


def lag_bytes(store: Store, kind: JournalKind, data_dir: Path) -> int:
    """Return how many bytes of the journal are not in Postgres yet."""
    done = copied_positions(store, kind)
    sizes = {file_key(path): under_either_name(text_size, path) or 0 for path in kind.files(data_dir)}
    return sum(max(0, size - done.get(key, 0)) for key, size in sizes.items())


@dataclass(frozen=True, slots=True)
class Position:
    """How many bytes of a file's text are in Postgres, and the data folder that it was copied from (`folder_id`).

    `folder` is None for a file that an older release has copied.
    """

    byte_offset: int
    folder: str | None


def journal_positions(store: Store, kind: JournalKind) -> dict[str, Position]:
    """Return how far each file is copied, by `file_key`."""
    table = store.tables.journal_positions
    query = select(table.c.file, table.c.byte_offset, table.c.folder).where(table.c.journal == kind.name)
    with store.engine.connect() as connection:
        return {row.file: Position(row.byte_offset, row.folder) for row in connection.execute(query)}


def copied_positions(store: Store, kind: JournalKind) -> dict[str, int]:
    """Return how many bytes of each file's text are in Postgres, by `file_key`."""
    return {file: position.byte_offset for file, position in journal_positions(store, kind).items()}


def _save_position(store: Store, connection: Connection, kind: JournalKind, path: Path, offset: int) -> int:
    """Record how far the file is copied by the connection's transaction; return the file's number (`segment`)."""
    table = store.tables.journal_positions
    changes = {
        "byte_offset": func.greatest(table.c.byte_offset, offset),
        "folder": folder_id(path.parents[2]),
        "updated_at": func.now(),
    }
    key = {"journal": kind.name, "file": file_key(path)}
    known = update(table).where(table.c.journal == key["journal"], table.c.file == key["file"]).values(changes)
    segment = connection.execute(known.returning(table.c.journal_segment)).scalar()
    if segment is None:  # an upsert alone would use up a number at each call
        new = insert(table).values(**key, **changes | {"byte_offset": offset})
        upsert = new.on_conflict_do_update(index_elements=list(key), set_=changes)
        segment = connection.execute(upsert.returning(table.c.journal_segment)).scalar_one()
    return int(segment)


@dataclass
class _Copied:
    n_new: int = 0
    n_conflicts: int = 0
    refused: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Piece:
    """Lines of a chunk, by their places; `is_blanked`: without values that their columns cannot hold."""

    places: Sequence[int]
    is_blanked: bool = False

    def halves(self) -> list[_Piece]:
        """Return both halves, the first one last: it is taken next, which preserves the order."""
        middle = len(self.places) // 2
        return [_Piece(part, self.is_blanked) for part in (self.places[middle:], self.places[:middle])]


def _copy_chunk(
    store: Store, connection: Connection, kind: JournalKind, path: Path, chunk: Chunk, segment: int
) -> _Copied:
    """Copy the lines, except those that Postgres refuses: they are rare, so halving finds them in few steps."""
    copied = _Copied()
    blanked: dict[int, BlankedLine] = {}
    pieces = [_Piece(range(len(chunk.lines)))]
    while pieces:
        piece = pieces.pop()
        lines = tuple(blanked[i].line if piece.is_blanked else chunk.lines[i] for i in piece.places)
        # Rows that differ from their line have no segment: a seal of an earlier release has them not in its digest.
        of_segment = None if piece.is_blanked else segment
        try:
            with connection.begin_nested():
                n_new, n_conflicts = _COPIERS[kind.name](store, connection, chunk.columns, lines, of_segment)
        except psycopg.errors.UndefinedColumn as error:
            raise InvalidDataError(
                f"{path} was written under another contract: {error.diag.message_primary}"
            ) from error
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if not blanked and isinstance(error, psycopg.errors.NumericValueOutOfRange):
                blanked = blanked_lines(chunk.columns, chunk.lines, whole_derived(store))
            if not piece.is_blanked and not blanked.keys().isdisjoint(piece.places):
                for is_blanked in (True, False):
                    places = [i for i in piece.places if (i in blanked) is is_blanked]
                    pieces += [_Piece(places, is_blanked)] if places else []
            elif len(piece.places) == 1:
                place = f"{path}: byte {chunk.starts[piece.places[0]]}"
                copied.refused.append(f"{place} ({error.diag.message_primary})")
            else:
                pieces += piece.halves()
        else:
            copied.n_new += n_new
            copied.n_conflicts += n_conflicts
            without = piece.places if piece.is_blanked else ()
            copied.unusable += [f"{path}: byte {chunk.starts[i]} ({blanked[i].values})" for i in without]
    return copied


def whole_derived(store: Store) -> set[str]:
    """Return the derived features that are whole numbers: what is in their columns is of the contract's own making."""
    return {feature.name for feature in store.contract.derived if feature.kind == "int"}


@contextmanager
def incoming_lines(
    connection: Connection,
    columns: tuple[str, ...],
    lines: tuple[bytes, ...],
    definition: str,
    texts: Sequence[str] = (),
) -> Iterator[None]:
    """Provide the lines as a temporary table `incoming`.

    Args:
        texts: columns whose values a client chose, which the journal escapes.
    """
    connection.execute(text(f"CREATE TEMP TABLE incoming ({definition})"))
    names = ", ".join(f'"{name}"' for name in columns)
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY incoming ({names}) FROM STDIN (FORMAT csv)") as copy:
        copy.write(b"\n".join(lines) + b"\n")
    escaped = [f'"{name}"' for name in texts if name in columns]
    if escaped:
        decoded = ", ".join(f"{name} = {_unescaped(name)}" for name in escaped)
        is_escaped = " OR ".join(f"strpos({name}, '%') > 0" for name in escaped)
        connection.execute(text(f"UPDATE incoming SET {decoded} WHERE {is_escaped}"))
    yield
    connection.execute(text("DROP TABLE incoming"))


def _unescaped(name: str) -> str:
    """Return the SQL of a column of the journal's texts as they were sent (`selfheal.domain.levels.unescaped`)."""
    for plain, escape in reversed(ESCAPES.items()):
        name = f"replace({name}, '{escape}', '{plain}')"
    return name


def _copy_predictions(
    store: Store, connection: Connection, columns: tuple[str, ...], lines: tuple[bytes, ...], segment: int | None
) -> tuple[int, int]:
    table = store.tables.prediction_logs.name
    names = ", ".join(f'"{name}"' for name in columns)
    insert_new = (
        f"INSERT INTO {table} ({names}, journal_segment) SELECT {names}, CAST(:segment AS integer) FROM incoming "
        "ON CONFLICT DO NOTHING"
    )
    texts = store.contract.category_names
    with incoming_lines(connection, columns, lines, f"LIKE {table} INCLUDING CONSTRAINTS", texts):
        return connection.execute(text(insert_new), {"segment": segment}).rowcount, 0


def _copy_labels(
    store: Store, connection: Connection, columns: tuple[str, ...], lines: tuple[bytes, ...], segment: int | None
) -> tuple[int, int]:
    """Copy labels; of several labels of a prediction the one that counts stays (`LABEL_RANK`).

    That depends on the order in which they were accepted, not on when they are read: the files of several processes
    come in any order. Neither does when the first one arrived, and what it was (`FIRST_LABEL`).

    Returns:
        How many labels were stored or replaced another, and how many contradict the one that counts.
    """
    table = store.tables.label_store.name
    names = "prediction_id, true_label, labelled_at, received_at, label_source, is_correction, ordered_at"
    best = f"""
        SELECT DISTINCT ON (prediction_id) {names} FROM incoming
        ORDER BY prediction_id, {LABEL_RANK.format(row="incoming")} DESC
    """
    overruled = f"""
        SELECT count(*) FROM ({best}) i JOIN {table} old USING (prediction_id)
        WHERE NOT i.is_correction AND NOT old.is_correction AND {LABEL_OVERRULES.format(new="i", old="old")}
          AND i.true_label <> old.true_label
    """
    upsert = f"""
        INSERT INTO {table} AS old ({names}, journal_segment) SELECT best.*, CAST(:segment AS integer) FROM ({best}) best
        ON CONFLICT (prediction_id) DO UPDATE SET
            true_label = excluded.true_label, labelled_at = excluded.labelled_at, received_at = excluded.received_at,
            label_source = excluded.label_source, is_correction = excluded.is_correction, journal_segment = excluded.journal_segment,
            ordered_at = excluded.ordered_at, {_kept_if_earlier("first_received_at", "received_at")},
            {_kept_if_earlier("first_label", "true_label")}
        WHERE {LABEL_OVERRULES.format(new="excluded", old="old")}
    """
    first = f"""
        UPDATE {table} l SET first_received_at = e.received_at, first_label = e.true_label
        FROM (SELECT DISTINCT ON (prediction_id) prediction_id, received_at, true_label FROM incoming
              ORDER BY prediction_id, received_at, true_label) e
        WHERE l.prediction_id = e.prediction_id AND ROW(e.received_at, e.true_label) < {FIRST_LABEL.format(row="l")}
    """
    conflicts = f"""
        SELECT count(*) FROM incoming i JOIN {table} l USING (prediction_id)
        WHERE NOT i.is_correction AND NOT l.is_correction AND i.true_label <> l.true_label
    """
    with incoming_lines(connection, columns, lines, f"LIKE {table} INCLUDING CONSTRAINTS"):
        n_overruled = connection.execute(text(overruled)).scalar_one()
        n_new = connection.execute(text(upsert), {"segment": segment}).rowcount
        connection.execute(text(first))
        return n_new, n_overruled + connection.execute(text(conflicts)).scalar_one()


def _kept_if_earlier(first: str, own: str) -> str:
    """Return the assignment that keeps what the earliest label has there when another label takes the row."""
    is_earlier = f"{FIRST_LABEL.format(row='old')} < ROW(excluded.received_at, excluded.true_label)"
    return f"{first} = CASE WHEN {is_earlier} THEN coalesce(old.{first}, old.{own}) END"


_COPIERS: dict[str, Callable[[Store, Connection, tuple[str, ...], tuple[bytes, ...], int | None], tuple[int, int]]] = {
    "predictions": _copy_predictions,
    "labels": _copy_labels,
}
