"""Journal audit: queries that compare journal lines with Postgres.

Postgres reads the lines as it does when it copies them, so equal means equal to the last bit. Nothing is changed: the
lines pass through temporary tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from sqlalchemy import Connection, Row, text

from selfheal.adapters.postgres.ingest import incoming_lines, whole_derived
from selfheal.adapters.postgres.predictions import CLOCK_TOLERANCE, LABEL_OVERRULES
from selfheal.adapters.storable_lines import blanked_lines

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.adapters.postgres.store import Store

ResultT = TypeVar("ResultT")

SWAP_TOLERANCE = timedelta(minutes=10)
"""Time in which a replaced version may still answer: an API swaps within seconds, one without Postgres later."""

SNAPSHOT_COLUMNS = ("prediction_id", "created_at", "model_version", "probability")
"""The columns of a training set's rows, besides the features, that identify the prediction."""


@dataclass(frozen=True, slots=True)
class LinesAgainstTable:
    """Ids (as text) of predictions whose line disagrees with the tables, and the time of the oldest line.

    `missing` are not in the table. `unserved` name a version that was not in production then. Of `n_unknown` that is
    not known: they are from before what went live when was recorded. `unreadable` are lines that Postgres refuses, and why.
    """

    missing: tuple[str, ...] = ()
    unserved: tuple[str, ...] = ()
    n_unknown: int = 0
    first_at: datetime | None = None
    unreadable: tuple[str, ...] = ()

    def with_(self, other: LinesAgainstTable) -> LinesAgainstTable:
        """Return both together."""
        return LinesAgainstTable(
            (*self.missing, *other.missing),
            (*self.unserved, *other.unserved),
            self.n_unknown + other.n_unknown,
            min((moment for moment in (self.first_at, other.first_at) if moment is not None), default=None),
            (*self.unreadable, *other.unreadable),
        )


@dataclass(frozen=True, slots=True)
class LabelsAgainstTable:
    """Ids (as text) whose stored label does not follow from their lines, and lines that Postgres refuses, with the reason."""

    differing: tuple[str, ...]
    unreadable: tuple[str, ...]


class JournalCheck:
    """One pass over the journal; made by `journal_check`.

    Columns of its own beside features begin with `_`, which no feature does.
    """

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store = store
        self._connection = connection
        self._table = store.tables.prediction_logs.name
        names = ", ".join(f'"{name}"' for name in (*SNAPSHOT_COLUMNS, *store.contract.feature_names))
        self._snapshot_columns = names
        snapshot_rows = f"""
            CREATE TEMP TABLE snapshot_rows AS
            SELECT 0 AS _snapshot, false AS _is_found, false AS _is_equal, {names} FROM {self._table} WHERE false
        """
        with connection.begin():
            connection.execute(text("CREATE TEMP TABLE differing (prediction_id uuid PRIMARY KEY)"))
            connection.execute(text(snapshot_rows))

    def add_snapshot(self, number: int, rows: pd.DataFrame) -> None:
        """Add the logged rows of a training set, to be compared with the lines."""
        names = [*SNAPSHOT_COLUMNS, *self._store.contract.feature_names]
        data = rows[names].assign(_snapshot=number, _is_found=False, _is_equal=False)
        for name in self._store.contract.feature_names:
            if self._store.contract.kinds[name] in {"int", "bool"}:
                data[name] = data[name].astype("Int64")
        target = f"snapshot_rows ({self._snapshot_columns}, _snapshot, _is_found, _is_equal)"
        with (
            self._connection.begin(),
            self._connection.connection.cursor().copy(f"COPY {target} FROM STDIN (FORMAT csv)") as copy,
        ):
            for start in range(0, len(data), 10_000):
                copy.write(data.iloc[start : start + 10_000].to_csv(index=False, header=False))

    def begin(self) -> None:
        """Prepare for the lines; call it after the last snapshot."""
        with self._connection.begin():
            self._connection.execute(text("CREATE INDEX ON snapshot_rows (prediction_id)"))
            self._connection.execute(text("ANALYZE snapshot_rows"))

    def predictions(
        self, columns: tuple[str, ...], lines: tuple[bytes, ...], retained_since: datetime | None
    ) -> LinesAgainstTable:
        """Compare lines of the prediction journal. Those that differ from the table are noted for `forgive_repeated`.

        A line that Postgres refuses is named; the lines beside it are compared all the same.

        Args:
            retained_since: predictions without a label from before then may have been deleted from the table; None:
                none was.
        """

        def compare() -> LinesAgainstTable:
            self._note_differing(columns)
            self._mark_snapshot_rows()
            served = {"name": self._store.contract.name, "early": CLOCK_TOLERANCE, "late": SWAP_TOLERANCE}
            unserved = self._connection.execute(text(UNSERVED), served).all()
            return LinesAgainstTable(
                self._ids(MISSING.format(table=self._table), retained_since=retained_since),
                tuple(str(row.prediction_id) for row in unserved if row.is_known),
                sum(not row.is_known for row in unserved),
                self._connection.execute(text("SELECT min(created_at) FROM incoming")).scalar(),
            )

        found, unreadable = self._with_lines(columns, lines, self._table, compare)
        return reduce(LinesAgainstTable.with_, found, LinesAgainstTable(unreadable=unreadable))

    def forgive_repeated(self, columns: tuple[str, ...], lines: tuple[bytes, ...]) -> None:
        """Clear differences in a second pass: an id chosen by a client may have two lines, one of which is in the table."""
        forgiven = f"""
            DELETE FROM differing d USING incoming i JOIN {self._table} p USING (prediction_id)
            WHERE d.prediction_id = i.prediction_id AND NOT ({self._is_different(columns)})
        """
        self._with_lines(columns, lines, self._table, lambda: self._connection.execute(text(forgiven)))

    def differing(self) -> tuple[str, ...]:
        """Return the ids of predictions none of whose lines matches the table."""
        with self._connection.begin():
            return self._ids("SELECT prediction_id FROM differing")

    def labels(self, columns: tuple[str, ...], lines: tuple[bytes, ...]) -> LabelsAgainstTable:
        """Compare lines of the label journal: does the stored label follow from these lines and those before them?"""
        table = self._store.tables.label_store.name
        found, unreadable = self._with_lines(columns, lines, table, lambda: self._ids(LABELS.format(table=table)))
        return LabelsAgainstTable(tuple(one for ids in found for one in ids), unreadable)

    def snapshot_results(self) -> list[Row[Any]]:
        """Return for each snapshot: rows, rows without a line, the newest of those, and rows whose line differs."""
        query = """
            SELECT _snapshot AS snapshot, count(*) AS n_rows, count(*) FILTER (WHERE NOT _is_found) AS n_missing,
                   max(created_at) FILTER (WHERE NOT _is_found) AS newest_missing_at,
                   count(*) FILTER (WHERE _is_found AND NOT _is_equal) AS n_differing
            FROM snapshot_rows GROUP BY _snapshot ORDER BY _snapshot
        """
        with self._connection.begin():
            return list(self._connection.execute(text(query)))

    def _with_lines(
        self, columns: tuple[str, ...], lines: tuple[bytes, ...], table: str, compare: Callable[[], ResultT]
    ) -> tuple[list[ResultT], tuple[str, ...]]:
        """Return what `compare` says of the lines, piece by piece, and the lines that Postgres refuses, with the reason.

        Usually there is one piece. If a line is refused, halving finds it, as in the copy.
        """
        found: list[ResultT] = []
        unreadable: list[str] = []
        pieces, is_blanked = [lines], False
        while pieces:
            piece = pieces.pop()
            try:
                with self._lines(columns, piece, table):
                    found.append(compare())
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                if not is_blanked:  # the copy has left such values out, too
                    blanked = blanked_lines(columns, piece, whole_derived(self._store))
                    pieces.append(tuple(blanked[i].line if i in blanked else line for i, line in enumerate(piece)))
                    is_blanked = True
                elif len(piece) == 1:
                    unreadable.append(f"{piece[0].partition(b',')[0].decode()} ({error.diag.message_primary})")
                else:
                    middle = len(piece) // 2
                    pieces += [piece[middle:], piece[:middle]]  # the last is next, which preserves the order
        return found, tuple(unreadable)

    @contextmanager
    def _lines(self, columns: tuple[str, ...], lines: tuple[bytes, ...], table: str) -> Iterator[None]:
        """Provide the lines as table `incoming`, in a transaction of their own: a failure leaves nothing behind."""
        with (
            self._connection.begin(),
            incoming_lines(
                self._connection,
                columns,
                lines,
                f"LIKE {table} INCLUDING CONSTRAINTS",
                self._store.contract.category_names,
            ),
        ):
            yield

    def _note_differing(self, columns: tuple[str, ...]) -> None:
        query = f"""
            INSERT INTO differing SELECT DISTINCT i.prediction_id FROM incoming i JOIN {self._table} p USING (prediction_id)
            WHERE {self._is_different(columns)} ON CONFLICT DO NOTHING
        """
        self._connection.execute(text(query))

    def _is_different(self, columns: tuple[str, ...]) -> str:
        """Return the condition that line and row differ: in what the file has, or in a column that it does not have yet."""
        declared = [
            column.name for column in self._store.tables.prediction_logs.columns if column.name != "journal_segment"
        ]
        line, row = (
            ", ".join(f'{prefix}."{name}"' for name in dict.fromkeys((*columns, *declared))) for prefix in ("i", "p")
        )
        return f"ROW({line}) IS DISTINCT FROM ROW({row})"

    def _mark_snapshot_rows(self) -> None:
        line, row = (
            ", ".join(f"{prefix}.{name.strip()}" for name in self._snapshot_columns.split(",")) for prefix in ("i", "s")
        )
        query = f"""
            UPDATE snapshot_rows s
            SET _is_found = true, _is_equal = s._is_equal OR (({line}) IS NOT DISTINCT FROM ({row}))
            FROM incoming i WHERE i.prediction_id = s.prediction_id
        """
        self._connection.execute(text(query))

    def _ids(self, query: str, **values: Any) -> tuple[str, ...]:
        return tuple(str(found) for found in self._connection.execute(text(query), values).scalars())


MISSING = """
    SELECT i.prediction_id FROM incoming i
    WHERE NOT EXISTS (SELECT 1 FROM {table} p WHERE p.prediction_id = i.prediction_id)
      AND NOT (i.created_at < coalesce(CAST(:retained_since AS timestamptz), '-infinity')
               AND NOT EXISTS (SELECT 1 FROM label_store l WHERE l.prediction_id = i.prediction_id))
    ORDER BY i.created_at
"""

UNSERVED = """
    WITH serving AS (
        SELECT version, promoted_at AS since, lead(promoted_at) OVER (ORDER BY position) AS until
        FROM promotions WHERE model_name = :name
    ),
    recorded AS (
        SELECT coalesce(min(promoted_at) FILTER (WHERE d.code_version LIKE '%+%'), 'infinity') AS since,
               bool_or(d.code_version IS NULL OR d.code_version NOT LIKE '%+%') AS has_older
        FROM promotions JOIN retraining_decisions d USING (decision_id) WHERE promotions.model_name = :name
    )
    SELECT i.prediction_id, NOT coalesce(r.has_older AND i.created_at < r.since, false) AS is_known
    FROM incoming i CROSS JOIN recorded r
    WHERE NOT EXISTS (SELECT 1 FROM serving s WHERE s.version = i.model_version AND i.created_at >= s.since - :early
                        AND i.created_at <= coalesce(s.until + :late, 'infinity'))
    ORDER BY i.created_at
"""
"""The release that made `promotions` a table also gave `code_version` a digest. What had gone live before is known of
each version for its last time only (migration 0007)."""

LABELS = f"""
    SELECT DISTINCT i.prediction_id FROM incoming i LEFT JOIN {{table}} old USING (prediction_id)
    WHERE old.prediction_id IS NULL
       OR {LABEL_OVERRULES.format(new="i", old="old")}
       OR (i.is_correction = old.is_correction AND i.received_at = old.received_at
           AND i.ordered_at IS NOT DISTINCT FROM old.ordered_at
           AND (i.true_label, i.labelled_at, i.label_source)
               IS DISTINCT FROM (old.true_label, old.labelled_at, old.label_source))
"""
"""SQL: lines that contradict the table, because copying them would still change it."""


@contextmanager
def journal_check(store: Store) -> Iterator[JournalCheck]:
    """Open a check with a connection of its own and one transaction per step, so that no transaction spans the pass."""
    with store.engine.connect() as connection:
        try:
            yield JournalCheck(store, connection)
        finally:
            connection.invalidate()  # closes the connection with its temporary tables, which the pool would otherwise reuse
