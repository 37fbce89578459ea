"""A version on probation is evaluated in runs of its partition; `tests.selfheal_assets.test_probation` has the whole way."""

from __future__ import annotations

import pytest

from selfheal_assets.sensors.probation import build_probation_sensor
from tests.selfheal_assets.conftest import Dagster
from tests.selfheal_assets.sensors.evaluating import evaluate, skip_message

pytestmark = pytest.mark.integration


def test_probation_is_watched_only_after_a_promotion(dagster: Dagster) -> None:
    message = skip_message(evaluate(dagster, "probation_sensor"))
    assert message == "No version is on probation. No evaluation is due. Next evaluation in 30 s."


def test_it_is_evaluated_as_often_as_it_is_told() -> None:
    assert build_probation_sensor(17).minimum_interval_seconds == 17
