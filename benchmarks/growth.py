"""Disk growth by a day of ticks: real ticks under Dagster on its Postgres, then the daily maintenance.

The traffic itself (predictions, labels and their journal) is not counted. Report pages are a separate figure, because they are
written at changes of state and their number is bounded. Postgres is vacuumed before the measurement, so that only retained data
counts.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.progress import Progress
from sqlalchemy import create_engine, text

from benchmarks.measured import exactly
from selfheal.adapters.postgres import model_versions
from selfheal.adapters.postgres.store import DAGSTER_DATABASE, MLFLOW_DATABASE, server_url, with_driver
from selfheal.cli.supervisor import dagster_home
from selfheal.services.maintenance import maintain
from selfheal.services.reports.files import reports_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from selfheal.services.platform import Platform

TICKS_PER_DAY = 288
MINUTES_PER_DAY = 1_440
ROWS_PER_TICK = 100
N_DIFFERENT_TICKS = 30
N_SKIPS = 1_000
N_WARM_UP = 3
SKIPPED_KEEP_DAYS = 2
"""Days that skipped sensor ticks are retained: `retention` in dagster.yaml."""

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}

TRAFFIC_TABLES = ("prediction_logs", "label_store", "scored", "prediction_rollups")


@dataclass(frozen=True)
class Growth:
    """Disk growth in megabytes (1e6 bytes).

    `written`: by a day's ticks and sensors. `mb_per_day`: what of it remains after a week's maintenance, including the day's
    rollups, which are permanent. `held_mb`: the final size of runs and skipped sensor ticks under the settings.
    `held_pages_mb`: the largest number of report pages, each of the largest size that was written here.
    """

    n_ticks: int
    kb_per_run: float
    kb_per_skipped_sensor: float
    sensor_looks_per_day: float
    rollups_mb_per_day: float
    written_mb_per_day: float
    mb_per_day: float
    held_mb: float
    held_pages_mb: float


def measure_growth(platform: Platform, n_ticks: int, console: Console) -> Growth:
    """Run `n_ticks` monitoring jobs on new traffic from table `scored` and scale the growth to a day."""
    with _dagster(platform) as (instance, definitions):
        job = definitions.resolve_job_def("monitoring_job")
        with Progress(console=console) as progress:
            task = progress.add_task("Ticks under Dagster", total=n_ticks + N_WARM_UP)
            sizes: dict[str, float] = {}
            for tick in range(n_ticks + N_WARM_UP):
                if tick == N_WARM_UP:  # the first ticks write what is written only once
                    sizes["before"] = megabytes(platform)
                _add_traffic(platform, tick)
                job.execute_in_process(instance=instance, raise_on_error=True, run_config=QUIET)
                progress.advance(task)
            _check_ticks(platform, n_ticks + N_WARM_UP)
            sizes["ticked"] = megabytes(platform)
        skips_began = megabytes(platform)
        _add_skips(instance)
        per_skip = (megabytes(platform) - skips_began) / N_SKIPS
        instance.purge_ticks("growth", "growth", before=(datetime.now(UTC) + timedelta(days=1)).timestamp())
        from selfheal_assets.retention import delete_old

        before_maintenance = megabytes(platform)
        in_a_week = datetime.now(UTC) + timedelta(days=platform.settings.monitoring_runs_retention_days + 1)
        report = maintain(platform, in_a_week, partial(delete_old, instance))
        console.print(report)
        exactly("runs that maintenance deleted: all but the newest", report.n_runs, n_ticks + N_WARM_UP - 1)
        per_run = (before_maintenance - megabytes(platform)) / report.n_runs
        rollups = _rollups_mb_per_day(platform)  # before closing the resources, which stops the embedded server
        sensors = [s.minimum_interval_seconds or 30 for s in definitions.sensors or ()]
    looks = sum(86_400 / max(30, seconds) for seconds in sensors)
    pages = [path.stat().st_size for path in reports_folder(platform.settings.data_dir).glob("*.html")]
    page_mb = max(pages, default=0) / 1e6
    per_tick = (sizes["ticked"] - sizes["before"]) / n_ticks
    days = platform.settings.monitoring_runs_retention_days
    return Growth(
        n_ticks=n_ticks,
        kb_per_run=1_000 * per_run,
        kb_per_skipped_sensor=1_000 * per_skip,
        sensor_looks_per_day=looks,
        rollups_mb_per_day=rollups,
        written_mb_per_day=per_tick * TICKS_PER_DAY + per_skip * looks + rollups,
        mb_per_day=(per_tick - per_run) * TICKS_PER_DAY + rollups,
        held_mb=days * per_run * TICKS_PER_DAY + SKIPPED_KEEP_DAYS * per_skip * looks,
        held_pages_mb=platform.settings.max_drift_reports * page_mb,
    )


@contextmanager
def _dagster(platform: Platform) -> Iterator[tuple[Any, Any]]:
    """Open the instance of `selfheal up` (its dagster.yaml, its Postgres) and the code location in this process."""
    settings = platform.settings
    os.environ |= {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DATA_DIR": str(settings.data_dir.resolve()),
        "USE_CASE": settings.use_case,
    }
    import dagster as dg

    from selfheal_assets.definitions import build_definitions
    from selfheal_assets.resources.platform import close_all

    with dg.DagsterInstance.get() as instance:
        yield instance, build_definitions()
    close_all()


def _add_traffic(platform: Platform, tick: int) -> None:
    """Add five minutes of labelled rows from `scored`."""
    names = ", ".join(f'"{name}"' for name in platform.contract.feature_names)
    champion = model_versions.champion(platform.store)
    insert = f"""
        INSERT INTO prediction_logs (prediction_id, created_at, model_version, prediction, probability, threshold,
                                     request_source, latency_ms, {names})
        SELECT md5((:first + number)::text)::uuid, CAST(:start AS timestamptz) + number / :n_ticks * interval '3 seconds',
               :version,
               prediction, probability, :threshold, 'benchmark', 1.5, {names}
        FROM scored WHERE number % :n_ticks = :tick AND number < :n_ticks * {ROWS_PER_TICK}
    """  # noqa: S608  (names of our own contract)
    label = """
        INSERT INTO label_store (prediction_id, true_label, labelled_at, received_at, label_source)
        SELECT md5((:first + number)::text)::uuid, true_label, :start, :start, 'benchmark'
        FROM scored WHERE number % :n_ticks = :tick AND number < :n_ticks * :n_rows
    """
    assert champion.promoted_at is not None
    start = champion.promoted_at + timedelta(minutes=5 * tick, seconds=1)  # a window begins after the promotion
    different = {"n_ticks": N_DIFFERENT_TICKS, "tick": tick % N_DIFFERENT_TICKS}
    values = different | {"first": 1_000_000 * tick, "start": start}
    with platform.store.engine.begin() as connection:
        rows = connection.execute(text(insert), values | {"version": champion.version, "threshold": champion.threshold})
        labels = connection.execute(text(label), values | {"n_rows": ROWS_PER_TICK})
    exactly("new rows of a tick", rows.rowcount, ROWS_PER_TICK)
    exactly("new labels of a tick", labels.rowcount, ROWS_PER_TICK)


def _check_ticks(platform: Platform, n_ticks: int) -> None:
    """Check that each run was a tick of its own, and that the last one has seen the rows of all."""
    query = "SELECT count(*), max(n_predictions) FROM monitoring_metrics"
    with platform.store.engine.connect() as connection:
        n_recorded, n_predictions = connection.execute(text(query)).one()
    exactly("ticks recorded", n_recorded, n_ticks)
    exactly("predictions in the last tick's window", n_predictions, n_ticks * ROWS_PER_TICK)


def _add_skips(instance: Any) -> None:
    """Add rows as the daemon writes them for a sensor that skipped."""
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.scheduler.instigation import TickData, TickStatus

    now = datetime.now(UTC).timestamp()
    for _ in range(N_SKIPS):
        instance.create_tick(
            TickData(
                instigator_origin_id="growth",
                instigator_name="probation_sensor",
                instigator_type=InstigatorType.SENSOR,
                status=TickStatus.SKIPPED,
                timestamp=now,
                end_timestamp=now,
                selector_id="growth",
                skip_reason="Version 1 has 120 labels of the 200 that probation wants.",
                run_ids=[],
                cursor="v1 labels:120",
            )
        )


def megabytes(platform: Platform) -> float:
    """Return the size of the vacuumed databases without the traffic's tables, and of the files without Postgres and journal."""
    settings = platform.settings
    size = 0
    for database in (settings.mlops_db_name, DAGSTER_DATABASE, MLFLOW_DATABASE):
        engine = create_engine(with_driver(server_url(settings, database), "psycopg"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("VACUUM FULL"))
            query = """
                SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
                WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> ALL(:excluded)
            """
            size += int(connection.execute(text(query), {"excluded": list(TRAFFIC_TABLES)}).scalar_one())
        engine.dispose()
    return (size + _bytes_of_files(settings.data_dir)) / 1e6


def _bytes_of_files(data_dir: Path) -> int:
    """Return the bytes of all files as the file system counts them, in whole blocks."""
    total = 0
    for folder, names, files in os.walk(data_dir):
        if folder == str(data_dir):
            names[:] = [name for name in names if name not in {"postgres", "audit", "reports"}]
        total += sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in files)  # noqa: PTH118
    return total


def _rollups_mb_per_day(platform: Platform) -> float:
    """Return the rollups' growth in MB per day, for a version with at least one prediction per minute."""
    query = "SELECT pg_total_relation_size('prediction_rollups') / count(*)::float8 FROM prediction_rollups"
    with platform.store.engine.connect() as connection:
        return float(connection.execute(text(query)).scalar_one()) * MINUTES_PER_DAY / 1e6
