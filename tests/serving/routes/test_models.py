"""`GET /model/info` and `GET /model/versions`."""

from __future__ import annotations

from typing import Any

from tests.serving.running import Api, query
from tests.times import T0


def test_model_info_tells_which_version_answers_and_where_it_came_from(api: Api) -> None:
    columns = ("threshold", "contract_hash", "artifact_sha256", "mlflow_run_id", "trigger_reason", "metrics")
    ((*stored,),) = query(api.settings, f"SELECT {', '.join(columns)} FROM model_metadata WHERE version = 1")
    info = api.info()
    assert {name: info[name] for name in columns} == dict(zip(columns, stored, strict=True))
    assert (info["model_name"], info["model_version"], info["stage"]) == ("machine_failure", 1, "Production")
    assert info["promoted_at"] == T0.isoformat().replace("+00:00", "Z")
    assert info["features"] == ["temperature_c", "load_ratio", "restarts", "strain"]


def test_versions_are_listed_newest_first_with_all_that_a_risk_officer_asks(watched_api: Api) -> None:
    versions = watched_api.client.get("/model/versions").json()["versions"]
    assert [(v["model_version"], v["stage"]) for v in versions] == [(3, "Archived"), (2, "Staging"), (1, "Production")]
    columns = ", ".join(name for name in versions[2] if name != "model_version")
    ((stored,),) = query(
        watched_api.settings,
        f"SELECT row_to_json(v) FROM (SELECT version AS model_version, {columns} FROM model_metadata WHERE version = 1) v",
    )
    times = {name for name in stored if name.endswith("_at") or name.startswith("training_window")}
    assert {k: v for k, v in versions[2].items() if k not in times} == {
        k: v for k, v in stored.items() if k not in times
    }
    assert {name for name in times if versions[2][name] is None} == {name for name in times if stored[name] is None}
    assert versions[0]["promoted_at"] < versions[0]["archived_at"]
    assert versions[1]["promoted_at"] is None


def test_versions_can_be_limited_and_asked_for_by_stage(watched_api: Api) -> None:
    def listed(**question: Any) -> list[int]:
        answer = watched_api.client.get("/model/versions", params=question)
        return [version["model_version"] for version in answer.json()["versions"]]

    assert listed(limit=1) == [3]
    assert listed(stage="Production") == [1]
    assert listed(stage="Staging", limit=5) == [2]
