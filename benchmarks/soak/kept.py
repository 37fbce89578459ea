"""What is kept: rows, and bytes of tables and files, split into what is deleted one day and what is not.

Belongs here: counting once. Does not belong here: when (`benchmarks.soak.samples`).
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.soak.bounds import EVIDENCE, KEPT, REPORTS, UNLABELLED
from selfheal.adapters.postgres.embedded import url_if_running
from selfheal.adapters.postgres.store import DAGSTER_DATABASE, MLFLOW_DATABASE

PLATFORM_DATABASE = "selfheal"

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
        "label_quarantines",
        "season_memories",
        "model_metadata",
        "reference_data",
    }
)
"""Of the platform's own; all of MLflow's are evidence, too."""

CLASSES = {**dict.fromkeys(("audit", "decisions", "mlflow", "reference"), EVIDENCE), "reports": REPORTS}
"""Of folders, where they are not `KEPT`."""

OF_TRAINING = """
    SELECT count(*) FROM {table}
    WHERE run_id IN (SELECT run_id FROM runs WHERE pipeline_name IN ('retraining_job', 'bootstrap_job'))
"""
OF_EPISODES = """
    SELECT count(*) FROM {table} m
    WHERE EXISTS (SELECT 1 FROM retraining_decisions d WHERE d.episode_id = m.episode_id)
       OR EXISTS (SELECT 1 FROM monitoring_alerts a WHERE a.episode_id = m.episode_id AND a.resolved_at IS NULL)
"""
PARTLY_EVIDENCE = {
    **{(DAGSTER_DATABASE, table): OF_TRAINING for table in ("event_logs", "runs", "run_tags")},
    **{(PLATFORM_DATABASE, table): OF_EPISODES for table in ("monitoring_metrics", "monitoring_alerts")},
}
"""Rows that stay, of tables whose others go: a decision rests on them (`selfheal.adapters.postgres.retention`)."""

DECIDED_TICKS = """
    SELECT tick_id FROM monitoring_metrics WHERE episode_id IN (SELECT episode_id FROM retraining_decisions)
"""


@dataclass
class Kept:
    """Rows and bytes by class (`KEPT`, `EVIDENCE`, `UNLABELLED`, `REPORTS`), and those of `KEPT` by table or folder."""

    rows: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    sizes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add_table(self, name: str, n_rows: float, n_evidence: float, size: float) -> None:
        """Add a table of which `n_evidence` rows stay, with their share of its bytes."""
        share = n_evidence / n_rows if n_rows else 0.0
        self.rows[EVIDENCE] += n_evidence
        self.sizes[EVIDENCE] += share * size
        self._add(name, n_rows - n_evidence, (1 - share) * size)

    def add_files(self, folder: str, size: float) -> None:
        """Add the bytes of a folder's files that are deleted one day."""
        self._add(f"{folder}/", 0.0, size)

    def _add(self, name: str, n_rows: float, size: float) -> None:
        self.rows[KEPT] += n_rows
        self.sizes[KEPT] += size
        before = self.parts.get(name, (0.0, 0.0))
        self.parts[name] = (before[0] + n_rows, before[1] + size)


def what_is_kept(data_dir: Path) -> Kept:
    """Return the rows and bytes that there are now.

    Raises:
        psycopg.Error: if Postgres does not answer.
        OSError: if it does not run.
    """
    kept, decided = Kept(), frozenset[str]()
    for database in (PLATFORM_DATABASE, DAGSTER_DATABASE, MLFLOW_DATABASE):
        url = url_if_running(data_dir / "postgres", database)
        if url is None:
            raise OSError("Postgres does not run")
        with psycopg.connect(url, connect_timeout=5) as connection:
            _add_tables(kept, connection, database)
            if database == PLATFORM_DATABASE:
                decided = frozenset(row[0] for row in connection.execute(DECIDED_TICKS))
    for folder, size in _bytes_of_files(data_dir, decided).items():
        if folder in CLASSES:
            kept.sizes[CLASSES[folder]] += size
        else:
            kept.add_files(folder, size)
    return kept


def shared_memory_bytes(data_dir: Path) -> float | None:
    """Return the size of the memory that Postgres' processes share (buffers, locks); None if it does not run."""
    url = url_if_running(data_dir / "postgres", PLATFORM_DATABASE)
    if url is None:
        return None
    with psycopg.connect(url, connect_timeout=5) as connection:
        return float(_number(connection, "SELECT pg_size_bytes(current_setting('shared_memory_size'))"))


def _add_tables(kept: Kept, connection: psycopg.Connection, database: str) -> None:  # type: ignore[type-arg]
    found = connection.execute(
        "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ).fetchall()
    n_rows = {table: _number(connection, f'SELECT count(*) FROM "{table}"') for table, _ in found}  # noqa: S608
    for table, size in found:
        n_evidence = n_rows[table] if database == MLFLOW_DATABASE or table in EVIDENCE_TABLES else 0
        if query := PARTLY_EVIDENCE.get((database, table)):
            n_evidence = min(n_rows[table], _number(connection, query.format(table=table)))
        kept.add_table(f"{database}.{table}", n_rows[table], n_evidence, size)
    if database == PLATFORM_DATABASE:
        n_unlabelled = max(0, n_rows["prediction_logs"] - n_rows["label_store"])
        kept.rows[UNLABELLED] = n_unlabelled
        kept.rows[EVIDENCE] -= n_unlabelled


def _number(connection: psycopg.Connection, query: str) -> int:  # type: ignore[type-arg]
    found = connection.execute(query).fetchone()  # type: ignore[arg-type]
    assert found is not None
    return int(found[0])


def _bytes_of_files(data_dir: Path, decided: frozenset[str]) -> dict[str, float]:
    """Return bytes by the folder below `data_dir`, without Postgres' own; a file that goes meanwhile counts for nothing.

    The files of ticks that a decision rests on count as those of the decisions.
    """
    sizes: defaultdict[str, float] = defaultdict(float)
    for folder, names, files in os.walk(data_dir):
        if folder == str(data_dir):
            names[:] = [name for name in names if name != "postgres"]
        top = (*Path(folder).relative_to(data_dir).parts[:1], "")[0]
        for name in files:
            with contextlib.suppress(OSError):
                size = Path(folder, name).lstat().st_size
                is_decided = Path(name).stem.rpartition("-")[2] in decided
                sizes["decisions" if is_decided else top] += size
    return sizes
