"""The running service's parts in one handle, and how an endpoint gets at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from selfheal.platform import Platform
from serving.champion import ChampionHolder
from serving.explanations import ExplanationDesk
from serving.inquiries import Inquiries
from serving.labels import LabelDesk
from serving.live import Live
from serving.once import OnceOnly
from serving.scoring import Scorer
from serving.sink import Sink


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
    live: Live


def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(_service)]
