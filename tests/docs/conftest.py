"""The platform that the commands of the pages are run on: as the README leaves it, without a word of configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner, Result

from selfheal.adapters.postgres.embedded import release
from selfheal.adapters.postgres.migrate import ensure_database
from selfheal.adapters.postgres.store import DAGSTER_DATABASE, server_url
from selfheal.cli import app
from selfheal.domain.records import Trigger
from selfheal.services.platform import Platform, open_platform
from selfheal.services.retraining import decide_retraining, gather_training_set, judge, train_shadow
from selfheal.settings import load_settings
from tests.serving.running import Api, api_in_thread

SYNTHETIC_ROWS = 3_000


@dataclass
class House:
    """A platform of the shipped use case in `folder`/data, its first version in production, and its API running."""

    folder: Path
    api: Api
    _parts: ExitStack

    @property
    def url(self) -> str:
        return str(self.api.client.base_url).rstrip("/")

    def selfheal(self, *arguments: str) -> Result:
        """Runs a command where the platform is."""
        return CliRunner().invoke(app, list(arguments))

    def stop(self) -> None:
        """Stops the API and Postgres; the files stay."""
        self._parts.close()
        release(self.folder / "data" / "postgres")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with at_home(folder), ExitStack() as parts:
        parts.callback(release, folder / "data" / "postgres")
        platform = open_platform(load_settings())
        ensure_database(server_url(platform.settings, DAGSTER_DATABASE))  # Dagster would have made it
        bootstrap(platform, datetime.now(UTC))
        parts.callback(platform.close)
        api = parts.enter_context(api_in_thread(platform.settings))
        with patch.dict(os.environ, API_PORT=str(api.client.base_url.port)):
            yield House(folder, api, parts)


@contextmanager
def at_home(folder: Path) -> Iterator[None]:
    """In a folder of its own, with the wanted size of the synthetic data as the only setting."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with patch.dict(os.environ, SYNTHETIC_ROWS=str(SYNTHETIC_ROWS)):
            yield
    finally:
        os.chdir(before)


def bootstrap(platform: Platform, now: datetime) -> None:
    """Trains and promotes a first version, as `bootstrap_job` does, without Dagster."""
    from selfheal.adapters.datasets import load_dataset
    from selfheal.adapters.postgres.baseline import write_baseline
    from selfheal.services.promotion.going_live import promote

    dataset = load_dataset(platform.settings, platform.contract)
    write_baseline(platform.store, dataset.frame, dataset.description, now, platform.settings.data_dir)
    decision = decide_retraining(
        platform, Trigger.BOOTSTRAP, episode_id=None, actor="bootstrap", reason="no version in production yet", now=now
    )
    rows = gather_training_set(platform, decision, dataset, decision.created_at)
    promote(platform, judge(platform, train_shadow(platform, rows, now), rows, now), now)
