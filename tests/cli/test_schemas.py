"""`selfheal migrate`: the schemas of an older release become those of this one, in all three databases, or it says why not."""

from __future__ import annotations

import sys

import mlflow.store.db.utils as mlflow_database
import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.tracking.dbmodels.initial_models import Base as FirstSchema
from sqlalchemy import Engine, create_engine
from typer.testing import CliRunner, Result

from selfheal.adapters.postgres.store import DAGSTER_DATABASE, server_url
from selfheal.cli import app, schemas
from selfheal.kit.errors import ServiceUnavailableError
from selfheal.settings import Settings
from selfheal.simulate.demo import settings_environment


@pytest.fixture
def database_of_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of an empty platform, as commands read them."""
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    return settings


def migrated() -> Result:
    return CliRunner().invoke(app, ["migrate"])


def with_older_schema_of_mlflow(url: str) -> Engine:
    """A database with the tables of MLflow's release before the last one that changed them."""
    engine = create_engine(url)
    FirstSchema.metadata.create_all(engine)
    config = mlflow_database._get_alembic_config(str(engine.url))
    newest = ScriptDirectory.from_config(config).get_revision("head")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, str(newest.down_revision))
    return engine


def test_older_schemas_of_the_libraries_are_upgraded_and_ours_is_made(database_of_settings: Settings) -> None:
    """MLflow refuses to start on an older schema; Dagster starts and fails later."""
    uri = str(database_of_settings.mlflow_tracking_uri)
    mlflow = with_older_schema_of_mlflow(uri)
    with pytest.raises(Exception, match="out-of-date database schema"):
        mlflow_database._verify_schema(mlflow)

    first = migrated()
    assert first.exit_code == 0, first.output
    assert [line.split("'")[0] for line in first.output.splitlines()] == ["The platform", "Dagster", "MLflow"]
    mlflow_database._verify_schema(mlflow)
    with psycopg.connect(server_url(database_of_settings, database_of_settings.mlops_db_name)) as connection:
        assert connection.execute("SELECT count(*) FROM prediction_logs").fetchone() == (0,)

    with psycopg.connect(server_url(database_of_settings, DAGSTER_DATABASE)) as connection:
        newest = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("UPDATE alembic_version SET version_num = %s", (revision_before_last(),))
    assert migrated().exit_code == 0
    with psycopg.connect(server_url(database_of_settings, DAGSTER_DATABASE)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == newest
    mlflow.dispose()


def revision_before_last() -> str:
    """Of Dagster's schema."""
    from dagster._core.storage.sql import get_alembic_config
    from dagster_postgres import storage

    config = get_alembic_config(str(storage.__file__))
    return str(ScriptDirectory.from_config(config).get_revision("head").down_revision)


def test_the_schema_of_a_tracking_server_is_that_servers_business(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"mlflow_tracking_uri": "http://mlflow.example:5000"})
    assert [one.library for one in schemas.library_upgrades(elsewhere)] == ["Dagster"]


def test_no_password_is_in_a_command_line(settings: Settings) -> None:
    for upgrade in schemas.library_upgrades(settings):
        assert "@" not in " ".join(upgrade.command)
    assert upgrade.environment["PGDATABASE"] in str(settings.mlflow_tracking_uri)


def test_a_schema_that_cannot_be_upgraded_is_a_failure_with_its_reason_and_the_remedy(
    database_of_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = (sys.executable, "-c", "import sys; print('noise', file=sys.stderr); sys.exit('no room')")
    monkeypatch.setattr(schemas, "library_upgrades", lambda _: [schemas.Upgrade("MLflow", failing, {})])
    result = migrated()
    assert isinstance(result.exception, ServiceUnavailableError)
    assert "MLflow's schema could not be upgraded: no room; remove the cause and run `selfheal migrate`" in str(
        result.exception
    )
