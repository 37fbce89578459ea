"""Writing a report on policies: into the platform's folder of reports, or to any file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import ConfigurationError
from selfheal.services.reports.files import ensure_scripts, place_scripts, policies_report_name, save_overview
from selfheal.simulate.replay.comparison import WorldResult
from selfheal.simulate.replay.report_page import ReportInput, report_page


def check_report_path(path: Path) -> None:
    """Check that a report can be written there, before hours are spent on it.

    Raises:
        ConfigurationError: if it is no HTML file, or its folder does not exist.
    """
    if path.suffix != ".html":
        raise ConfigurationError(f"--report {path}: the report is a page; name a file that ends in .html")
    if not path.parent.is_dir():
        raise ConfigurationError(f"--report {path}: there is no folder {path.parent}; create it")


def write_report(
    path: Path, results: Sequence[WorldResult], *, rows_of: str, interval_hours: float, now: datetime
) -> Path:
    """Write the report to a file, and plotly.js and the drawing script beside it if missing; return its path."""
    library, drawing = place_scripts(path.parent)
    page = ReportInput(results, rows_of, interval_hours, now, code_version(), library, drawing)
    return write_atomic(path, report_page(page).encode())


def save_report(
    folder: Path, results: Sequence[WorldResult], *, rows_of: str, interval_hours: float, now: datetime
) -> Path:
    """Write the report into the platform's folder of reports, where the API serves it; return its path."""
    library, drawing = ensure_scripts(folder)
    page = ReportInput(results, rows_of, interval_hours, now, code_version(), library, drawing)
    return save_overview(report_page(page), folder, policies_report_name(now))
