"""Postgres may go away: predictions and labels go on, and the tables catch up with the journal."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from selfheal.adapters.postgres.embedded import EmbeddedServer, ensure_running
from selfheal.settings import Settings
from serving.ingest.worker import IngestWorker
from tests.adapters.alerting.test_delivery import Webhook
from tests.demotable import Demotable
from tests.forwarder import forwarded
from tests.serving.history import platform_of
from tests.serving.running import (
    TIMEOUT_SECONDS,
    Api,
    api_in_thread,
    bodies,
    bring_version_1,
    journal_rows,
    logged_probabilities,
    query,
    with_database,
)
from tests.waiting import eventually


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
            assert all("Postgres is unavailable" in problem for problem in health.json()["problems"])
            assert not [word for word in ("SELECT", "psycopg", str(tmp_path)) if word in health.text]
            during = score(api, 20, seed=2)
            label = {"prediction_id": min(during), "true_label": 1}
            assert api.post("/labels", label).json() == {"accepted": 1, "duplicates": 0, "replaced": 0}
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
    with api_in_thread(api_settings.model_copy(update={"ingest_interval_seconds": 60.0})) as api:
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
    with api_in_thread(api_settings):
        eventually(lambda: set(logged_probabilities(api_settings)) == ids - {damaged}, "the others are copied")
        ((severity, message, is_over),) = eventually(lambda: alerts(api_settings, "journal_damaged"), "it is an alert")
    assert "damaged journal line left out" in caplog.text
    assert (severity, is_over) == ("warning", False)
    assert f"{file.name}: byte {len(lines[0] + lines[1])}" in message


def test_a_foreign_file_is_told_once_and_stops_no_other(
    api_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    folder = api_settings.data_dir / "audit" / "predictions"
    folder.mkdir(parents=True)
    (folder / "00000000T000000-1-000000.csv").write_text("colour,crc32\nred,00000000\n")
    with api_in_thread(api_settings) as api:
        ids = score(api, 3, seed=8)
        eventually(lambda: set(logged_probabilities(api_settings)) == ids, "the others are copied")
        assert len(eventually(lambda: alerts(api_settings, "journal_damaged"), "it is an alert")) == 1
        time.sleep(10 * api_settings.ingest_interval_seconds)
    assert len([record for record in caplog.records if "left out" in record.message]) == 1


def test_a_worker_that_waits_for_another_to_copy_is_not_caught_up_before_it(api_settings: Settings) -> None:
    with platform_of(api_settings) as platform:
        waiting, copying = IngestWorker(platform), IngestWorker(platform)
        lock_path = api_settings.data_dir / "audit" / ".sink.lock"
        lock_path.parent.mkdir(exist_ok=True)
        time.sleep(0.2)
        with lock_path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting.copy_new_lines()
            assert waiting.lag_seconds >= 0.2
            assert waiting.problem is None
        copying.copy_new_lines()
        with lock_path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting.copy_new_lines()
            assert waiting.lag_seconds < 0.2


def test_a_lag_that_cannot_be_said_is_no_failure_to_copy(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: Any) -> int:
        raise OSError("no such folder")

    monkeypatch.setattr("serving.ingest.worker.lag_bytes", unknown)
    with platform_of(api_settings) as platform:
        worker = IngestWorker(platform)
        worker.copy_new_lines()
        assert (worker.problem, worker.last_lag_bytes) == (None, None)
        assert "how far the journal has been copied cannot be said: no such folder" in caplog.text


@pytest.mark.parametrize("step_seconds", [2 * 86_400, -2 * 86_400], ids=["ahead and back", "back and ahead"])
def test_a_lag_is_measured_whatever_the_clock_is_set_to(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch, step_seconds: float
) -> None:
    real, step = time.time, step_seconds
    monkeypatch.setattr(time, "time", lambda: real() + step)
    with platform_of(api_settings) as platform:
        copying, waiting = IngestWorker(platform), IngestWorker(platform)
        copying.copy_new_lines()
        assert copying.lag_seconds < TIMEOUT_SECONDS
        step = 0.0
        lock_path = api_settings.data_dir / "audit" / ".sink.lock"
        with lock_path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(0.1)
            for worker in (copying, waiting):
                worker.copy_new_lines()
                assert 0.1 <= worker.lag_seconds < TIMEOUT_SECONDS


def test_a_pass_before_the_machine_was_started_is_not_taken_for_one_of_now(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with platform_of(api_settings) as platform:
        IngestWorker(platform).copy_new_lines()
        monkeypatch.setattr("serving.ingest.worker.boot_id", lambda: "another boot")
        waiting = IngestWorker(platform)
        time.sleep(0.1)
        with (api_settings.data_dir / "audit" / ".sink.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting.copy_new_lines()
            assert waiting.lag_seconds >= 0.1


# Alerts


def alerts(settings: Settings, kind: str) -> list[tuple[Any, ...]]:
    """Severity, message, and whether it is over."""
    return query(
        settings, "SELECT severity, message, resolved_at IS NOT NULL FROM monitoring_alerts WHERE kind = %s", kind
    )


@pytest.fixture
def soon_alarmed(api_settings: Settings, webhook: Webhook) -> Settings:
    """Settings of a service that tells a webhook of a lag of seconds: a busy machine alone must not raise it."""
    return api_settings.model_copy(update={"ingest_lag_alert_seconds": 3.0, "notify_urls": SecretStr(webhook.url)})


def test_a_lag_is_told_while_postgres_is_away_and_found_there_afterwards(
    soon_alarmed: Settings, server: EmbeddedServer, webhook: Webhook
) -> None:
    with forwarded(soon_alarmed, server.socket_dir) as (settings, network):
        network.mend()
        with api_in_thread(settings) as api:
            eventually(lambda: api.health()["status"] == "ok", "all is well")
            network.cut()
            assert api.post("/predict", bodies(1)[0]).status_code == 200
            (told,) = eventually(lambda: told_of(webhook, "journal lag"), "somebody is told")
            assert told["type"] == "failure"
            assert "not been copied to Postgres for" in told["message"]
            assert alerts(soon_alarmed, "journal_lag") == []
            network.mend()
            eventually(lambda: api.health()["journal_lag_bytes"] == 0, "everything is copied")
            (kept,) = eventually(lambda: alerts(soon_alarmed, "journal_lag"), "it is kept")
            assert kept[0] == "critical"
            assert "not been copied to Postgres for" in kept[1]
            eventually(lambda: alerts(soon_alarmed, "journal_lag")[0][2], "it is over")
            assert len(told_of(webhook, "journal lag")) == 1


def told_of(webhook: Webhook, what: str) -> list[dict[str, Any]]:
    return [message for message in webhook.received if message["title"] == f"selfheal: {what}"]


def test_after_a_failover_the_journal_is_copied_to_the_server_that_took_over(
    soon_alarmed: Settings, demotable: Demotable, webhook: Webhook
) -> None:
    settings = with_database(soon_alarmed, demotable.url("postgres"))
    bring_version_1(soon_alarmed, settings)
    with api_in_thread(settings) as api:
        before = score(api, 3, seed=9)
        eventually(lambda: set(logged_probabilities(settings)) == before, "the journal is copied")
        api.client.get("/monitoring/stats")  # a reading connection, too

        demotable.demote()
        during = score(api, 3, seed=10)
        (problem,) = eventually(lambda: api.health()["problems"], "health says so")
        assert "Postgres accepts no changes: it is a standby, was demoted by a failover" in problem
        assert api.health()["journal_lag_bytes"] > 0, "reading goes on"
        (told,) = eventually(lambda: told_of(webhook, "journal lag"), "somebody is told")
        assert "Reason: Postgres accepts no changes" in told["message"]

        demotable.fail_over(settings.mlops_db_name)
        eventually(lambda: set(logged_probabilities(settings)) == before | during, "all is copied without a restart")
        eventually(lambda: api.health()["status"] == "ok", "health is ok again")
        eventually(lambda: [one[2] for one in alerts(settings, "journal_lag")] == [True], "it is kept, and over")


def test_a_lag_is_told_while_postgres_holds_a_copy_up(soon_alarmed: Settings, webhook: Webhook) -> None:
    """Nothing fails then: it only never ends."""
    url = soon_alarmed.external_database_url(soon_alarmed.mlops_db_name)
    with api_in_thread(soon_alarmed) as api:
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE prediction_logs IN ACCESS EXCLUSIVE MODE")
            ids = score(api, 3, seed=6)
            eventually(lambda: told_of(webhook, "journal lag"), "somebody is told")
            eventually(lambda: [one[2] for one in alerts(soon_alarmed, "journal_lag")] == [False], "it is kept")
        eventually(lambda: set(logged_probabilities(soon_alarmed)) == ids, "everything is copied")
        eventually(lambda: alerts(soon_alarmed, "journal_lag")[0][2], "it is over")


# Compression


def test_files_that_are_full_and_copied_are_compressed_and_replay_still_finds_everything(
    api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.ingest.worker.COMPRESS_EVERY_SECONDS", 0.0)
    with api_in_thread(api_settings.model_copy(update={"journal_max_mb": 0.01})) as api:
        ids = score(api, 150, seed=7)
        label = {"prediction_id": min(ids), "true_label": 1}
        assert api.post("/labels", label).status_code == 200
        folder = api_settings.data_dir / "audit" / "predictions"
        eventually(lambda: [path.suffix for path in sorted(folder.iterdir())[-2:]] == [".gz", ".csv"], "compressed")
        assert {path.suffix for path in sorted(folder.iterdir())[:-1]} == {".gz"}, "all but the one that is written"
        eventually(lambda: api.health()["journal_lag_bytes"] == 0, "a compressed file is no lag")
    assert {row["prediction_id"] for row in journal_rows(api_settings)} == ids
    query(api_settings, "TRUNCATE prediction_logs, label_store, journal_positions")
    with api_in_thread(api_settings):
        eventually(lambda: set(logged_probabilities(api_settings)) == ids, "all of it is copied again")
        eventually(lambda: not list(folder.glob("*.csv")), "what an earlier process wrote is compressed, too")
    assert query(api_settings, "SELECT true_label FROM label_store") == [(1,)]
    assert {row["prediction_id"] for row in journal_rows(api_settings)} == ids
