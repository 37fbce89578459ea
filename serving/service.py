"""The running service's parts in one handle, and how an endpoint gets at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from selfheal.platform import Platform
from serving.champion import ChampionHolder
from serving.labels import LabelDesk
from serving.scoring import Scorer
from serving.sink import Sink


@dataclass(frozen=True)
class Service:
    platform: Platform
    holder: ChampionHolder
    scorer: Scorer
    labels: LabelDesk
    sink: Sink


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(_service)]
