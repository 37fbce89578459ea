"""The hash-chained record of decisions: append, read, check.

Each row's hash covers its content and the hash of the row before it, so that an edited or deleted row shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, select, text
from sqlalchemy.dialects.postgresql import insert

from selfheal.records import Action, Decision, digest_of, from_dict, to_dict

if TYPE_CHECKING:
    from collections.abc import Collection

    from selfheal.store import Store

CHAIN_LOCK = 7_352_003
"""Key of the advisory lock under which the chain grows; any constant of ours will do."""

GENESIS = "0" * 64

STORE_COLUMNS = ("position", "failed_gates", "prev_hash", "hash")

ADDED_LATER = frozenset({"look", "gate_config"})
"""Fields that decisions from before do not have: a hash covers them only where they are known, so that old ones hold."""


@dataclass(frozen=True, slots=True)
class ChainedDecision:
    """A decision and its place in the chain: `position` grows with every decision, with gaps."""

    position: int
    prev_hash: str
    hash: str
    decision: Decision


def append(store: Store, decision: Decision) -> bool:
    """Adds a decision to the chain; False if it is there already (the same `decision_id`)."""
    table = store.tables.retraining_decisions
    content = to_dict(decision)
    with store.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CHAIN_LOCK})
        known = select(table.c.decision_id).where(table.c.decision_id == decision.decision_id)
        if connection.execute(known).first() is not None:
            return False
        previous = _last_hash(store, connection)
        values = content | {
            "created_at": decision.created_at,
            "failed_gates": list(decision.failed_gates),
            "prev_hash": previous,
            "hash": _hash(previous, content),
        }
        connection.execute(insert(table).values(**values))
        return True


def find(store: Store, decision_id: str) -> Decision | None:
    table = store.tables.retraining_decisions
    with store.engine.connect() as connection:
        row = connection.execute(select(table).where(table.c.decision_id == decision_id)).first()
    return None if row is None else _record(row)


def recent(store: Store, limit: int = 50, actions: Collection[Action] = ()) -> list[Decision]:
    """The newest decisions first."""
    table = store.tables.retraining_decisions
    query = select(table).where(table.c.model_name == store.contract.name)
    if actions:
        query = query.where(table.c.action.in_([action.value for action in actions]))
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query.order_by(table.c.position.desc()).limit(limit))]


def page(
    store: Store, limit: int, *, actions: Collection[Action] = (), before: int | None = None
) -> list[ChainedDecision]:
    """The newest decisions first, from those at a position below `before` on."""
    table = store.tables.retraining_decisions
    query = select(table).where(table.c.model_name == store.contract.name)
    if actions:
        query = query.where(table.c.action.in_([action.value for action in actions]))
    if before is not None:
        query = query.where(table.c.position < before)
    with store.engine.connect() as connection:
        return [_chained(row) for row in connection.execute(query.order_by(table.c.position.desc()).limit(limit))]


def later_than(store: Store, position: int, limit: int) -> list[ChainedDecision]:
    """The decisions at a position above this one, the oldest first."""
    table = store.tables.retraining_decisions
    query = (
        select(table)
        .where(table.c.model_name == store.contract.name, table.c.position > position)
        .order_by(table.c.position)
        .limit(limit)
    )
    with store.engine.connect() as connection:
        return [_chained(row) for row in connection.execute(query)]


def find_chained(store: Store, decision_id: str) -> ChainedDecision | None:
    table = store.tables.retraining_decisions
    query = select(table).where(table.c.model_name == store.contract.name, table.c.decision_id == decision_id)
    with store.engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else _chained(row)


def attempts_of(store: Store, episode_id: str) -> list[Decision]:
    """The judged retrainings of one drift episode, the oldest first."""
    table = store.tables.retraining_decisions
    judged = [action.value for action in (Action.PROMOTE, Action.REJECT, Action.INCONCLUSIVE)]
    query = (
        select(table)
        .where(
            table.c.model_name == store.contract.name,
            table.c.episode_id == episode_id,
            table.c.action.in_(judged),
        )
        .order_by(table.c.position)
    )
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query)]


def chain_problems(store: Store) -> list[str]:
    """What is wrong with the chain: edited rows and missing links, by decision. Empty: it is whole."""
    table = store.tables.retraining_decisions
    problems: list[str] = []
    previous = GENESIS
    with store.engine.connect() as connection:
        for row in connection.execute(select(table).order_by(table.c.position)):
            if row.prev_hash != previous:
                problems.append(f"decision {row.decision_id}: the decision before it is missing or was changed")
            decision = _record(row)
            is_whole = _hash(row.prev_hash, to_dict(decision)) == row.hash
            if not is_whole or row.failed_gates != list(decision.failed_gates):
                problems.append(f"decision {row.decision_id}: its content does not match its hash")
            previous = row.hash
    return problems


def _hash(previous: str, content: dict[str, Any]) -> str:
    """Over the content as it is read back: JSONB knows no negative zero."""
    known = {name: value for name, value in content.items() if value is not None or name not in ADDED_LATER}
    return digest_of(previous, json.loads(json.dumps(known), parse_float=lambda digits: float(digits) + 0.0))


def _last_hash(store: Store, connection: Connection) -> str:
    table = store.tables.retraining_decisions
    last = connection.execute(select(table.c.hash).order_by(table.c.position.desc()).limit(1)).scalar()
    return last or GENESIS


def _record(row: Row[Any]) -> Decision:
    return from_dict(Decision, {k: v for k, v in row._mapping.items() if k not in STORE_COLUMNS})


def _chained(row: Row[Any]) -> ChainedDecision:
    return ChainedDecision(row.position, row.prev_hash, row.hash, _record(row))
