"""Promotions: which version went live when, by which decision.

The rules of promotion are in `selfheal.services.promotion.going_live`. `model_versions.go_live` adds rows in the transaction
that makes a version live; they never change.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, Select, select

from selfheal.domain.records import Action, Promotion
from selfheal.kit.serialization import from_dict

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store


def production_at(store: Store, moment: datetime) -> Promotion | None:
    """Return the latest promotion at that time; None before the first one.

    The latest is the one with the highest position, because clocks may disagree about two promotions.
    """
    table = store.tables.promotions
    query = (
        select(table)
        .where(table.c.model_name == store.contract.name, table.c.promoted_at <= moment)
        .order_by(table.c.position.desc())
        .limit(1)
    )
    with store.engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else _record(row)


def list_promotions(store: Store, limit: int = 100) -> list[Promotion]:
    """Return promotions, newest first."""
    table = store.tables.promotions
    query = select(table).where(table.c.model_name == store.contract.name).order_by(table.c.position.desc())
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query.limit(limit))]


def promotions_since(store: Store, since: datetime | None, limit: int) -> list[Row[Any]]:
    """Return promotions since `since` (None: all), newest first, with action, reason and actor of their decisions."""
    table, decided = store.tables.promotions, store.tables.retraining_decisions
    query = _with_actions(store).add_columns(decided.c.reason, decided.c.actor)
    if since is not None:
        query = query.where(table.c.promoted_at >= since)
    with store.engine.connect() as connection:
        return list(connection.execute(query.order_by(table.c.position.desc()).limit(limit)))


def predecessor(store: Store, version: int) -> int | None:
    """Return the version that this one replaced at its last promotion, forced or not; None if there is none.

    Rollbacks do not count, because a version that a rollback replaced should not return.
    """
    table = store.tables.promotions
    action = store.tables.retraining_decisions.c.action
    by_promotion = _with_actions(store).where(table.c.version == version, action != Action.ROLLBACK.value)
    row = _newest(store, by_promotion)
    return None if row is None else row.replaced_version


def has_taken_effect(store: Store, decision_id: str) -> bool:
    """Return whether a version has gone live by this decision."""
    table = store.tables.promotions
    with store.engine.connect() as connection:
        return (
            connection.execute(select(table.c.position).where(table.c.decision_id == decision_id)).first() is not None
        )


def rollback_of(store: Store, version: int) -> Promotion | None:
    """Return the rollback that ended this version's latest time in production; None if none did."""
    table = store.tables.promotions
    row = _newest(store, _with_actions(store).where(table.c.replaced_version == version))
    return None if row is None or row.action != Action.ROLLBACK.value else _record(row)


def _with_actions(store: Store) -> Select[Any]:
    table, decided = store.tables.promotions, store.tables.retraining_decisions
    of_decision = decided.c.decision_id == table.c.decision_id
    query = select(table, decided.c.action).join_from(table, decided, of_decision)
    return query.where(table.c.model_name == store.contract.name)


def _newest(store: Store, query: Select[Any]) -> Row[Any] | None:
    with store.engine.connect() as connection:
        return connection.execute(query.order_by(store.tables.promotions.c.position.desc()).limit(1)).first()


def _record(row: Row[Any]) -> Promotion:
    return from_dict(Promotion, {name: value for name, value in row._mapping.items() if name != "action"})
