"""Predictions and labels: queries over predictions and their true outcomes.

A column of `prediction_logs` may have any name that a contract gives it. So what a query names itself (`hours`, `_hour`)
is used with its table's name or begins with `_`.

Rows are read in bulk (COPY); aggregates are computed in SQL. The cost of a query does not depend on the number of rows in a
window: whole minutes are read from the exact rollups, the rows of the two minutes at the window's ends from the table, and
columns from a sample.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, func, select, text

from selfheal.adapters.postgres.frames import columns_of, copy_out, entity_column, entity_dtype, read_frame
from selfheal.adapters.postgres.label_quarantines import COUNT_WITHHELD, IS_TRUSTED
from selfheal.adapters.postgres.spoiled_periods import COUNT_SPOILED, IS_SOUND
from selfheal.adapters.postgres.tables import HOUR_OF_PREDICTION, ROLLUP_BUCKET, SAMPLING_HASH
from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import IS_LABELLED
from selfheal.domain.records import ProxyMetrics, Window

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

    from selfheal.adapters.postgres.store import Store

CLOCK_TOLERANCE = timedelta(minutes=1)
"""Largest difference between the clocks of several machines; beyond it, one of them is wrong."""


def latest_activity(store: Store, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return when the newest prediction was made and the newest label received; None if there is none.

    What is from after `now` (by more than `CLOCK_TOLERANCE`) was made before a clock was set back: it is left out, or it
    would hide every prediction and label until the clock reaches it.
    """
    query = """
        SELECT (SELECT max(last_at) FROM prediction_rollups
                WHERE bucket_start = (SELECT max(bucket_start) FROM prediction_rollups WHERE bucket_start <= :latest)),
               (SELECT max(received_at) FROM label_store WHERE received_at <= :latest)
    """
    with store.engine.connect() as connection:
        row = connection.execute(text(query), {"latest": now + CLOCK_TOLERANCE}).one()
    return row[0], row[1]


def window_of(store: Store, model_version: int, since: datetime, until: datetime | None = None) -> Window | None:
    """Return the window from `since` to the newest prediction of the version; None if it served nothing since then."""
    query = """
        SELECT max(created_at) FROM prediction_logs
        WHERE model_version = :version AND created_at > :since AND created_at <= coalesce(:until, 'infinity'::timestamptz)
    """
    with store.engine.connect() as connection:
        end = connection.execute(text(query), {"version": model_version, "since": since, "until": until}).scalar()
        if end is None:
            return None
        totals = _totals(connection, model_version, since, end)
    return Window(
        model_name=store.contract.name,
        model_version=model_version,
        start=since,
        end=end,
        n_predictions=totals.n_predictions,
        n_labels=totals.n_labels,
        last_label_at=totals.last_label_at,
    )


def time_of_nth_newest(store: Store, model_version: int, since: datetime, until: datetime, n: int) -> datetime | None:
    """Return when the `n`-th newest of the version's predictions in (since, until] was made; None if there are fewer."""
    query = """
        SELECT created_at FROM prediction_logs
        WHERE model_version = :version AND created_at > :since AND created_at <= :until
        ORDER BY created_at DESC OFFSET :skipped LIMIT 1
    """
    bounds = {"version": model_version, "since": since, "until": until, "skipped": n - 1}
    with store.engine.connect() as connection:
        return connection.execute(text(query), bounds).scalar()


def proxy_metrics(store: Store, window: Window) -> ProxyMetrics:
    """Return exact aggregates over the whole window, computed by Postgres."""
    with store.engine.connect() as connection:
        totals = _totals(connection, window.model_version, window.start, window.end)
    n = totals.n_predictions
    if n == 0:
        return ProxyMetrics(window, None, None, None, None)
    return ProxyMetrics(
        window,
        positive_rate=totals.n_positive / n,
        probability_mean=totals.sum_probability / n,
        probability_std=math.sqrt(totals.squared_deviations / (n - 1)) if n > 1 else None,
        entropy=totals.sum_entropy / n,
    )


def window_rows(store: Store, window: Window, max_rows: int, *, usable_only: bool = True) -> pd.DataFrame:
    """Return the window's predictions, or a sample of `max_rows`: features, `probability`, `prediction`, oldest first.

    The sample is simple random without replacement: the rows whose ids have the smallest hashes. The same window gives the
    same sample until a row is added to it.

    Args:
        usable_only: omit the sample's rows with an unusable derived value (`DerivedValues`), here as in the other queries.
    """
    rows = _sampled_rows(store, window, max_rows)
    return _usable(store, rows) if usable_only else rows


def _sampled_rows(store: Store, window: Window, max_rows: int) -> pd.DataFrame:
    share = 1.0
    if window.n_predictions > max_rows:
        # Fewer than `max_rows` of these rows have a hash below this share with probability 1e-9 (6 standard deviations).
        share = (max_rows + 6 * math.sqrt(max_rows) + 36) / window.n_predictions
    while True:
        rows = _rows_of_smallest_hash(store, window, max_rows, share)
        if len(rows) == max_rows or share >= 1.0:
            return rows
        share *= 4


def _rows_of_smallest_hash(store: Store, window: Window, max_rows: int, share: float) -> pd.DataFrame:
    """Return, of the rows whose hash is in the lowest `share` of all hashes, the `max_rows` with the smallest hashes.

    OFFSET 0 stops the planner from merging the inner query into the outer one. Each hour is then looked up in the index by
    hour and hash, also on a table without statistics, where the planner would otherwise read the whole window by time.
    """
    query = f"""
        SELECT created_at, {columns_of(store)}, probability, prediction FROM (
            SELECT chosen.*
            FROM generate_series(date_trunc('hour', %(start)s::timestamptz, 'UTC'), %(end)s, '1 hour') hours(_hour)
            CROSS JOIN LATERAL (
                SELECT * FROM prediction_logs
                WHERE model_version = %(version)s AND {HOUR_OF_PREDICTION} = hours._hour
                  AND {SAMPLING_HASH} <= %(highest)s
                OFFSET 0
            ) chosen
            WHERE created_at > %(start)s AND created_at <= %(end)s
            ORDER BY {SAMPLING_HASH}, prediction_id LIMIT %(max_rows)s
        ) sample ORDER BY created_at, prediction_id
    """
    highest = min(2**31 - 1, math.ceil(2**32 * share) - 2**31)
    return read_frame(store, query, _bounds(window) | {"max_rows": max_rows, "highest": highest})


def newest_rows(store: Store, window: Window, n_rows: int) -> pd.DataFrame:
    """Return the newest `n_rows` predictions of the window: features, `probability`, `prediction`, oldest first."""
    query = f"""
        SELECT created_at, {columns_of(store)}, probability, prediction FROM prediction_logs
        WHERE model_version = %(version)s AND created_at > %(start)s AND created_at <= %(end)s
        ORDER BY created_at DESC, prediction_id DESC LIMIT %(n_rows)s
    """
    rows = read_frame(store, query, _bounds(window) | {"n_rows": n_rows}).iloc[::-1].reset_index(drop=True)
    return _usable(store, rows)


def newest_of_version(store: Store, model_version: int, max_rows: int) -> pd.DataFrame:
    """Return the version's newest predictions, labelled or not, oldest first.

    Columns: `prediction_id`, `created_at`, features, `probability`, `prediction`, `IS_LABELLED` (0 or 1).
    """
    query = f"""
        SELECT p.prediction_id, p.created_at, {columns_of(store, "p.")}, p.probability, p.prediction,
               (l.prediction_id IS NOT NULL)::int AS {IS_LABELLED}
        FROM (SELECT * FROM prediction_logs WHERE model_version = %(version)s
              ORDER BY created_at DESC, prediction_id DESC LIMIT %(max_rows)s) p
        LEFT JOIN label_store l USING (prediction_id)
        ORDER BY p.created_at, p.prediction_id
    """
    return _usable(store, read_frame(store, query, {"version": model_version, "max_rows": max_rows}))


def labelled_rows(
    store: Store,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    model_version: int | None = None,
    max_rows: int,
    sound_only: bool = False,
    usable_only: bool = True,
    received_before: datetime | None = None,
) -> pd.DataFrame:
    """Return the newest labelled predictions, in chronological order, without the labels that are withheld.

    Columns: `prediction_id`, `created_at`, features, `probability`, `prediction`, `model_version`, `true_label`.

    Args:
        sound_only: omit predictions made while the feed was broken.
        usable_only: omit rows with an unusable derived value.
        received_before: omit labels received then or later: a tick has just found them suspect.
    """
    is_sound = IS_SOUND.format(row="labelled", time="predicted_at") if sound_only else "true"
    query = f"""
        SELECT p.prediction_id, p.created_at, {columns_of(store, "p.")}, p.probability, p.prediction, p.model_version,
               l.true_label
        FROM (SELECT prediction_id, true_label FROM label_store labelled
              WHERE {is_sound} AND {IS_TRUSTED.format(row="labelled")}
                AND received_at < coalesce(%(received_before)s, 'infinity'::timestamptz)
                AND predicted_at > coalesce(%(since)s, '-infinity'::timestamptz)
                AND predicted_at <= coalesce(%(until)s, 'infinity'::timestamptz)
                AND (%(version)s::int IS NULL OR model_version = %(version)s)
              ORDER BY predicted_at DESC, prediction_id DESC LIMIT %(max_rows)s) l
        JOIN prediction_logs p USING (prediction_id)
        ORDER BY p.created_at, p.prediction_id
    """
    bounds = {"since": since, "until": until, "received_before": received_before}
    rows = read_frame(store, query, bounds | {"version": model_version, "max_rows": max_rows})
    return _usable(store, rows) if usable_only else rows


def labelled_keys(
    store: Store, *, since: datetime | None = None, until: datetime | None = None, max_rows: int
) -> pd.DataFrame:
    """Return time, label and a key of the inputs of the newest labelled, sound predictions, in chronological order.

    These are the rows of `labelled_rows`, without their features: `created_at`, `true_label`, `inputs_key`. Rows with equal
    inputs have equal keys (64 bits); the key is null where the contract says that equal inputs are different cases. With the
    column of the entity if the contract declares a key.
    """
    import pandas as pd

    inputs = ", ".join(f'p."{name}"' for name in store.contract.input_names)
    key = f"hash_record_extended(ROW({inputs}), 0)" if store.contract.equal_inputs_are_one_case else "NULL::bigint"
    entity = f', p."{of_entity}"' if (of_entity := entity_column(store)) else ""
    query = f"""
        SELECT p.created_at, l.true_label, {key} AS inputs_key{entity}
        FROM (SELECT prediction_id, true_label FROM label_store labelled
              WHERE {IS_SOUND.format(row="labelled", time="predicted_at")} AND {IS_TRUSTED.format(row="labelled")}
                AND predicted_at > coalesce(%(since)s, '-infinity'::timestamptz)
                AND predicted_at <= coalesce(%(until)s, 'infinity'::timestamptz)
              ORDER BY predicted_at DESC, prediction_id DESC LIMIT %(max_rows)s) l
        JOIN prediction_logs p USING (prediction_id)
        ORDER BY p.created_at, p.prediction_id
    """
    with store.engine.connect() as connection:
        data = copy_out(connection, query, {"since": since, "until": until, "max_rows": max_rows})
    frame = pd.read_csv(
        io.BytesIO(data), dtype={"inputs_key": "Int64"} | entity_dtype(store), na_values=[""], keep_default_na=False
    )
    if of_entity not in {None, ENTITY}:
        frame = frame.rename(columns={of_entity: ENTITY})
    frame["created_at"] = pd.to_datetime(frame["created_at"], format="ISO8601", utc=True)
    return frame


def count_labels(store: Store, *, since: datetime | None = None, sound_only: bool = False) -> tuple[int, int]:
    """Return the number of predictions since `since`, and how many of them are labelled, for all versions.

    Args:
        sound_only: count neither predictions made while the feed was broken, nor labels that are withheld.
    """
    query = """
        WITH counts AS (
            SELECT n_predictions, n_labels FROM prediction_rollups WHERE bucket_start >= :next_bucket
            UNION ALL
            SELECT count(*), count(l.prediction_id)
            FROM prediction_rollups r
            JOIN prediction_logs p ON p.model_version = r.model_version AND p.created_at > :since
                                      AND p.created_at < :next_bucket
            LEFT JOIN label_store l USING (prediction_id)
            WHERE r.bucket_start = :bucket
        )
        SELECT coalesce(sum(n_predictions), 0)::bigint, coalesce(sum(n_labels), 0)::bigint FROM counts
    """
    since = BEFORE_ALL if since is None else since
    bucket = _bucket_start(since)
    bounds = {"since": since, "bucket": bucket, "next_bucket": bucket + ROLLUP_BUCKET}
    with store.engine.connect() as connection:
        n_predictions, n_labels = connection.execute(text(query), bounds).one()
        if not sound_only:
            return n_predictions, n_labels
        n_spoiled, n_spoiled_labels = connection.execute(COUNT_SPOILED, {"since": since}).one()
        n_withheld = connection.execute(COUNT_WITHHELD, {"since": since}).scalar_one()
    return n_predictions - n_spoiled, n_labels - n_spoiled_labels - n_withheld


def count_labels_received_after(
    store: Store, moment: datetime, *, since: datetime | None = None, until: datetime | None = None
) -> int:
    """Return the number of labels whose first one arrived after `moment`, of sound predictions made in (since, until].

    Labels that are withheld are not counted.
    """
    query = f"""
        SELECT count(*) FROM label_store l
        WHERE l.received_at > :moment AND coalesce(l.first_received_at, l.received_at) > :moment
          AND l.predicted_at > coalesce(:since, '-infinity'::timestamptz)
          AND l.predicted_at <= coalesce(:until, 'infinity'::timestamptz)
          AND {IS_SOUND.format(row="l", time="predicted_at")} AND {IS_TRUSTED.format(row="l")}
    """
    with store.engine.connect() as connection:
        return int(connection.execute(text(query), {"moment": moment, "since": since, "until": until}).scalar_one())


LABEL_RANK = (
    "ROW(label_precedence({row}.is_correction, coalesce({row}.ordered_at, {row}.received_at)),"
    " label_precedence({row}.is_correction, {row}.received_at))"
)
"""SQL: of several labels of a prediction, the one with the highest rank counts (`label_precedence`: migration 0008).

`ordered_at` follows what was known when a label was accepted; the wall clock decides only where that is equal, and
among labels of earlier releases, which have no `ordered_at`.
"""

LABEL_OVERRULES = f"{LABEL_RANK.replace('{row}', '{new}')} > {LABEL_RANK.replace('{row}', '{old}')}"
"""SQL: whether a label takes the other's place; `StoredLabel.overrules` is the same in Python."""


FIRST_LABEL = "ROW(coalesce({row}.first_received_at, {row}.received_at), coalesce({row}.first_label, {row}.true_label))"
"""SQL: when a prediction's earliest label arrived, and its value; what the senders called their labels decides nothing."""


class StoredLabel(NamedTuple):
    """The fields of a label that decide whether another one overrules it."""

    value: int
    is_correction: bool
    received_at: datetime
    ordered_at: datetime | None = None

    @property
    def order(self) -> datetime:
        """Return the time by which it is ordered; that of its receipt for a label of an earlier release."""
        return self.ordered_at or self.received_at

    def overrules(self, other: StoredLabel) -> bool:
        """Return whether this label replaces the other: the first label counts, or the last correction.

        Postgres decides by the same rule when the journal is copied (`LABEL_OVERRULES`).
        """
        if self.is_correction != other.is_correction:
            return self.is_correction
        mine, others = (self.order, self.received_at), (other.order, other.received_at)
        return mine > others if self.is_correction else mine < others


def stored_labels(store: Store, prediction_ids: Collection[UUID]) -> tuple[dict[UUID, StoredLabel], datetime]:
    """Return the labels that these predictions have already, and Postgres's time: one clock for all hosts."""
    table = store.tables.label_store
    c = table.c
    columns = c.prediction_id, c.true_label, c.is_correction, c.received_at, c.ordered_at
    clock = select(func.clock_timestamp().label("now")).subquery()  # a row even where none has a label
    query = select(clock.c.now, *columns).select_from(clock.outerjoin(table, c.prediction_id.in_(prediction_ids)))
    with store.engine.connect() as connection:
        rows = connection.execute(query).all()
    known = {prediction_id: StoredLabel(*label) for _, prediction_id, *label in rows if prediction_id is not None}
    return known, rows[0].now


def stored_predictions(store: Store, prediction_ids: Collection[str]) -> list[dict[str, Any]]:
    """Return the logged predictions with these ids: all columns of `prediction_logs`."""
    table = store.tables.prediction_logs
    query = select(table).where(table.c.prediction_id.in_([UUID(text) for text in prediction_ids]))
    with store.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class TableSummary:
    """Row count and time span of a table, for people."""

    n_rows: int
    first: datetime | None
    last: datetime | None


def summary_of_predictions(store: Store) -> TableSummary:
    """Return the summary of `prediction_logs`, by `created_at`."""
    query = """
        SELECT coalesce(sum(n_predictions), 0)::bigint,
               (SELECT min(first_at) FROM prediction_rollups
                WHERE bucket_start = (SELECT min(bucket_start) FROM prediction_rollups)),
               (SELECT max(last_at) FROM prediction_rollups
                WHERE bucket_start = (SELECT max(bucket_start) FROM prediction_rollups))
        FROM prediction_rollups
    """
    with store.engine.connect() as connection:
        return TableSummary(*connection.execute(text(query)).one())


def summary_of_labels(store: Store) -> TableSummary:
    """Return the summary of `label_store`, by `received_at`."""
    query = """
        SELECT (SELECT coalesce(sum(n_labels), 0)::bigint FROM prediction_rollups)
               + (SELECT count(*) FROM label_store WHERE predicted_at IS NULL),
               (SELECT min(received_at) FROM label_store), (SELECT max(received_at) FROM label_store)
    """
    with store.engine.connect() as connection:
        return TableSummary(*connection.execute(text(query)).one())


def count_orphan_labels(store: Store) -> int:
    """Return the number of labels whose prediction is not in the log: not copied yet, or an unknown id."""
    with store.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM label_store WHERE predicted_at IS NULL")).scalar_one())


@dataclass(frozen=True, slots=True)
class _Totals:
    """Sums over a window. `squared_deviations` are from the window's mean probability; entropy is in bits."""

    n_predictions: int
    n_positive: int
    sum_probability: float
    squared_deviations: float
    sum_entropy: float
    n_labels: int
    last_label_at: datetime | None


TOTALS = text("""
    WITH edge AS (
        SELECT prediction, probability FROM prediction_logs
        WHERE model_version = :version AND created_at > :start AND created_at < :first_end
        UNION ALL
        SELECT prediction, probability FROM prediction_logs
        WHERE model_version = :version AND created_at > :start AND created_at >= :last AND created_at <= :end
    ),
    edge_labels AS (
        SELECT received_at FROM label_store
        WHERE model_version = :version AND predicted_at > :start AND predicted_at < :first_end
        UNION ALL
        SELECT received_at FROM label_store
        WHERE model_version = :version AND predicted_at > :start AND predicted_at >= :last AND predicted_at <= :end
    ),
    parts AS (
        SELECT n_predictions, n_positive, sum_probability, squared_deviations, sum_entropy, n_labels, last_label_at
        FROM prediction_rollups
        WHERE model_version = :version AND bucket_start >= :first_end AND bucket_start < :last
        UNION ALL
        SELECT count(*), sum(prediction), sum(probability), count(*) * var_pop(probability),
               sum(entropy_bits(probability)), 0, NULL
        FROM edge HAVING count(*) > 0
        UNION ALL
        SELECT 0, 0, 0, 0, 0, count(*), max(received_at) FROM edge_labels
    ),
    whole AS (SELECT sum(sum_probability) / nullif(sum(n_predictions), 0) AS mean FROM parts)
    SELECT sum(n_predictions)::bigint, sum(n_positive)::bigint, sum(sum_probability),
           sum(squared_deviations) + coalesce(sum(n_predictions * (sum_probability / n_predictions - mean) ^ 2)
                                              FILTER (WHERE n_predictions > 0), 0),
           sum(sum_entropy), sum(n_labels)::bigint, max(last_label_at)
    FROM parts, whole
""")


def _totals(connection: Connection, model_version: int, start: datetime, end: datetime) -> _Totals:
    """Return sums over the version's predictions in (start, end]: whole minutes from the rollups, the rest row by row.

    Squared deviations are combined by Chan, Golub and LeVeque (1979): those within the parts, and those of their means.
    """
    first_end = min(_bucket_start(start) + ROLLUP_BUCKET, end)
    last = max(first_end, _bucket_start(end))
    bounds = {"version": model_version, "start": start, "end": end, "first_end": first_end, "last": last}
    return _Totals(*connection.execute(TOTALS, bounds).one())


BEFORE_ALL = datetime(1, 1, 2, tzinfo=UTC)


def _bucket_start(moment: datetime) -> datetime:
    """Return the start of the rollup that contains this time."""
    utc = moment.astimezone(UTC)
    return utc.replace(second=0, microsecond=0)


def _usable(store: Store, rows: pd.DataFrame) -> pd.DataFrame:
    usable, _ = store.contract.without_unusable(rows)
    return usable if len(usable) == len(rows) else usable.reset_index(drop=True)


def _bounds(window: Window) -> dict[str, Any]:
    return {"version": window.model_version, "start": window.start, "end": window.end}
