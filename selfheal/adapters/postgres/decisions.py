"""Decisions as links of the hash chain: queries that append, read and check them.

Each row's hash covers its content and the hash of the link before it, so that an edited or deleted row is noticed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select
from sqlalchemy.dialects.postgresql import insert

from selfheal.adapters.postgres import chain, journal_seals
from selfheal.adapters.postgres.chain import Link
from selfheal.domain.records import JUDGED, Action, Decision, Onset
from selfheal.kit.serialization import digest_of, from_dict, to_dict

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from selfheal.adapters.postgres.store import Store

REGISTERED_VERSION = "registered_version"
STORE_COLUMNS = ("position", "failed_gates", "prev_hash", "hash", REGISTERED_VERSION)

NESTED = ("conditions", "gates")
"""Fields that are lists of records."""

ADDED_LATER = frozenset({"look", "gate_config", "onset", "declared", "cross_fitted_sha256"})
"""Fields that older decisions lack: a hash covers them only if they are known, so that older hashes remain valid."""


@dataclass(frozen=True, slots=True)
class ChainedDecision:
    """A decision and its place in the chain: `position` grows with every decision, with gaps.

    `challenger_version` is also known of a verdict, which was hashed before its model got a number: the version that the
    model's run was registered as. None: it was not.
    """

    position: int
    prev_hash: str
    hash: str
    decision: Decision
    challenger_version: int | None


def append(store: Store, decision: Decision) -> bool:
    """Append a decision to the chain; return False if it is already there (the same `decision_id`)."""
    with store.engine.begin() as connection:
        return append_on(store, connection, decision)


def append_on(store: Store, connection: Connection, decision: Decision) -> bool:
    """Append as `append` does, within the connection's transaction; no other process can append before it ends."""
    table = store.tables.retraining_decisions
    content = to_dict(decision)
    chain.lock(connection)
    known = select(table.c.decision_id).where(table.c.decision_id == decision.decision_id)
    if connection.execute(known).first() is not None:
        return False
    previous = chain.last_hash(connection)
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
    """Return decisions (of these actions, if any are given), newest first."""
    table = store.tables.retraining_decisions
    query = select(table).where(table.c.model_name == store.contract.name)
    if actions:
        query = query.where(table.c.action.in_([action.value for action in actions]))
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query.order_by(table.c.position.desc()).limit(limit))]


def newest_declarations(store: Store) -> list[Decision]:
    """Return the newest declaration (or its withdrawal) of each kind about each column, newest first."""
    table = store.tables.retraining_decisions
    about = func.regexp_replace(table.c.declared, "^not_", "")
    newest = (
        select(func.max(table.c.position))
        .where(table.c.model_name == store.contract.name, table.c.declared.is_not(None))
        .group_by(about)
    )
    query = select(table).where(table.c.position.in_(newest)).order_by(table.c.position.desc())
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query)]


def page(
    store: Store, limit: int, *, actions: Collection[Action] = (), before: int | None = None
) -> list[ChainedDecision]:
    """Return decisions and their positions in the chain, newest first; with `before`, those at a lower position."""
    table = store.tables.retraining_decisions
    query = _with_registered_version(store)
    if actions:
        query = query.where(table.c.action.in_([action.value for action in actions]))
    if before is not None:
        query = query.where(table.c.position < before)
    with store.engine.connect() as connection:
        return [_chained(row) for row in connection.execute(query.order_by(table.c.position.desc()).limit(limit))]


def later_than(store: Store, position: int, limit: int) -> list[ChainedDecision]:
    """Return the decisions at higher positions, oldest first."""
    table = store.tables.retraining_decisions
    query = _with_registered_version(store).where(table.c.position > position).order_by(table.c.position).limit(limit)
    with store.engine.connect() as connection:
        return [_chained(row) for row in connection.execute(query)]


def find_chained(store: Store, decision_id: str) -> ChainedDecision | None:
    """Return a decision and its position in the chain; None if there is none with this id."""
    table = store.tables.retraining_decisions
    query = _with_registered_version(store).where(table.c.decision_id == decision_id)
    with store.engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else _chained(row)


def attempts_of(store: Store, episode_id: str, actions: Collection[Action] = JUDGED) -> list[Decision]:
    """Return the judged retrainings (or other actions) of one drift episode, oldest first."""
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


def verdicts_on(store: Store, champion_version: int | None, since: datetime) -> list[Decision]:
    """Return the verdicts on challengers of this champion since `since`, of any trigger, oldest first."""
    table = store.tables.retraining_decisions
    query = select(table).where(*_verdicts(store, champion_version, since)).order_by(table.c.position)
    with store.engine.connect() as connection:
        return [_record(row) for row in connection.execute(query)]


def newest_verdict(store: Store, champion_version: int | None, since: datetime) -> Decision | None:
    """Return the newest verdict on a challenger of this champion since `since`, of any trigger; None if there is none."""
    table = store.tables.retraining_decisions
    query = select(table).where(*_verdicts(store, champion_version, since)).order_by(table.c.position.desc()).limit(1)
    with store.engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else _record(row)


def _verdicts(store: Store, champion_version: int | None, since: datetime) -> tuple[ColumnElement[bool], ...]:
    table = store.tables.retraining_decisions
    return (
        table.c.model_name == store.contract.name,
        table.c.champion_version.is_not_distinct_from(champion_version),
        table.c.action.in_([action.value for action in JUDGED]),
        table.c.created_at >= since,
    )


def onsets_since(store: Store, since: datetime, limit: int) -> list[Onset]:
    """Return the changes that decisions since then saw, newest first; of each champion the one that was seen last."""
    table = store.tables.retraining_decisions
    newest = (
        select(table.c.position, table.c.onset)
        .distinct(table.c.champion_version)
        .where(table.c.model_name == store.contract.name, table.c.created_at >= since, table.c.onset.is_not(None))
        .order_by(table.c.champion_version, table.c.position.desc())
        .subquery()
    )
    with store.engine.connect() as connection:
        rows = connection.execute(select(newest.c.onset).order_by(newest.c.position.desc()).limit(limit))
        return [from_dict(Onset, row.onset) for row in rows]


def chain_problems(store: Store) -> list[str]:
    """Return what is wrong with the chain (edited rows, missing links), one sentence each; empty if it is intact."""
    with store.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        rows = connection.execute(select(store.tables.retraining_decisions)).all()
        seals = journal_seals.links(store, connection)
    links = [
        Link(row.position, row.prev_hash, row.hash, f"decision {row.decision_id}", _is_as_hashed(row)) for row in rows
    ]
    return list(chain.link_problems([*links, *seals]))


def all_readable(store: Store) -> dict[str, Decision | None]:
    """Return every decision by its id, oldest first; None for a row that is no longer a valid decision."""
    table = store.tables.retraining_decisions
    with store.engine.connect() as connection:
        rows = connection.execute(select(table).order_by(table.c.position))
        return {row.decision_id: _record_or_none(row) for row in rows}


def chain_head(store: Store) -> str:
    """Return the newest hash. A copy noted elsewhere proves later that nothing up to it has changed."""
    with store.engine.connect() as connection:
        return chain.last_hash(connection)


def is_in_chain(store: Store, head: str) -> bool:
    """Return whether a link has this hash; `GENESIS` always is in the chain."""
    with store.engine.connect() as connection:
        return chain.position_of(connection, head) is not None


def _is_as_hashed(row: Row[Any]) -> bool:
    decision = _record_or_none(row)
    if decision is None or row.failed_gates != list(decision.failed_gates):
        return False
    content = to_dict(decision)
    for name in NESTED:
        content[name] = _with_keys_of(getattr(row, name), content[name])
    return bool(_hash(row.prev_hash, content) == row.hash)


def _with_keys_of(stored: list[dict[str, Any]], read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records that were read, without the fields that were added since they were stored."""
    return [{name: now[name] for name in then if name in now} for then, now in zip(stored, read, strict=True)]


def _record_or_none(row: Row[Any]) -> Decision | None:
    try:
        return _record(row)
    except ValueError:  # a pydantic.ValidationError is a ValueError
        return None


def _hash(previous: str, content: dict[str, Any]) -> str:
    """Return the hash of the content as JSONB returns it, which has no negative zero."""
    known = {name: value for name, value in content.items() if value is not None or name not in ADDED_LATER}
    return digest_of(previous, json.loads(json.dumps(known), parse_float=lambda digits: float(digits) + 0.0))


def _record(row: Row[Any]) -> Decision:
    return from_dict(Decision, {k: v for k, v in row._mapping.items() if k not in STORE_COLUMNS})


def _with_registered_version(store: Store) -> Select[Any]:
    """Return the query of this contract's decisions, each with the version that its run was registered as."""
    table, versions = store.tables.retraining_decisions, store.tables.model_metadata
    registered = (
        select(versions.c.version)
        .where(versions.c.model_name == table.c.model_name, versions.c.mlflow_run_id == table.c.mlflow_run_id)
        .scalar_subquery()
        .label(REGISTERED_VERSION)
    )
    return select(table, registered).where(table.c.model_name == store.contract.name)


def _chained(row: Row[Any]) -> ChainedDecision:
    decision = _record(row)
    version = decision.challenger_version
    return ChainedDecision(
        row.position, row.prev_hash, row.hash, decision, row.registered_version if version is None else version
    )
