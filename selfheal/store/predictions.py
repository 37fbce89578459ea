"""Queries over what was predicted and what turned out to be true. Rows leave in bulk (COPY), aggregates are SQL's."""

from __future__ import annotations

import io
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, text

from selfheal.records import ProxyMetrics, Window

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

    from selfheal.store import Store

WINDOW_FILTER = "p.model_version = %(version)s AND p.created_at > %(start)s AND p.created_at <= %(end)s"


def latest_activity(store: Store) -> tuple[datetime | None, datetime | None]:
    """When the newest prediction was made and the newest label received; None where there is none."""
    query = "SELECT (SELECT max(created_at) FROM prediction_logs), (SELECT max(received_at) FROM label_store)"
    with store.engine.connect() as connection:
        row = connection.execute(text(query)).one()
    return row[0], row[1]


def window_of(store: Store, model_version: int, since: datetime, until: datetime | None = None) -> Window | None:
    """The window from `since` to the newest prediction of the version; None if it served nothing since then."""
    query = """
        SELECT max(p.created_at) AS window_end, count(*) AS n_predictions, count(l.prediction_id) AS n_labels,
               max(l.received_at) AS last_label_at
        FROM prediction_logs p LEFT JOIN label_store l USING (prediction_id)
        WHERE p.model_version = :version AND p.created_at > :since AND (p.created_at <= :until OR :until IS NULL)
    """
    typed = text(query.replace(":until", "CAST(:until AS timestamptz)"))
    with store.engine.connect() as connection:
        row = connection.execute(typed, {"version": model_version, "since": since, "until": until}).one()
    if row.n_predictions == 0:
        return None
    return Window(
        model_name=store.contract.name,
        model_version=model_version,
        start=since,
        end=row.window_end,
        n_predictions=row.n_predictions,
        n_labels=row.n_labels,
        last_label_at=row.last_label_at,
    )


def oldest_prediction_after(store: Store, model_version: int, moment: datetime) -> datetime | None:
    """When the version's first prediction after `moment` was made; None if there is none. Read from an index."""
    query = """
        SELECT created_at FROM prediction_logs WHERE model_version = :version AND created_at > :moment
        ORDER BY created_at LIMIT 1
    """
    with store.engine.connect() as connection:
        row = connection.execute(text(query), {"version": model_version, "moment": moment}).first()
    return None if row is None else row.created_at


def proxy_metrics(store: Store, window: Window) -> ProxyMetrics:
    """Exact aggregates over the whole window, computed by Postgres."""
    query = f"""
        SELECT avg(prediction)::float8, avg(probability), stddev_samp(probability),
               avg(CASE WHEN probability <= 0 OR probability >= 1 THEN 0.0
                   ELSE -(probability * ln(probability) + (1 - probability) * ln(1 - probability)) / ln(2.0) END)
        FROM prediction_logs p WHERE {WINDOW_FILTER}
    """
    with store.engine.connect() as connection:
        row = connection.exec_driver_sql(query, _bounds(window)).one()
    return ProxyMetrics(window, *(None if value is None else float(value) for value in row))


def window_rows(store: Store, window: Window, max_rows: int) -> pd.DataFrame:
    """The newest `max_rows` predictions of the window: features, `probability`, `prediction`, oldest first."""
    columns = ", ".join(f'p."{name}"' for name in store.contract.feature_names)
    query = f"""
        SELECT p.created_at, {columns}, p.probability, p.prediction FROM prediction_logs p
        WHERE {WINDOW_FILTER} ORDER BY p.created_at DESC, p.prediction_id DESC LIMIT %(max_rows)s
    """
    return _frame(store, query, _bounds(window) | {"max_rows": max_rows}).iloc[::-1].reset_index(drop=True)


def labelled_rows(
    store: Store,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    model_version: int | None = None,
    max_rows: int,
) -> pd.DataFrame:
    """The newest labelled predictions: id, time, features, `probability`, `prediction`, `true_label`; oldest first."""
    columns = ", ".join(f'p."{name}"' for name in store.contract.feature_names)
    query = f"""
        SELECT p.prediction_id, p.created_at, {columns}, p.probability, p.prediction, p.model_version, l.true_label
        FROM prediction_logs p JOIN label_store l USING (prediction_id)
        WHERE (%(since)s::timestamptz IS NULL OR p.created_at > %(since)s)
          AND (%(until)s::timestamptz IS NULL OR p.created_at <= %(until)s)
          AND (%(version)s::int IS NULL OR p.model_version = %(version)s)
        ORDER BY p.created_at DESC, p.prediction_id DESC LIMIT %(max_rows)s
    """
    bounds = {"since": since, "until": until, "version": model_version, "max_rows": max_rows}
    return _frame(store, query, bounds).iloc[::-1].reset_index(drop=True)


def count_labels(store: Store, *, since: datetime | None = None) -> tuple[int, int]:
    """How many predictions were made since then, and how many of them are labelled."""
    query = """
        SELECT count(*), count(l.prediction_id) FROM prediction_logs p LEFT JOIN label_store l USING (prediction_id)
        WHERE CAST(:since AS timestamptz) IS NULL OR p.created_at > :since
    """
    with store.engine.connect() as connection:
        n_predictions, n_labels = connection.execute(text(query), {"since": since}).one()
    return n_predictions, n_labels


class KnownLabel(NamedTuple):
    """A label as far as it matters for whether another one overrules it."""

    value: int
    is_correction: bool
    received_at: datetime

    def overrules(self, other: KnownLabel) -> bool:
        """The first label of a prediction counts, unless there are corrections; of those the last. As the copy decides it."""
        if self.is_correction != other.is_correction:
            return self.is_correction
        is_later = self.received_at > other.received_at
        return is_later if self.is_correction else self.received_at < other.received_at


def stored_labels(store: Store, prediction_ids: Collection[UUID]) -> dict[UUID, KnownLabel]:
    """The labels that these predictions have already."""
    table = store.tables.label_store
    columns = table.c.prediction_id, table.c.true_label, table.c.is_correction, table.c.received_at
    query = select(*columns).where(table.c.prediction_id.in_(prediction_ids))
    with store.engine.connect() as connection:
        return {prediction_id: KnownLabel(*known) for prediction_id, *known in connection.execute(query)}


def stored_predictions(store: Store, prediction_ids: Collection[str]) -> list[dict[str, Any]]:
    """What was logged under these ids: all columns of `prediction_logs`."""
    table = store.tables.prediction_logs
    query = select(table).where(table.c.prediction_id.in_([UUID(text) for text in prediction_ids]))
    with store.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def table_summary(store: Store, table: str, time_column: str) -> dict[str, Any]:
    """Row count and time span of a table, for a person to see."""
    query = f'SELECT count(*), min("{time_column}"), max("{time_column}") FROM "{table}"'
    with store.engine.connect() as connection:
        n_rows, first, last = connection.execute(text(query)).one()
    return {"n_rows": n_rows, "first": first, "last": last}


def count_orphan_labels(store: Store) -> int:
    """Labels whose prediction is not in the log: early, or for an id nobody issued."""
    query = """
        SELECT count(*) FROM label_store l
        WHERE NOT EXISTS (SELECT 1 FROM prediction_logs p WHERE p.prediction_id = l.prediction_id)
    """
    with store.engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


def _bounds(window: Window) -> dict[str, Any]:
    return {"version": window.model_version, "start": window.start, "end": window.end}


def _frame(store: Store, query: str, parameters: dict[str, Any]) -> pd.DataFrame:
    """The rows of a query, carried by COPY: an order of magnitude faster than row objects."""
    import pandas as pd

    with store.engine.connect() as connection:
        data = _copy_out(connection, query, parameters)
    # pandas' ordinary float parser is off by a last bit now and then; a score must come back as it was given.
    frame = pd.read_csv(io.BytesIO(data), float_precision="round_trip", na_values=[""], keep_default_na=False)
    # Postgres leaves out a fraction that is zero: the times of one column have two formats.
    frame["created_at"] = pd.to_datetime(frame["created_at"], format="ISO8601", utc=True)
    return frame.astype(dict.fromkeys(store.contract.feature_names, "float64"))


def _copy_out(connection: Connection, query: str, parameters: dict[str, Any]) -> bytes:
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", parameters) as copy:
        return b"".join(copy)
