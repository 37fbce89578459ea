"""`GET /monitoring/...`: the monitor's results, alerts and reports, read from Postgres at each request."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, RedirectResponse

from selfheal.adapters.postgres import alerts, model_versions, ticks
from selfheal.domain.monitoring.silence import overdue_after
from selfheal.services.reports.files import (
    ReportFiles,
    find_file,
    list_reports,
    read_tick,
    reports_folder,
    results_folder,
)
from serving.dependencies import Service, ServiceDependency
from serving.schemas.problems import ProblemError, documented
from serving.schemas.responses import (
    Acknowledgement,
    AlertInfo,
    Alerts,
    AlertsParameters,
    ColumnInfo,
    Drift,
    DriftInfo,
    DriftParameters,
    LimitParameters,
    MonitoringStats,
    QueryParameters,
    ReportInfo,
    Reports,
    TickInfo,
    WindowInfo,
    alert_info,
    tick_info,
)
from serving.security.auth import Caller, Scope, requires
from serving.security.report_responses import report_response

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Row

    from selfheal.adapters.postgres.store import Store
    from serving.security.signed_links import SignedLinks

router = APIRouter(prefix="/monitoring", tags=["monitoring"], responses=documented(401, 403, 422, 429, 503))
reading = [Depends(requires(Scope.READ))]


@router.get("/stats", summary="Show the latest monitoring tick", dependencies=reading)
async def get_stats(service: ServiceDependency, _: Annotated[QueryParameters, Query()]) -> MonitoringStats:
    """Return the latest tick of the version in production.

    It has counts, positive rate, probabilities, estimated and realised quality, and the verdict with all reasons.
    `tick_age_seconds` and `is_overdue` show whether the monitor is still running.
    """
    interval = timedelta(seconds=service.platform.settings.monitoring_interval)
    return await service.read_pool.run(partial(monitoring_stats, interval=interval, now=datetime.now(UTC)))


@router.get("/drift", summary="Show drift, now and before", dependencies=reading)
async def get_drift(service: ServiceDependency, parameters: Annotated[DriftParameters, Query()]) -> Drift:
    """Return the latest comparison with the reference data, column by column, and the verdicts of the last `hours`.

    The reference data are those of the version in production.
    """
    since = datetime.now(UTC) - timedelta(hours=parameters.hours)
    folder = results_folder(service.platform.settings.data_dir)
    return await service.read_pool.run(partial(_drift, since=since, limit=parameters.limit, folder=folder))


@router.get("/alerts", summary="List alerts", dependencies=reading)
async def get_alerts(service: ServiceDependency, parameters: Annotated[AlertsParameters, Query()]) -> Alerts:
    """Return alerts, open ones first. An alert is open until its cause is gone; acknowledging does not resolve it."""
    ask = partial(alerts.alerts_open_first, limit=parameters.limit, only_open=parameters.only_open)
    return Alerts(alerts=[alert_info(row) for row in await service.read_pool.run(ask)])


@router.post("/alerts/{alert_id}/acknowledge", summary="Acknowledge an alert", responses=documented(404, 413, 415))
async def acknowledge_alert(
    service: ServiceDependency,
    caller: Annotated[Caller, Depends(requires(Scope.ADMIN))],
    alert_id: UUID,
    acknowledgement: Acknowledgement | None = None,
) -> AlertInfo:
    """Record who has seen the alert (the name of the API key), when, and a note.

    The first acknowledgement stays: a second one changes nothing, and the response shows the first. No further
    notification is sent about the alert unless it becomes more severe.
    """
    note = None if acknowledgement is None else acknowledgement.note
    acknowledge = partial(_acknowledge, alert_id=alert_id, actor=caller.name, now=datetime.now(UTC), note=note)
    alert = await service.read_pool.run(acknowledge)
    if alert is None:
        raise ProblemError(404, "not_found", f"there is no alert {alert_id}; GET /monitoring/alerts lists them")
    return alert


@router.get("/reports", summary="List reports", dependencies=reading)
async def get_reports(
    request: Request, service: ServiceDependency, parameters: Annotated[LimitParameters, Query()]
) -> Reports:
    """Return the reports on this host.

    One is written when the state changes, hourly during drift, and on demand (`selfheal report`). Reports whose names end in
    `policies` compare policies on the platform's own logs; Dagster writes one every month.
    """
    links: SignedLinks | None = request.app.state.signed_links
    found = await asyncio.to_thread(list_reports, reports_folder(service.platform.settings.data_dir))
    return Reports(
        reports=[_report_info(report) for report in found[: parameters.limit]],
        ticket=None if links is None else await asyncio.to_thread(links.issue),
    )


@router.get(
    "/report",
    summary="Show the latest report",
    dependencies=reading,
    status_code=307,
    response_class=RedirectResponse,
    responses=documented(404),
)
async def get_report(service: ServiceDependency, _: Annotated[QueryParameters, Query()]) -> RedirectResponse:
    """Redirect to the overview of the traffic that was written last."""
    found = await asyncio.to_thread(list_reports, reports_folder(service.platform.settings.data_dir))
    of_traffic = (_report_info(report) for report in found if not report.is_of_policies)
    path = next((info.overview for info in of_traffic if info.overview is not None), None)
    if path is None:
        raise ProblemError(404, "not_found", "there is no report on this host yet; `selfheal report` writes one")
    return RedirectResponse(path, 307)


@router.get(
    "/reports/{name}",
    summary="Show a page of a report",
    dependencies=reading,
    response_class=FileResponse,
    responses=documented(404) | {200: {"content": {"text/html": {}, "text/javascript": {}}}},
)
async def get_report_file(
    service: ServiceDependency, _: Annotated[QueryParameters, Query()], name: str
) -> FileResponse:
    """Return a page of a report or one of its scripts. It can reach neither other hosts nor this service."""
    return await _report_file(service, name)


@router.get("/tickets/{ticket}/{name}", include_in_schema=False)
async def get_report_file_by_ticket(
    request: Request, service: ServiceDependency, ticket: str, name: str
) -> FileResponse:
    """Return a page for a browser that follows a signed link. The page's relative links contain the ticket too."""
    links: SignedLinks | None = request.app.state.signed_links
    if links is not None and not await asyncio.to_thread(links.is_valid, ticket):
        raise ProblemError(403, "ticket_expired", "this link has expired; open the report from the dashboard again")
    answer = await _report_file(service, name)
    answer.headers["referrer-policy"] = "no-referrer"
    return answer


async def _report_file(service: Service, name: str) -> FileResponse:
    path = await asyncio.to_thread(find_file, reports_folder(service.platform.settings.data_dir), name)
    if path is None:
        raise ProblemError(404, "not_found", "there is no such report; GET /monitoring/reports lists them")
    return report_response(path)


def _report_info(report: ReportFiles) -> ReportInfo:
    return ReportInfo(
        name=report.name,
        written_at=report.written_at,
        overview=None if report.overview is None else f"{router.prefix}/reports/{report.overview.name}",
        evidently=None if report.evidently is None else f"{router.prefix}/reports/{report.evidently.name}",
    )


def monitoring_stats(store: Store, interval: timedelta, now: datetime) -> MonitoringStats:
    """Return the latest tick of the version in production, and whether the next one is overdue."""
    version = model_versions.production_version(store)
    if version is None:
        return MonitoringStats(
            model_version=None, tick=None, tick_age_seconds=None, unseen_since=None, is_overdue=False
        )
    unseen_since = ticks.unseen_since(store, version.version)
    tick = ticks.latest_tick(store, version.version)
    return MonitoringStats(
        model_version=version.version,
        tick=None if tick is None else WindowInfo.model_validate(tick),
        tick_age_seconds=None if tick is None else max(0.0, (now - tick.created_at).total_seconds()),
        unseen_since=unseen_since,
        is_overdue=unseen_since is not None and now - unseen_since > overdue_after(interval),
    )


def _drift(store: Store, since: datetime, limit: int, folder: Path) -> Drift:
    version = model_versions.production_version(store)
    latest = None if version is None else ticks.latest_tick(store, version.version)
    history = [tick_info(tick) for tick in ticks.ticks_since(store, since, limit)]
    return Drift(
        model_version=None if version is None else version.version,
        latest=None if latest is None else _with_columns(latest, folder),
        history=history,
    )


def _with_columns(tick: Row[Any], folder: Path) -> DriftInfo:
    record = read_tick(folder, tick.window_end, tick.tick_id)
    return DriftInfo(
        **TickInfo.model_validate(tick).model_dump(),
        columns=None if record is None else [ColumnInfo.model_validate(column) for column in record.drift.columns],
        baseline_drifted_features=None if record is None else list(record.drift.baseline_drifted_features),
    )


def _acknowledge(store: Store, alert_id: UUID, actor: str, now: datetime, note: str | None) -> AlertInfo | None:
    if alerts.find_alert(store, alert_id) is None:
        return None
    alerts.acknowledge_alert(store, alert_id, actor, now, note)
    row = alerts.find_alert(store, alert_id)
    return None if row is None else alert_info(row)
