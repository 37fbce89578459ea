"""Retraining requests: queries by which the API records them and a sensor processes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.kit.errors import TooManyRequestsError
from selfheal.kit.ids import new_id

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

MAX_OPEN = 10
"""Largest number of waiting requests. Each costs a run, and a second one on the same rows learns nothing new."""


@dataclass(frozen=True, slots=True)
class RetrainingRequest:
    """A person's request for a retraining: who, why, when."""

    request_id: UUID
    created_at: datetime
    actor: str
    reason: str


def add_request(store: Store, *, actor: str, reason: str, now: datetime) -> UUID:
    """Record a request and return its id.

    Raises:
        TooManyRequestsError: if `MAX_OPEN` requests are waiting.
    """
    table = store.tables.retraining_requests
    is_open = (table.c.model_name == store.contract.name) & table.c.taken_at.is_(None)
    request_id = new_id()
    with store.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": Lock.REQUESTS})
        n_open = connection.execute(select(func.count()).select_from(table).where(is_open)).scalar_one()
        if n_open >= MAX_OPEN:
            raise TooManyRequestsError(
                f"{n_open} requests for a retraining are waiting already; wait until Dagster has taken them up (its daemon has "
                "to run, and the sensor retraining_request_sensor has to be on)"
            )
        values = {
            "request_id": request_id,
            "model_name": store.contract.name,
            "created_at": now,
            "actor": actor,
            "reason": reason,
        }
        connection.execute(insert(table).values(**values))
    return request_id


def open_requests(store: Store) -> list[RetrainingRequest]:
    """Return the waiting requests, oldest first; at most `MAX_OPEN`."""
    table = store.tables.retraining_requests
    query = (
        select(table.c.request_id, table.c.created_at, table.c.actor, table.c.reason)
        .where(table.c.model_name == store.contract.name, table.c.taken_at.is_(None))
        .order_by(table.c.created_at, table.c.request_id)
    )
    with store.engine.connect() as connection:
        return [RetrainingRequest(*row) for row in connection.execute(query)]


def take_request(store: Store, request_id: UUID, now: datetime) -> bool:
    """Mark a request as taken; return False if it was already taken, or if there is no such request."""
    table = store.tables.retraining_requests
    taken = (
        update(table)
        .where(table.c.model_name == store.contract.name, table.c.request_id == request_id, table.c.taken_at.is_(None))
        .values(taken_at=now)
    )
    with store.engine.begin() as connection:
        return connection.execute(taken).rowcount == 1
