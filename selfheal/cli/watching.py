"""What a person looks at: state, alerts, reports."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from selfheal.cli.app import JsonFlag, alerts_app, app, console, opened_platform
from selfheal.cli.printing import cell, print_json, print_rows, print_table
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping


@app.command(rich_help_panel="Watch")
def status(as_json: JsonFlag = False) -> None:
    """What serves, how its traffic looks, what was decided lately."""
    from selfheal.overview import overview

    with opened_platform(load_settings()) as platform:
        found = overview(platform)
        if as_json:
            print_json(found)
            return
        console.print(f"[bold]{found['sentence']}[/]")
        print_rows("Model", found["model"])
        print_rows("Latest look at the traffic", found["latest_tick"])
        print_table("Open alerts", found["open_alerts"], ("kind", "severity", "message", "created_at"))
        print_table("Latest decisions", found["decisions"], ("created_at", "trigger_reason", "action", "reason"))


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
    from selfheal.store.monitoring import alerts_open_first

    with opened_platform(load_settings()) as platform:
        found = [dict(row._mapping) for row in alerts_open_first(platform.store, limit, only_open=not with_resolved)]
    if as_json:
        print_json([{name: row[name] for name in ALERT_FIELDS} for row in found])
        return
    _print_alerts("Alerts" if with_resolved else "Open alerts", found)


@alerts_app.command()
def acknowledge(
    alert_id: Annotated[UUID, typer.Argument(help="As `selfheal alerts` prints it.")],
    note: Annotated[str | None, typer.Option(help="What to tell those who look at it later.")] = None,
) -> None:
    """Say that you have seen an alert. Nobody is told of it again unless it becomes more severe."""
    from selfheal.store.monitoring import acknowledge_alert, find_alert

    with opened_platform(load_settings()) as platform:
        is_first = acknowledge_alert(platform.store, alert_id, getpass.getuser(), datetime.now(UTC), note)
        alert = find_alert(platform.store, alert_id)
    if alert is None:
        raise typer.BadParameter(f"there is no alert {alert_id}; `selfheal alerts --all` lists them")
    told = f"by {alert.acknowledged_by} at {cell(alert.acknowledged_at)} UTC"
    console.print(
        f"{alert.kind} is acknowledged {told}." if is_first else f"{alert.kind} was acknowledged {told} already."
    )


@app.command(rich_help_panel="Watch")
def report(
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser of this machine.")] = False,
) -> None:
    """Write a report of the traffic as it is now: verdict, distributions, drift, quality. Takes some seconds."""
    from selfheal.reports import report_now

    with opened_platform(load_settings()) as platform:
        page = report_now(platform, datetime.now(UTC))
    if page is None:
        console.print("The version in production has served nothing yet: there is nothing to report on.")
        raise typer.Exit(1)
    typer.echo(page.resolve())
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
"""As the API tells them."""


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
    """What became of an alert, a line each."""
    yield f"since {cell(alert['created_at'])} UTC"
    if alert["resolved_at"] is not None:
        yield f"resolved {cell(alert['resolved_at'])} UTC"
    told = "nobody was told" if alert["notified_at"] is None else f"told {cell(alert['notified_at'])} UTC"
    yield f"{told}, {alert['notify_failures']} tries failed" if alert["notify_failures"] else told
    if alert["acknowledged_at"] is not None:
        note = f": {alert['acknowledged_note']}" if alert["acknowledged_note"] else ""
        yield f"acknowledged {cell(alert['acknowledged_at'])} UTC by {alert['acknowledged_by']}{note}"
