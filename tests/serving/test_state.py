"""`GET /health` and `GET /model/info`."""

from __future__ import annotations

import pytest

from selfheal.platform import open_platform
from selfheal.settings import Settings
from selfheal.store.models import move_to_production
from tests.serving.running import Api, api_in_thread, bodies, eventually, journal_rows, query
from tests.times import T0


def test_health_is_ok_when_everything_is_well(api: Api) -> None:
    api.post("/predict", bodies(1)[0])
    expected = {"status": "ok", "model_version": 1, "problems": [], "journal_lag_bytes": 0}
    eventually(lambda: api.health() == expected, "health is ok without lag")
    assert api.client.get("/health").status_code == 200


def test_model_info_tells_which_version_answers_and_where_it_came_from(api: Api) -> None:
    columns = ("threshold", "contract_hash", "artifact_sha256", "mlflow_run_id", "trigger_reason", "metrics")
    ((*stored,),) = query(api.settings, f"SELECT {', '.join(columns)} FROM model_metadata WHERE version = 1")
    info = api.info()
    assert {name: info[name] for name in columns} == dict(zip(columns, stored, strict=True))
    assert (info["model_name"], info["model_version"], info["stage"]) == ("machine_failure", 1, "Production")
    assert info["promoted_at"] == T0.isoformat().replace("+00:00", "Z")
    assert info["features"] == ["temperature_c", "load_ratio", "restarts", "strain"]


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
        move_to_production(platform.store, 1, None, T0, None)
        platform.close()
        eventually(lambda: api.client.get("/health").status_code == 200, "the API becomes ready by itself")
        assert api.post("/predict", bodies(1)[0]).json()["model_version"] == 1


@pytest.mark.parametrize("path", ["/health", "/model/info"])
def test_state_is_only_read(shared_api: Api, path: str) -> None:
    assert shared_api.client.post(path).status_code == 405
