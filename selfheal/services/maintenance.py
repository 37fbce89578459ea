"""Maintenance: delete what is older than its retention.

Never deleted: decisions and everything they rest on (the ticks and alerts of their episodes, labelled predictions, models and
runs in MLflow, the first baseline), and the journal, from which Postgres can be restored; to save space, move its finished
files elsewhere. Dagster's runs are deleted through Dagster's own API, by a function that the caller passes in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal.adapters.postgres import model_versions, retention
from selfheal.kit.atomic_file import write_atomic
from selfheal.kit.serialization import from_dict, to_json
from selfheal.services.reports.files import reports_folder, results_folder

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from selfheal.settings import Settings

LEFT_BEHIND_AFTER = timedelta(days=1)
"""Age from which a temporary file counts as left behind by a process that died."""


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """The times before which things are old. None: nothing is."""

    runs: datetime
    results: datetime
    ticks: datetime
    alerts: datetime
    left_behind: datetime
    predictions: datetime | None


@dataclass(frozen=True, slots=True)
class DeletedRuns:
    """What was deleted in Dagster's storage: runs, and evaluations of asset checks whose run is gone."""

    n_runs: int = 0
    n_check_evaluations: int = 0


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What one maintenance run deleted. `is_skipped`: another run was in progress, so nothing was done."""

    started_at: datetime
    seconds: float = 0.0
    is_skipped: bool = False
    n_runs: int = 0
    n_check_evaluations: int = 0
    n_results: int = 0
    n_reports: int = 0
    n_ticks: int = 0
    n_alerts: int = 0
    n_left_behind: int = 0
    n_predictions: int = 0


def cutoffs(settings: Settings, now: datetime, champion_since: datetime | None) -> Cutoffs:
    """Return the times before which things are old.

    Predictions since the champion went live are never old, because label coverage is counted over them.
    """

    def days_ago(days: float) -> datetime:
        return now - timedelta(days=days)

    predictions = None
    if settings.predictions_retention_days is not None:
        predictions = min(days_ago(settings.predictions_retention_days), champion_since or now)
    return Cutoffs(
        runs=days_ago(settings.monitoring_runs_retention_days),
        results=days_ago(settings.monitoring_results_retention_days),
        ticks=days_ago(settings.monitoring_metrics_retention_days),
        alerts=days_ago(settings.alerts_retention_days),
        left_behind=now - LEFT_BEHIND_AFTER,
        predictions=predictions,
    )


def old_results(written_at: Mapping[Path, datetime], before: datetime, decided_on: Collection[str]) -> list[Path]:
    """Return the tick files (`<time>-<tick_id>.json`) older than `before`, except those of ticks that a decision rests on."""
    return [
        path
        for path, moment in written_at.items()
        if moment < before and path.stem.rpartition("-")[2] not in decided_on
    ]


def maintain(platform: Platform, now: datetime, delete_runs: Callable[[datetime], DeletedRuns]) -> MaintenanceReport:
    """Delete what is old and write the report (`last_report`). One process at a time; safe to interrupt.

    Args:
        delete_runs: deletes Dagster's frequent runs from before a time, and what is left of runs that are gone.
    """
    from selfheal.services.reports.writer import delete_old_reports

    store, settings = platform.store, platform.settings
    with retention.exclusive_maintenance(store) as is_mine:
        if not is_mine:
            return MaintenanceReport(now, is_skipped=True)
        champion = model_versions.production_version(store)
        old = cutoffs(settings, now, None if champion is None else champion.promoted_at)
        results = results_folder(settings.data_dir)
        decided_on = retention.ticks_decided_on(store)
        report = MaintenanceReport(
            started_at=now,
            n_results=_delete(old_results(_written_at(results.glob("*.json")), old.results, decided_on)),
            n_reports=delete_old_reports(platform, now),
            n_left_behind=_delete(_left_behind(settings.data_dir, old.left_behind)),
            n_ticks=retention.delete_ticks(store, old.ticks),
            n_alerts=retention.delete_alerts(store, old.alerts),
            n_predictions=0
            if old.predictions is None
            else retention.delete_unlabelled_predictions(store, old.predictions),
        )
        in_dagster = delete_runs(old.runs)  # last: if Dagster does not answer, the rest is done
        report = replace(
            report,
            n_runs=in_dagster.n_runs,
            n_check_evaluations=in_dagster.n_check_evaluations,
            seconds=max(0.0, (datetime.now(UTC) - now).total_seconds()),
        )
        write_atomic(_report_path(settings.data_dir), to_json(report))
        return report


def last_report(data_dir: Path) -> MaintenanceReport | None:
    """Return the report of the latest maintenance of this data folder; None if there was none."""
    try:
        return from_dict(MaintenanceReport, json.loads(_report_path(data_dir).read_bytes()))
    except (OSError, ValueError):
        return None


def _report_path(data_dir: Path) -> Path:
    return data_dir / "monitoring" / "maintenance.json"


def _left_behind(data_dir: Path, before: datetime) -> list[Path]:
    journals = (data_dir / "audit").glob("*/")
    written = ("", "assets", "cache", "dagster", "decisions", "monitoring", "reference")
    folders = (results_folder(data_dir), reports_folder(data_dir), *(data_dir / name for name in written), *journals)
    found = _written_at(path for folder in folders for path in folder.glob("*.tmp"))
    return [path for path, moment in found.items() if moment < before]


def _written_at(paths: Iterable[Path]) -> dict[Path, datetime]:
    """Return when each file was last written; omit files that have been deleted in the meantime."""
    found: dict[Path, datetime] = {}
    for path in paths:
        try:
            found[path] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except FileNotFoundError:
            continue
    return found


def _delete(paths: Collection[Path]) -> int:
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)
