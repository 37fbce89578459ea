"""Postgres may go away: predictions and labels go on, and the tables catch up with the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfheal.settings import Settings
from selfheal.store.embedded import ensure_running
from tests.serving.running import (
    Api,
    api_in_thread,
    bodies,
    bring_version_1,
    eventually,
    journal_rows,
    logged_probabilities,
    query,
    with_database,
)


def score(api: Api, n_rows: int, seed: int) -> set[str]:
    answers = [api.post("/predict", row) for row in bodies(n_rows, seed)]
    assert [answer.status_code for answer in answers] == [200] * n_rows
    return {answer.json()["prediction_id"] for answer in answers}


def test_postgres_going_away_fails_no_prediction_and_the_log_catches_up(api_settings: Settings, tmp_path: Path) -> None:
    pgdata = tmp_path / "own" / "postgres"
    server = ensure_running(pgdata)
    try:
        settings = with_database(api_settings, server.url("postgres"))
        bring_version_1(api_settings, settings)
        with api_in_thread(settings) as api:
            before = score(api, 5, seed=1)
            eventually(lambda: set(logged_probabilities(settings)) == before, "the journal is copied")

            server.release()
            eventually(lambda: len(api.health()["problems"]) == 2, "health tells of it")
            health = api.client.get("/health")
            assert (health.status_code, health.json()["status"]) == (200, "degraded")
            assert health.json()["journal_lag_bytes"] is None
            assert all("Postgres does not answer" in problem for problem in health.json()["problems"])
            assert not [word for word in ("SELECT", "psycopg", str(tmp_path)) if word in health.text]
            during = score(api, 20, seed=2)
            label = {"prediction_id": min(during), "true_label": 1}
            assert api.post("/labels", label).json() == {"accepted": 1, "duplicates": 0}
            assert {row["prediction_id"] for row in journal_rows(settings)} == before | during

            server = ensure_running(pgdata)
            eventually(lambda: api.health()["status"] == "ok", "health is ok again")
            eventually(lambda: api.health()["journal_lag_bytes"] == 0, "everything is copied")
            assert set(logged_probabilities(settings)) == before | during
            assert query(settings, "SELECT prediction_id::text, true_label FROM label_store") == [
                (label["prediction_id"], 1)
            ]
    finally:
        server.release()


def test_a_start_copies_what_an_earlier_process_left_in_the_journal(api_settings: Settings) -> None:
    with api_in_thread(api_settings) as api:
        ids = score(api, 10, seed=3)
    query(api_settings, "TRUNCATE prediction_logs, journal_positions")
    with api_in_thread(api_settings):
        eventually(lambda: set(logged_probabilities(api_settings)) == ids, "the journal is copied again")


def test_stopping_copies_what_is_left(api_settings: Settings) -> None:
    with api_in_thread(api_settings.model_copy(update={"sink_interval_seconds": 60.0})) as api:
        ids = score(api, 10, seed=4)
        assert len(logged_probabilities(api_settings)) < len(ids), "the first look may have seen some of them"
    assert set(logged_probabilities(api_settings)) == ids


def test_a_damaged_line_costs_that_line_only(api_settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with api_in_thread(api_settings) as api:
        ids = score(api, 3, seed=5)
    (file,) = (api_settings.data_dir / "audit" / "predictions").glob("*.csv")
    lines = file.read_bytes().splitlines(keepends=True)
    damaged = lines[2][:36].decode()
    lines[2] = lines[2].replace(b",1,", b",7,", 1)
    file.write_bytes(b"".join(lines))
    query(api_settings, "TRUNCATE prediction_logs, journal_positions")
    with api_in_thread(api_settings) as api:
        eventually(lambda: set(logged_probabilities(api_settings)) == ids - {damaged}, "the others are copied")
    assert "damaged journal line left out" in caplog.text
