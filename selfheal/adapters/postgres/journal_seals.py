"""Journal seals: a digest of each finished journal file and of the rows that came from it, in the hash chain.

A file is sealed once it is finished and wholly copied. Its rows then agree with their digest wherever the file is, and
what retention deletes on purpose is a link of the chain as well: before and after. ADR 17 has the reasons.

Belongs here: writing seals and reading them, and the digests of rows as Postgres computes them. Whether they agree is
`selfheal.services.verification.segments`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, insert, select, text

from selfheal.adapters.journal import (
    LABEL_COLUMNS,
    LABEL_JOURNAL,
    FinishedText,
    JournalKind,
    file_key,
    finished_text,
    text_size,
)
from selfheal.adapters.postgres import chain
from selfheal.adapters.postgres.chain import Link
from selfheal.adapters.postgres.ingest import copied_positions, under_either_name
from selfheal.adapters.postgres.tables import HOUR_OF_PREDICTION
from selfheal.kit.errors import InvalidDataError
from selfheal.kit.serialization import digest_of, from_dict, to_dict

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

SEGMENT, RETENTION = "segment", "retention"
"""Kinds of seals."""

SEALS_PER_PASS = 20
"""Files that one pass seals at most: after an upgrade there may be thousands, and the copy waits for the pass."""

PREDICTIONS = "predictions"

PREDICTION_ROWS = f"""
    SELECT journal_segment, {HOUR_OF_PREDICTION} AS hour, model_version, prediction_id, to_jsonb(p.*) - 'journal_segment' AS content
    FROM prediction_logs p
"""
"""`p.*` is the row, whatever a feature is called; a bare `p` would be a feature of that name."""

_LABEL_NAMES = ", ".join(LABEL_COLUMNS)
LABEL_ROWS = f"""
    SELECT journal_segment, {HOUR_OF_PREDICTION.replace("created_at", "received_at")} AS hour,
           CAST(NULL AS integer) AS model_version, prediction_id, to_jsonb(l) - 'journal_segment' AS content
    FROM (SELECT {_LABEL_NAMES}, journal_segment FROM label_store
          UNION ALL SELECT {_LABEL_NAMES}, journal_segment FROM overruled_labels) l
"""
"""A label that another one overruled still belongs to the file that it came from."""

GROUPS = """
    SELECT p.file, d.hour, d.model_version, count(*) AS n_rows,
           encode(sha256(string_agg(d.digest, ''::bytea ORDER BY d.prediction_id, d.digest)), 'hex') AS sha256
    FROM (SELECT journal_segment, hour, model_version, prediction_id,
                 sha256(convert_to(jsonb_strip_nulls(content)::text, 'UTF8')) AS digest
          FROM ({rows}) r WHERE {condition} OFFSET 0) d
    JOIN journal_positions p USING (journal_segment)
    GROUP BY p.file, d.hour, d.model_version ORDER BY p.file, d.hour, d.model_version
"""
"""Rows by file, hour and version, each group with one digest. Missing values are left out, so that a column that is
added to the table later changes none. OFFSET 0: the rows themselves, which are wide, are not sorted."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of one journal file within one hour (of `created_at` or `received_at`): their number and their digest.

    `model_version` is None for labels.
    """

    file: str
    hour: datetime
    model_version: int | None
    n_rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal as it is stored. `file` is None for what retention deleted, which may come from many files."""

    position: int
    kind: str
    journal: str
    file: str | None
    content: dict[str, Any]

    def groups(self, name: str) -> list[RowGroup]:
        """Return the groups that the content has under a name: `rows`, or `before` and `after` a deletion."""
        return [from_dict(RowGroup, one) for one in self.content[name]]


def seal_finished(store: Store, kind: JournalKind, data_dir: Path, limit: int = SEALS_PER_PASS) -> list[str]:
    """Seal the files that nobody writes to any more and that are wholly in Postgres; return their names."""
    done, known = copied_positions(store, kind), sealed_files(store, kind)
    sealed: list[str] = []
    for path in kind.files(data_dir):
        if len(sealed) == limit:
            break
        key = file_key(path)
        if key in known or key not in done:
            continue
        finished = _finished(path, done[key])
        if finished is not None:
            _seal(store, kind, key, finished)
            sealed.append(key)
    return sealed


def sealed_files(store: Store, kind: JournalKind) -> set[str]:
    """Return the names of the files that have a seal."""
    table = store.tables.journal_seals
    query = select(table.c.file).where(table.c.journal == kind.name, table.c.kind == SEGMENT)
    with store.engine.connect() as connection:
        return {file for file in connection.execute(query).scalars() if file is not None}


def text_digests(store: Store, kind: JournalKind) -> dict[str, str]:
    """Return the sealed digest of each file's text, by the file's name."""
    table = store.tables.journal_seals
    digest = table.c.content["text_sha256"].as_string()
    query = select(table.c.file, digest).where(table.c.journal == kind.name, table.c.kind == SEGMENT)
    with store.engine.connect() as connection:
        return {file: sha256 for file, sha256 in connection.execute(query) if file is not None}


def list_seals(store: Store, connection: Connection, kind: str | None = None) -> list[Seal]:
    """Return the seals, of one kind or of both, the oldest first. Those of segments have the digests of all rows."""
    table = store.tables.journal_seals
    query = select(table).order_by(table.c.position)
    rows = connection.execute(query if kind is None else query.where(table.c.kind == kind))
    return [Seal(row.position, row.kind, row.journal, row.file, row.content) for row in rows]


def links(store: Store, connection: Connection) -> list[Link]:
    """Return all seals as links of the chain."""
    rows = connection.execute(select(store.tables.journal_seals))
    return [
        Link(row.position, row.prev_hash, row.hash, _name(row), _hash(row.prev_hash, _hashed(row)) == row.hash)
        for row in rows
    ]


def row_groups(connection: Connection, journal: str, condition: str = "true", **values: Any) -> list[RowGroup]:
    """Return the groups of rows that came from a journal and meet a condition on segment, hour and model_version."""
    rows = LABEL_ROWS if journal == LABEL_JOURNAL.name else PREDICTION_ROWS
    # What a digest covers is text: how it is written must not depend on anybody's settings.
    connection.execute(text("SELECT set_config('extra_float_digits', '1', true), set_config('timezone', 'UTC', true)"))
    query = text(GROUPS.format(rows=rows, condition=f"journal_segment IS NOT NULL AND ({condition})"))
    found = connection.execute(query, values)
    return [RowGroup(row.file, row.hour.astimezone(UTC), row.model_version, row.n_rows, row.sha256) for row in found]


def append_retention(
    store: Store, connection: Connection, before: Sequence[RowGroup], after: Sequence[RowGroup]
) -> None:
    """Record what the connection's transaction has deleted of predictions, unless none of it came from a known file."""
    if before:
        content = {"before": [to_dict(one) for one in before], "after": [to_dict(one) for one in after]}
        _append(store, connection, RETENTION, PREDICTIONS, None, content)


def _finished(path: Path, n_copied: int) -> FinishedText | None:
    """Return the text of a file that is finished and wholly copied; None if it is not, or does not read.

    The size comes first: it costs nothing, and what differs in it would be read in vain at each pass.
    """
    try:
        if under_either_name(text_size, path) != n_copied:
            return None
        finished = under_either_name(finished_text, path)
    except (InvalidDataError, OSError):  # `selfheal verify` names it; it must not hold up the copy
        return None
    return finished if finished is not None and finished.n_bytes == n_copied else None


def _seal(store: Store, kind: JournalKind, file: str, finished: FinishedText) -> None:
    """Append the seal of a file, unless there is one.

    The digests of its rows take seconds; nobody who decides shall wait for them. So the chain is locked after them, and
    they are computed again if retention has deleted something meanwhile.
    """
    table, positions = store.tables.journal_seals, store.tables.journal_positions
    number = select(positions.c.journal_segment).where(positions.c.journal == kind.name, positions.c.file == file)
    is_sealed = select(table.c.position).where(table.c.journal == kind.name, table.c.file == file)
    with store.engine.begin() as connection:
        segment = connection.execute(number).scalar_one()
        deleted_before = _last_retention(store, connection)
        groups = row_groups(connection, kind.name, "journal_segment = :segment", segment=segment)
        chain.lock(connection)
        if connection.execute(is_sealed).first() is not None:
            return
        if _last_retention(store, connection) != deleted_before:
            groups = row_groups(connection, kind.name, "journal_segment = :segment", segment=segment)
        content = {
            "n_bytes": finished.n_bytes,
            "text_sha256": finished.sha256,
            "rows": [to_dict(one) for one in groups],
        }
        _append(store, connection, SEGMENT, kind.name, file, content)


def _last_retention(store: Store, connection: Connection) -> int | None:
    table = store.tables.journal_seals
    position: int | None = connection.execute(
        select(func.max(table.c.position)).where(table.c.kind == RETENTION)
    ).scalar()
    return position


def _append(
    store: Store, connection: Connection, kind: str, journal: str, file: str | None, content: dict[str, Any]
) -> None:
    chain.lock(connection)
    previous = chain.last_hash(connection)
    values = {
        "created_at": datetime.now(UTC),
        "kind": kind,
        "journal": journal,
        "file": file,
        "content": content,
    }
    link = {"position": chain.next_position(connection), "prev_hash": previous, "hash": _hash(previous, values)}
    connection.execute(insert(store.tables.journal_seals).values(**values, **link))


def _hashed(row: Row[Any]) -> dict[str, Any]:
    """Return the part of a row that its hash covers."""
    return {name: getattr(row, name) for name in ("created_at", "kind", "journal", "file", "content")}


def _hash(previous: str, values: dict[str, Any]) -> str:
    return digest_of(previous, values | {"created_at": values["created_at"].astimezone(UTC).isoformat()})


def _name(row: Row[Any]) -> str:
    return f"digest of {row.file}" if row.kind == SEGMENT else f"record {row.position} of a retention"
