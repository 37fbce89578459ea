"""`GET /overview`, `/monitoring/history`, `/monitoring/drift/{column}`: one wording, bounded answers, and unknown told as such."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from selfheal.domain.records import Action, Verdict
from selfheal.services.reports.files import results_folder
from selfheal.services.status import SENTENCES, overview
from selfheal.settings import Settings
from tests.serving.history import SCORER, add_tick, alert, platform_of
from tests.serving.routes.test_monitoring import answer_of, as_reader, as_stranger
from tests.serving.running import Api, api_in_thread
from tests.serving.schemas.test_problems import assert_problem
from tests.traffic import serve, toy_rows

PATHS = ("/overview", "/monitoring/history", "/monitoring/drift/load_ratio")


# Overview


def test_the_overview_says_what_the_command_line_says(watched_api: Api) -> None:
    told = answer_of(watched_api, "/overview")
    with platform_of(watched_api.settings) as platform:
        printed = overview(platform)
    assert (told["sentence"], told["tone"]) == (printed["sentence"], printed["tone"])
    assert told["sentence"] == SENTENCES[Verdict.HARMFUL_SHIFT]
    assert told["probation"] == printed["model"]["probation"]
    assert told["reasons"] == ["losing", "load_ratio drifted"]
    assert (told["n_open_alerts"], told["worst_severity"]) == (2, "critical")
    assert (told["model"]["model_version"], told["use_case"]) == (1, "machine_failure")


def test_the_overview_says_what_the_key_that_asks_is_good_for(watched_api: Api, shared_api: Api) -> None:
    with as_reader(watched_api) as reader:
        told = reader.get("/overview").json()
    assert (told["caller"], told["asks_for_keys"]) == ({"name": "reader", "scopes": ["read"]}, True)
    told = answer_of(shared_api, "/overview")
    assert (told["caller"]["name"], told["asks_for_keys"]) == ("local", False)
    assert "admin" in told["caller"]["scopes"]


def test_before_the_first_look_and_without_a_model_nothing_looks_good(
    shared_api: Api, without_production: Settings
) -> None:
    told = answer_of(shared_api, "/overview")
    assert (told["tone"], told["stats"]["tick"], told["reasons"]) == ("unknown", None, [])
    with api_in_thread(without_production) as api:
        told = answer_of(api, "/overview")
        assert (told["tone"], told["model"], told["probation"]) == ("unknown", None, None)


# History


def test_history_is_thinned_to_so_many_points_and_says_what_went_live(watched_api: Api) -> None:
    told = answer_of(watched_api, "/monitoring/history", hours=24, points=24)
    assert told["step_seconds"] == 3_600
    assert [step["verdict"] for step in told["steps"]] == ["harmful_shift", "stable", "harmful_shift"]
    assert sum(step["n_ticks"] for step in told["steps"]) == 3
    assert len(answer_of(watched_api, "/monitoring/history", hours=720, points=10)["steps"]) <= 11
    of_all = answer_of(watched_api, "/monitoring/history", hours=2_160, points=10)["promotions"]
    assert all(promotion["action"] == Action.PROMOTE for promotion in of_all)


def test_drift_is_told_of_every_column_and_only_where_it_is_known(watched_api: Api) -> None:
    told = answer_of(watched_api, "/monitoring/history", hours=24, points=24)
    rows = {row["column"]: row for row in told["drift"]}
    assert list(rows) == ["temperature_c", "load_ratio", "restarts", "strain", "probability"]
    assert rows["temperature_c"]["drifted_share"] == [1.0, 1.0, 1.0], "from Postgres"
    assert rows["temperature_c"]["effect"] == [None, 0.6, 0.6], "from the ticks' files, of which the first is missing"
    assert rows["probability"]["drifted_share"] == [None, 1.0, 1.0]
    assert rows["strain"]["drifted_share"] == [0.0, 0.0, 0.0]
    assert rows["strain"]["effect"] == [None, None, None]


def test_quality_has_intervals_as_far_as_this_host_knows_them(api: Api) -> None:
    with platform_of(api.settings) as platform:
        add_tick(platform, datetime.now(UTC) - timedelta(minutes=1))
    (step,) = answer_of(api, "/monitoring/history")["steps"]
    assert step["realised"]["f1"] == {"value": 0.59, "low": None, "high": None}
    assert "auc_roc" not in step["estimated"], "it was not estimated"
    shutil.rmtree(results_folder(api.settings.data_dir))
    (step,) = answer_of(api, "/monitoring/history")["steps"]
    assert step["realised"]["f1"]["value"] == 0.59


# One column


def test_a_column_is_told_beside_its_reference_in_the_same_bars(api: Api) -> None:
    now = datetime.now(UTC)
    with platform_of(api.settings) as platform:
        sent = serve(platform, toy_rows(400, scenario="overheating"), start=now - timedelta(hours=1))
        add_tick(platform, sent.last_at + timedelta(seconds=1), alerts=[alert("dataset_drift")])
    told = answer_of(api, "/monitoring/drift/temperature_c")
    assert (told["compared"]["n_current"], told["unit"]) == (400, "degrees Celsius")
    bars = told["bars"]
    assert len(bars["labels"]) == len(bars["reference_pct"]) == len(bars["current_pct"])
    assert sum(bars["reference_pct"]) == pytest.approx(100, abs=0.5)
    assert sum(bars["current_pct"]) == pytest.approx(100, abs=0.5)
    mean = [sum(place * share for place, share in enumerate(bars[side])) for side in ("reference_pct", "current_pct")]
    assert mean[1] > mean[0] + 100, "it is 25 degrees hotter"
    assert (told["drift"]["effect"], told["drift"]["is_drifted"]) == (0.6, True)
    assert told["compared"]["reference_missing_pct"] == pytest.approx(5, abs=3)
    assert answer_of(api, "/monitoring/drift/probability")["unit"] == "probability"


def test_a_column_before_the_first_look_is_described_and_nothing_else(shared_api: Api) -> None:
    told = answer_of(shared_api, "/monitoring/drift/load_ratio")
    assert (told["compared"], told["bars"], told["drift"]) == (None, None, None)
    assert told["description"] == "Load over rated load"


def test_a_column_that_does_not_exist_is_not_found(shared_api: Api) -> None:
    assert_problem(shared_api.client.get("/monitoring/drift/colour"), 404)


# All of them


@pytest.mark.parametrize("path", PATHS)
def test_reading_takes_the_scope_read(watched_api: Api, path: str) -> None:
    with as_stranger(watched_api) as stranger:
        assert_problem(stranger.get(path), 401)
    assert_problem(httpx.get(f"{watched_api.client.base_url}{path}", headers={"X-API-Key": SCORER}), 403)
    with as_reader(watched_api) as reader:
        assert reader.get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "question"),
    [
        ("/overview", {"limit": 1}),
        ("/monitoring/history", {"hours": 0}),
        ("/monitoring/history", {"hours": 2_161}),
        ("/monitoring/history", {"points": 401}),
        ("/monitoring/history", {"points": "1e2"}),
        ("/monitoring/history", {"hour": 5}),
        ("/monitoring/drift/load_ratio", {"bins": 5}),
    ],
)
def test_a_question_that_is_not_understood_is_refused_by_name(
    shared_api: Api, path: str, question: dict[str, Any]
) -> None:
    assert_problem(shared_api.client.get(path, params=question), 422, field=f"query.{next(iter(question))}")


def test_without_postgres_nothing_is_told(api: Api, server_url: str) -> None:
    name = api.settings.mlops_db_name
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        for path in PATHS:
            assert_problem(api.client.get(path), 503)
