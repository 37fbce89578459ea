"""Samples of what may grow: memory, descriptors and connections of each process; rows and bytes that are kept.

Belongs here: measuring once, and the series that come of it. Does not belong here: what a series says (`benchmarks.trend`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from benchmarks.running_platform import RunningPlatform
from benchmarks.trend import Trend, trend
from selfheal.adapters.postgres.embedded import url_if_running
from selfheal.adapters.postgres.store import DAGSTER_DATABASE, MLFLOW_DATABASE

PROCESSES = ("up", "api", "code", "webserver", "daemon", "mlflow", "postgres")
KEPT, EVIDENCE = "kept", "evidence"

EVIDENCE_TABLES = frozenset(
    {
        "prediction_logs",
        "prediction_rollups",
        "label_store",
        "journal_positions",
        "journal_seals",
        "overruled_labels",
        "training_failures",
        "retraining_decisions",
        "retraining_requests",
        "promotions",
        "probations",
        "spoiled_periods",
        "model_metadata",
        "reference_data",
    }
)
"""Of the platform's own; all of MLflow's are evidence, too."""

EVIDENCE_FOLDERS = frozenset({"audit", "decisions", "mlflow", "reference"})
TRAINING_RUNS = "SELECT run_id FROM runs WHERE pipeline_name IN ('retraining_job', 'bootstrap_job')"
RUN_TABLES = ("event_logs", "runs", "run_tags")


@dataclass
class Series:
    """One measure of one process: times, values, and which life of the process each is of."""

    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)

    def add(self, time_s: float, value: float, segment: int) -> None:
        """Add a sample: its time in seconds, its value, and the life of the process that it is of."""
        self.times_s.append(time_s)
        self.values.append(value)
        self.segments.append(segment)

    def trend(self, *, after_start_s: float = 0.0, after_s: float = 0.0) -> Trend | None:
        """Return how it grows, without the samples of the first seconds of each life, and of all."""
        begins: dict[int, float] = {}
        for time_s, segment in zip(self.times_s, self.segments, strict=True):
            begins.setdefault(segment, time_s)
        kept = [
            (time_s, value, segment)
            for time_s, value, segment in zip(self.times_s, self.values, self.segments, strict=True)
            if time_s >= begins[segment] + after_start_s and time_s >= after_s
        ]
        return trend([row[0] for row in kept], [row[1] for row in kept], [row[2] for row in kept])


class Sampler(threading.Thread):
    """Takes samples in a thread of its own, until `stop`. A process that is away, or a database that does not answer, is left out."""

    def __init__(self, platform: RunningPlatform, every_seconds: float, kept_every: int) -> None:
        super().__init__(name="sampler", daemon=True)
        self._platform, self._every, self._kept_every = platform, every_seconds, kept_every
        self._stopping, self._began = threading.Event(), time.monotonic()
        self._lives: dict[str, tuple[int, int]] = {}
        self.series: defaultdict[str, defaultdict[str, Series]] = defaultdict(lambda: defaultdict(Series))
        self.error: BaseException | None = None

    def run(self) -> None:
        """Take samples until `stop`; store the error if one ends it."""
        number, self._began = 0, time.monotonic()
        while not self._stopping.wait(self._every):
            try:
                self._sample_processes()
                if number % self._kept_every == 0:
                    self._sample_kept()
            except (psutil.Error, psycopg.Error, OSError):
                continue
            except BaseException as error:
                self.error = error
                return
            finally:
                number += 1

    def stop(self) -> None:
        """Stop, and raise the error that ended the sampling, if any."""
        self._stopping.set()
        self.join(60)
        if self.error is not None:
            raise self.error

    @property
    def seconds(self) -> float:
        """Return the seconds since the sampling began."""
        return time.monotonic() - self._began

    @property
    def seconds_sampled(self) -> float:
        """Return the time of the last sample."""
        return max((series.times_s[-1] for one in self.series.values() for series in one.values()), default=0.0)

    def _sample_processes(self) -> None:
        for role in PROCESSES:
            for process in self._platform.of_role(role)[:1]:
                with contextlib.suppress(psutil.Error):
                    life = self._life(role, process.pid)
                    family = (
                        [process, *process.children(recursive=True)] if role in {"mlflow", "postgres"} else [process]
                    )
                    measured = {  # memory that several processes share counts once
                        "rss": float(sum(one.memory_full_info().pss for one in family)),
                        "fds": float(sum(one.num_fds() for one in family)),
                        "connections": float(sum(len(one.net_connections("all")) for one in family)),
                    }
                    for name, value in measured.items():
                        self.series[role][name].add(self.seconds, value, life)

    def _life(self, role: str, pid: int) -> int:
        number, known = self._lives.get(role, (0, pid))
        if known != pid:
            number += 1
        self._lives[role] = (number, pid)
        return number

    def _sample_kept(self) -> None:
        rows, sizes = rows_and_bytes(self._platform.data_dir)
        for name in (KEPT, EVIDENCE):
            self.series[name]["rows"].add(self.seconds, rows[name], 0)
            self.series[name]["bytes"].add(self.seconds, sizes[name], 0)


def rows_and_bytes(data_dir: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return rows, and bytes of tables and files, of what is deleted one day (`KEPT`) and of what is not (`EVIDENCE`).

    Raises:
        psycopg.Error: if Postgres does not answer.
        OSError: if it does not run.
    """
    rows, sizes = {KEPT: 0.0, EVIDENCE: 0.0}, {KEPT: 0.0, EVIDENCE: 0.0}
    for database in ("selfheal", DAGSTER_DATABASE, MLFLOW_DATABASE):
        url = url_if_running(data_dir / "postgres", database)
        if url is None:
            raise OSError("Postgres does not run")
        with psycopg.connect(url, connect_timeout=5) as connection:
            for table, size in connection.execute(
                "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            ).fetchall():
                of_training = _rows_of_training(connection, table) if database == DAGSTER_DATABASE else 0
                n_rows = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]  # type: ignore[index, arg-type]  # noqa: S608
                name = EVIDENCE if database == MLFLOW_DATABASE or table in EVIDENCE_TABLES else KEPT
                rows[name] += n_rows - of_training
                rows[EVIDENCE] += of_training
                sizes[name] += size
    for folder, n_bytes in _bytes_of_files(data_dir).items():
        sizes[EVIDENCE if folder in EVIDENCE_FOLDERS else KEPT] += n_bytes
    return rows, sizes


def _rows_of_training(connection: psycopg.Connection, table: str) -> int:  # type: ignore[type-arg]
    """Rows of retrainings, which stay: a decision rests on them."""
    if table not in RUN_TABLES:
        return 0
    query = f"SELECT count(*) FROM {table} WHERE run_id IN ({TRAINING_RUNS})"  # noqa: S608
    found = connection.execute(query).fetchone()  # type: ignore[arg-type]
    assert found is not None
    return int(found[0])


def _bytes_of_files(data_dir: Path) -> dict[str, float]:
    """By the folder below `data_dir`, Postgres' left out; a file that goes meanwhile counts for nothing."""
    sizes: defaultdict[str, float] = defaultdict(float)
    for folder, names, files in os.walk(data_dir):
        if folder == str(data_dir):
            names[:] = [name for name in names if name != "postgres"]
        top = Path(folder).relative_to(data_dir).parts[:1]
        for name in files:
            with contextlib.suppress(OSError):
                sizes[top[0] if top else ""] += Path(folder, name).lstat().st_size
    return sizes
