"""Predictions with what came of them and when that was known: the rows of a replay of the platform's own logs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from selfheal.adapters.postgres.frames import columns_of, read_frame
from selfheal.adapters.postgres.spoiled_periods import IS_SOUND

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.adapters.postgres.store import Store

LABEL_KNOWN_AT = "label_known_at"
"""Column: when the label that counts was first known; blank where there is no label."""

COUNTED_SINCE = """
    CASE WHEN l.first_label <> l.true_label THEN l.received_at ELSE coalesce(l.first_received_at, l.received_at) END
"""
"""SQL: when the label that counts arrived: with the first one, or, where that was another, with the correction."""


def logged_rows(store: Store, *, since: datetime | None, until: datetime, max_rows: int) -> pd.DataFrame:
    """Return the newest predictions of all versions made in (since, until], labelled or not, in chronological order.

    Columns: `prediction_id`, `created_at`, features, the entity if the contract declares a key, `true_label` as it counts now (blank: unknown), `LABEL_KNOWN_AT`.
    """
    import pandas as pd

    query = f"""
        SELECT p.prediction_id, p.created_at, {columns_of(store, "p.")}, l.true_label, {COUNTED_SINCE} AS {LABEL_KNOWN_AT}
        FROM (SELECT * FROM prediction_logs
              WHERE created_at > coalesce(%(since)s, '-infinity'::timestamptz) AND created_at <= %(until)s
              ORDER BY created_at DESC, prediction_id DESC LIMIT %(max_rows)s) p
        LEFT JOIN label_store l USING (prediction_id)
        ORDER BY p.created_at, p.prediction_id
    """
    rows = read_frame(store, query, {"since": since, "until": until, "max_rows": max_rows})
    rows[LABEL_KNOWN_AT] = pd.to_datetime(rows[LABEL_KNOWN_AT], format="ISO8601", utc=True)
    return rows


def sound_rows(store: Store, model_version: int, since: datetime, until: datetime, max_rows: int) -> pd.DataFrame:
    """Return the newest sound predictions of a version made in (since, until], labelled or not, in chronological order.

    Columns: `prediction_id`, `created_at`, features. Rows with an unusable derived value are left out.
    """
    features = ", ".join(f'p."{name}"' for name in store.contract.feature_names)
    query = f"""
        SELECT p.prediction_id, p.created_at, {features}
        FROM (SELECT * FROM prediction_logs logs
              WHERE logs.model_version = %(version)s AND logs.created_at > %(since)s AND logs.created_at <= %(until)s
                AND {IS_SOUND.format(row="logs", time="created_at")}
              ORDER BY logs.created_at DESC, logs.prediction_id DESC LIMIT %(max_rows)s) p
        ORDER BY p.created_at, p.prediction_id
    """
    bounds = {"version": model_version, "since": since, "until": until, "max_rows": max_rows}
    usable, _ = store.contract.without_unusable(read_frame(store, query, bounds))
    return usable.reset_index(drop=True)
