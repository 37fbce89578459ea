"""The application: `create_app` wires it, its lifespan owns everything that has to be started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version as installed_version

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from selfheal.contract import ModelContract, load_contract
from selfheal.journal import LABEL_JOURNAL, Journal, prediction_journal
from selfheal.platform import open_platform
from selfheal.settings import Settings, load_settings
from serving import problems
from serving.auth import key_check, refuse_open_door
from serving.body_limit import BodyLimit
from serving.champion import ChampionHolder
from serving.labels import LabelDesk
from serving.routes import labels, predict, state
from serving.schemas import row_model
from serving.scoring import Scorer
from serving.service import Service
from serving.sink import Sink

DESCRIPTION = """
Scores, logs, and follows the platform's promotions. Every answered prediction is on disk; send what became of it to
`POST /labels` under its `prediction_id`, and the platform learns from it.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service for the settings in force (the environment's if None).

    Raises:
        ConfigurationError: if a setting is wrong.
    """
    in_force = settings or load_settings()
    refuse_open_door(in_force)
    contract = load_contract(in_force.use_case)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_service(in_force, contract) as service:
            app.state.service = service
            yield

    app = FastAPIOffline(  # FastAPI with the pages of /docs served from here and not from another host
        title=f"selfheal: {contract.name}",
        summary=contract.description,
        description=DESCRIPTION,
        version=installed_version("selfheal"),
        lifespan=lifespan,
    )
    problems.install(app)
    app.add_middleware(BodyLimit)
    doors = [Depends(key_check(in_force))]
    app.include_router(predict.build_router(contract, row_model(contract)), dependencies=doors)
    app.include_router(labels.router, dependencies=doors)
    app.include_router(state.router)
    return app


@contextlib.asynccontextmanager
async def running_service(settings: Settings, contract: ModelContract) -> AsyncIterator[Service]:
    """Opens the platform, starts the background tasks, and takes all of it down again in reverse."""
    platform = await asyncio.to_thread(open_platform, settings)
    max_bytes = int(settings.journal_max_mb * 1_000_000)
    prediction_writer = Journal(prediction_journal(contract), settings.data_dir, max_bytes)
    label_writer = Journal(LABEL_JOURNAL, settings.data_dir, max_bytes)
    holder = ChampionHolder(platform)
    scorer = Scorer(contract, holder, prediction_writer)
    sink = Sink(platform)
    tasks: list[asyncio.Task[None]] = []
    try:
        await asyncio.to_thread(holder.refresh)
        tasks.extend(asyncio.create_task(work) for work in (holder.follow(), scorer.work(), sink.run()))
        yield Service(platform, holder, scorer, LabelDesk(platform.store, label_writer), sink)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        scorer.close()
        prediction_writer.close()
        label_writer.close()
        await asyncio.to_thread(sink.copy_once)  # what was just journaled should not wait for the next start
        await asyncio.to_thread(platform.close)
