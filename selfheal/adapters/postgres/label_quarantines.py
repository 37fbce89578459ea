"""Label quarantines: labels that contradict what was sent before, withheld until somebody releases them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from selfheal.adapters.postgres.spoiled_periods import IS_SOUND
from selfheal.domain.records import LabelQuarantine

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.adapters.postgres.store import Store

WITHHOLDS = """
    q.released_at IS NULL AND {row}.model_version = q.model_version
    AND {row}.received_at BETWEEN q.started_at AND coalesce(q.ended_at, 'infinity'::timestamptz)
    AND (q.label_source IS NULL OR q.label_source = {row}.label_source)
"""
"""SQL: whether a quarantine `q` withholds a label."""

IS_TRUSTED = f"NOT EXISTS (SELECT 1 FROM label_quarantines q WHERE {WITHHOLDS})"
"""SQL: whether no quarantine withholds a label, as far as ticks have checked."""

COUNT_WITHHELD = text(f"""
    SELECT count(DISTINCT l.prediction_id) FROM label_quarantines q
    JOIN label_store l ON {WITHHOLDS.format(row="l")}
    WHERE l.predicted_at > :since AND {IS_SOUND.format(row="l", time="predicted_at")}
""")
"""SQL: labels of sound predictions after `since`, of all versions, that are withheld."""


def newest_labels(store: Store, model_version: int, until: datetime, n_labels: int) -> pd.DataFrame:
    """Return the newest labels of a version's sound predictions received until then, by the time of their receipt.

    Columns: `received_at`, `probability`, `true_label`, `label_source`. Those that a quarantine withholds are among them.
    """
    import pandas as pd

    query = f"""
        SELECT l.received_at, p.probability, l.true_label, l.label_source
        FROM (SELECT prediction_id, received_at, true_label, label_source FROM label_store labelled
              WHERE model_version = :version AND received_at <= :until
                AND {IS_SOUND.format(row="labelled", time="predicted_at")}
              ORDER BY received_at DESC, prediction_id DESC LIMIT :n_labels) l
        JOIN prediction_logs p USING (prediction_id)
        ORDER BY l.received_at, l.prediction_id
    """
    bounds = {"version": model_version, "until": until, "n_labels": n_labels}
    with store.engine.connect() as connection:
        rows = connection.execute(text(query), bounds).all()
    frame = pd.DataFrame(rows, columns=["received_at", "probability", "true_label", "label_source"])
    frame["received_at"] = pd.to_datetime(frame["received_at"], utc=True).astype("datetime64[us, UTC]")
    return frame.astype({"probability": "float64", "true_label": "int64", "label_source": "object"})


def label_quarantines(store: Store, model_version: int | None = None) -> list[LabelQuarantine]:
    """Return the quarantines of a version's labels, or of all, oldest first."""
    table = store.tables.label_quarantines
    query = select(table).where(table.c.model_name == store.contract.name)
    if model_version is not None:
        query = query.where(table.c.model_version == model_version)
    with store.engine.connect() as connection:
        return [
            LabelQuarantine(
                quarantine_id=row.quarantine_id,
                model_version=row.model_version,
                started_at=row.started_at,
                reasons=tuple(row.reasons),
                ended_at=row.ended_at,
                label_source=row.label_source,
                is_exchanged=row.is_exchanged,
                released_at=row.released_at,
                released_by=row.released_by,
            )
            for row in connection.execute(query.order_by(table.c.started_at, table.c.quarantine_id))
        ]


def record_label_quarantine(store: Store, found: LabelQuarantine) -> None:
    """Record a quarantine as it is now. What is released remains so: a tick may have read it before."""
    table = store.tables.label_quarantines
    state = {
        "reasons": list(found.reasons),
        "ended_at": found.ended_at,
        "is_exchanged": found.is_exchanged,
        "released_at": found.released_at,
        "released_by": found.released_by,
    }
    values = state | {
        "quarantine_id": found.quarantine_id,
        "model_name": store.contract.name,
        "model_version": found.model_version,
        "started_at": found.started_at,
        "label_source": found.label_source,
    }
    statement = (
        insert(table)
        .values(**values)
        .on_conflict_do_update(index_elements=["quarantine_id"], set_=state, where=table.c.released_at.is_(None))
    )
    with store.engine.begin() as connection:
        connection.execute(statement)
