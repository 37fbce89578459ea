"""The typer application that commands are added to, and the platform that they open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from selfheal.settings import Settings


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A self-healing ML platform: it serves a model, sees drift, retrains, judges, promotes and rolls back.",
)
alerts_app = typer.Typer(pretty_exceptions_enable=False, help="Open alerts; acknowledge one.")
app.add_typer(alerts_app, name="alerts", rich_help_panel="Watch")
console = Console()
progress_console = Console(stderr=True)
"""Console for progress and errors, so that programs can read stdout."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Reason = Annotated[str, typer.Option(help="Why; recorded with the decision.")]


@contextmanager
def opened_platform(settings: Settings) -> Iterator[Platform]:
    """Open the platform for one command and close it afterwards."""
    from selfheal.cli import supervisor
    from selfheal.services.platform import open_platform

    supervisor.prepare_data_dir(settings)
    platform = open_platform(settings)
    try:
        yield platform
    finally:
        platform.close()


def production(platform: Platform) -> int | None:
    """Return the version in production.

    Raises:
        NoProductionModelError: before the first promotion.
    """
    from selfheal.adapters.postgres.model_versions import production_version

    version = production_version(platform.store)
    return None if version is None else version.version
