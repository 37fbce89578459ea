"""What a version's ticks have learned of its seasons: one row per version, written with the tick that learned it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from selfheal.domain.records import SeasonMemory, Window
from selfheal.kit.serialization import from_dict, to_dict

if TYPE_CHECKING:
    from datetime import datetime

    from selfheal.adapters.postgres.store import Store


def season_memory(store: Store, model_version: int) -> SeasonMemory | None:
    """Return what the version's ticks have learned so far; None before the first."""
    table = store.tables.season_memories
    query = select(table.c.memory).where(
        table.c.model_name == store.contract.name, table.c.model_version == model_version
    )
    with store.engine.connect() as connection:
        stored = connection.execute(query).scalar()
    return None if stored is None else from_dict(SeasonMemory, stored)


def record_on(store: Store, connection: Connection, window: Window, memory: SeasonMemory, now: datetime) -> None:
    """Replace the version's memory, within the connection's transaction."""
    values = {"tick_id": window.tick_id, "updated_at": now, "memory": to_dict(memory)}
    statement = insert(store.tables.season_memories).values(
        model_name=window.model_name, model_version=window.model_version, **values
    )
    connection.execute(statement.on_conflict_do_update(index_elements=["model_name", "model_version"], set_=values))
