"""What follows Postgres is reconciled while nothing else runs: MLflow, and the pages of versions in Dagster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from selfheal.services.promotion.going_live import force_promote, rollback, stage
from selfheal_assets.sensors.registry import REPORTED_BY_ITS_RUN
from tests.candidates import passed, put_live, twin_of_champion
from tests.selfheal_assets.conftest import Dagster
from tests.selfheal_assets.sensors.evaluating import evaluate, skip_message
from tests.times import T0

pytestmark = pytest.mark.integration

NAME = "registry_sensor"
"""Dagster stores whether it was stopped, and its history, under this name."""


@pytest.fixture
def two(dagster: Dagster) -> Dagster:
    """Version 1 in production, version 2 staged."""
    verdict = passed(dagster.platform, twin_of_champion(dagster.platform))
    stage(dagster.platform, verdict.shadow, verdict.decision, T0)
    return dagster


def result_of(dagster: Dagster, cursor: str | None = None) -> dg.SensorResult:
    result = evaluate(dagster, NAME, cursor)
    assert isinstance(result, dg.SensorResult)
    return result


def test_mlflow_is_repaired_while_no_traffic_comes(two: Dagster) -> None:
    assert skip_message(result_of(two)).startswith("MLflow follows Postgres.")
    put_live(two.platform.store, 2, 1, T0)
    assert "alias production pointed at version 1 although version 2 is in production" in skip_message(result_of(two))
    assert two.platform.registry.alias_version(PRODUCTION_ALIAS) == 2
    assert skip_message(result_of(two)).startswith("MLflow follows Postgres.")


def test_each_version_that_went_live_without_a_run_is_reported_once_on_its_page(two: Dagster) -> None:
    """By the API or the command line; and by a release that had no partitions yet."""
    force_promote(two.platform, 2, reason="a person's word", actor="ada", now=T0 + timedelta(hours=1))
    rollback(two.platform, to_version=1, reason="a person's word", actor="ada", now=T0 + timedelta(hours=2))
    result = result_of(two)
    events = [event for event in result.asset_events if isinstance(event, dg.AssetMaterialization)]
    assert [(event.asset_key.to_user_string(), event.partition) for event in events] == [
        ("production_model", "1"),
        ("production_model", "2"),
        ("production_model", "1"),
    ]
    assert [event.metadata["replaced_version"].value for event in events] == ["none", 1, 2]
    (new_partitions,) = result.dynamic_partitions_requests or []
    assert new_partitions.partition_keys == ["1", "2"]
    assert "Reported as live: version 1, 2." in skip_message(result)
    assert result_of(two, result.cursor).asset_events == []

    for event in events:  # what the daemon does with them
        two.instance.report_runless_asset_event(event)
    assert result_of(two, cursor=None).asset_events == [], "even if the cursor is lost"


def test_what_a_run_reports_itself_is_left_to_it(two: Dagster) -> None:
    force_promote(two.platform, 2, reason="a person's word", actor="ada", now=datetime.now(UTC))
    result = result_of(two)
    assert [event.partition for event in result.asset_events] == ["1"], f"2 is live for less than {REPORTED_BY_ITS_RUN}"


@pytest.mark.parametrize("cursor", ["", "yesterday", "-1"])
def test_a_cursor_that_a_person_wrote_stops_nothing(two: Dagster, cursor: str) -> None:
    put_live(two.platform.store, 2, 1, T0)
    result = result_of(two, cursor)
    assert {event.partition for event in result.asset_events if isinstance(event, dg.AssetMaterialization)} == {
        "1",
        "2",
    }
