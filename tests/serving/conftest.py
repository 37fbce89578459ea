"""Fixtures of the API's tests: the real app over a socket, alone or shared, with one registered version or two."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.domain.records import Trigger
from selfheal.services.platform import open_platform
from selfheal.settings import Settings
from tests.adapters.alerting.test_delivery import Webhook
from tests.conftest import TEMPLATE, WITH_MLFLOW, clone_databases, settings_for
from tests.local_server import served
from tests.serving.history import ADA, API_KEYS, platform_of, write_past
from tests.serving.running import Api, api_in_thread, query
from tests.times import T0

TWO_VERSIONS = "two_versions"
_numbers = itertools.count(1)


def clone(
    server: EmbeddedServer,
    template: str,
    template_dir: Path,
    name: str,
    data_dir: Path,
    kinds: tuple[str, ...] = ("platform",),
) -> Settings:
    """Settings of a copy of a platform. MLflow's tables are copied on request: serving has the model in its cache."""
    clone_databases(server, template, name, kinds)
    shutil.copytree(template_dir, data_dir)
    return settings_for(server, data_dir, name, champion_poll_seconds=0.1, ingest_interval_seconds=0.05)


@pytest.fixture
def api_settings(server: EmbeddedServer, bootstrapped_template: Path, tmp_path: Path) -> Settings:
    """Settings of a platform with version 1 in production, and an API that looks and copies often."""
    return clone(server, TEMPLATE, bootstrapped_template, f"api{next(_numbers)}", tmp_path / "api")


@pytest.fixture
def api(api_settings: Settings) -> Iterator[Api]:
    """An API of the test's own."""
    with api_in_thread(api_settings) as running:
        yield running


@pytest.fixture(scope="package")
def shared_api(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """One API for tests that only ask."""
    data_dir = tmp_path_factory.mktemp("shared_api") / "data"
    with api_in_thread(clone(server, TEMPLATE, bootstrapped_template, f"shared{next(_numbers)}", data_dir)) as running:
        yield running


@pytest.fixture
def server_url(server: EmbeddedServer) -> str:
    """Where other databases than the platform's are: one that connects there is not in the way of what it does to them."""
    return server.url("postgres")


@pytest.fixture(scope="package")
def watched_api(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """One API with keys and a past, for tests that only read. Its client sends the key of `ada`, who may do everything."""
    data_dir = tmp_path_factory.mktemp("watched_api") / "data"
    settings = clone(server, TEMPLATE, bootstrapped_template, f"watched{next(_numbers)}", data_dir)
    with_keys = settings.model_copy(update={"api_keys": SecretStr(API_KEYS)})
    with platform_of(with_keys) as platform:
        write_past(platform, datetime.now(UTC))
    with api_in_thread(with_keys) as running:
        running.client.headers["X-API-Key"] = ADA
        yield running


@pytest.fixture(scope="session")
def two_versions_template(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The template with a second, staged version, trained on other rows."""
    from selfheal.adapters.datasets import load_dataset
    from selfheal.services.promotion.going_live import stage
    from selfheal.services.retraining import decide_retraining, gather_training_set, train_shadow

    data_dir = tmp_path_factory.mktemp(TWO_VERSIONS) / "data"
    platform = open_platform(clone(server, TEMPLATE, bootstrapped_template, TWO_VERSIONS, data_dir, WITH_MLFLOW))
    dataset = load_dataset(platform.settings.model_copy(update={"random_seed": 77}), platform.contract)
    decision = decide_retraining(platform, Trigger.BOOTSTRAP, episode_id=None, actor="test", reason="again", now=T0)
    rows = gather_training_set(platform, decision, dataset, decision.created_at)
    assert stage(platform, train_shadow(platform, rows, T0), decision, T0).version == 2
    platform.close()
    return data_dir


@pytest.fixture
def two_versions(server: EmbeddedServer, two_versions_template: Path, tmp_path: Path) -> Settings:
    """Settings of a platform with version 1 in production and version 2 staged."""
    return clone(server, TWO_VERSIONS, two_versions_template, f"two{next(_numbers)}", tmp_path / "two", WITH_MLFLOW)


@pytest.fixture
def without_production(api_settings: Settings) -> Settings:
    """Settings of a platform whose only version is not in production yet."""
    query(api_settings, "UPDATE model_metadata SET stage = 'Staging', promoted_at = NULL")
    return api_settings


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with served(Webhook()) as server:
        yield server
