"""Small deployments of the toy use case: a few days, a few hundred rows, a champion that is trained once."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from selfheal.simulate.replay.build import Source, build, source_of
from selfheal.simulate.replay.deployment import Deployment, Kind
from selfheal.simulate.replay.policy import Action, Keep, View
from selfheal.simulate.replay.stream import Stream
from selfheal.simulate.replay.worlds import FromScenario, World
from tests.toy_use_case import contract

T0 = np.datetime64("2026-03-02T00:00:00", "us")
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")

CALM = World(
    "calm",
    "nothing changes",
    Kind.HARMLESS,
    champion_age_days=2.0,
    days_after=8.0,
    per_day=100.0,
    champion_rows=1_200,
)
CHANGED = replace(CALM, name="changed", kind=Kind.HARMFUL, changes=(FromScenario(),))


@cache
def source() -> Source:
    return source_of(contract.synthesize(4_000, 1), contract, "toy rows")


@cache
def deployment(world: World = CALM, seed: int = 1) -> Deployment:
    return build(world, source(), seed)


def stream(n_rows: int = 60, **changes: Any) -> Stream:
    """A valid stream of the toy contract, a row an hour, labels a day later."""
    frame = contract.synthesize(n_rows, 3)
    label = (np.arange(n_rows) % 2).astype(np.int8)
    times = T0 + np.arange(n_rows) * HOUR
    values: dict[str, Any] = {
        "contract": contract,
        "columns": {name: frame[name].to_numpy(dtype=np.float64) for name in contract.input_names},
        "event_time": times,
        "entity": np.arange(n_rows),
        "true_label": label,
        "label_time": times + DAY,
        "label": label.copy(),
    }
    return Stream(**(values | changes))


class Scripted:
    """A policy that answers from a list of (decision, action), and notes each view."""

    def __init__(self, **script: Any) -> None:
        self.script = {int(name.removeprefix("at_")): action for name, action in script.items()}
        self.views: list[View] = []

    def decide(self, view: View) -> Action:
        self.views.append(view)
        action = self.script.get(len(self.views), Keep())
        return action(view) if callable(action) else action
