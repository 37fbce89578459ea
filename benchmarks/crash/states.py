"""States that a crash begins from: small platforms of the toy use case, made once and copied for each point.

Belongs here: making them, copying them (databases by Postgres' templates, folders file by file), and what was acknowledged
while they were made. Does not belong here: what is done in them (`benchmarks.crash.operations`).
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg

from selfheal.adapters.journal import LABEL_JOURNAL, Journal, column_values, format_time, prediction_journal
from selfheal.adapters.postgres import model_versions, ticks
from selfheal.adapters.postgres.embedded import EmbeddedServer, ensure_running
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.migrate import ensure_database
from selfheal.domain.contract import CALM, TRUE_LABEL
from selfheal.domain.records import Verdict
from selfheal.kit.ids import new_id
from selfheal.services.platform import Platform, open_platform
from selfheal.settings import Settings, load_settings
from tests.times import T0
from tests.traffic import toy_rows

USE_CASE = "tests.toy_use_case:contract"
HOT = "overheating"
KINDS = ("platform", "mlflow")
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
ROOMY_BYTES = 4 << 30
MAX_JOURNAL_BYTES = 6_000
"""Small, so that a writer opens its next file every few dozen rows."""

ROWS_PER_APPEND = 12

MLFLOW_PATHS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
"""Where MLflow's tables have absolute paths: a copy must not write into the folder of what it was copied from."""


@dataclass
class Acknowledged:
    """What a caller was told is safe: predictions by id with all that was answered, and labels."""

    predictions: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    switches: list[int] = field(default_factory=list)
    """Versions whose promotion or rollback returned."""

    def update(self, other: Acknowledged) -> None:
        """Add what another record contains."""
        self.predictions |= other.predictions
        self.labels |= other.labels
        self.switches += other.switches


@dataclass
class Trial:
    """One try in one copy of a state. `now` moves on with what is sent. `tell` is called once something is acknowledged."""

    settings: Settings
    now: datetime
    rng: random.Random
    extra: Any = None
    tell: Callable[[Acknowledged], None] = lambda _: None

    @cached_property
    def platform(self) -> Platform:
        """Return the platform of this trial, opened at first use."""
        return open_platform(self.settings)

    def close(self) -> None:
        """Close the platform if it is open."""
        if "platform" in self.__dict__:
            self.platform.close()
            del self.__dict__["platform"]

    def send(
        self, n_rows: int, *, scenario: str = CALM, labelled_share: float = 0.7, version: int | None = None
    ) -> None:
        """Journal rows of the world as the champion (or another version) scores them, and labels of the oldest of them."""
        champion = model_versions.champion(self.platform.store)
        scored_by = champion if version is None else model_versions.model_version(self.platform.store, version)
        assert scored_by is not None
        rows = toy_rows(n_rows, seed=self.rng.randrange(1 << 30), scenario=scenario)
        self._send(rows, scored_by, round(labelled_share * n_rows))

    def send_broken(self, n_rows: int) -> None:
        """Journal rows of a feed that has lost a column."""
        champion = model_versions.champion(self.platform.store)
        self._send(toy_rows(n_rows, seed=self.rng.randrange(1 << 30)).assign(temperature_c=np.nan), champion, 0)

    def ingest(self) -> None:
        """Copy the journals of predictions and labels to Postgres."""
        for kind in (prediction_journal(self.platform.contract), LABEL_JOURNAL):
            ingest(self.platform.store, kind, self.settings.data_dir)

    def _send(self, rows: Any, version: Any, n_labelled: int) -> None:
        contract = self.platform.contract
        features = contract.feature_frame(rows)
        matrix = features.to_numpy(dtype=np.float64)
        scores = self.platform.registry.load(version).predict_proba(matrix)[:, 1].tolist()
        kinds = [contract.kinds[name] for name in contract.feature_names]
        columns = [column_values(column, kind) for column, kind in zip(matrix.T, kinds, strict=True)]
        answers: list[tuple[str, tuple[Any, ...]]] = []
        lines = []
        for score, *values in zip(scores, *columns, strict=True):
            self.now += SECOND
            prediction_id = str(new_id())
            known = (None if value is None or value != value else value for value in values)  # noqa: PLR0124  (NaN)
            answer = (int(score >= version.threshold), score, version.version, *known)
            answers.append((prediction_id, answer))
            meta = (prediction_id, format_time(self.now), version.version, answer[0], score, version.threshold)
            lines.append((*meta, "crash", 1.5, *values))
        journal = Journal(prediction_journal(contract), self.settings.data_dir, MAX_JOURNAL_BYTES)
        for first in range(0, len(lines), ROWS_PER_APPEND):
            part = slice(first, first + ROWS_PER_APPEND)
            journal.append(lines[part])
            self.tell(Acknowledged(predictions=dict(answers[part])))
        journal.close()
        self._label([prediction_id for prediction_id, _ in answers[:n_labelled]], rows[TRUE_LABEL].tolist())

    def _label(self, ids: list[str], labels: list[int]) -> None:
        self.now += SECOND
        when = format_time(self.now)
        journal = Journal(LABEL_JOURNAL, self.settings.data_dir, MAX_JOURNAL_BYTES)
        for first in range(0, len(ids), ROWS_PER_APPEND):
            some = list(zip(ids, labels, strict=False))[first : first + ROWS_PER_APPEND]
            journal.append([(one, int(label), when, when, "crash", False, None) for one, label in some])
            self.tell(Acknowledged(labels={one: int(label) for one, label in some}))
        journal.close()


@dataclass(frozen=True)
class State:
    """A platform to copy: databases `<name>_platform` and `<name>_mlflow`, a folder, and what its making left behind."""

    name: str
    data_dir: Path
    now: datetime
    extra: Any
    acknowledged: Acknowledged


@contextmanager
def memory_server(folder: Path) -> Iterator[EmbeddedServer]:
    """Run a Postgres for all trials, with its syncs off: here processes die, not machines."""
    server = ensure_running(folder / "postgres")
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for change in ("fsync = off", "max_connections = 200"):
            connection.execute(f"ALTER SYSTEM SET {change}")  # type: ignore[arg-type]
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield server
    finally:
        pid = int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        psutil.Process(pid).send_signal(signal.SIGQUIT)  # at once: what is thrown away needs no checkpoint
        psutil.wait_procs([psutil.Process(pid)], timeout=20)
        server.release()


@contextmanager
def roomy_folder(prefix: str) -> Iterator[Path]:
    """Create a temporary folder that the embedded server's user may enter; in memory, if there is room."""
    memory = Path("/dev/shm")  # noqa: S108  (a folder of its own in it)
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOMY_BYTES
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=memory if is_roomy else None, ignore_cleanup_errors=True
    ) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def settings_of(url: str, data_dir: Path, name: str) -> Settings:
    """Return the settings of the platform whose databases are named so, on the server of `url` (of any database)."""
    base, _, query = url.partition("?")
    mlflow = f"{base.rpartition('/')[0]}/{name}_mlflow?{query}".replace("postgresql://", "postgresql+psycopg2://")
    return load_settings(
        use_case=USE_CASE,
        data_dir=data_dir,
        database_url=url,
        mlops_db_name=f"{name}_platform",
        mlflow_tracking_uri=mlflow,
        synthetic_rows=1_500,
        promotion_cooldown_days=0.0,
        predictions_retention_days=30,
    )


def copy_databases(url: str, source: str, name: str) -> None:
    """Copy both databases of a platform to another name, in place of what was there."""
    drop_databases(url, name)
    with psycopg.connect(url, autocommit=True) as connection:
        for kind in KINDS:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (f"{source}_{kind}",)
            )
            # Small databases in memory: to copy their files costs half of writing their pages to the log.
            copy = f"CREATE DATABASE {name}_{kind} TEMPLATE {source}_{kind} STRATEGY FILE_COPY"
            connection.execute(copy)  # type: ignore[arg-type]


def drop_databases(url: str, name: str) -> None:
    """Remove both databases of a platform, and whoever is connected to them."""
    with psycopg.connect(url, autocommit=True) as connection:
        for kind in KINDS:
            connection.execute(f"DROP DATABASE IF EXISTS {name}_{kind} WITH (FORCE)")  # type: ignore[arg-type]


def copy_folder(source: Path, target: Path) -> None:
    """Copy a data folder; a platform that has written nothing yet has none."""
    if source.exists():
        shutil.copytree(source, target)


def move_artifacts(url: str, name: str, old: Path, new: Path) -> None:
    """Make MLflow's tables name the folder of the copy."""
    base, _, query = url.partition("?")
    with psycopg.connect(f"{base.rpartition('/')[0]}/{name}_mlflow?{query}") as connection:
        for table, columns in MLFLOW_PATHS.items():
            exists = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
            for column in columns if exists == (True,) else ():
                move = f"UPDATE {table} SET {column} = replace({column}, %s, %s)"  # noqa: S608
                connection.execute(move, (str(old), str(new)))  # type: ignore[arg-type]


# Making them


def empty(trial: Trial) -> None:
    """Create the platform's schema; MLflow's database has none yet."""
    assert trial.platform.store


def prepared(trial: Trial) -> None:
    """Create the schemas of the platform and of MLflow, and no version."""
    assert trial.platform.registry.tracking_config()


def serving(trial: Trial) -> None:
    """Version 1 in production, with some traffic and one tick."""
    from benchmarks.crash.operations import bootstrap, tick

    bootstrap(trial)
    trial.now = T0 + SECOND
    trial.send(260, labelled_share=1.0)  # else the labels of what follows would not be known to be complete
    trial.ingest()
    tick(trial)


def drifted(trial: Trial) -> None:
    """Harm that a retraining heals; `extra` is the episode."""
    from benchmarks.crash.operations import tick

    trial.send(1_200, scenario=HOT, labelled_share=1.0)
    trial.ingest()
    trial.now += HOUR
    trial.extra = tick(trial)
    found = ticks.latest_tick(trial.platform.store)
    assert found is not None and found.verdict == Verdict.HARMFUL_SHIFT, f"{found.verdict}: {found.reasons}"


def judged(trial: Trial) -> None:
    """Train and judge version 2; `extra` is the verdict to promote it."""
    from benchmarks.crash.operations import retrain

    trial.extra = retrain(trial)


def watched(trial: Trial) -> None:
    """Version 2 in production, on probation, with labelled traffic of the world it was trained for; version 3 is staged."""
    from selfheal.services.promotion.going_live import promote, stage
    from tests.candidates import log_worse_model, passed

    promote(trial.platform, trial.extra, trial.now)
    trial.send(300, scenario=HOT, labelled_share=1.0)
    trial.ingest()
    shadow = log_worse_model(trial.platform)
    stage(trial.platform, shadow, passed(trial.platform, shadow).decision, trial.now)
    trial.now += HOUR


def worse(trial: Trial) -> None:
    """Version 2 in production by force: it predicts the opposite of what is true."""
    from selfheal.services.promotion.going_live import force_promote, stage
    from tests.candidates import log_worse_model, passed

    shadow = log_worse_model(trial.platform)
    stage(trial.platform, shadow, passed(trial.platform, shadow).decision, trial.now)
    force_promote(trial.platform, 2, reason="a person's word", actor="ada", now=trial.now)
    trial.send(300, labelled_share=1.0)
    trial.ingest()
    trial.now += HOUR


def aged(trial: Trial) -> None:
    """Two months after version 2 replaced version 1: old predictions, ticks, alerts, files and half files."""
    from benchmarks.crash.operations import tick
    from selfheal.services.reports.files import reports_folder, results_folder

    trial.send(120, labelled_share=0.0)
    trial.ingest()
    trial.now += 2 * HOUR  # what is deleted is whole hours
    worse(trial)
    tick(trial)
    trial.now += timedelta(days=800)
    trial.send(30)
    trial.ingest()
    data_dir = trial.settings.data_dir
    old = (trial.now - timedelta(days=700)).timestamp()
    for folder in (results_folder(data_dir), reports_folder(data_dir), data_dir / "monitoring"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".left.json.1234.tmp").write_text("half")
        for path in folder.iterdir():
            os.utime(path, (old, old))


STATES: dict[str, tuple[str | None, Callable[[Trial], None]]] = {
    "empty": (None, empty),
    "prepared": ("empty", prepared),
    "serving": ("prepared", serving),
    "drifted": ("serving", drifted),
    "judged": ("drifted", judged),
    "watched": ("judged", watched),
    "worse": ("serving", worse),
    "aged": ("serving", aged),
}
"""By name: what it is made from, and what makes it."""


def make_state(url: str, folder: Path, name: str, before: State | None) -> State:
    """Make a state from another one, in this process; call it in a forked one."""
    data_dir = folder / name / "data"
    if before is None:
        for kind in KINDS:
            base, _, query = url.partition("?")
            ensure_database(f"{base.rpartition('/')[0]}/{name}_{kind}?{query}")
    else:
        copy_databases(url, before.name, name)
        move_artifacts(url, name, before.data_dir, data_dir)
        copy_folder(before.data_dir, data_dir)
    acknowledged = Acknowledged()
    if before is not None:
        acknowledged.update(before.acknowledged)
    trial = Trial(
        settings_of(url, data_dir, name),
        T0 if before is None else before.now,
        random.Random(name),
        None if before is None else before.extra,
        acknowledged.update,
    )
    STATES[name][1](trial)
    trial.close()
    return State(name, data_dir, trial.now, trial.extra, acknowledged)


def saved(state: State, path: Path) -> None:
    """Write the state for the process that forked this one."""
    path.write_bytes(pickle.dumps(state))
