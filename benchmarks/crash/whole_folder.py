"""Operations on a whole data folder: its backup, and its first start.

Belongs here: doing them as `selfheal backup` and `selfheal up` do. Does not belong here: which flavours of them there are
(`benchmarks.crash.operations`).
"""

from __future__ import annotations

import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from benchmarks.crash.states import Trial
from selfheal.kit.errors import SelfhealError

# Backup


def has_backup() -> bool:
    """Whether this build has `selfheal backup`."""
    from selfheal.cli import app

    return any(
        (command.name or getattr(command.callback, "__name__", "")) == "backup" for command in app.registered_commands
    )


def backup(trial: Trial) -> None:
    """`selfheal backup FOLDER`."""
    selfheal_command(trial, "backup", str(_backup_folder(trial)))


def backup_again(trial: Trial) -> None:
    """To the same folder or, where that is refused, to another one, as a person would."""
    try:
        backup(trial)
    except (SelfhealError, SystemExit, OSError):
        selfheal_command(trial, "backup", str(_backup_folder(trial).with_name("another-backup")))


def without_backup(trial: Trial) -> list[str]:
    """Return a sentence if neither backup folder exists."""
    folders = [_backup_folder(trial), _backup_folder(trial).with_name("another-backup")]
    return [] if any(folder.exists() for folder in folders) else ["there is no backup"]


def selfheal_command(trial: Trial, *words: str) -> None:
    """Run a command of `selfheal` in this process, with the trial's settings as its environment.

    Raises:
        SystemExit: if it ends with another code than 0.
    """
    from selfheal.cli import app

    os.environ |= _environment(trial)
    with Path(os.devnull).open("w") as quiet, redirect_stdout(quiet), redirect_stderr(quiet):
        code = app(list(words), prog_name="selfheal", standalone_mode=False)
    if code:
        raise SystemExit(code)


def _environment(trial: Trial) -> dict[str, str]:
    """Return the trial's settings as an environment; empty values count as none."""
    settings = trial.settings
    url = settings.database_url
    return {
        "DATA_DIR": str(settings.data_dir),
        "USE_CASE": settings.use_case,
        "DATABASE_URL": "" if url is None else url.get_secret_value(),
        "MLOPS_DB_NAME": settings.mlops_db_name,
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri or "",
    }


def _backup_folder(trial: Trial) -> Path:
    return trial.settings.data_dir.parent / "backup"


# First start


def start_server(trial: Trial) -> None:
    """Folder, embedded Postgres, schema, MLflow's database, DAGSTER_HOME: what `selfheal up` does before its first version."""
    from selfheal.adapters.mlflow_store import mlflow_store_uri
    from selfheal.cli import supervisor

    folder = supervisor.prepare_data_dir(trial.settings)
    with supervisor.only_one(folder):
        try:
            assert trial.platform.store
            mlflow_store_uri(trial.settings)
            supervisor.dagster_home(trial.settings)
        finally:
            trial.close()


def server_missing(trial: Trial) -> list[str]:
    """Return a sentence if `dagster.yaml` is missing or empty."""
    home = trial.settings.data_dir / "dagster" / "dagster.yaml"
    return [] if home.exists() and home.read_text().strip() else ["DAGSTER_HOME is not laid out"]


def start_dagster(trial: Trial) -> None:
    """Create the tables of Dagster's instance, as the first of its processes does."""
    import dagster as dg

    from selfheal.adapters.postgres import embedded
    from selfheal.cli import supervisor

    os.environ |= _environment(trial)
    os.environ["DAGSTER_HOME"] = str(supervisor.dagster_home(trial.settings))
    try:
        with dg.DagsterInstance.get() as instance:
            instance.get_runs_count()
    finally:
        embedded.release(trial.settings.data_dir / "postgres")


def start_mlflow(trial: Trial) -> None:
    """MLflow's schema."""
    assert trial.platform.registry.tracking_config()
