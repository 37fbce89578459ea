"""The running service's parts in one handle, and how an endpoint gets at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from selfheal.platform import Platform
from serving.keeping.inquiries import Inquiries
from serving.keeping.labels import LabelDesk
from serving.keeping.sink import Sink
from serving.keeping.switchboard import Switchboard
from serving.model.champion import ChampionHolder
from serving.observability.distributions import Distributions
from serving.observability.live import Live
from serving.scoring.explanations import ExplanationDesk
from serving.scoring.once import OnceOnly
from serving.scoring.scorer import Scorer


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
