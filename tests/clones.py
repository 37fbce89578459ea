"""Platforms copied from one another: databases by Postgres' templates, data folders file by file."""

from __future__ import annotations

import shutil
from pathlib import Path

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.settings import Settings
from tests.conftest import clone_databases, settings_for


def copy_of(
    server: EmbeddedServer,
    source: str,
    source_dir: Path,
    name: str,
    data_dir: Path,
    kinds: tuple[str, ...] = ("platform",),
) -> Settings:
    """Settings of a copy. By default it shares MLflow's tables with what it was copied from."""
    clone_databases(server, source, name, kinds)
    shutil.copytree(source_dir, data_dir)
    settings = settings_for(server, data_dir, name)
    shared = settings_for(server, data_dir, source).mlflow_tracking_uri
    return settings if "mlflow" in kinds else settings.model_copy(update={"mlflow_tracking_uri": shared})
