"""A year of runs leaves what a fortnight leaves: every table of Dagster's stays as large as its retention says."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.instance.config import get_default_tick_retention_settings, get_tick_retention_settings
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import create_engine, text

from selfheal.adapters.postgres.migrate import ensure_database
from selfheal.adapters.postgres.store import with_driver
from selfheal.settings import Settings
from selfheal_assets.job_names import MAINTENANCE_JOB, MONITORING_JOB, PROBATION_JOB
from selfheal_assets.retention import delete_old, delete_orphaned_evaluations
from tests.processes import REPOSITORY

RETENTION_DAYS = 2
_numbers = count()


@dg.asset(
    name="drift",
    check_specs=[dg.AssetCheckSpec(name, asset="drift") for name in ("values", "feed")],
    tags={"selfheal/when": "tick"},
)
def drift() -> Iterator[dg.Output[None] | dg.AssetCheckResult]:
    yield dg.Output(None, metadata={"rows": 200})
    for name in ("values", "feed"):
        yield dg.AssetCheckResult(check_name=name, passed=True, metadata={"why": "as in training " * 60})


@dg.asset(name="report", partitions_def=dg.DynamicPartitionsDefinition(name="versions"))
def report() -> None:
    """Watch nothing: it is the runs that count."""


@dg.op
def upkeep() -> None:
    """Delete nothing: the test does."""


@dg.job(name=MAINTENANCE_JOB)
def maintenance() -> None:
    upkeep()


JOBS = dg.Definitions(
    assets=[drift, report],
    jobs=[
        dg.define_asset_job(MONITORING_JOB, dg.AssetSelection.assets(drift)),
        dg.define_asset_job(PROBATION_JOB, dg.AssetSelection.assets(report)),
        maintenance,
    ],
)
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


@pytest.fixture
def on_postgres(settings: Settings, tmp_path: Path) -> Iterator[tuple[dg.DagsterInstance, str]]:
    """An instance whose storage is an empty database of the server, and the database's URL."""
    name = f"year{next(_numbers)}"
    url = settings.external_database_url(name)
    ensure_database(url)
    storage = {"postgres": {"postgres_url": url}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"storage": storage}) as instance:
        yield instance, url


def live_a_day(instance: dg.DagsterInstance) -> None:
    """Two ticks, an evaluation of a probation, and the maintenance."""
    for job, partition in (
        (MONITORING_JOB, None),
        (MONITORING_JOB, None),
        (PROBATION_JOB, "1"),
        (MAINTENANCE_JOB, None),
    ):
        assert (
            JOBS.resolve_job_def(job)
            .execute_in_process(instance=instance, partition_key=partition, run_config=QUIET)
            .success
        )


def rows_by_table(url: str) -> dict[str, int]:
    engine = create_engine(with_driver(url, "psycopg"))
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
        counted = {table: connection.execute(text(f'SELECT count(*) FROM "{table}"')).scalar_one() for table in tables}
    engine.dispose()
    return counted


def rows_each_day(instance: dg.DagsterInstance, url: str, n_days: int) -> list[dict[str, int]]:
    """Live so many days, a moment each, and return the rows of every table after each."""
    instance.add_dynamic_partitions("versions", ["1"])
    began: list[datetime] = []
    rows: list[dict[str, int]] = []
    for day in range(n_days):
        began.append(datetime.now(UTC))
        live_a_day(instance)
        if day >= RETENTION_DAYS:
            delete_old(instance, began[day - RETENTION_DAYS + 1])
        rows.append(rows_by_table(url))
    return rows


@pytest.mark.integration
def test_each_of_dagsters_tables_stays_as_large_as_its_retention(on_postgres: tuple[dg.DagsterInstance, str]) -> None:
    rows = rows_each_day(*on_postgres, n_days=2 * RETENTION_DAYS + 2)
    assert rows[-1] == rows[RETENTION_DAYS]
    assert rows[-1]["asset_check_executions"] > 0, "those of the runs that are there"


@pytest.mark.integration
def test_evaluations_go_with_a_run_that_a_person_deleted_and_those_without_a_run_stay(
    on_postgres: tuple[dg.DagsterInstance, str],
) -> None:
    instance, url = on_postgres
    job = JOBS.resolve_job_def(MONITORING_JOB)
    gone, there = (job.execute_in_process(instance=instance, run_config=QUIET).run_id for _ in range(2))
    instance.report_runless_asset_event(dg.AssetCheckEvaluation(dg.AssetKey("drift"), "feed", passed=True, metadata={}))
    instance.delete_run(gone)
    assert rows_by_table(url)["asset_check_executions"] == 5, "delete_run leaves them: what this is about"
    assert delete_orphaned_evaluations(instance) == 2
    assert delete_orphaned_evaluations(instance) == 0
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as connection:
        kept = connection.execute(AssetCheckExecutionsTable.select()).mappings().all()
    assert sorted(row["run_id"] or "" for row in kept) == sorted([there, there, ""])


def test_ticks_of_sensors_and_schedules_are_purged_whatever_became_of_them() -> None:
    """Also those that a killed daemon left as started, which Dagster keeps for good unless it is told otherwise."""
    configured = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())["retention"]
    for kind in (InstigatorType.SENSOR, InstigatorType.SCHEDULE):
        days = get_tick_retention_settings(configured[kind.value.lower()], get_default_tick_retention_settings(kind))
        assert {status for status, limit in days.items() if limit <= 0} == set(), kind


def test_dagster_keeps_evaluations_in_a_table_that_its_storage_can_reach() -> None:
    """`selfheal_assets.retention` reads and deletes there, since Dagster has no public way."""
    assert {"run_id", "asset_key", "check_name"} <= set(AssetCheckExecutionsTable.c.keys())
    assert "index_connection" in dir(SqlEventLogStorage)
    assert "AssetCheckExecutionsTable" not in inspect.getsource(SqlEventLogStorage.delete_events_for_run), (
        "Dagster deletes them itself now: so need not we"
    )
