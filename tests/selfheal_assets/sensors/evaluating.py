"""Evaluating a sensor as the code server does, on the platform of a test."""

from __future__ import annotations

from typing import Any

import dagster as dg

from tests.selfheal_assets.conftest import Dagster


def evaluate(dagster: Dagster, name: str, cursor: str | None = None) -> dg.SensorResult | dg.RunRequest | dg.SkipReason:
    sensor = dagster.definitions.resolve_sensor_def(name)
    with dg.build_sensor_context(
        instance=dagster.instance,
        cursor=cursor,
        resources={"platform": dagster.resource},
        sensor_name=name,
        repository_def=dagster.definitions.get_repository_def(),
    ) as context:
        answer: Any = sensor(context)
    return answer


def skip_message(answer: object) -> str:
    if isinstance(answer, dg.SensorResult):
        answer = answer.skip_reason
    assert isinstance(answer, dg.SkipReason), answer
    return answer.skip_message or ""
