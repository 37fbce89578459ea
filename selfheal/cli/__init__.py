"""The `selfheal` command. Each command reads its options, calls one function, and prints; errors are one line with a remedy.

Each group of commands in `selfheal --help` has one module.
"""

from __future__ import annotations

import os
import sys

import typer

from selfheal.cli import (
    backups,
    contracts,
    postgres,
    record,
    replaying,
    running,
    schemas,
    single_process,
    upkeep,
    versions,
    watching,
)
from selfheal.cli.app import app, progress_console
from selfheal.cli.errors import one_line, usage_line

__all__ = [
    "app",
    "backups",
    "contracts",
    "main",
    "postgres",
    "record",
    "replaying",
    "running",
    "schemas",
    "single_process",
    "upkeep",
    "versions",
    "watching",
]


UsageError = typer.BadParameter.__mro__[1]
"""Error for a wrong argument, option or command; typer has a public name only for the first."""

PANELS = ("Run", "Watch", "Change what serves", "History", "Upkeep")
app.registered_commands.sort(key=lambda command: PANELS.index(str(command.rich_help_panel)))


def main() -> None:
    """Entry point of the console script. Exit 0: done; 1: the answer is no; 2: it could not be done; 130: Ctrl-C."""
    try:
        sys.exit(app(prog_name="selfheal", standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = usage_line(error) if isinstance(error, UsageError) else one_line(error)
        if message is None:
            raise
        if message:
            _complain(message)
        sys.exit(2)


def _complain(message: str) -> None:
    progress_console.print("[bold red]selfheal:[/]", end=" ", highlight=False)
    progress_console.print(message, markup=False, highlight=False, soft_wrap=True)
