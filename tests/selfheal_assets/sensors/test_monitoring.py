"""New traffic is one tick, and the same state is never monitored twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
import pytest

from selfheal.adapters.postgres.predictions import latest_activity
from selfheal.settings import Settings
from tests.selfheal_assets.conftest import Dagster
from tests.selfheal_assets.sensors.evaluating import evaluate, skip_message
from tests.traffic import ingest_all, journal_labels, serve, toy_rows

pytestmark = pytest.mark.integration


def test_without_a_champion_the_monitoring_sensor_says_how_to_get_one(
    make_dagster: Callable[[Settings], Dagster], settings: Settings
) -> None:
    dagster = make_dagster(settings)
    assert "selfheal bootstrap" in skip_message(evaluate(dagster, "monitoring_sensor"))


def test_no_traffic_launches_no_run(dagster: Dagster) -> None:
    message = skip_message(evaluate(dagster, "monitoring_sensor"))
    assert message == "No prediction has been logged yet: waits for the first one. Next evaluation in 5 min."


def test_new_traffic_launches_one_run_and_the_same_state_none(dagster: Dagster) -> None:
    serve(dagster.platform, toy_rows(50))
    first = evaluate(dagster, "monitoring_sensor")
    assert isinstance(first, dg.SensorResult)
    assert len(first.run_requests or []) == 1
    assert "Nothing new" in skip_message(evaluate(dagster, "monitoring_sensor", cursor=first.cursor))


def test_a_new_label_alone_launches_a_run(dagster: Dagster) -> None:
    sent = serve(dagster.platform, toy_rows(50), labelled_share=0.0)
    first = evaluate(dagster, "monitoring_sensor")
    assert isinstance(first, dg.SensorResult)
    journal_labels(dagster.platform.settings.data_dir, sent.prediction_ids[:1], [1])
    ingest_all(dagster.platform)
    assert latest_activity(dagster.platform.store, datetime.now(UTC))[1] is not None
    assert isinstance(evaluate(dagster, "monitoring_sensor", cursor=first.cursor), dg.SensorResult)
