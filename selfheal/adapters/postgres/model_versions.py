"""Model versions: queries, and the transaction that puts one into production.

The rules of promotion are in `selfheal.services.promotion.going_live`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from selfheal.adapters.postgres import decisions
from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.domain.records import Action, Decision, ModelVersion, Stage
from selfheal.kit.errors import NoProductionModelError, PromotionConflictError, UnknownVersionError
from selfheal.kit.serialization import from_dict, to_dict

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

GO_LIVE_STEPS = ("append_decision", "archive_predecessor", "make_live", "write_promotion", "commit")
"""Steps of `go_live`, in order."""

PROMOTION_CHANNEL = "selfheal_promotion"
"""Postgres NOTIFY channel by which the API learns that another version is in production."""


def production_version(store: Store) -> ModelVersion | None:
    """Return the version in production, or None before the first promotion."""
    table = store.tables.model_metadata
    return _one(store, table.c.stage == Stage.PRODUCTION.value)


def champion(store: Store) -> ModelVersion:
    """Return the version in production.

    Raises:
        NoProductionModelError: if there is none.
    """
    version = production_version(store)
    if version is None:
        raise NoProductionModelError("no version is in production; run `selfheal bootstrap` first")
    return version


def model_version(store: Store, version: int) -> ModelVersion | None:
    """Return a registered version; None if there is none with this number."""
    return _one(store, store.tables.model_metadata.c.version == version)


def list_versions(store: Store, limit: int = 100, stage: Stage | None = None) -> list[ModelVersion]:
    """Return the versions of one stage, or of all, newest first."""
    table = store.tables.model_metadata
    query = select(table).where(table.c.model_name == store.contract.name)
    if stage is not None:
        query = query.where(table.c.stage == stage.value)
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query.order_by(table.c.version.desc()).limit(limit))]


def register_staging(store: Store, version: ModelVersion) -> None:
    """Record a new version as staging; an existing one is unchanged."""
    values = to_dict(version) | {
        name: getattr(version, name)
        for name in ("registered_at", "training_window_start", "training_window_end", "promoted_at", "archived_at")
    }
    with store.engine.begin() as connection:
        connection.execute(insert(store.tables.model_metadata).values(**values).on_conflict_do_nothing())


def go_live(
    store: Store,
    version: int,
    *,
    replaces: int | None,
    decision: Decision,
    now: datetime,
    probation_until: datetime | None,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Put `version` into production by this decision, in one transaction.

    The decision is recorded, the version in production is archived, the promotion is recorded, and listeners are
    notified. A decision takes effect once: the same call again changes nothing.

    Args:
        replaces: the version that must be in production now; None: no version may be.
        on_step: is called with each of `GO_LIVE_STEPS` before it is taken.

    Raises:
        PromotionConflictError: if another version is in production, or the version was already promoted; nothing has
            changed, and the decision is not recorded.
        UnknownVersionError: if there is no such version.
    """
    with store.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": Lock.PROMOTION})
        current = _production_number(store, connection)
        if current == version and _has_taken_effect(store, connection, decision):
            return
        if current != replaces:
            already = " already" if current == version else ""
            raise PromotionConflictError(
                f"version {version} was to replace {_named(replaces)}, but {_named(current)} is in production{already}"
            )
        _refuse_second_time(store, connection, version, decision)
        on_step("append_decision")
        decisions.append_on(store, connection, decision)
        on_step("archive_predecessor")
        _archive_production(store, connection, now)
        on_step("make_live")
        _make_live(store, connection, version, replaces, decision, now, probation_until)
        on_step("write_promotion")
        _write_promotion(store, connection, version, replaces, decision, now)
        connection.execute(select(func.pg_notify(PROMOTION_CHANNEL, str(version))))
        on_step("commit")


def _has_taken_effect(store: Store, connection: Connection, decision: Decision) -> bool:
    table = store.tables.promotions
    query = select(table.c.position).where(table.c.decision_id == decision.decision_id)
    return connection.execute(query).first() is not None


def _refuse_second_time(store: Store, connection: Connection, version: int, decision: Decision) -> None:
    """Refuse a verdict whose version was in production before: only a rollback or a forced promotion may bring it back."""
    table = store.tables.model_metadata
    query = select(table.c.stage).where(table.c.model_name == store.contract.name, table.c.version == version)
    stage = connection.execute(query).scalar()
    if stage is None:
        raise UnknownVersionError(f"version {version} is not registered; production stays as it is")
    if decision.action is Action.PROMOTE and stage != Stage.STAGING.value:
        raise PromotionConflictError(f"version {version} was in production before and was replaced since its verdict")


def _archive_production(store: Store, connection: Connection, now: datetime) -> None:
    table = store.tables.model_metadata
    connection.execute(
        update(table)
        .where(table.c.model_name == store.contract.name, table.c.stage == Stage.PRODUCTION.value)
        .values(stage=Stage.ARCHIVED.value, archived_at=now, probation_until=None)
    )


def _make_live(
    store: Store,
    connection: Connection,
    version: int,
    replaces: int | None,
    decision: Decision,
    now: datetime,
    probation_until: datetime | None,
) -> None:
    """Mark the version as live; `decision_id` becomes that of this decision, even if it is not the version's first."""
    table = store.tables.model_metadata
    connection.execute(
        update(table)
        .where(table.c.model_name == store.contract.name, table.c.version == version)
        .values(
            stage=Stage.PRODUCTION.value,
            promoted_at=now,
            archived_at=None,
            previous_version=replaces,
            probation_until=probation_until,
            decision_id=decision.decision_id,
        )
    )


def _write_promotion(
    store: Store, connection: Connection, version: int, replaces: int | None, decision: Decision, now: datetime
) -> None:
    connection.execute(
        insert(store.tables.promotions).values(
            model_name=store.contract.name,
            version=version,
            replaced_version=replaces,
            decision_id=decision.decision_id,
            promoted_at=now,
        )
    )


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
