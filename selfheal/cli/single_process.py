"""`selfheal start NAME`: one process of the platform in the foreground, for containers, which run one each."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from selfheal.cli.app import app
from selfheal.kit.api_keys import parse_api_keys
from selfheal.kit.errors import ConfigurationError
from selfheal.kit.web_origins import is_loopback
from selfheal.settings import Settings, load_settings

PROGRAMS = {
    "api": "api",
    "code-server": "code",
    "daemon": "daemon",
    "mlflow": "mlflow",
    "trainer": "trainer",
    "webserver": "dagster",
}
"""What containers call the processes, and what `selfheal up` calls them in its output."""

ASK_FOR_KEYS = frozenset({"mlflow", "webserver"})
"""Their pages may do everything. The API has a check of its own; the code server belongs into a network of its own."""


@app.command(rich_help_panel="Run")
def start(
    name: Annotated[str, typer.Argument(help="api, code-server, daemon, mlflow, trainer or webserver.")],
    host: Annotated[str, typer.Option(help="The address to listen on; the API's is API_HOST.")] = "127.0.0.1",
) -> None:
    """Run one process of the platform in the foreground, as containers do; `selfheal up` runs all of them."""
    from selfheal.adapters.mlflow_store import mlflow_store_uri
    from selfheal.cli import supervisor

    if name not in PROGRAMS:
        raise typer.BadParameter(f"there is no process {name}; there are {', '.join(sorted(PROGRAMS))}")
    settings = load_settings()
    refuse_open_pages(name, host, settings)
    uri = mlflow_store_uri(settings) if name == "mlflow" else ""
    found = {program.name: program for program in supervisor.programs(settings, uri, host)}
    if PROGRAMS[name] not in found:
        needed = "TRAINING_RUNS_IN=trainer" if name == "trainer" else "no MLFLOW_TRACKING_URI of a server"
        raise ConfigurationError(f"`selfheal start {name}` needs {needed}, in all processes of the platform")
    program = found[PROGRAMS[name]]
    command = list(program.command)
    environment = {**supervisor.program_environment(settings), **program.environment}
    os.execvpe(command[0], command, environment)  # noqa: S606  (our own command; signals reach it directly)


@app.command(
    rich_help_panel="Upkeep", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True}
)
def dagster(arguments: Annotated[list[str], typer.Argument(help="Its arguments, as they are.")]) -> None:
    """Run Dagster's own command in the platform's environment: `selfheal dagster instance info`. Pods that train do so."""
    from selfheal.cli import supervisor

    environment = supervisor.program_environment(load_settings())
    os.execvpe(sys.executable, [sys.executable, "-m", "dagster", *arguments], environment)  # noqa: S606  (no shell)


def refuse_open_pages(name: str, host: str, settings: Settings) -> None:
    """Refuse pages without keys that other hosts can reach.

    Raises:
        ConfigurationError: naming the two ways out.
    """
    if name in ASK_FOR_KEYS and not is_loopback(host) and not parse_api_keys(settings.api_keys.get_secret_value()):
        raise ConfigurationError(
            f"--host {host} is reachable from other hosts but API_KEYS is empty; set API_KEYS (`selfheal api-key` makes "
            "one), or leave out --host"
        )
