"""Commands on the record of the past: show it and verify it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from selfheal.cli.app import JsonFlag, app, console, opened_platform, progress_console
from selfheal.cli.printing import cell, print_json, print_rows
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from selfheal.services.verification.findings import Verification
    from selfheal.services.verification.run import Listener
    from selfheal.settings import Settings


@app.command(rich_help_panel="History")
def history(
    at: Annotated[
        str | None, typer.Option(help="What was live then: an ISO 8601 time, UTC unless it names an offset.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Say which version served when, and by which decision."""
    from selfheal.services.promotion.history import history as all_of_it
    from selfheal.services.promotion.history import live_at, parse_moment

    moment = None if at is None else parse_moment(at)
    with opened_platform(load_settings()) as platform:
        if moment is None:
            found = all_of_it(platform, limit)
        else:
            live = live_at(platform, moment)
            found = [] if live is None else [live]
    if as_json:
        print_json(found if moment is None else {"at": moment, "live": found[0] if found else None})
    elif moment is None:
        _print_history(found)
    elif found:
        print_rows(f"Live at {cell(moment)} UTC", found[0])
    else:
        console.print(f"At {cell(moment)} UTC nothing was in production yet.")


@app.command(rich_help_panel="History")
def verify(
    decision_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One decision; default: everything.")
    ] = None,
    verdicts: Annotated[int, typer.Option(min=0, max=10_000, help="Newest verdicts to compute again.")] = 5,
    expect_head: Annotated[
        str | None, typer.Option(help="A head of the chain noted elsewhere: it must be in the chain still.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify all records of the past against each other: decisions, files, models, data, journal, MLflow.

    Exit 1 if anything differs, 3 if nothing does but something could not be checked.
    """
    from selfheal.services.verification.run import verify_decision, verify_everything

    with opened_platform(load_settings()) as platform, _verification_progress() as listener:
        if decision_id is not None:
            found = verify_decision(platform, decision_id, listener)
        else:
            found = verify_everything(platform, n_verdicts=verdicts, expected_head=expect_head, listener=listener)
    _report(found, "as decided" if decision_id else "everything agrees", {} if as_json else None)


def report_verification(settings: Settings, expected_head: str, json_fields: dict[str, Any] | None) -> None:
    """Verify everything but verdicts, print it, and exit as `verify` does.

    Args:
        json_fields: what else to print as JSON; None prints tables.
    """
    from selfheal.services.verification.run import verify_everything

    with opened_platform(settings) as platform, _verification_progress() as listener:
        found = verify_everything(platform, n_verdicts=0, expected_head=expected_head, listener=listener)
    _report(found, "everything agrees", json_fields)


def _report(found: Verification, if_sound: str, json_fields: dict[str, Any] | None) -> None:
    from selfheal.kit.serialization import to_dict

    if json_fields is not None:
        print_json(json_fields | to_dict(found) | {"is_sound": found.is_sound})
    else:
        _print_verification(found, if_sound)
    raise typer.Exit(1 if found.has_findings else 0 if found.is_complete else 3)


def _print_history(entries: list[dict[str, Any]]) -> None:
    if not entries:
        console.print("Nothing has gone live yet.")
        return
    title = "What went live, the newest first; times in UTC"
    table = Table("live", "by which decision", title=title, title_justify="left", show_lines=True)
    table.columns[0].no_wrap = True
    for entry in entries:
        until = "now" if entry["until"] is None else cell(entry["until"])
        probation = "" if entry["probation"] is None else f"\nprobation: {entry['probation'].replace('_', ' ')}"
        why = f"{cell(entry['action'])} by {cell(entry['actor'])}: {cell(entry['reason'])}\n{entry['decision_id']}"
        table.add_row(f"version {entry['version']}\n{cell(entry['since'])}\n- {until}", escape(why + probation))
    console.print(table)


@contextmanager
def _verification_progress() -> Iterator[Listener]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from selfheal.services.verification.run import Listener

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_console, transient=True) as progress:
        task = progress.add_task("Verifying", total=None)
        yield Listener(
            on_step=lambda step: progress.update(task, description=f"Verifying: {step}", completed=0, total=None),
            on_bytes=lambda done, total: progress.update(task, completed=done, total=total),
        )


def _print_verification(found: Verification, if_sound: str) -> None:
    table = Table("check", "checked", "findings", "not checked", title="Verification", title_justify="left")
    for result in found.results:
        colour = "red" if result.n_findings else "yellow" if result.n_unchecked else "green"
        counts = (f"{result.n_checked:,}", f"{result.n_findings:,}", f"{result.n_unchecked:,}")
        table.add_row(result.name, counts[0], f"[{colour}]{counts[1]}[/]", f"[{colour}]{counts[2]}[/]")
    console.print(table)
    for result in found.results:
        for finding in result.findings:
            console.print(f"[red]-[/] {escape(finding)}")
        for sentence in result.unchecked:
            console.print(f"[yellow]not checked:[/] {escape(sentence)}")
    console.print(
        f"Head of the chain; note it somewhere that this host cannot write to: {found.chain_head}", soft_wrap=True
    )
    if found.is_sound:
        console.print(f"[green]{if_sound}[/]")
