"""The application: `create_app` assembles it, and its lifespan owns everything that must be started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from importlib.metadata import version as installed_version
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from selfheal.adapters.alerting.channels import check_channels
from selfheal.adapters.entity_secret import entity_secret
from selfheal.adapters.journal import LABEL_JOURNAL, Journal, JournalKind, prediction_journal
from selfheal.domain.contract import ModelContract, load_contract
from selfheal.services.platform import open_platform
from selfheal.settings import Settings, load_settings
from serving.alerts.latch import AlertLatch
from serving.alerts.monitor_watchdog import MonitorWatchdog
from serving.champion.follower import Follower
from serving.champion.holder import MODEL_REFUSED, ChampionHolder
from serving.dashboard.files import DashboardFiles
from serving.database.command_pool import CommandPool
from serving.database.read_pool import ReadPool
from serving.dependencies import Service
from serving.ingest.journal_writer import JournalWriter
from serving.ingest.labels import LabelIngest
from serving.ingest.worker import IngestWorker
from serving.observability.distributions import Distributions
from serving.observability.live import Live
from serving.observability.metrics import MetricsPage, ServiceCollector
from serving.protocols import mlflow_routes, open_inference_routes
from serving.protocols.middleware import WireProtocols
from serving.protocols.openapi import describe_protocols
from serving.routes import (
    dashboard,
    decisions,
    health,
    label_quarantines,
    labels,
    live,
    metrics,
    models,
    monitoring,
    overview,
    predict,
    promotions,
)
from serving.schemas import problems
from serving.scoring.explanations import ExplanationService
from serving.scoring.fast_path import FastPath
from serving.scoring.idempotency import MAX_OPEN_LOOKUPS, IdempotencyKeys
from serving.scoring.micro_batcher import MicroBatcher
from serving.scoring.request_parser import RequestParser
from serving.security.auth import (
    Authenticator,
    KeyBeforeBody,
    Scope,
    describe_without_keys,
    refuse_unauthenticated_public_host,
    requires,
)
from serving.security.body_limit import BodyLimit
from serving.security.origin_check import OriginCheck
from serving.security.security_headers import SecurityHeaders
from serving.security.signed_links import SignedLinks
from serving.tracing import stop_tracing, tracing

DESCRIPTION = """
Scores rows, logs each prediction, and follows the platform's promotions. A prediction is on disk before its response is
sent. Send its true label to `POST /labels` under its `prediction_id`; monitoring and retraining use it.
"""


SCOPES_OF_BODIES = {
    "/monitoring/alerts/{alert_id}/acknowledge": Scope.ADMIN,
    "/monitoring/label-quarantines/{quarantine_id}/release": Scope.ADMIN,
    "/promotions": Scope.ADMIN,
    "/rollbacks": Scope.ADMIN,
    "/retrainings": Scope.ADMIN,
    "/declarations": Scope.ADMIN,
}
"""A caller without the scope is refused before the body is read. `FastPath` does the same for rows and labels."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application for these settings (None: those of the environment).

    Raises:
        ConfigurationError: if a setting is wrong.
    """
    in_force = settings or load_settings()
    refuse_unauthenticated_public_host(in_force)
    check_channels(in_force)
    authenticator = Authenticator(in_force)
    contract = load_contract(in_force.use_case)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_service(in_force, contract) as service:
            app.state.service = service
            assert isinstance(app.middleware_stack, FastPath)
            collector = ServiceCollector(service, app.middleware_stack, authenticator, of_protocols)
            app.state.metrics = MetricsPage(collector, _metrics_folder(in_force))
            sharing = asyncio.create_task(app.state.metrics.share())
            yield
            sharing.cancel()
        await asyncio.to_thread(stop_tracing, telemetry)

    telemetry = tracing(in_force)
    parser = RequestParser(contract, lambda: entity_secret(in_force))
    of_protocols: Counter[tuple[str, str]] = Counter()
    app = FastAPIOffline(  # FastAPI whose /docs pages load nothing from another host
        title=f"selfheal: {contract.name}",
        summary=contract.description,
        description=DESCRIPTION,
        version=installed_version("selfheal"),
        lifespan=lifespan,
        telemetry=telemetry,
        # Of any request: it is not HTTP, comes from a foreign page or too slowly, has too large a head, meets a bug, or
        # too many clients.
        responses=problems.documented(400, *(() if authenticator.asks_for_keys else (403,)), 408, 431, 500, 503),
    )
    problems.install(app)
    app.state.authenticator = authenticator
    app.state.dashboard = DashboardFiles(asks_for_keys=authenticator.asks_for_keys)
    app.state.signed_links = SignedLinks(in_force.data_dir) if authenticator.asks_for_keys else None
    app.add_middleware(BodyLimit)
    app.add_middleware(KeyBeforeBody, authenticator=authenticator, scopes=SCOPES_OF_BODIES)
    app.add_middleware(OriginCheck, authenticator=authenticator)
    app.add_middleware(
        WireProtocols, authenticator=authenticator, contract=contract, parser=parser, n_by_outcome=of_protocols
    )
    app.add_middleware(SecurityHeaders)
    auth_errors = problems.documented(401, 403, 413, 415, 429)
    app.include_router(
        predict.build_router(parser),
        dependencies=[Depends(requires(Scope.SCORE))],
        responses=auth_errors,
    )
    app.include_router(labels.router, dependencies=[Depends(requires(Scope.LABEL))], responses=auth_errors)
    for protocol in (open_inference_routes, mlflow_routes):
        app.include_router(protocol.build_router(contract))
    describe_protocols(app)
    watching = (monitoring, label_quarantines, live, metrics)
    subjects = (overview, health, models, promotions, decisions, *watching, dashboard)
    for subject in subjects:
        app.include_router(subject.router)
    if not authenticator.asks_for_keys:
        describe_without_keys(app)
    app.middleware_stack = FastPath(app, authenticator, parser)  # also outside Starlette's own middleware
    return app


def _metrics_folder(settings: Settings) -> Path | None:
    return settings.data_dir / "run" / "metrics" if settings.api_workers > 1 else None


def _journal_writer(kind: JournalKind, settings: Settings) -> JournalWriter:
    max_bytes = int(settings.journal_max_mb * 1_000_000)
    journal = Journal(kind, settings.data_dir, max_bytes, settings.journal_fsync)
    return JournalWriter(journal, settings.journal_fsync_interval_seconds)


@contextlib.asynccontextmanager
async def running_service(settings: Settings, contract: ModelContract) -> AsyncIterator[Service]:
    """Open the platform and start the background tasks; stop all of it at the end, in reverse."""
    platform = open_platform(settings, wait_for_database=False)
    prediction_log = _journal_writer(prediction_journal(contract), settings)
    label_log = _journal_writer(LABEL_JOURNAL, settings)
    holder = ChampionHolder(platform, AlertLatch(platform, MODEL_REFUSED, records_each_call=True))
    follower = Follower(platform, holder)
    batcher = MicroBatcher(contract, holder, prediction_log)
    lookups = ReadPool(platform.store, MAX_OPEN_LOOKUPS)
    idempotency = IdempotencyKeys(contract, lookups, batcher)
    label_ingest = LabelIngest(platform.store, label_log)
    ingest_worker = IngestWorker(platform)
    monitor_watchdog = MonitorWatchdog(platform)
    read_pool = ReadPool(platform.store)
    command_pool = CommandPool(platform)
    live_feed = Live(holder, batcher, read_pool)
    tasks: list[asyncio.Task[None]] = []
    try:
        await asyncio.to_thread(follower.start)
        await asyncio.to_thread(idempotency.remember_journal, prediction_journal(contract), settings.data_dir)
        await asyncio.to_thread(label_ingest.remember_journal, settings.data_dir)
        background = (batcher.work(), prediction_log.run(), label_log.run(), live_feed.run())
        tasks.extend(asyncio.create_task(work) for work in background)
        ingest_worker.start()
        monitor_watchdog.start()
        yield Service(
            platform=platform,
            holder=holder,
            batcher=batcher,
            idempotency=idempotency,
            explanations=ExplanationService(platform, holder),
            labels=label_ingest,
            ingest_worker=ingest_worker,
            read_pool=read_pool,
            distributions=Distributions(platform),
            command_pool=command_pool,
            live=live_feed,
        )
    finally:
        await asyncio.to_thread(monitor_watchdog.stop)
        await asyncio.to_thread(follower.stop)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        batcher.close()
        command_pool.close()
        read_pool.close()
        lookups.close()
        label_ingest.close()
        prediction_log.close()
        label_log.close()
        await asyncio.to_thread(ingest_worker.stop)  # after the journals, so that it copies their last lines
        await asyncio.to_thread(platform.close)
