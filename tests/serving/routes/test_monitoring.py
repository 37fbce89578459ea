"""`GET /monitoring/...`: what the monitor saw is told as it is; what is not known is null; Postgres away is a 503."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from selfheal.adapters.postgres import alerts
from selfheal.domain.records import Verdict
from selfheal.services.reports.files import results_folder
from selfheal.settings import Settings
from tests.serving.history import READER, add_tick, alert, platform_of
from tests.serving.running import Api, api_in_thread, bodies, query
from tests.serving.schemas.test_problems import assert_problem
from tests.waiting import eventually

READING = (
    "/model/info",
    "/model/versions",
    "/monitoring/stats",
    "/monitoring/drift",
    "/monitoring/alerts",
    "/decisions",
    "/decisions/past-1",
)
FROM_POSTGRES = READING[1:]


def answer_of(api: Api, path: str, **question: Any) -> Any:
    answer = api.client.get(path, params=question)
    assert answer.status_code == 200, answer.text
    return answer.json()


def as_reader(api: Api) -> httpx.Client:
    return httpx.Client(base_url=api.client.base_url, headers={"Authorization": f"Bearer {READER}"})


def as_stranger(api: Api) -> httpx.Client:
    return httpx.Client(base_url=api.client.base_url)


# Stats


def test_stats_tell_the_latest_tick_of_the_version_in_production(watched_api: Api) -> None:
    stats = answer_of(watched_api, "/monitoring/stats")
    tick = stats["tick"]
    assert stats["model_version"] == tick["model_version"] == 1
    assert (tick["verdict"], tick["reasons"]) == ("harmful_shift", ["losing", "load_ratio drifted"])
    assert (tick["n_predictions"], tick["n_labels"], tick["label_coverage_pct"]) == (1_000, 400, 40.0)
    names = ("positive_rate", "probability_mean", "probability_std", "entropy")
    assert [tick[name] for name in names] == [0.2, 0.3, 0.1, 0.9]
    assert tick["estimated"] == {"f1": 0.6, "auc_roc": None, "brier": 0.12}
    assert (tick["realised"]["f1"], tick["realised"]["n_rows"]) == (0.59, 400)
    age = datetime.now(UTC) - datetime.fromisoformat(tick["created_at"])
    assert stats["tick_age_seconds"] == pytest.approx(age.total_seconds(), abs=60)
    assert stats["tick_age_seconds"] >= 600


def test_before_the_first_tick_everything_is_unknown_and_nothing_healthy(shared_api: Api) -> None:
    stats = answer_of(shared_api, "/monitoring/stats")
    assert stats["model_version"] == 1
    assert stats["tick"] is stats["tick_age_seconds"] is None
    drift = answer_of(shared_api, "/monitoring/drift")
    assert drift == {"model_version": 1, "latest": None, "history": []}


def test_without_a_version_in_production_there_is_no_tick_to_tell(without_production: Settings) -> None:
    with platform_of(without_production) as platform:
        add_tick(platform, datetime.now(UTC))
    with api_in_thread(without_production) as api:
        assert answer_of(api, "/monitoring/stats") == {
            "model_version": None,
            "tick": None,
            "tick_age_seconds": None,
            "unseen_since": None,
            "is_overdue": False,
        }
        assert answer_of(api, "/monitoring/drift")["latest"] is None


def test_a_monitor_that_no_longer_looks_shows_as_soon_as_traffic_has_waited_too_long(api: Api) -> None:
    def stats() -> dict[str, Any]:
        found: dict[str, Any] = answer_of(api, "/monitoring/stats")
        return found

    with platform_of(api.settings) as platform:
        add_tick(platform, datetime.now(UTC) - timedelta(days=3))
    assert (stats()["unseen_since"], stats()["is_overdue"]) == (None, False), "an old tick, but nothing to look at"
    api.post("/predict", bodies(1)[0])
    unseen = eventually(lambda: stats()["unseen_since"], "the prediction is in the table")
    assert not stats()["is_overdue"]
    made_at = datetime.fromisoformat(unseen)
    query(api.settings, "UPDATE prediction_logs SET created_at = %s", made_at - timedelta(hours=1))
    assert stats()["is_overdue"], "three intervals of 300 s are over"
    with platform_of(api.settings) as platform:
        add_tick(platform, made_at)
    assert (stats()["unseen_since"], stats()["is_overdue"]) == (None, False)


# Drift


def test_drift_tells_the_latest_comparison_column_by_column(watched_api: Api) -> None:
    latest = answer_of(watched_api, "/monitoring/drift")["latest"]
    assert (latest["feature_drift_ratio"], latest["num_drifted_features"]) == (0.5, 2)
    assert latest["drifted_features"] == ["temperature_c", "load_ratio"]
    assert (latest["dataset_drift_detected"], latest["reference_version"]) == (False, 1)
    assert latest["baseline_drifted_features"] == ["restarts"]
    effects = {column["column"]: (column["effect"], column["is_drifted"]) for column in latest["columns"]}
    assert effects == {
        "load_ratio": (0.2, True),
        "temperature_c": (0.6, True),
        "restarts": (0.02, False),
        "probability": (0.4, True),
    }


def test_the_history_of_drift_is_bounded_by_hours_and_by_number_newest_first(watched_api: Api) -> None:
    def verdicts(**question: Any) -> list[tuple[int, str]]:
        history = answer_of(watched_api, "/monitoring/drift", **question)["history"]
        assert [tick["created_at"] for tick in history] == sorted((t["created_at"] for t in history), reverse=True)
        return [(tick["model_version"], tick["verdict"]) for tick in history]

    a_day = [(1, "harmful_shift"), (1, "stable"), (1, "harmful_shift")]
    assert verdicts() == a_day
    assert verdicts(hours=1) == a_day[:1]
    assert verdicts(limit=2) == a_day[:2]
    assert verdicts(hours=24 * 90) == [*a_day, (3, "stable")]


def test_without_the_ticks_file_its_columns_are_unknown_and_the_rest_is_told(api: Api) -> None:
    with platform_of(api.settings) as platform:
        add_tick(platform, datetime.now(UTC), has_file=False)
        assert not results_folder(platform.settings.data_dir).exists()
    latest = answer_of(api, "/monitoring/drift")["latest"]
    assert latest["columns"] is latest["baseline_drifted_features"] is None
    assert latest["feature_drift_ratio"] == 0.5


# Alerts


def test_open_alerts_come_first_and_resolved_ones_can_be_left_out(watched_api: Api) -> None:
    def kinds(**question: Any) -> list[str]:
        return [one["kind"] for one in answer_of(watched_api, "/monitoring/alerts", **question)["alerts"]]

    assert set(kinds(only_open=True)) == set(kinds(limit=2)) == {"harmful_shift", "feature_drift"}
    assert kinds() == [*kinds(only_open=True), "dataset_drift"]
    assert len(kinds(limit=1)) == 1
    resolved = answer_of(watched_api, "/monitoring/alerts")["alerts"][2]
    assert (resolved["resolved_by"], resolved["model_version"]) == ("monitoring", 1)
    assert resolved["created_at"] < resolved["resolved_at"]
    assert resolved["metrics"] == {"brier_excess": 0.1, "estimated_auc_roc": None}


def test_the_first_to_acknowledge_an_alert_stays_and_the_alert_stays_open(watched_api: Api) -> None:
    (first, _) = answer_of(watched_api, "/monitoring/alerts", only_open=True)["alerts"]
    assert first["acknowledged_at"] is first["acknowledged_by"] is None
    path = f"/monitoring/alerts/{first['alert_id']}/acknowledge"
    acknowledged = watched_api.client.post(path)
    assert acknowledged.status_code == 200
    assert acknowledged.json()["acknowledged_by"] == "ada"
    assert acknowledged.json()["resolved_at"] is None
    with platform_of(watched_api.settings) as platform:
        assert not alerts.acknowledge_alert(platform.store, first["alert_id"], "bob", datetime.now(UTC))
    assert watched_api.client.post(path).json() == acknowledged.json()
    assert acknowledged.json() in answer_of(watched_api, "/monitoring/alerts", only_open=True)["alerts"]


def test_an_acknowledgement_keeps_a_note_and_a_resolved_alert_can_be_acknowledged(watched_api: Api) -> None:
    (resolved,) = (a for a in answer_of(watched_api, "/monitoring/alerts")["alerts"] if a["resolved_at"] is not None)
    path = f"/monitoring/alerts/{resolved['alert_id']}/acknowledge"
    for wrong in ({"note": ""}, {"note": "x" * 1_001}, {"note": "a\x00b"}, {"nota": "x"}, {"note": 7}):
        assert_problem(watched_api.client.post(path, json=wrong), 422)
    acknowledged = watched_api.client.post(path, json={"note": "it was the upstream change"}).json()
    assert acknowledged["acknowledged_note"] == "it was the upstream change"
    assert acknowledged["resolved_at"] == resolved["resolved_at"]
    again = watched_api.client.post(path, json={"note": "no, it was I"}).json()
    assert again == acknowledged, "the first to say so stays"


def test_acknowledging_takes_the_scope_admin(watched_api: Api) -> None:
    (alert_id, *_) = (one["alert_id"] for one in answer_of(watched_api, "/monitoring/alerts")["alerts"][1:])
    path = f"/monitoring/alerts/{alert_id}/acknowledge"
    with as_reader(watched_api) as reader:
        assert_problem(reader.post(path), 403)
    with as_stranger(watched_api) as stranger:
        assert_problem(stranger.post(path), 401)
    (untouched,) = (o for o in answer_of(watched_api, "/monitoring/alerts")["alerts"] if o["alert_id"] == alert_id)
    assert untouched["acknowledged_at"] is None


def test_an_alert_that_is_not_there_is_a_404_and_an_id_that_is_none_a_422(watched_api: Api) -> None:
    def acknowledge(alert_id: str) -> httpx.Response:
        return watched_api.client.post(f"/monitoring/alerts/{alert_id}/acknowledge")

    unknown = str(uuid4())
    assert unknown in assert_problem(acknowledge(unknown), 404)["detail"]
    for wrong in ("7", "%00", f"{unknown}%00", "past-1", "%F0%9F%92%A5"):
        assert "alert_id" in assert_problem(acknowledge(wrong), 422)["detail"]


# Questions and doors, for every reading endpoint


@pytest.mark.parametrize(
    ("path", "question", "named"),
    [
        *(
            (path, {"limit": limit}, "limit")
            for path in FROM_POSTGRES[:1]
            for limit in (0, -1, 501, "ten", "5.0", "1_0", "")
        ),
        *((path, {"limit": 501}, "limit") for path in ("/monitoring/drift", "/monitoring/alerts", "/decisions")),
        *((path, {"limti": 5}, "limti") for path in FROM_POSTGRES[:-1]),
        ("/model/versions", {"stage": "production"}, "stage"),
        ("/model/versions", {"stage": "Production\x00"}, "stage"),
        ("/monitoring/drift", {"hours": 0}, "hours"),
        ("/monitoring/drift", {"hours": 24 * 90 + 1}, "hours"),
        ("/monitoring/drift", {"hours": "9" * 5_000}, "hours"),
        ("/monitoring/alerts", {"only_open": "yes"}, "only_open"),
        ("/decisions", {"action": "explode"}, "action"),
        ("/decisions", {"before": 0}, "before"),
        ("/decisions", {"before": 2**63}, "before"),
        ("/decisions", {"before": "\x00"}, "before"),
    ],
    ids=str,
)
def test_a_wrong_question_is_named(watched_api: Api, path: str, question: dict[str, Any], named: str) -> None:
    assert named in assert_problem(watched_api.client.get(path, params=question), 422)["detail"]


@pytest.mark.parametrize("path", READING)
def test_reading_takes_a_key_with_the_scope_read(watched_api: Api, path: str) -> None:
    with as_reader(watched_api) as reader:
        assert reader.get(path).status_code == 200
    with as_stranger(watched_api) as stranger:
        assert_problem(stranger.get(path), 401)


def test_while_postgres_is_away_nothing_is_told_and_nothing_old_either(api: Api, server_url: str) -> None:
    name = api.settings.mlops_db_name
    with platform_of(api.settings) as platform:
        add_tick(platform, datetime.now(UTC), alerts=[alert("dataset_drift")])
        (row,) = alerts.list_alerts(platform.store)
    asked = [("GET", path) for path in FROM_POSTGRES]
    asked.append(("POST", f"/monitoring/alerts/{row.alert_id}/acknowledge"))
    assert answer_of(api, "/monitoring/stats")["tick"]["verdict"] == Verdict.HARMFUL_SHIFT
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        for method, path in asked:
            answer = api.client.request(method, path)
            assert_problem(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
        assert api.client.get("/model/info").status_code == 200, "what answers is known without Postgres"
        assert api.client.get("/health/ready").status_code == 200
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    eventually(lambda: api.client.get("/monitoring/stats").status_code == 200, "Postgres is asked again")
