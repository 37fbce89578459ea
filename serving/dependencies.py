"""The running service's parts in one handle, and how an endpoint gets at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from selfheal.services.platform import Platform
    from serving.champion.holder import ChampionHolder
    from serving.database.command_pool import Switchboard
    from serving.database.read_pool import Inquiries
    from serving.ingest.labels import LabelDesk
    from serving.ingest.worker import Sink
    from serving.observability.distributions import Distributions
    from serving.observability.live import Live
    from serving.scoring.explanations import ExplanationDesk
    from serving.scoring.idempotency import OnceOnly
    from serving.scoring.micro_batcher import Scorer


@dataclass(frozen=True)
class Service:
    platform: Platform
    holder: ChampionHolder
    scorer: Scorer
    once: OnceOnly
    explanations: ExplanationDesk
    labels: LabelDesk
    sink: Sink
    inquiries: Inquiries
    distributions: Distributions
    switchboard: Switchboard
    live: Live


def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(_service)]
