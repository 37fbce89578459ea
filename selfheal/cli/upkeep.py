"""Commands for settings, API keys and old files."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from selfheal.cli.app import JsonFlag, app, console, opened_platform, progress_console
from selfheal.cli.printing import print_json, print_rows, print_table, shown
from selfheal.cli.setting_sources import settings_sources
from selfheal.kit.errors import ServiceUnavailableError
from selfheal.settings import load_settings

if TYPE_CHECKING:
    from selfheal.adapters.postgres.ingest import IngestResult


@app.command(rich_help_panel="Upkeep")
def config(as_json: JsonFlag = False) -> None:
    """Print the settings in force and where each came from."""
    settings = load_settings()
    sources = settings_sources(settings)
    rows = [
        {
            "name": name.upper(),
            "value": shown(getattr(settings, name)),
            "source": sources[name],
            "meaning": field.description or "",
        }
        for name, field in type(settings).model_fields.items()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table("Settings", rows, ("name", "value", "source", "meaning"))


@app.command("api-key", rich_help_panel="Upkeep")
def api_key(
    name: Annotated[str, typer.Option(help="Who will use it, for example the client's name.")],
    scopes: Annotated[str, typer.Option(help="What for: score, label, read, admin; comma-separated.")],
    as_json: JsonFlag = False,
) -> None:
    """Make an API key: once the key itself, for the client, and its hashed entry for API_KEYS."""
    from selfheal.kit.api_keys import hashed_entry, new_api_key, parse_scopes

    key = new_api_key()
    entry = hashed_entry(name, parse_scopes(scopes), key)
    if as_json:
        print_json({"key": key, "entry": entry})
        return
    typer.echo(f"Key, shown only now; give it to the client, who sends it in the header X-API-Key:\n{key}")
    typer.echo(f"Entry for API_KEYS on the server (entries are comma-separated):\n{entry}")


@app.command("replay-journal", rich_help_panel="Upkeep")
def replay_journal(as_json: JsonFlag = False) -> None:
    """Copy the whole journal into Postgres again; rows that are there stay as they are."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
    from selfheal.adapters.postgres.ingest import ingest
    from selfheal.adapters.postgres.journal_seals import seal_finished

    replayed: dict[str, IngestResult] = {}
    with opened_platform(load_settings()) as platform:
        data_dir = platform.settings.data_dir
        for kind in (prediction_journal(platform.contract), LABEL_JOURNAL):
            total = sum(path.stat().st_size for path in kind.files(data_dir))
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            with Progress(*columns, console=progress_console) as progress:
                task = progress.add_task(kind.name, total=total)

                def advance(n_bytes: int, task: Any = task, progress: Progress = progress) -> None:
                    progress.advance(task, n_bytes)

                replayed[kind.name] = ingest(platform.store, kind, data_dir, from_start=True, on_progress=advance)
            seal_finished(platform.store, kind, data_dir, limit=sys.maxsize)
    if as_json:
        print_json({name: asdict(result) for name, result in replayed.items()})
        return
    for name, result in replayed.items():
        console.print(f"{name}: {result.n_read:,} lines read, {result.n_new:,} rows were missing")
        for place in result.corrupt:
            console.print(f"[red]damaged line left out: {escape(place)}[/]")
        for place in result.unusable:
            console.print(f"[yellow]copied without a value that its column cannot hold: {escape(place)}[/]")


@app.command(rich_help_panel="Upkeep")
def maintain(as_json: JsonFlag = False) -> None:
    """Delete what is old now, as every night at 03:30 UTC, and print what went."""
    from selfheal.cli import supervisor
    from selfheal.kit.serialization import to_dict
    from selfheal.services.maintenance import last_report

    settings = load_settings()
    with opened_platform(settings):
        began = datetime.now(UTC)
        supervisor.run_job(settings, "maintenance_job", lambda _event: None)
    report = last_report(settings.data_dir)
    if report is None or report.started_at < began:
        raise ServiceUnavailableError("another maintenance is under way; try again when it is done")
    if as_json:
        print_json(to_dict(report))
    else:
        print_rows("Deleted", to_dict(report))
