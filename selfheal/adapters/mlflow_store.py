"""MLflow's store: where its tables and its artifacts are, and how recorded locations follow a DATA_DIR that has moved.

MLflow records artifacts by absolute path, and its API cannot change that of an existing run: the tables are rewritten.
Does not belong here: whatever needs MLflow itself (`selfheal.adapters.mlflow_registry`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.kit.errors import ServiceUnavailableError

if TYPE_CHECKING:
    import psycopg

    from selfheal.settings import Settings

logger = logging.getLogger(__name__)

EXPERIMENT = "selfheal"

SAMPLED_RUNS = 1_000
"""Newest runs of an experiment that are looked for in the folder. One that is found tells that all have moved."""

CONNECT_TIMEOUT_SECONDS = 5
"""As for the platform's own database."""

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Every column of MLflow's tables with the path of an artifact."""

EXPERIMENTS = """
    SELECT e.name, e.artifact_location, ARRAY(
        SELECT r.run_uuid FROM runs r WHERE r.experiment_id = e.experiment_id ORDER BY r.start_time DESC LIMIT %(limit)s)
    FROM experiments e WHERE e.artifact_location LIKE 'file:%%'
"""


@dataclass(frozen=True)
class ExperimentLocation:
    """Where MLflow has an experiment's artifacts, as a file URI, and the newest of its runs."""

    name: str
    uri: str
    run_ids: tuple[str, ...]


def artifact_folder(settings: Settings) -> Path | None:
    """Return where artifacts are; None if a tracking server decides that."""
    return None if settings.has_tracking_server else settings.data_dir / "mlflow"


def mlflow_store_uri(settings: Settings) -> str:
    """Return the URI where MLflow stores runs and versions; create its database if need be.

    Where that is a database, the artifacts recorded in it follow a DATA_DIR that has moved.
    """
    uri, folder = _store_uri(settings), artifact_folder(settings)
    url = _database_url(uri)
    if url is not None and folder is not None:
        is_own = settings.mlflow_tracking_uri is None and not settings.has_external_database
        follow_folder(url, folder, is_own=is_own)
    return uri


def mlflow_database_url(settings: Settings) -> str | None:
    """Return the URL (`postgresql://`, no driver) of MLflow's database; None if a tracking server has it.

    Creates nothing.
    """
    if settings.mlflow_tracking_uri:
        return _database_url(settings.mlflow_tracking_uri)
    from selfheal.adapters.postgres.store import MLFLOW_DATABASE, server_url

    return server_url(settings, MLFLOW_DATABASE)


def _database_url(uri: str) -> str | None:
    scheme, _, rest = uri.partition("://")
    return f"postgresql://{rest}" if scheme.partition("+")[0] == "postgresql" else None


def tracking_uri(settings: Settings) -> Callable[[], str]:
    """Return what returns MLflow's URI: its first call is `mlflow_store_uri`, the others only name the place."""
    has_followed = False

    def uri() -> str:
        nonlocal has_followed
        found = _store_uri(settings) if has_followed else mlflow_store_uri(settings)
        has_followed = True
        return found

    return uri


def _store_uri(settings: Settings) -> str:
    if settings.mlflow_tracking_uri:
        return settings.mlflow_tracking_uri
    from selfheal.adapters.postgres.store import MLFLOW_DATABASE, library_url

    return library_url(settings, MLFLOW_DATABASE)


def follow_folder(url: str, folder: Path, *, is_own: bool) -> int:
    """Rewrite the locations of artifacts that are in `folder` now and were elsewhere; return how many.

    Args:
        url: MLflow's database, `postgresql://`.
        folder: where this platform's artifacts are.
        is_own: whether no other platform uses the database: then its artifacts are in `folder` or nowhere. Otherwise
            they must be found there, and not where they were: another host may have them.

    Raises:
        ServiceUnavailableError: if the database does not answer.
    """
    import psycopg

    try:
        connected = psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_SECONDS)
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"MLflow's database does not answer: {' '.join(str(error).split())}; "
            "check MLFLOW_TRACKING_URI or DATABASE_URL"
        ) from error
    with connected as connection:
        if connection.execute("SELECT to_regclass('experiments'), to_regclass('runs')").fetchone() == (None, None):
            return 0
        rows = connection.execute(EXPERIMENTS, {"limit": SAMPLED_RUNS}).fetchall()
        found = [ExperimentLocation(name, uri, tuple(run_ids)) for name, uri, run_ids in rows]
        moved = moved_uris(found, folder, is_own=is_own)
        if not moved:
            return 0
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (int(Lock.REGISTRY),))
        target = folder.resolve().as_uri()
        n_changed = sum(_rewrite(connection, uri, target) for uri in moved)
    logger.info("%d locations of MLflow's artifacts follow DATA_DIR to %s", n_changed, folder)
    return n_changed


def moved_uris(experiments: Iterable[ExperimentLocation], folder: Path, *, is_own: bool) -> list[str]:
    """Return the URIs whose artifacts are in `folder` now, by the rule of `follow_folder`."""
    target = folder.resolve()
    return sorted({one.uri for one in experiments if _has_moved(one, target, is_own=is_own)})


def _has_moved(experiment: ExperimentLocation, target: Path, *, is_own: bool) -> bool:
    before = Path(unquote(urlparse(experiment.uri).path))
    if before == target:
        return False
    is_here = any((target / run_id).is_dir() for run_id in experiment.run_ids)
    if is_own:
        return is_here or experiment.name == EXPERIMENT
    return is_here and not before.exists()


def _rewrite(connection: psycopg.Connection, before: str, after: str) -> int:
    """Replace the beginning of every location at or below `before`."""
    from psycopg import sql

    n_changed = 0
    for table, column in LOCATIONS:
        if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
            continue
        statement = sql.SQL(
            "UPDATE {table} SET {column} = %(after)s || substr({column}, length(%(before)s) + 1) "
            "WHERE {column} = %(before)s OR starts_with({column}, %(before)s || '/')"
        ).format(table=sql.Identifier(table), column=sql.Identifier(column))
        n_changed += connection.execute(statement, {"before": before, "after": after}).rowcount
    return n_changed
