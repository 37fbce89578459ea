"""Retention in Dagster's own storage: which runs go with age, and what `delete_run` leaves of them.

Deleting a run deletes its events, tags and logs, but not the evaluations of asset checks (dagster 1.13), each over 1 kB and
then under the id of a run that is gone. Sensor ticks are purged by Dagster's daemon, as dagster.yaml says.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg
from sqlalchemy import delete, select

from selfheal.services.maintenance import DeletedRuns
from selfheal_assets.interruptions import PARTITION_TAG
from selfheal_assets.job_names import MAINTENANCE_JOB, MONITORING_JOB, PROBATION_JOB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FREQUENT_JOBS = (MONITORING_JOB, PROBATION_JOB, MAINTENANCE_JOB)
"""Jobs whose old runs say nothing that Postgres does not. Runs that decide stay: their keys keep sensors from asking twice."""

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

MAX_RUNS_DELETED_A_DAY = 5_000
"""Runs of a job deleted per day: more than a day adds (a tick every 5 minutes, and evaluations during probation)."""

MAX_RUNS_SWEPT_A_DAY = 4 * MAX_RUNS_DELETED_A_DAY
"""Runs whose left-over evaluations are deleted per day: more than are deleted, so that those of earlier releases go, too."""

RUNS_AT_ONCE = 500
"""Runs per query."""


def delete_old(instance: dg.DagsterInstance, before: datetime) -> DeletedRuns:
    """Delete the old runs of the frequent jobs, and what is left of runs that are gone, whoever deleted them."""
    n_runs = delete_old_runs(instance, before)
    return DeletedRuns(n_runs, delete_orphaned_evaluations(instance))


def delete_old_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete finished runs of the frequent jobs with their events and logs; return their number.

    The newest run of each job is retained, because it shows the current state; of `probation_job`, the newest run per version,
    which the version's page shows.
    """
    n_deleted = 0
    for job_name in FREQUENT_JOBS:
        newest: dict[str | None, str] = {}
        old = dg.RunsFilter(job_name=job_name, statuses=FINISHED, created_before=before)
        for record in instance.get_run_records(old, limit=MAX_RUNS_DELETED_A_DAY, ascending=True):
            run_id, partition = record.dagster_run.run_id, record.dagster_run.tags.get(PARTITION_TAG)
            if partition not in newest:
                newest[partition] = _newest_run_id(instance, job_name, partition)
            if run_id != newest[partition]:
                instance.delete_run(run_id)
                instance.compute_log_manager.delete_logs(prefix=[run_id])
                n_deleted += 1
    return n_deleted


def delete_orphaned_evaluations(instance: dg.DagsterInstance) -> int:
    """Delete the evaluations of asset checks whose run is gone; return their number.

    Evaluations that belong to no run (reported by a person or a program) stay.
    """
    from dagster._core.storage.event_log import SqlEventLogStorage  # Dagster has no public way to delete evaluations
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable

    storage, table = instance.event_log_storage, AssetCheckExecutionsTable
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    with storage.index_connection() as connection:
        found = select(table.c.run_id).where(table.c.run_id.is_not(None), table.c.run_id != "").distinct()
        run_ids = (
            connection.execute(found).scalars().all()
        )  # before the runs are read: one that starts now is not among them
    gone = _gone(instance, run_ids)[:MAX_RUNS_SWEPT_A_DAY]
    n_deleted = 0
    for some in _portions(gone):
        with storage.index_connection() as connection:
            n_deleted += connection.execute(delete(table).where(table.c.run_id.in_(some))).rowcount
    return n_deleted


def _gone(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> list[str]:
    """Return the ids of these that no run has."""
    gone: list[str] = []
    for some in _portions(run_ids):
        known = set(instance.get_run_ids(dg.RunsFilter(run_ids=some)))
        gone += [run_id for run_id in some if run_id not in known]
    return gone


def _portions(run_ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(run_ids), RUNS_AT_ONCE):
        yield list(run_ids[start : start + RUNS_AT_ONCE])


def _newest_run_id(instance: dg.DagsterInstance, job_name: str, partition: str | None) -> str:
    tags = {} if partition is None else {PARTITION_TAG: partition}
    (record,) = instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=tags), limit=1)
    return record.dagster_run.run_id
