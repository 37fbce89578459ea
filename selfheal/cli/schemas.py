"""Command that upgrades the schemas of the platform, Dagster and MLflow before the processes of a new release start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from selfheal.cli.app import app, console, opened_platform
from selfheal.kit.errors import ServiceUnavailableError
from selfheal.settings import Settings, load_settings

SERVER_OF_LIBPQ = "postgresql+psycopg2://"
"""What libpq's variables name: a URL in a command line would show its password to everybody on the machine."""


@dataclass(frozen=True)
class Upgrade:
    """A library's own program that upgrades its schema, and the environment in which it finds the database."""

    library: str
    command: Sequence[str]
    environment: Mapping[str, str]


@app.command(rich_help_panel="Upkeep")
def migrate() -> None:
    """Upgrade the schemas of the platform, Dagster and MLflow before a new release starts; what is up to date stays."""
    from selfheal.adapters.postgres.migrate import head_revision

    settings = load_settings()
    with opened_platform(settings):  # which upgrades the platform's own schema
        console.print(f"The platform's schema is up to date (migration {head_revision()}).", highlight=False)
        for upgrade in library_upgrades(settings):
            _run(upgrade)
            console.print(f"{upgrade.library}'s schema is up to date.")


def library_upgrades(settings: Settings) -> Iterator[Upgrade]:
    """Yield the upgrades of the libraries' schemas; create their databases if need be.

    MLflow's is left out where a server of its own, or a store that is not Postgres, has its tables.
    """
    from selfheal.adapters.mlflow_store import mlflow_database_url
    from selfheal.adapters.postgres.client_tools import connection_variables
    from selfheal.adapters.postgres.migrate import ensure_database
    from selfheal.cli import supervisor

    environment = supervisor.program_environment(settings)
    yield Upgrade("Dagster", (sys.executable, "-m", "dagster", "instance", "migrate"), environment)
    url = mlflow_database_url(settings)
    if url is not None:
        ensure_database(url)
        command = (sys.executable, "-m", "mlflow", "db", "upgrade", SERVER_OF_LIBPQ)
        yield Upgrade("MLflow", command, {**environment, **connection_variables(url)})


def _run(upgrade: Upgrade) -> None:
    """Run the program until it ends: a large table takes its time.

    Raises:
        ServiceUnavailableError: with the last line of what it said, if it fails.
    """
    done = subprocess.run(  # noqa: S603  (our own command, no shell)
        upgrade.command, env=dict(upgrade.environment), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ServiceUnavailableError(
            f"{upgrade.library}'s schema could not be upgraded: {said[-1] if said else f'exit code {done.returncode}'}; "
            "remove the cause and run `selfheal migrate` again, or restore the backup from before the upgrade"
        )
