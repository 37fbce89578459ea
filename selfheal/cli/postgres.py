"""Command that runs Postgres' own programs, for backups and for queries that no command covers."""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import Annotated

import typer

from selfheal.cli.app import app
from selfheal.kit.errors import ConfigurationError
from selfheal.settings import load_settings


@app.command(
    rich_help_panel="Upkeep", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True}
)
def postgres(
    program: Annotated[str, typer.Argument(help="psql, pg_dump, pg_restore, ... or any program that uses libpq.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Its arguments, as they are.")] = None,
) -> None:
    """Run one of Postgres' own programs on the platform's server: `selfheal postgres psql`. Its exit code is ours."""
    from selfheal.adapters.postgres.client_tools import client_environment

    environment = client_environment(load_settings())
    found = shutil.which(program, path=environment["PATH"])
    if found is None:
        raise ConfigurationError(f"there is no program {program!r} here; `psql`, `pg_dump` and `pg_restore` always are")
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the program: psql ends a query with it
    done = subprocess.run([found, *(arguments or [])], env=environment, check=False)  # noqa: S603  (no shell)
    raise typer.Exit(done.returncode)
