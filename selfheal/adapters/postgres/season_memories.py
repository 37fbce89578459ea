"""What a version's ticks have learned of its seasons: one row per version, written with the tick that learned it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from selfheal.domain.records import SeasonMemory, Window
from selfheal.kit.serialization import from_dict, to_dict

if TYPE_CHECKING:
    from datetime import datetime

    from selfheal.adapters.postgres.store import Store

logger = logging.getLogger(__name__)


def season_memory(store: Store, model_version: int) -> SeasonMemory | None:
    """Return what the version's ticks have learned so far; None before the first."""
    table = store.tables.season_memories
    query = select(table.c.memory, table.c.tick_id).where(
        table.c.model_name == store.contract.name, table.c.model_version == model_version
    )
    with store.engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else replace(from_dict(SeasonMemory, row.memory), tick_id=row.tick_id)


def record_on(store: Store, connection: Connection, window: Window, memory: SeasonMemory, now: datetime) -> bool:
    """Replace the version's memory, within the connection's transaction, if it still is the one that this one goes on from.

    Return False if another tick has replaced it meanwhile: what that one has learned stays, and what this one saw is lost to the
    memory. Its moves are seen again by the next tick, as long as they last.
    """
    table = store.tables.season_memories
    values = {"tick_id": window.tick_id, "updated_at": now, "memory": to_dict(replace(memory, tick_id=None))}
    statement = insert(table).values(model_name=window.model_name, model_version=window.model_version, **values)
    statement = statement.on_conflict_do_update(
        index_elements=["model_name", "model_version"], set_=values, where=table.c.tick_id == memory.tick_id
    )
    if connection.execute(statement.returning(table.c.tick_id)).first() is None:
        logger.warning(
            "tick %s has not stored what it learned of seasons: another tick of version %d has done so since it began",
            window.tick_id,
            window.model_version,
        )
        return False
    return True
