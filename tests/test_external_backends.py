"""The whole loop on external servers: MLflow over HTTP, Postgres over TCP, S3 below both, as deployments have them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from selfheal.adapters.mlflow_registry import EXPERIMENT, PRODUCTION_ALIAS
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.adapters.postgres.migrate import ensure_database
from selfheal.domain.records import Action, Trigger
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import promote, rollback
from selfheal.services.promotion.registry_sync import watch_registry
from selfheal.services.verification.run import verify_everything
from selfheal.settings import Settings, load_settings
from tests.candidates import champion, mlflow_client
from tests.conftest import drop_databases, settings_for
from tests.forwarder import forwarded
from tests.object_store import Bucket
from tests.processes import selfheal, start, stop
from tests.services.steps import decide, retrain, tick
from tests.serving.running import Api, api_in_thread, bodies, environment_of, free_port
from tests.traffic import serve, toy_rows
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.long]

NAME = "external"
HOUR = timedelta(hours=1)


@pytest.fixture
def tracking_server(server: EmbeddedServer, bucket: Bucket, tmp_path: Path) -> Iterator[str]:
    """MLflow's own server, which hands artifacts through: nobody else sees its bucket or its database."""
    folder, port = tmp_path, free_port()
    ensure_database(server.url(f"{NAME}_mlflow"))
    backend = server.url(f"{NAME}_mlflow").replace("postgresql://", "postgresql+psycopg2://")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", f"{bucket.url}/mlflow"]
    process = start(command, os.environ | {"MLFLOW_BACKEND_STORE_URI": backend}, folder / "log")
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/health"), f"it answers; see {folder / 'log'}", 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)
        drop_databases(server, NAME)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def platform(server: EmbeddedServer, tracking_server: str, bucket: Bucket, tmp_path: Path) -> Iterator[Platform]:
    """An empty platform whose servers are all elsewhere."""
    with forwarded(settings_for(server, tmp_path / "data", NAME), server.socket_dir) as (settings, network):
        network.mend()
        elsewhere = {"mlflow_tracking_uri": tracking_server, "assets_url": f"{bucket.url}/assets"}
        opened = open_platform(load_settings(**settings.model_dump(exclude_unset=True) | elsewhere))
        yield opened
        opened.close()


def test_the_loop_bootstraps_heals_rolls_back_and_is_repaired_on_external_servers(
    platform: Platform, bucket: Bucket
) -> None:
    bootstrap(platform.settings)
    assert (champion(platform).version, platform.registry.alias_version(PRODUCTION_ALIAS)) == (1, 1)
    stored = {(key.split("/")[0], key.rpartition("/")[2]) for key in bucket.listed()}
    assert stored >= {("mlflow", "model.skops"), ("mlflow", "training_set.parquet")}
    assert {folder for folder, _ in stored} == {"mlflow", "assets"}
    in_data_dir = {path.name for path in platform.settings.data_dir.iterdir()}
    assert not in_data_dir & {"assets", "mlflow", "postgres"}, "nothing of theirs on this disk"

    start_at = datetime.now(UTC)
    sent = serve(platform, toy_rows(1_500, scenario="overheating"), start=start_at)
    tick(platform, sent.last_at)
    verdict = retrain(platform, decide(platform, Trigger.MANUAL, sent.last_at + HOUR), sent.last_at + HOUR)
    assert verdict.decision.action is Action.PROMOTE, verdict.decision.reason
    promote(platform, verdict, sent.last_at + HOUR)
    assert (champion(platform).version, platform.registry.alias_version(PRODUCTION_ALIAS)) == (2, 2)
    assert [one for result in verify_everything(platform).results for one in result.findings] == []

    empty_cache(platform)
    with api_in_thread(platform.settings) as api:
        scored_by(api, 2)
        rollback(platform, to_version=None, reason="test", actor="test", now=sent.last_at + 2 * HOUR)
        eventually(lambda: api.info()["model_version"] == 1, "the API follows")
        scored_by(api, 1)
    assert platform.registry.stage_tags() == {1: "Production", 2: "Archived"}

    client = mlflow_client(platform)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    client.delete_registered_model(platform.contract.name)
    assert len(watch_registry(platform, sent.last_at + 3 * HOUR)) >= 2
    assert watch_registry(platform, sent.last_at + 3 * HOUR) == []
    assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1


def bootstrap(settings: Settings) -> None:
    """As a person does it: the Dagster job, in a process of its own."""
    done = subprocess.run(
        selfheal("bootstrap"), env=environment_of(settings), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Version 1 is in production" in done.stdout


def empty_cache(platform: Platform) -> None:
    for path in (platform.settings.data_dir / "cache").iterdir():
        path.unlink()


def scored_by(api: Api, version: int) -> None:
    answer = api.post("/predict", bodies(1)[0])
    assert (answer.status_code, answer.json()["model_version"]) == (200, version)
