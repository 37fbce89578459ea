"""Platforms copied from one another: databases by Postgres' templates, data folders file by file."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg

from selfheal.settings import Settings
from selfheal.store.embedded import EmbeddedServer
from tests.conftest import settings_for

WITH_MLFLOW = ("platform", "mlflow")


def copy_of(
    server: EmbeddedServer,
    source: str,
    source_dir: Path,
    name: str,
    data_dir: Path,
    kinds: tuple[str, ...] = ("platform",),
) -> Settings:
    """Settings of a copy. By default it shares MLflow's tables with what it was copied from."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for kind in kinds:  # pools keep connections for ever, and a database in use cannot be a template
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (f"{source}_{kind}",)
            )
            connection.execute(f"CREATE DATABASE {name}_{kind} TEMPLATE {source}_{kind}")
    shutil.copytree(source_dir, data_dir)
    settings = settings_for(server, data_dir, name)
    shared = settings_for(server, data_dir, source).mlflow_tracking_uri
    return settings if "mlflow" in kinds else settings.model_copy(update={"mlflow_tracking_uri": shared})
