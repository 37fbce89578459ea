"""Decisions as a hash chain: queries that append, read and check them.

Each row's hash covers its content and the hash of the row before it, so that an edited or deleted row is noticed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select, text
from sqlalchemy.dialects.postgresql import insert

from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.domain.records import Action, Decision
from selfheal.kit.serialization import digest_of, from_dict, to_dict

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from selfheal.adapters.postgres.store import Store


GENESIS = "0" * 64

JUDGED = (Action.PROMOTE, Action.REJECT, Action.INCONCLUSIVE)
"""The possible verdicts on a challenger."""

STORE_COLUMNS = ("position", "failed_gates", "prev_hash", "hash")

NESTED = ("conditions", "gates")
"""Fields that are lists of records."""

ADDED_LATER = frozenset({"look", "gate_config"})
"""Fields that older decisions lack: a hash covers them only where they are known, so that older hashes stay valid."""


@dataclass(frozen=True, slots=True)
class ChainedDecision:
    """A decision and its place in the chain: `position` grows with every decision, with gaps."""

    position: int
    prev_hash: str
    hash: str
    decision: Decision


def append(store: Store, decision: Decision) -> bool:
    """Append a decision to the chain; return False if it is there already (the same `decision_id`)."""
    with store.engine.begin() as connection:
        return append_on(store, connection, decision)


def append_on(store: Store, connection: Connection, decision: Decision) -> bool:
    """Append as part of the connection's transaction, as `append` does: nobody else can append before it ends."""
    table = store.tables.retraining_decisions
    content = to_dict(decision)
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": Lock.CHAIN})
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
    """Return a decision; None if there is none with this id."""
    table = store.tables.retraining_decisions
    with store.engine.connect() as connection:
        row = connection.execute(select(table).where(table.c.decision_id == decision_id)).first()
    return None if row is None else _record(row)


def recent(store: Store, limit: int = 50, actions: Collection[Action] = ()) -> list[Decision]:
    """Return decisions (of these actions, if any are given), the newest first."""
    table = store.tables.retraining_decisions
    query = select(table).where(table.c.model_name == store.contract.name)
    if actions:
        query = query.where(table.c.action.in_([action.value for action in actions]))
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query.order_by(table.c.position.desc()).limit(limit))]


def page(
    store: Store, limit: int, *, actions: Collection[Action] = (), before: int | None = None
) -> list[ChainedDecision]:
    """Return decisions and their places in the chain, the newest first; with `before`, those at a position below it."""
    table = store.tables.retraining_decisions
    query = select(table).where(table.c.model_name == store.contract.name)
    if actions:
        query = query.where(table.c.action.in_([action.value for action in actions]))
    if before is not None:
        query = query.where(table.c.position < before)
    with store.engine.connect() as connection:
        return [_chained(row) for row in connection.execute(query.order_by(table.c.position.desc()).limit(limit))]


def later_than(store: Store, position: int, limit: int) -> list[ChainedDecision]:
    """Return the decisions at a position above this one, the oldest first."""
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
    """Return a decision and its place in the chain; None if there is none with this id."""
    table = store.tables.retraining_decisions
    query = select(table).where(table.c.model_name == store.contract.name, table.c.decision_id == decision_id)
    with store.engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else _chained(row)


def attempts_of(store: Store, episode_id: str, actions: Collection[Action] = JUDGED) -> list[Decision]:
    """Return the judged retrainings (or other actions) of one drift episode, the oldest first."""
    table = store.tables.retraining_decisions
    query = (
        select(table)
        .where(
            table.c.model_name == store.contract.name,
            table.c.episode_id == episode_id,
            table.c.action.in_([action.value for action in actions]),
        )
        .order_by(table.c.position)
    )
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query)]


def count_verdicts(store: Store, champion_version: int | None, since: datetime) -> int:
    """Return how many verdicts against this champion there have been from `since` on, of any trigger."""
    table = store.tables.retraining_decisions
    query = (
        select(func.count())
        .select_from(table)
        .where(
            table.c.model_name == store.contract.name,
            table.c.champion_version.is_not_distinct_from(champion_version),
            table.c.action.in_([action.value for action in JUDGED]),
            table.c.created_at >= since,
        )
    )
    with store.engine.connect() as connection:
        return connection.execute(query).scalar_one()


def chain_problems(store: Store) -> list[str]:
    """Return what is wrong with the chain (edited rows, missing links), one sentence each; empty if it is intact."""
    table = store.tables.retraining_decisions
    problems: list[str] = []
    previous = GENESIS
    with store.engine.connect() as connection:
        for row in connection.execute(select(table).order_by(table.c.position)):
            if row.prev_hash != previous:
                problems.append(f"decision {row.decision_id}: the decision before it is missing or was changed")
            if not _is_as_hashed(row):
                problems.append(f"decision {row.decision_id}: its content does not match its hash")
            previous = row.hash
    return problems


def all_readable(store: Store) -> dict[str, Decision | None]:
    """Return every decision by its id, the oldest first; None where the row is not a valid decision any more."""
    table = store.tables.retraining_decisions
    with store.engine.connect() as connection:
        rows = connection.execute(select(table).order_by(table.c.position))
        return {row.decision_id: _record_or_none(row) for row in rows}


def chain_head(store: Store) -> str:
    """Return the newest hash. Noted elsewhere, it proves later that nothing up to it has changed."""
    with store.engine.connect() as connection:
        return _last_hash(store, connection)


def decisions_after(store: Store, head: str) -> int | None:
    """Return how many decisions follow the one with this hash (all of them after `GENESIS`); None if none has it."""
    table = store.tables.retraining_decisions
    with store.engine.connect() as connection:
        position = -1 if head == GENESIS else _position_of(store, connection, head)
        if position is None:
            return None
        later = select(func.count()).select_from(table).where(table.c.position > position)
        return connection.execute(later).scalar_one()


def _position_of(store: Store, connection: Connection, head: str) -> int | None:
    table = store.tables.retraining_decisions
    return connection.execute(select(table.c.position).where(table.c.hash == head)).scalar()


def _is_as_hashed(row: Row[Any]) -> bool:
    decision = _record_or_none(row)
    if decision is None or row.failed_gates != list(decision.failed_gates):
        return False
    content = to_dict(decision)
    for name in NESTED:
        content[name] = _with_keys_of(getattr(row, name), content[name])
    return bool(_hash(row.prev_hash, content) == row.hash)


def _with_keys_of(stored: list[dict[str, Any]], read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was read back, without the fields that were added to the records since it was stored."""
    return [{name: now[name] for name in then if name in now} for then, now in zip(stored, read, strict=True)]


def _record_or_none(row: Row[Any]) -> Decision | None:
    try:
        return _record(row)
    except ValueError:  # a pydantic.ValidationError is a ValueError
        return None


def _hash(previous: str, content: dict[str, Any]) -> str:
    """Return the hash over the content as it is read back: JSONB has no negative zero."""
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
