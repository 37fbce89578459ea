"""Commands that show the state, alerts and reports."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from selfheal.cli import completion
from selfheal.cli.app import JsonFlag, alerts_app, app, console, opened_platform, progress_console
from selfheal.cli.ports import with_published_ports
from selfheal.cli.printing import cell, phase_progress, print_json
from selfheal.kit.errors import PermanentError
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfheal.services.platform import Platform

WATCH_SECONDS = 2.0


@app.command(rich_help_panel="Watch")
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 2 seconds, until Ctrl-C.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """How it is, in one screen: what serves, its traffic, its quality, open alerts, and what was decided."""
    from selfheal.services.status import overview

    if watch and as_json:
        raise typer.BadParameter("--watch is for people, --json for programs; choose one")
    with opened_platform(load_settings()) as platform:
        if watch:
            _watch(platform)
        found = overview(platform)
    if as_json:
        print_json(found)
    else:
        from selfheal.cli.status import status_screen

        console.print(status_screen(found), highlight=False)


@app.command(rich_help_panel="Watch")
def probe(
    name: Annotated[str, typer.Argument(help="api, code-server, daemon, mlflow, trainer or webserver.")],
) -> None:
    """Check one process of the platform; `selfheal-probe` does the same in a fraction of the time, for containers."""
    from selfheal.kit import health_probe

    if name not in health_probe.NAMES:
        raise typer.BadParameter(f"there is no process {name}; there are {', '.join(sorted(health_probe.NAMES))}")
    settings = with_published_ports(load_settings())
    host = settings.api_host if name == "api" else None
    port = (
        getattr(settings, health_probe.LISTENING[name].port_variable.lower())
        if name in health_probe.LISTENING
        else None
    )
    found = health_probe.problem(name, host=host, port=port, data_dir=settings.data_dir)
    if found is not None:
        progress_console.print(f"{name}: {found}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    console.print(f"{name}: works")


def _watch(platform: Platform) -> NoReturn:
    """Refresh the state until Ctrl-C; while Postgres is unavailable, show the last state, marked as old."""
    from rich.live import Live
    from sqlalchemy.exc import OperationalError

    from selfheal.cli.status import status_screen
    from selfheal.services.status import overview

    found, is_old = overview(platform), False
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            live.update(status_screen(found, is_old=is_old), refresh=True)
            time.sleep(WATCH_SECONDS)
            try:
                found, is_old = overview(platform), False
            except OperationalError:
                is_old = True


@alerts_app.callback(invoke_without_command=True)
def alerts(
    context: typer.Context,
    with_resolved: Annotated[bool, typer.Option("--all", help="The resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List the open alerts: what a person should know, since when, and who knows."""
    if context.invoked_subcommand is not None:
        return
    from selfheal.adapters.postgres.alerts import alerts_open_first

    with opened_platform(load_settings()) as platform:
        found = [dict(row._mapping) for row in alerts_open_first(platform.store, limit, only_open=not with_resolved)]
    if as_json:
        print_json([_as_told(row) for row in found])
        return
    _print_alerts("Alerts" if with_resolved else "Open alerts", found)


@alerts_app.command()
def acknowledge(
    alert_id: Annotated[
        UUID, typer.Argument(help="As `selfheal alerts` prints it.", autocompletion=completion.open_alerts)
    ],
    note: Annotated[str | None, typer.Option(help="Note for whoever reads the alert later.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Acknowledge an alert. It is not notified again unless it becomes more severe."""
    from selfheal.adapters.postgres.alerts import acknowledge_alert, find_alert

    with opened_platform(load_settings()) as platform:
        is_first = acknowledge_alert(platform.store, alert_id, getpass.getuser(), datetime.now(UTC), note)
        alert = find_alert(platform.store, alert_id)
    if alert is None:
        raise PermanentError(f"there is no alert {alert_id}; `selfheal alerts --all` lists them")
    if as_json:
        print_json(_as_told(alert._mapping) | {"is_first": is_first})
        return
    who = f"by {alert.acknowledged_by} at {cell(alert.acknowledged_at)} UTC"
    console.print(
        f"{alert.kind} is acknowledged {who}." if is_first else f"{alert.kind} was already acknowledged {who}."
    )


@app.command(rich_help_panel="Watch")
def report(
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser of this machine.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a report of the traffic as it is now: verdict, distributions, drift, quality. Takes some seconds."""
    from selfheal.services.reports.writer import REPORT_PHASES, report_now

    with opened_platform(load_settings()) as platform, phase_progress("Report", len(REPORT_PHASES)) as on_phase:
        page = report_now(platform, datetime.now(UTC), on_phase)
    if as_json:
        print_json({"page": None if page is None else page.resolve()})
    elif page is None:
        console.print("The version in production has served nothing yet: there is nothing to report on.")
    else:
        typer.echo(page.resolve())
    if page is None:
        raise typer.Exit(1)
    if open_it and typer.launch(page.resolve().as_uri()) != 0:
        console.print("No browser could be opened here; open the file above in one.")


ALERT_FIELDS = (
    "alert_id",
    "source",
    "kind",
    "model_version",
    "severity",
    "message",
    "metrics",
    "episode_id",
    "created_at",
    "updated_at",
    "acknowledged_at",
    "acknowledged_by",
    "acknowledged_note",
    "notified_at",
    "notify_failures",
    "resolved_at",
    "resolved_by",
)
"""As in the API's response."""


def _as_told(alert: Any) -> dict[str, Any]:
    return {name: alert[name] for name in ALERT_FIELDS}


def _print_alerts(title: str, alerts: list[dict[str, Any]]) -> None:
    if not alerts:
        console.print(f"{title}: none")
        return
    table = Table("alert", "what", title=title, title_justify="left", show_lines=True)
    table.columns[0].no_wrap = True
    for alert in alerts:
        version = "" if alert["model_version"] is None else f", version {alert['model_version']}"
        name = f"{alert['severity']}: {alert['kind'].replace('_', ' ')}{version}\n{alert['alert_id']}"
        table.add_row(escape(name), escape("\n".join((alert["message"], *_alert_story(alert)))))
    console.print(table)


def _alert_story(alert: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line per event of an alert."""
    yield f"since {cell(alert['created_at'])} UTC"
    if alert["resolved_at"] is not None:
        yield f"resolved {cell(alert['resolved_at'])} UTC"
    notified = "not notified" if alert["notified_at"] is None else f"notified {cell(alert['notified_at'])} UTC"
    yield f"{notified}, {alert['notify_failures']} attempts failed" if alert["notify_failures"] else notified
    if alert["acknowledged_at"] is not None:
        note = f": {alert['acknowledged_note']}" if alert["acknowledged_note"] else ""
        yield f"acknowledged {cell(alert['acknowledged_at'])} UTC by {alert['acknowledged_by']}{note}"
