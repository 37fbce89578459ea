"""Label delays: the query behind `selfheal.domain.monitoring.label_delay`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import text

from selfheal.adapters.postgres.label_quarantines import IS_TRUSTED
from selfheal.domain.monitoring.label_delay import ROWS_PER_SLICE, sample_slices

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.adapters.postgres.store import Store


def label_delay_sample(store: Store, model_version: int, since: datetime, until: datetime) -> pd.DataFrame:
    """Return predictions of a version, spread over (since, until], with their labels.

    Columns: `age_s`, `delay_s`, `true_label`, `is_replaced`, `probability`. The age is at `until`, the delay is that of the first label, whatever its sender called it; both are in seconds.
    The period is divided into equal slices and the first rows of each are read from the index: 10,000 rows at most, however
    many the version has served. A label received after `until` does not count yet. `is_replaced`: the label that counts
    has another value than the first one. Predictions with a label that is withheld are left out.
    """
    import pandas as pd

    query = f"""
        SELECT extract(epoch FROM CAST(:until AS timestamptz) - p.created_at)::float8 AS age_s,
               CASE WHEN f.received_at <= CAST(:until AS timestamptz)
                    THEN extract(epoch FROM f.received_at - p.created_at)::float8 END AS delay_s,
               CASE WHEN f.received_at <= CAST(:until AS timestamptz) THEN l.true_label::float8 END AS true_label,
               coalesce(f.received_at <= CAST(:until AS timestamptz) AND l.first_label <> l.true_label, false) AS is_replaced,
               p.probability
        FROM unnest(CAST(:begins AS timestamptz[]), CAST(:ends AS timestamptz[])) slices(begins, ends)
        CROSS JOIN LATERAL (
            SELECT logs.prediction_id, logs.created_at, logs.probability FROM prediction_logs logs
            WHERE logs.model_version = :version AND logs.created_at > slices.begins AND logs.created_at <= slices.ends
            ORDER BY logs.created_at LIMIT :rows_per_slice
        ) p
        LEFT JOIN label_store l ON l.prediction_id = p.prediction_id
        CROSS JOIN LATERAL (SELECT coalesce(l.first_received_at, l.received_at) AS received_at) f
        WHERE l.prediction_id IS NULL OR {IS_TRUSTED.format(row="l")}
    """
    slices = sample_slices(since, until)
    values = {
        "version": model_version,
        "until": until,
        "begins": [begins for begins, _ in slices],
        "ends": [ends for _, ends in slices],
        "rows_per_slice": ROWS_PER_SLICE,
    }
    with store.engine.connect() as connection:
        rows = connection.execute(text(query), values).all()
    sample = pd.DataFrame(rows, columns=["age_s", "delay_s", "true_label", "is_replaced", "probability"])
    return sample.astype(dict.fromkeys(sample.columns, "float64") | {"is_replaced": "bool"})
