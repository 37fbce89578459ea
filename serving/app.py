"""The application: `create_app` wires it, its lifespan owns everything that has to be started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version as installed_version
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from selfheal.adapters.alerting.channels import check_channels
from selfheal.adapters.journal import LABEL_JOURNAL, Journal, JournalKind, prediction_journal
from selfheal.domain.contract import ModelContract, load_contract
from selfheal.services.platform import open_platform
from selfheal.settings import Settings, load_settings
from serving.alerts.monitor_watchdog import MonitorWatch
from serving.champion.follower import Follower
from serving.champion.holder import ChampionHolder
from serving.dashboard.files import DashboardFiles
from serving.database.command_pool import Switchboard
from serving.database.read_pool import Inquiries
from serving.dependencies import Service
from serving.ingest.journal_writer import DurableLog
from serving.ingest.labels import LabelDesk
from serving.ingest.worker import Sink
from serving.observability.distributions import Distributions
from serving.observability.live import Live
from serving.observability.metrics import MetricsPage, ServiceCollector
from serving.routes import (
    dashboard,
    decisions,
    health,
    labels,
    live,
    metrics,
    monitoring,
    overview,
    predict,
    promotions,
)
from serving.schemas import problems
from serving.scoring.explanations import ExplanationDesk
from serving.scoring.fast_path import FastLane
from serving.scoring.idempotency import MAX_OPEN_LOOK_UPS, OnceOnly
from serving.scoring.micro_batcher import Scorer
from serving.scoring.request_parser import RequestParser
from serving.security.auth import (
    Doorkeeper,
    KeyBeforeBody,
    Scope,
    describe_without_keys,
    refuse_open_door,
    requires,
)
from serving.security.body_limit import BodyLimit
from serving.security.origin_check import OwnPagesOnly
from serving.security.security_headers import SecurityHeaders
from serving.security.signed_links import ReportTickets
from serving.tracing import stop_tracing, tracing

DESCRIPTION = """
Scores, logs, and follows the platform's promotions. Every answered prediction is on disk; send what became of it to
`POST /labels` under its `prediction_id`, and the platform learns from it.
"""


SCOPES_OF_BODIES = {
    "/labels": Scope.LABEL,
    "/monitoring/alerts/{alert_id}/acknowledge": Scope.ADMIN,
    "/promotions": Scope.ADMIN,
    "/rollbacks": Scope.ADMIN,
    "/retrainings": Scope.ADMIN,
}
"""Whoever has another key is told so before a body is read. The lane sees to that of scoring requests."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service for the settings in force (the environment's if None).

    Raises:
        ConfigurationError: if a setting is wrong.
    """
    in_force = settings or load_settings()
    refuse_open_door(in_force)
    check_channels(in_force)
    doorkeeper = Doorkeeper(in_force)
    contract = load_contract(in_force.use_case)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_service(in_force, contract) as service:
            app.state.service = service
            assert isinstance(app.middleware_stack, FastLane)
            collector = ServiceCollector(service, app.middleware_stack, doorkeeper)
            app.state.metrics = MetricsPage(collector, _metrics_folder(in_force))
            sharing = asyncio.create_task(app.state.metrics.share())
            yield
            sharing.cancel()
        await asyncio.to_thread(stop_tracing, telemetry)

    telemetry = tracing(in_force)
    parser = RequestParser(contract)
    app = FastAPIOffline(  # FastAPI with the pages of /docs served from here and not from another host
        title=f"selfheal: {contract.name}",
        summary=contract.description,
        description=DESCRIPTION,
        version=installed_version("selfheal"),
        lifespan=lifespan,
        telemetry=telemetry,
        # Of any request: it is no HTTP, comes from a foreign page, has an endless head, or meets a bug.
        responses=problems.documented(400, *(() if doorkeeper.asks_for_keys else (403,)), 431, 500),
    )
    problems.install(app)
    app.state.doorkeeper = doorkeeper
    app.state.dashboard = DashboardFiles(asks_for_keys=doorkeeper.asks_for_keys)
    app.state.report_tickets = ReportTickets(in_force.data_dir) if doorkeeper.asks_for_keys else None
    app.add_middleware(BodyLimit)
    app.add_middleware(KeyBeforeBody, doorkeeper=doorkeeper, scopes=SCOPES_OF_BODIES)
    app.add_middleware(OwnPagesOnly, doorkeeper=doorkeeper)
    app.add_middleware(SecurityHeaders)
    at_the_door = problems.documented(401, 403, 413, 415, 429)
    app.include_router(
        predict.build_router(parser),
        dependencies=[Depends(requires(Scope.SCORE))],
        responses=at_the_door,
    )
    app.include_router(labels.router, dependencies=[Depends(requires(Scope.LABEL))], responses=at_the_door)
    subjects = (overview, health, promotions, monitoring, decisions, live, metrics, dashboard)
    for subject in subjects:
        app.include_router(subject.router)
    if not doorkeeper.asks_for_keys:
        describe_without_keys(app)
    app.middleware_stack = FastLane(app, doorkeeper, parser)  # outside of Starlette's own, too
    return app


def _metrics_folder(settings: Settings) -> Path | None:
    return settings.data_dir / "run" / "metrics" if settings.api_workers > 1 else None


def _durable_log(kind: JournalKind, settings: Settings) -> DurableLog:
    max_bytes = int(settings.journal_max_mb * 1_000_000)
    journal = Journal(kind, settings.data_dir, max_bytes, settings.journal_fsync)
    return DurableLog(journal, settings.journal_fsync_interval_seconds)


@contextlib.asynccontextmanager
async def running_service(settings: Settings, contract: ModelContract) -> AsyncIterator[Service]:
    """Opens the platform, starts the background tasks, and takes all of it down again in reverse."""
    platform = open_platform(settings, wait_for_database=False)
    prediction_log = _durable_log(prediction_journal(contract), settings)
    label_log = _durable_log(LABEL_JOURNAL, settings)
    holder = ChampionHolder(platform)
    follower = Follower(platform, holder)
    scorer = Scorer(contract, holder, prediction_log)
    look_ups = Inquiries(platform.store, MAX_OPEN_LOOK_UPS)
    once = OnceOnly(contract, look_ups, scorer)
    label_desk = LabelDesk(platform.store, label_log)
    sink = Sink(platform)
    watch = MonitorWatch(platform)
    inquiries = Inquiries(platform.store)
    switchboard = Switchboard(platform)
    live_feed = Live(holder, scorer, inquiries)
    tasks: list[asyncio.Task[None]] = []
    try:
        await asyncio.to_thread(follower.start)
        await asyncio.to_thread(once.remember_journal, prediction_journal(contract), settings.data_dir)
        background = (scorer.work(), prediction_log.keep(), label_log.keep(), live_feed.run())
        tasks.extend(asyncio.create_task(work) for work in background)
        sink.start()
        watch.start()
        yield Service(
            platform=platform,
            holder=holder,
            scorer=scorer,
            once=once,
            explanations=ExplanationDesk(platform, holder),
            labels=label_desk,
            sink=sink,
            inquiries=inquiries,
            distributions=Distributions(platform),
            switchboard=switchboard,
            live=live_feed,
        )
    finally:
        await asyncio.to_thread(watch.stop)
        await asyncio.to_thread(follower.stop)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        scorer.close()
        switchboard.close()
        inquiries.close()
        look_ups.close()
        label_desk.close()
        prediction_log.close()
        label_log.close()
        await asyncio.to_thread(sink.stop)  # after the journals: what came last should not wait for the next start
        await asyncio.to_thread(platform.close)
