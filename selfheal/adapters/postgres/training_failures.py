"""Training failures: which trainings failed for what their model or rows are like, and so were attempts.

One that ran out of time is among them. A training that failed for anything else (MLflow, Postgres, a full disk, a killed
process) is no attempt: more labels would not help it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from selfheal.adapters.postgres.store import Store


def record_training_failure(store: Store, decision_id: str, reason: str, now: datetime) -> None:
    """Record that the training of a decision failed; once, however often it is repeated."""
    values = {"decision_id": decision_id, "model_name": store.contract.name, "failed_at": now, "reason": reason}
    with store.engine.begin() as connection:
        connection.execute(insert(store.tables.training_failures).values(**values).on_conflict_do_nothing())


def failed_trainings(store: Store, decision_ids: Collection[str]) -> set[str]:
    """Return those of the decisions whose training failed for what its model or rows are like."""
    table = store.tables.training_failures
    query = select(table.c.decision_id).where(table.c.decision_id.in_(decision_ids))
    with store.engine.connect() as connection:
        return set(connection.execute(query).scalars())
