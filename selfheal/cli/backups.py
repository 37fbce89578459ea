"""Commands that back up and restore the whole platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from selfheal.cli.app import JsonFlag, app, opened_platform, progress_console
from selfheal.cli.printing import print_json, print_rows
from selfheal.settings import load_settings


@app.command(rich_help_panel="Upkeep")
def backup(
    folder: Annotated[Path, typer.Argument(help="Where to: a new or an empty folder outside of DATA_DIR.")],
    as_json: JsonFlag = False,
) -> None:
    """Write a backup of databases and files to a folder. The platform may run."""
    from selfheal.services.backup import back_up

    with opened_platform(load_settings()) as platform, _steps("Backup") as on_step:
        manifest = back_up(platform, folder, on_step)
    summary = {
        "folder": str(folder),
        "databases": ", ".join(manifest.databases),
        "files": len(manifest.files),
        "bytes": manifest.n_bytes,
        "chain_head": manifest.chain_head,
    }
    if as_json:
        print_json(summary)
    else:
        print_rows("Backed up; it holds predictions about people: encrypt it, and copy it to another machine", summary)


@app.command(rich_help_panel="Upkeep")
def restore(
    folder: Annotated[Path, typer.Argument(help="What `selfheal backup` has written.")],
    files_only: Annotated[
        bool, typer.Option("--files-only", help="The databases survived; only files are missing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring back from a backup what is missing here, copy the rest of the journal, and verify. The platform must not run.

    Exit code as of `selfheal verify`.
    """
    from selfheal.cli import supervisor
    from selfheal.cli.record import report_verification
    from selfheal.services.backup import restore as bring_back

    settings = load_settings()
    with supervisor.only_one(supervisor.prepare_data_dir(settings)), _steps("Restore") as on_step:
        report = bring_back(settings, folder, on_step, files_only=files_only)
    summary = {
        "backup_of": report.manifest.created_at,
        "files_restored": report.n_files,
        "files_kept": report.n_kept,
        "predictions_from_the_journal": report.n_new_predictions,
        "labels_from_the_journal": report.n_new_labels,
        "damaged_lines": len(report.damaged_lines),
    }
    if not as_json:
        print_rows("Restored", summary)
    report_verification(settings, report.manifest.chain_head, {"restored": summary} if as_json else None)


@contextmanager
def _steps(title: str) -> Iterator[Callable[[str], None]]:
    """Show which step is under way."""
    with progress_console.status(title) as status:
        yield lambda step: status.update(f"{title}: {step}")
