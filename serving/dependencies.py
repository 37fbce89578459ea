"""Dependency injection: one object with the parts of the running service, and the dependency that provides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from serving.champion.holder import ChampionHolder
    from serving.database.command_pool import CommandPool
    from serving.database.read_pool import ReadPool
    from serving.ingest.labels import LabelIngest
    from serving.ingest.worker import IngestWorker
    from serving.observability.distributions import Distributions
    from serving.observability.live import Live
    from serving.scoring.explanations import ExplanationService
    from serving.scoring.idempotency import IdempotencyKeys
    from serving.scoring.micro_batcher import MicroBatcher


@dataclass(frozen=True)
class Service:
    """The parts of the running service."""

    platform: Platform
    holder: ChampionHolder
    batcher: MicroBatcher
    idempotency: IdempotencyKeys
    explanations: ExplanationService
    labels: LabelIngest
    ingest_worker: IngestWorker
    read_pool: ReadPool
    distributions: Distributions
    command_pool: CommandPool
    live: Live


def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(_service)]
