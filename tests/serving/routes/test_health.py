"""`GET /health`, `/health/live` and `/health/ready`."""

from __future__ import annotations

import shutil

import psycopg
import pytest

from selfheal.services.platform import open_platform
from selfheal.settings import Settings
from tests.candidates import put_live
from tests.serving.running import Api, api_in_thread, bodies, journal_rows, query
from tests.times import T0
from tests.waiting import eventually


def test_health_is_ok_when_everything_is_well(api: Api) -> None:
    api.post("/predict", bodies(1)[0])
    expected = {"status": "ok", "model_version": 1, "problems": [], "journal_lag_bytes": 0}
    eventually(lambda: api.health() == expected, "health is ok without lag")
    assert api.client.get("/health").status_code == 200


def test_without_a_version_in_production_nothing_is_scored_and_a_promotion_is_enough(
    without_production: Settings,
) -> None:
    with api_in_thread(without_production) as api:
        health = api.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "not_ready")
        assert health.json()["model_version"] is None
        assert "no version is in production" in health.json()["problems"][0]
        for answer in (
            api.post("/predict", bodies(1)[0]),
            api.post("/predict/batch", {"instances": bodies(2)}),
            api.client.get("/model/info"),
        ):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == "not_ready"
            assert answer.headers["retry-after"]
        assert journal_rows(without_production) == []

        platform = open_platform(without_production)
        put_live(platform.store, 1, None, T0)
        platform.close()
        eventually(lambda: api.client.get("/health").status_code == 200, "the API becomes ready by itself")
        assert api.post("/predict", bodies(1)[0]).json()["model_version"] == 1


def test_an_api_that_cannot_score_is_alive_but_not_ready(without_production: Settings) -> None:
    with api_in_thread(without_production) as api:
        assert api.client.get("/health/live").json() == {"status": "alive"}
        ready = api.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")
        assert "no version is in production" in ready.json()["reasons"][0]


def test_a_journal_that_cannot_be_written_makes_the_api_not_ready_until_it_can_be_again(api: Api) -> None:
    folder = api.settings.data_dir / "audit" / "predictions"
    assert not list(folder.glob("*")), "no file is open yet"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to("nowhere")
    assert api.client.get("/health/ready").json() == {"status": "ready", "reasons": []}
    assert api.post("/predict", bodies(1)[0]).status_code == 503
    for path, reasons in (("/health/ready", "reasons"), ("/health", "problems")):
        answer = api.client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
        assert answer.json()[reasons]
        assert str(api.settings.data_dir) not in answer.text
    folder.unlink()
    eventually(lambda: api.client.get("/health/ready").status_code == 200, "the API is ready again by itself")
    assert api.post("/predict", bodies(1)[0]).status_code == 200


def test_a_postgres_that_hangs_makes_health_unknown_and_readiness_no_different(api: Api) -> None:
    url = api.settings.external_database_url(api.settings.mlops_db_name)
    eventually(lambda: api.health()["status"] == "ok", "all is well")
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE journal_positions, model_metadata IN ACCESS EXCLUSIVE MODE")
        for path in ("/health/live", "/health/ready"):
            assert api.client.get(path).status_code == 200
        health = api.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["journal_lag_bytes"] is None
        assert "unknown" in health.json()["problems"][0]
        assert api.post("/predict", bodies(1)[0]).status_code == 200
    eventually(lambda: api.health()["status"] == "ok", "Postgres answers again")


def test_a_postgres_that_lacks_a_table_is_said_and_no_failure_of_the_endpoint(api: Api) -> None:
    eventually(lambda: api.health()["status"] == "ok", "all is well")
    query(api.settings, "ALTER TABLE journal_positions RENAME TO gone")
    answer = api.client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["journal_lag_bytes"] is None
    assert "Postgres lacks a table" in answer.json()["problems"][0]
    assert api.post("/predict", bodies(1)[0]).status_code == 200
    query(api.settings, "ALTER TABLE gone RENAME TO journal_positions")
    eventually(lambda: api.health()["status"] == "ok", "the table is back")


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/model/info", "/model/versions"])
def test_state_is_only_read(shared_api: Api, path: str) -> None:
    assert shared_api.client.post(path).status_code == 405
