"""Files of reports: the JSON of every tick, Evidently's page and our overview of some, with retention.

A report consists of files with one name in one folder: `<name>-overview.html` (small, to read first, by
`selfheal.services.reports.page`) and, if rendered, `<name>.html` (Evidently's, 4 MB). The scripts that overviews need are
stored once beside them, so that no page loads anything from another host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from selfheal.domain.records import TickRecord, Window
from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.serialization import from_dict, to_json

RENDER_AGAIN_AFTER = timedelta(hours=1)
OVERVIEW = "-overview"
DRAWING_SCRIPT = Path(__file__).with_name("page.js")
MAX_SCRIPTS = 4
"""Number of versions of each script that are retained, for pages from before an upgrade."""

POLICIES_SUFFIX = "policies"
"""Ends the name of a report on policies, which is of no tick and of no version."""

REPORT_NAME = re.compile(rf"\d{{8}}T\d{{6}}-(v\d{{1,9}}|{POLICIES_SUFFIX})")
REPORT_FILE = re.compile(
    rf"{REPORT_NAME.pattern}({OVERVIEW})?\.html|plotly-[0-9.]{{1,20}}\.min\.js|page-[0-9a-f]{{12}}\.js"
)
"""Names of files that may be served from the folder of reports. No separator, no leading dot."""


def should_render(
    *, is_drifted: bool, was_drifted: bool | None, last_rendered_at: datetime | None, now: datetime
) -> bool:
    """Decide whether to write Evidently's page (4 MB): when the state changes, and hourly while drifted."""
    if is_drifted != bool(was_drifted):
        return True
    return is_drifted and (last_rendered_at is None or now - last_rendered_at >= RENDER_AGAIN_AFTER)


# Reports


def reports_folder(data_dir: Path) -> Path:
    """Return the folder of report pages."""
    return data_dir / "reports" / "drift"


@dataclass(frozen=True)
class ReportFiles:
    """One report in the folder."""

    name: str
    written_at: datetime
    overview: Path | None
    evidently: Path | None

    @property
    def is_of_policies(self) -> bool:
        """Return whether it compares policies, and is no report on the traffic."""
        return self.name.endswith(POLICIES_SUFFIX)

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the report's existing files."""
        return tuple(path for path in (self.overview, self.evidently) if path is not None)


def report_name(window: Window) -> str:
    """Return the name of a tick's report: its time and id."""
    return f"{window.end.astimezone(UTC):%Y%m%dT%H%M%S}-v{window.model_version}"


def overview_name(name: str) -> str:
    """Return the file name of a report's overview."""
    return f"{name}{OVERVIEW}.html"


def policies_report_name(now: datetime) -> str:
    """Return the name of a report on policies."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{POLICIES_SUFFIX}"


def save_evidently(html: str, folder: Path, name: str) -> Path:
    """Write Evidently's page (`selfheal.services.reports.evidently_page`)."""
    return write_atomic(folder / f"{name}.html", html.encode())


def save_overview(html: str, folder: Path, name: str) -> Path:
    """Write the overview page; `ensure_scripts` provides its scripts."""
    return write_atomic(folder / overview_name(name), html.encode())


def ensure_scripts(folder: Path) -> tuple[str, str]:
    """Write plotly.js and our drawing script beside the reports if missing, and delete old ones; return their file names."""
    names = place_scripts(folder)
    prune(folder, "plotly-*.js", max_files=MAX_SCRIPTS)
    prune(folder, "page-*.js", max_files=MAX_SCRIPTS)
    return names


def place_scripts(folder: Path) -> tuple[str, str]:
    """Write plotly.js and our drawing script into any folder if missing; delete nothing there. Return their file names."""
    library, drawing = script_names()
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in ((library, plotly_script()), (drawing, DRAWING_SCRIPT)):
        if not (folder / name).is_file():
            write_atomic(folder / name, source.read_bytes())
    return library, drawing


@cache
def script_names() -> tuple[str, str]:
    """Return the scripts' names, which contain version and digest, so that a page always finds its own scripts."""
    import hashlib

    digest = hashlib.sha256(DRAWING_SCRIPT.read_bytes()).hexdigest()[:12]
    return f"plotly-{installed_version('plotly')}.min.js", f"page-{digest}.js"


def plotly_script() -> Path:
    """Return the path of the plotly.js bundle in the installed package."""
    from importlib.util import find_spec

    spec = find_spec("plotly")  # not imported: only its file is needed
    assert spec is not None and spec.origin is not None, "plotly is a dependency"
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def list_reports(folder: Path) -> list[ReportFiles]:
    """List the reports in the folder, newest first."""
    found: dict[str, dict[str, Path]] = {}
    for path in folder.glob("*.html"):
        name = path.stem.removesuffix(OVERVIEW)
        if REPORT_NAME.fullmatch(name):
            found.setdefault(name, {})["overview" if path.stem.endswith(OVERVIEW) else "evidently"] = path
    reports = [
        ReportFiles(name, written_at, files.get("overview"), files.get("evidently"))
        for name, files in found.items()
        if (written_at := _written_at(files.values())) is not None
    ]
    return sorted(reports, key=lambda report: (report.written_at, report.name), reverse=True)


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name if it belongs to a report or is one of their scripts; else None."""
    path = folder / name
    return path if REPORT_FILE.fullmatch(name) and path.is_file() and not path.is_symlink() else None


def reports_to_delete(
    written_at: Mapping[str, datetime], *, max_files: int, not_before: datetime, protected: Collection[str]
) -> list[str]:
    """Return the unprotected reports beyond the newest `max_files` or older than `not_before`, by name."""
    newest_first = sorted(written_at, key=lambda name: (written_at[name], name), reverse=True)
    return [
        name
        for place, name in enumerate(newest_first)
        if (place >= max_files or written_at[name] < not_before) and name not in protected
    ]


def prune_reports(folder: Path, *, max_files: int, not_before: datetime, protected: Collection[str]) -> int:
    """Delete the reports that `reports_to_delete` names; return their number. Safe to interrupt.

    Reports on the traffic and on policies are counted apart: hours of drift do not push out the page of a month.
    """
    reports = list_reports(folder)
    n_deleted = 0
    for is_of_policies in (False, True):
        of_kind = {report.name: report for report in reports if report.is_of_policies is is_of_policies}
        written_at = {name: report.written_at for name, report in of_kind.items()}
        for name in reports_to_delete(written_at, max_files=max_files, not_before=not_before, protected=protected):
            for path in of_kind[name].files:
                path.unlink(missing_ok=True)
            n_deleted += 1
    return n_deleted


# Ticks


def results_folder(data_dir: Path) -> Path:
    """Return the folder of the ticks' JSON files."""
    return data_dir / "monitoring" / "results"


def save_tick(tick: TickRecord, folder: Path) -> Path:
    """Write the tick's file, without what the version has learned of its seasons, which is in Postgres once."""
    content = replace(tick, drift=replace(tick.drift, seasons=None))
    return write_atomic(_tick_path(folder, tick.triage.window.end, tick.triage.window.tick_id), to_json(content))


def read_tick(folder: Path, window_end: datetime, tick_id: str) -> TickRecord | None:
    """Read the tick's file; None if it is missing (pruned, or written on another host) or incomplete."""
    return tick_of(read_tick_values(folder, window_end, tick_id))


def tick_of(values: Any) -> TickRecord | None:
    """Return the tick of a file's plain values; None if they are incomplete."""
    try:
        return from_dict(TickRecord, values)
    except ValueError:
        return None


def read_tick_values(folder: Path, window_end: datetime, tick_id: str) -> Any:
    """Read the tick's file as plain values, which is faster and works for any release; None if missing or not JSON."""
    try:
        return json.loads(_tick_path(folder, window_end, tick_id).read_bytes())
    except (OSError, ValueError):
        return None


def _tick_path(folder: Path, window_end: datetime, tick_id: str) -> Path:
    return folder / f"{window_end.astimezone(UTC):%Y%m%dT%H%M%S}-{tick_id}.json"


# Files


def prune(folder: Path, pattern: str, *, max_files: int) -> int:
    """Delete all but the newest `max_files` files; return how many were deleted."""
    files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[max_files:]:
        path.unlink(missing_ok=True)
    return len(files[max_files:])


def _written_at(paths: Collection[Path]) -> datetime | None:
    """Return when the newest of the files was written; None if one has been deleted in the meantime."""
    try:
        return max(datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in paths)
    except FileNotFoundError:
        return None
