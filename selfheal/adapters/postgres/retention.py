"""Retention: delete old rows in short transactions. Safe to interrupt: each batch commits, the next run continues.

What a decision rests on is never deleted: the ticks and alerts of an episode with a decision, and every labelled prediction
(training sets, gates and probation use them).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import text

from selfheal.adapters.postgres.journal_seals import PREDICTIONS, append_retention, row_groups
from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.adapters.postgres.tables import HOUR_OF_PREDICTION

if TYPE_CHECKING:
    from selfheal.adapters.postgres.store import Store

ROWS_PER_TRANSACTION = 5_000

OLD_TICKS = """
    SELECT tick_id FROM monitoring_metrics m
    WHERE model_name = :name AND created_at < :before
      AND NOT EXISTS (SELECT 1 FROM retraining_decisions d WHERE d.episode_id = m.episode_id)
      AND NOT EXISTS (SELECT 1 FROM monitoring_alerts a WHERE a.episode_id = m.episode_id AND a.resolved_at IS NULL)
      AND tick_id <> (SELECT n.tick_id FROM monitoring_metrics n
                      WHERE n.model_name = m.model_name AND n.model_version = m.model_version
                      ORDER BY n.created_at DESC, n.tick_id LIMIT 1)
    LIMIT :limit
"""

OLD_ALERTS = """
    SELECT alert_id FROM monitoring_alerts a
    WHERE model_name = :name AND resolved_at < :before
      AND NOT EXISTS (SELECT 1 FROM retraining_decisions d WHERE d.episode_id = a.episode_id)
    LIMIT :limit
"""


@contextmanager
def exclusive_maintenance(store: Store) -> Iterator[bool]:
    """Try to take the database's maintenance lock until the block ends or the process dies; yield whether it was taken."""
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = {"key": Lock.MAINTENANCE}
        is_mine = bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar())
        try:
            yield is_mine
        finally:
            if is_mine:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


def delete_ticks(store: Store, before: datetime) -> int:
    """Delete ticks older than `before`, except each version's newest and those of open episodes or ones with a decision."""
    return _delete_all(store, f"DELETE FROM monitoring_metrics WHERE tick_id IN ({OLD_TICKS})", before)


def delete_alerts(store: Store, before: datetime) -> int:
    """Delete alerts resolved before `before`, except those of an episode with a decision."""
    return _delete_all(store, f"DELETE FROM monitoring_alerts WHERE alert_id IN ({OLD_ALERTS})", before)


def delete_unlabelled_predictions(store: Store, before: datetime) -> int:
    """Delete unlabelled predictions older than the hour of `before`, one hour per transaction.

    The journal still has them. Digests of the hour's rows before and after are a link of the hash chain: what is
    missing then was deleted on purpose.
    """
    hours = """
        SELECT DISTINCT date_trunc('hour', bucket_start, 'UTC'), model_version FROM prediction_rollups
        WHERE n_predictions > n_labels AND bucket_start < date_trunc('hour', CAST(:before AS timestamptz), 'UTC')
        ORDER BY 1, 2
    """
    unlabelled = f"""
        DELETE FROM prediction_logs p
        WHERE model_version = :version AND {HOUR_OF_PREDICTION} = :hour
          AND NOT EXISTS (SELECT 1 FROM label_store l WHERE l.prediction_id = p.prediction_id)
    """
    with store.engine.connect() as connection:
        found = connection.execute(text(hours), {"before": before}).all()
    n_deleted = 0
    of_hour = "hour = :hour AND model_version = :version"
    for hour, version in found:
        values = {"hour": hour, "version": version}
        with store.engine.begin() as connection:
            # No row may come between the digest and the deletion.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": Lock.ROLLUPS})
            before_it = row_groups(connection, PREDICTIONS, of_hour, **values)
            n_of_hour = connection.execute(text(unlabelled), values).rowcount
            if n_of_hour:
                append_retention(store, connection, before_it, row_groups(connection, PREDICTIONS, of_hour, **values))
            n_deleted += n_of_hour
    return n_deleted


def ticks_decided_on(store: Store) -> set[str]:
    """Return the ids of the ticks of episodes for which a decision was taken."""
    query = """
        SELECT m.tick_id FROM monitoring_metrics m
        WHERE m.model_name = :name AND m.episode_id IN (SELECT episode_id FROM retraining_decisions)
    """
    with store.engine.connect() as connection:
        return set(connection.execute(text(query), {"name": store.contract.name}).scalars())


def _delete_all(store: Store, statement: str, before: datetime) -> int:
    values = {"name": store.contract.name, "before": before, "limit": ROWS_PER_TRANSACTION}
    n_deleted = 0
    while True:
        with store.engine.begin() as connection:
            n = connection.execute(text(statement), values).rowcount
        n_deleted += n
        if n < ROWS_PER_TRANSACTION:
            return n_deleted
