"""Queries over registered model versions. The rules of promotion are `selfheal.promotion`'s; this is their storage."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from selfheal.errors import NoProductionModelError, PermanentError, PromotionConflictError
from selfheal.records import ModelVersion, Stage, from_dict, to_dict

if TYPE_CHECKING:
    from selfheal.store import Store

PROMOTION_LOCK = 7_352_002
"""Key of the advisory lock under which stages change; any constant of ours will do."""

PROMOTION_CHANNEL = "selfheal_promotion"
"""Postgres NOTIFY channel: tells the API that another version is in production."""


def production_version(store: Store) -> ModelVersion | None:
    """The version in production, or None before the first promotion."""
    table = store.tables.model_metadata
    return _one(store, table.c.stage == Stage.PRODUCTION.value)


def champion(store: Store) -> ModelVersion:
    """The version in production.

    Raises:
        NoProductionModelError: if there is none.
    """
    version = production_version(store)
    if version is None:
        raise NoProductionModelError("no version is in production; run `selfheal bootstrap` first")
    return version


def model_version(store: Store, version: int) -> ModelVersion | None:
    return _one(store, store.tables.model_metadata.c.version == version)


def list_versions(store: Store, limit: int = 100, stage: Stage | None = None) -> list[ModelVersion]:
    """The newest versions first, those of one stage or all."""
    table = store.tables.model_metadata
    query = select(table).where(table.c.model_name == store.contract.name)
    if stage is not None:
        query = query.where(table.c.stage == stage.value)
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query.order_by(table.c.version.desc()).limit(limit))]


def register_staging(store: Store, version: ModelVersion) -> None:
    """Writes a new version as staging; one that is there already stays as it is."""
    values = to_dict(version) | {
        name: getattr(version, name)
        for name in ("registered_at", "training_window_start", "training_window_end", "promoted_at", "archived_at")
    }
    with store.engine.begin() as connection:
        connection.execute(insert(store.tables.model_metadata).values(**values).on_conflict_do_nothing())


def move_to_production(
    store: Store, version: int, expected_predecessor: int | None, now: datetime, probation_until: datetime | None
) -> None:
    """Archives the predecessor and puts `version` in production, in one transaction; doing it twice changes nothing.

    Raises:
        PromotionConflictError: if another version than `expected_predecessor` is in production.
        PermanentError: if there is no such version.
    """
    table = store.tables.model_metadata
    with store.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PROMOTION_LOCK})
        current = _production_number(store, connection)
        if current == version:
            return
        if current != expected_predecessor:
            raise PromotionConflictError(
                f"version {version} was to replace {_named(expected_predecessor)}, but {_named(current)} is in production"
            )
        is_this_model = table.c.model_name == store.contract.name
        connection.execute(
            update(table)
            .where(is_this_model, table.c.stage == Stage.PRODUCTION.value)
            .values(stage=Stage.ARCHIVED.value, archived_at=now, probation_until=None)
        )
        moved = connection.execute(
            update(table)
            .where(is_this_model, table.c.version == version)
            .values(
                stage=Stage.PRODUCTION.value,
                promoted_at=now,
                archived_at=None,
                previous_version=expected_predecessor,
                probation_until=probation_until,
            )
        )
        if moved.rowcount == 0:
            raise PermanentError(f"version {version} is not registered; {_named(current)} stays in production")
        connection.execute(select(func.pg_notify(PROMOTION_CHANNEL, str(version))))


def _production_number(store: Store, connection: Connection) -> int | None:
    table = store.tables.model_metadata
    query = select(table.c.version).where(
        table.c.model_name == store.contract.name, table.c.stage == Stage.PRODUCTION.value
    )
    return connection.execute(query).scalar()


def _one(store: Store, condition: Any) -> ModelVersion | None:
    table = store.tables.model_metadata
    with store.engine.connect() as connection:
        row = connection.execute(select(table).where(table.c.model_name == store.contract.name, condition)).first()
    return None if row is None else _record(row)


def _record(row: Row[Any]) -> ModelVersion:
    return from_dict(ModelVersion, dict(row._mapping))


def _named(version: int | None) -> str:
    return "nothing" if version is None else f"version {version}"
