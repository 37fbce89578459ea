"""The `selfheal` command. Each command reads its options, calls one thing, and prints; errors are one line with a remedy.

A module a group of commands, as `selfheal --help` shows them.
"""

from __future__ import annotations

import sys

from rich.console import Console

from selfheal.cli import record, running, upkeep, versions, watching
from selfheal.cli.app import app
from selfheal.errors import SelfhealError

__all__ = ["app", "main", "record", "running", "upkeep", "versions", "watching"]

PANELS = ("Run", "Watch", "Change what serves", "Look back", "Upkeep")
app.registered_commands.sort(key=lambda command: PANELS.index(str(command.rich_help_panel)))


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except SelfhealError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]selfheal:[/] {error}", highlight=False)
        sys.exit(2)
