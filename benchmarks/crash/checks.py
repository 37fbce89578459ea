"""What must hold whatever was done and wherever it was cut off.

Belongs here: reading, comparing, and a sentence for each thing that is wrong, under the key that it counts for. Does not belong
here: what an operation has still to do (`benchmarks.crash.operations`).
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
from sqlalchemy import text

from benchmarks.crash.states import Acknowledged, Trial
from selfheal.adapters.decision_log import verify_decisions
from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS, STAGE_TAG, STAGING_ALIAS
from selfheal.adapters.postgres import decisions, model_versions, promotions
from selfheal.domain.records import ModelVersion, Stage
from selfheal.services.maintenance import DeletedRuns, maintain
from selfheal.services.platform import Platform
from selfheal.services.verification.run import verify_everything

KEYS = ("lost", "duplicated", "wrong_values", "stuck", "left_behind")
LONG_AFTER = timedelta(days=3)
"""Half files may stay this long: the nightly maintenance deletes what is a day old."""

CONNECTIONS_CLOSED_WITHIN_SECONDS = 3.0
HALF_SUFFIXES = frozenset({".tmp", ".partial", ".new"})
"""Of what is written beside its place: files, a backup, a cluster of Postgres."""

Findings = dict[str, list[str]]


def no_findings() -> Findings:
    """Return an empty list for each key."""
    return {key: [] for key in KEYS}


def at_any_moment(trial: Trial) -> Findings:
    """Before anybody has repaired anything: one version in production, by the newest promotion, with its decision."""
    found, store = no_findings(), trial.platform.store
    live = model_versions.list_versions(store, stage=Stage.PRODUCTION)
    found["duplicated"] += [f"{len(live)} versions are in production"] if len(live) > 1 else []
    newest = promotions.list_promotions(store, 1)
    if bool(live) != bool(newest):
        found["lost"].append(f"{len(live)} versions are in production, {len(newest)} promotions are recorded")
    elif live and (newest[0].version, newest[0].decision_id) != (live[0].version, live[0].decision_id):
        found["wrong_values"].append(
            f"version {live[0].version} is live, the newest promotion is of {newest[0].version}"
        )
    elif live and decisions.find(store, newest[0].decision_id) is None:
        found["lost"].append(f"the decision {newest[0].decision_id} of the version in production")
    found["wrong_values"] += decisions.chain_problems(store)
    return found


def after_all(trial: Trial, acknowledged: Acknowledged, *, deletes_old: bool, is_thorough: bool) -> Findings:
    """Once everything has gone on: what was acknowledged, how versions and MLflow agree, and what lies about."""
    found = at_any_moment(trial)
    parts = [
        _rows(trial.platform, acknowledged, deletes_old=deletes_old),
        _versions(trial.platform, acknowledged),
        _alerts(trial.platform),
        _leftovers(trial),
    ]
    if is_thorough:
        results = verify_everything(trial.platform).results
        parts.append(no_findings() | {"wrong_values": [one for result in results for one in result.findings]})
    for part in parts:
        for key, sentences in part.items():
            found[key] += sentences
    return found


def _rows(platform: Platform, acknowledged: Acknowledged, *, deletes_old: bool) -> Findings:
    """Each acknowledged prediction and label is there once, with every value that was answered, to the last bit."""
    found, contract = no_findings(), platform.contract
    columns = ", ".join(f'"{name}"' for name in contract.feature_names)
    with platform.store.engine.connect() as connection:
        query = f"SELECT prediction_id, prediction, probability, model_version, {columns} FROM prediction_logs"  # noqa: S608
        logged: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for row in connection.execute(text(query)):
            logged[str(row[0])].append(tuple(row[1:]))
        labels = {
            str(row[0]): row[1] for row in connection.execute(text("SELECT prediction_id, true_label FROM label_store"))
        }
    for prediction_id, answer in acknowledged.predictions.items():
        rows = logged[prediction_id]
        if not rows and not (deletes_old and prediction_id not in acknowledged.labels):
            found["lost"].append(f"prediction {prediction_id}")
        elif len(rows) > 1:
            found["duplicated"].append(f"prediction {prediction_id}, {len(rows)} times")
        elif rows and not _is_same(rows[0], answer):
            found["wrong_values"].append(f"prediction {prediction_id} is {rows[0]}, was {answer}")
    for prediction_id, label in acknowledged.labels.items():
        if prediction_id not in labels:
            found["lost"].append(f"the label of {prediction_id}")
        elif labels[prediction_id] != label:
            found["wrong_values"].append(f"the label of {prediction_id} is {labels[prediction_id]}, was {label}")
    return found


def _is_same(row: tuple[Any, ...], answer: tuple[Any, ...]) -> bool:
    return len(row) == len(answer) and all(
        (one is None and other is None) or (one is not None and other is not None and float(one) == float(other))
        for one, other in zip(row, answer, strict=True)
    )


def _versions(platform: Platform, acknowledged: Acknowledged) -> Findings:
    """MLflow and files follow Postgres; a run is registered once; a switch that was answered has happened."""
    found, store = no_findings(), platform.store
    versions = model_versions.list_versions(store)
    found["wrong_values"] += verify_decisions(store, platform.settings.data_dir)
    history = {promotion.version for promotion in promotions.list_promotions(store, 100)}
    found["lost"] += [f"the switch to version {one}" for one in acknowledged.switches if one not in history]
    runs = Counter(version.mlflow_run_id for version in versions)
    found["duplicated"] += [f"run {run} is registered {n} times" for run, n in runs.items() if n > 1]
    if history:
        _compare_with_mlflow(platform, versions, found)
    return found


def _compare_with_mlflow(platform: Platform, versions: list[ModelVersion], found: Findings) -> None:
    with mlflow_connection(platform) as connection:
        query = "SELECT version, value FROM model_version_tags WHERE key = %s"
        tags = {int(row[0]): row[1] for row in connection.execute(query, (STAGE_TAG,))}
        known = {int(row[0]) for row in connection.execute("SELECT version FROM model_versions")}
        pairs = connection.execute("SELECT alias, version FROM registered_model_aliases")
        aliases = {str(row[0]): int(row[1]) for row in pairs}
    stages = {version.version: version.stage.value for version in versions}
    if known != set(stages):
        found["left_behind"].append(f"MLflow has the versions {sorted(known)}, Postgres {sorted(stages)}")
    elif tags != stages:
        found["wrong_values"].append(f"MLflow's tags are {tags}, the stages {stages}")
    live = next((version.version for version in versions if version.stage is Stage.PRODUCTION), None)
    if aliases.get(PRODUCTION_ALIAS) != live:
        found["wrong_values"].append(f"MLflow's alias is on {aliases.get(PRODUCTION_ALIAS)}, production is {live}")
    if live is not None and aliases.get(STAGING_ALIAS) == live:
        found["wrong_values"].append(f"MLflow's alias of staging is on {live}, which is in production")


def _alerts(platform: Platform) -> Findings:
    query = """
        SELECT kind, source, count(*) AS n FROM monitoring_alerts
        WHERE resolved_at IS NULL GROUP BY 1, 2 HAVING count(*) > 1
    """
    with platform.store.engine.connect() as connection:
        rows = connection.execute(text(query)).all()
    return no_findings() | {"duplicated": [f"{row.n} open alerts {row.kind}" for row in rows]}


def _leftovers(trial: Trial) -> Findings:
    """Half files that the next nights do not delete, training runs that run for ever, locks and connections of the dead."""
    for path in _half_written(trial.settings.data_dir):
        os.utime(path, (trial.now.timestamp(), trial.now.timestamp()))  # the trial has a clock of its own
    maintain(trial.platform, trial.now + LONG_AFTER, lambda _before: DeletedRuns())
    found = half_files(trial.settings.data_dir)
    found += [f"the run {run} in MLflow, RUNNING" for run in _running(trial.platform)]
    trial.platform.store.engine.dispose()
    found += _foreign_locks(trial.platform)
    return no_findings() | {"left_behind": found}


def half_files(data_dir: Path) -> list[str]:
    """Return a sentence for each file below the folder that was written beside its place and never moved there."""
    found = sorted(path.relative_to(data_dir) for path in _half_written(data_dir))
    return [f"half a file in {path.parent}: {path.name}" for path in found]


def _half_written(data_dir: Path) -> list[Path]:
    """Postgres and Dagster look after their own."""
    return [
        path
        for path in data_dir.rglob("*")
        if not {"postgres", "dagster"} & set(path.relative_to(data_dir).parts[:1]) and path.suffix in HALF_SUFFIXES
    ]


def _running(platform: Platform) -> list[str]:
    with mlflow_connection(platform) as connection:
        return [str(row[0]) for row in connection.execute("SELECT run_uuid FROM runs WHERE status = 'RUNNING'")]


def mlflow_connection(platform: Platform) -> psycopg.Connection[Any]:
    """Return a connection to MLflow's own tables: its client would take longer to start than all checks together."""
    uri = platform.settings.mlflow_tracking_uri
    assert uri is not None, "a copy has a database of MLflow's of its own"
    return psycopg.connect(uri.replace("+psycopg2", ""))


def _foreign_locks(platform: Platform) -> list[str]:
    """Advisory locks, and transactions open, of any other connection to this database."""
    query = """
        SELECT DISTINCT a.pid, a.state FROM pg_stat_activity a LEFT JOIN pg_locks l USING (pid)
        WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
          AND (l.locktype = 'advisory' OR a.state LIKE 'idle in transaction%')
    """
    deadline = time.monotonic() + CONNECTIONS_CLOSED_WITHIN_SECONDS
    while True:
        with platform.store.engine.connect() as connection:
            rows = connection.execute(text(query)).all()
        if not rows or time.monotonic() > deadline:
            return [f"a lock of a dead process (backend {row.pid}, {row.state})" for row in rows]
        time.sleep(0.1)


def processes_of(session: int, folder: Path) -> list[psutil.Process]:
    """Return the live processes of a session, and those whose command names the folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        try:
            if os.getsid(process.pid) == session or str(folder) in " ".join(process.info["cmdline"] or []):
                found.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return found
