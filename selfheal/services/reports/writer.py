"""Writing reports: gather the content for `selfheal.services.reports.page`, render it, and delete old reports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfheal.adapters.postgres import alerts, model_versions, predictions
from selfheal.adapters.postgres import ticks as tick_queries
from selfheal.domain.records import DriftReport, TickRecord, Verdict
from selfheal.services.reports.figures import PastTick
from selfheal.services.reports.files import (
    ensure_scripts,
    overview_name,
    prune_reports,
    read_tick_values,
    report_name,
    reports_folder,
    results_folder,
    save_evidently,
    save_overview,
)
from selfheal.services.reports.page import OpenAlert, PageInput, overview_page
from selfheal.services.status import SENTENCES

if TYPE_CHECKING:
    from sqlalchemy import Row

    from selfheal.services.platform import Platform

logger = logging.getLogger(__name__)

HISTORY = timedelta(days=7)
MAX_HISTORY_TICKS = 2_016
"""Ticks in a report's history: one week at the default interval."""

MAX_INTERVAL_TICKS = 400
"""Ticks whose intervals are read; they are stored only in files, and more are not plotted."""

MAX_ALERTS = 20


def is_worth_a_page(platform: Platform, tick: TickRecord) -> bool:
    """Return whether a newly recorded tick gets an overview: Evidently's page was rendered, or the verdict changed.

    A change to or from `insufficient` does not count: it only says that nothing is known.
    """
    if tick.drift.report_ref is not None:
        return True
    window = tick.triage.window
    ticks = tick_queries.recent_ticks(platform.store, 2, window.model_version)
    others = [row for row in ticks if row.tick_id != window.tick_id]
    before = Verdict(others[0].verdict) if others else Verdict.INSUFFICIENT
    return before is not tick.triage.verdict and Verdict.INSUFFICIENT not in {before, tick.triage.verdict}


def write_overview(platform: Platform, tick: TickRecord, now: datetime) -> Path:
    """Write the overview of a tick, and delete reports that are too old or too many."""
    settings, store, window = platform.settings, platform.store, tick.triage.window
    folder, name = reports_folder(settings.data_dir), report_name(window)
    version = model_versions.model_version(store, window.model_version)
    assert version is not None, "a window is of a registered version"
    library, drawing = ensure_scripts(folder)
    evidently = f"{name}.html"
    html = overview_page(
        PageInput(
            tick=tick,
            sentence=SENTENCES[tick.triage.verdict],
            history=_history(platform, now),
            alerts=_open_alerts(platform),
            reference=_shown_columns(platform, platform.registry.reference(version)),
            current=_shown_columns(platform, predictions.window_rows(store, window, settings.monitoring_max_rows)),
            min_effect=settings.min_drift_effect,
            written_at=now,
            library=library,
            drawing=drawing,
            evidently=evidently if (folder / evidently).is_file() else None,
            kinds=platform.contract.kinds,
        )
    )
    path = save_overview(html, folder, name)
    delete_old_reports(platform, now)
    return path


def write_evidently(platform: Platform, report: DriftReport) -> Path | None:
    """Write Evidently's page of a comparison; None if no column has values to show.

    It takes seconds, and reads the window's rows again: a decision neither waits for the page nor retains rows for it.
    """
    from selfheal.services.reports.evidently_page import evidently_page

    settings, store, window = platform.settings, platform.store, report.window
    if not report.columns:
        return None
    version = model_versions.model_version(store, window.model_version)
    assert version is not None, "a window is of a registered version"
    name = report_name(window)
    html = evidently_page(
        report,
        predictions.window_rows(store, window, settings.monitoring_max_rows),
        platform.registry.reference(version),
        overview_name(name),
    )
    return None if html is None else save_evidently(html, reports_folder(settings.data_dir), name)


REPORT_PHASES = ("the window", "drift", "quality", "writing pages")


def report_now(platform: Platform, now: datetime, on_phase: Callable[[str], None] = lambda _phase: None) -> Path | None:
    """Report on the champion's current traffic, with Evidently's page; None if it has served nothing yet.

    It records nothing and sends no notification. It takes seconds; `on_phase` is called with each of `REPORT_PHASES` as it
    begins.

    Raises:
        NoProductionModelError: if no version is in production.
    """
    from selfheal.services.tick import assess, collect, compare, measure

    window, drift, quality, pages = REPORT_PHASES
    on_phase(window)
    proxy = collect(platform, now)
    if proxy is None:
        return None
    on_phase(drift)
    compared = compare(platform, proxy.window)
    on_phase(quality)
    performance = measure(platform, proxy.window)
    on_phase(pages)
    write_evidently(platform, compared)
    outcome = assess(platform, compared, performance)
    return write_overview(platform, TickRecord(outcome, proxy, compared, performance), now)


def delete_old_reports(platform: Platform, now: datetime) -> int:
    """Delete reports beyond MAX_DRIFT_REPORTS or MONITORING_RESULTS_RETENTION_DAYS, except of open episodes; return the count."""
    settings = platform.settings
    return prune_reports(
        reports_folder(settings.data_dir),
        max_files=settings.max_drift_reports,
        not_before=now - timedelta(days=settings.monitoring_results_retention_days),
        protected={Path(reference).stem for reference in tick_queries.reports_of_open_episodes(platform.store)},
    )


def _shown_columns(platform: Platform, frame: Any) -> Any:
    names = [*platform.contract.feature_names, "probability"]
    return frame[[name for name in names if name in frame]]


def _open_alerts(platform: Platform) -> list[OpenAlert]:
    return [
        OpenAlert(row.severity, row.message, row.created_at, row.acknowledged_by)
        for row in alerts.list_alerts(platform.store, only_open=True, limit=MAX_ALERTS)
    ]


def _history(platform: Platform, now: datetime) -> list[PastTick]:
    rows = tick_queries.ticks_since(platform.store, now - HISTORY, MAX_HISTORY_TICKS)
    folder = results_folder(platform.settings.data_dir)
    return [
        past_tick(row, read_tick_values(folder, row.window_end, row.tick_id) if place < MAX_INTERVAL_TICKS else None)
        for place, row in enumerate(rows)
    ]


def past_tick(row: Row[Any], tick_values: Any) -> PastTick:
    """Build a past tick from its row and, if its file is readable by this release, the values that only the file has."""
    performance = tick_values.get("performance") if isinstance(tick_values, dict) else None
    performance = performance if isinstance(performance, dict) else {}
    estimate = performance.get("estimate") or {}
    return PastTick(
        at=row.created_at,
        verdict=Verdict(row.verdict),
        reasons=tuple(row.reasons),
        feature_drift_ratio=row.feature_drift_ratio,
        realised=row.realised or {},
        estimated=row.estimated or {},
        realised_intervals=_intervals(performance.get("realised_intervals")),
        estimated_intervals=_intervals(estimate.get("intervals") if isinstance(estimate, dict) else None),
    )


def _intervals(values: Any) -> Mapping[str, tuple[float, float]]:
    if not isinstance(values, dict):
        return {}
    return {
        name: (ends["low"], ends["high"])
        for name, ends in values.items()
        if isinstance(ends, dict) and isinstance(ends.get("low"), float) and isinstance(ends.get("high"), float)
    }
