"""Dagster's storage in the platform's Postgres; and what it needs of Dagster that has no public name."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pytest

from selfheal.adapters.postgres.migrate import ensure_database
from selfheal.adapters.postgres.store import DAGSTER_DATABASE
from selfheal.settings import Settings
from selfheal.simulate.demo import settings_environment
from selfheal_assets.storage import SelfhealPostgresStorage


def test_dagster_still_has_the_class_that_a_configured_storage_is_given() -> None:
    """`dagster._serdes.ConfigurableClassData`, named by `selfheal_assets.storage`: private, since there is no public name."""
    data = importlib.import_module("dagster._serdes").ConfigurableClassData
    assert data("selfheal_assets.storage", "SelfhealPostgresStorage", "{}\n").rehydrate.__name__ == "rehydrate"


@pytest.mark.integration
def test_dagsters_sessions_are_in_utc_whatever_the_servers_time_zone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster writes the database's clock into columns without a zone and reads them as UTC."""
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    ensure_database(settings.external_database_url(DAGSTER_DATABASE))
    with psycopg.connect(settings.external_database_url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER DATABASE dagster SET timezone TO 'Asia/Kolkata'")
        storage = SelfhealPostgresStorage.from_config_value(None, {})
        try:
            run = storage.run_storage.add_run(dg.DagsterRun(job_name="any"))
            (record,) = storage.run_storage.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
            assert abs(record.create_timestamp - datetime.now(UTC)) < timedelta(minutes=5)
            storage.run_storage.delete_run(run.run_id)
        finally:
            connection.execute("ALTER DATABASE dagster RESET timezone")
            for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
                part.dispose()


@pytest.mark.integration
def test_the_storage_is_that_of_the_settings_whatever_dagster_yaml_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    storage = SelfhealPostgresStorage.from_config_value(None, {})
    try:
        run = storage.run_storage.add_run(dg.DagsterRun(job_name="any"))
        with psycopg.connect(settings.external_database_url(DAGSTER_DATABASE)) as connection:
            assert connection.execute("SELECT 1 FROM runs WHERE run_id = %s", (run.run_id,)).fetchone()
        storage.run_storage.delete_run(run.run_id)
        assert storage.inst_data is None
        assert SelfhealPostgresStorage.config_type() == {}
    finally:
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part.dispose()
