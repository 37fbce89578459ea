"""What is old goes, what a decision rests on stays, one maintenance at a time, and one that is killed does no harm."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from selfheal.adapters.postgres import predictions, retention
from selfheal.kit.atomic_file import temporary_name
from selfheal.services.maintenance import DeletedRuns, MaintenanceReport, cutoffs, last_report, maintain, old_results
from selfheal.services.platform import Platform
from selfheal.services.reports.files import results_folder
from selfheal.settings import load_settings
from tests.times import T0
from tests.traffic import serve, toy_rows

DAY = timedelta(days=1)
LATER = T0 + 400 * DAY


def no_runs(_before: datetime) -> DeletedRuns:
    return DeletedRuns()


def insert_tick(platform: Platform, tick_id: str, at: datetime, episode_id: str | None = None) -> None:
    statement = """
        INSERT INTO monitoring_metrics (tick_id, created_at, model_name, model_version, window_start, window_end,
            n_predictions, n_labels, num_drifted_features, drifted_features, dataset_drift_detected, verdict, reasons,
            estimated, reference_version, episode_id)
        VALUES (:id, :at, :name, 1, :at, :at, 0, 0, 0, '[]', false, 'stable', '[]', '{}', 1, :episode)
    """
    values = {"id": tick_id, "at": at, "name": platform.contract.name, "episode": episode_id}
    with platform.store.engine.begin() as connection:
        connection.execute(text(statement), values)


def insert_alert(platform: Platform, kind: str, resolved_at: datetime | None, episode_id: str | None = None) -> None:
    statement = """
        INSERT INTO monitoring_alerts (alert_id, model_name, kind, severity, message, metrics, created_at, updated_at,
                                       resolved_at, episode_id)
        VALUES (gen_random_uuid(), :name, :kind, 'warning', '', '{}', :at, :at, :resolved_at, :episode)
    """
    values = {
        "name": platform.contract.name,
        "kind": kind,
        "at": T0,
        "resolved_at": resolved_at,
        "episode": episode_id,
    }
    with platform.store.engine.begin() as connection:
        connection.execute(text(statement), values)


def decide_on(platform: Platform, episode_id: str) -> None:
    """A decision of that episode: a copy of the bootstrap's, with a place of its own in the chain."""
    statement = """
        INSERT INTO retraining_decisions (decision_id, created_at, model_name, trigger_reason, action, reason, actor,
            episode_id, attempt, n_labels, conditions, gates, failed_gates, prev_hash, hash)
        VALUES (:id, :at, :name, 'drift', 'skip', 'test', 'test', :id, 1, 0, '[]', '[]', '[]', :id, :id)
    """
    with platform.store.engine.begin() as connection:
        connection.execute(text(statement), {"id": episode_id, "at": T0, "name": platform.contract.name})


def values_of(platform: Platform, query: str) -> set[str]:
    with platform.store.engine.connect() as connection:
        return set(connection.execute(text(query)).scalars())


def result_file(platform: Platform, name: str, written_at: datetime) -> Path:
    path = results_folder(platform.settings.data_dir) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (written_at.timestamp(), written_at.timestamp()))
    return path


def test_old_ticks_go_but_the_newest_and_those_a_decision_rests_on(platform: Platform) -> None:
    insert_tick(platform, "old", T0)
    insert_tick(platform, "decided", T0, "episode")
    insert_tick(platform, "alarming", T0, "open")
    insert_tick(platform, "forgotten", T0, "closed")
    insert_tick(platform, "newest", T0 + DAY)
    insert_alert(platform, "drift", None, "open")
    decide_on(platform, "episode")
    report = maintain(platform, LATER, no_runs)
    assert report.n_ticks == 2
    assert values_of(platform, "SELECT tick_id FROM monitoring_metrics") == {"decided", "alarming", "newest"}


def test_old_alerts_go_once_they_are_resolved(platform: Platform) -> None:
    insert_alert(platform, "open", None)
    insert_alert(platform, "resolved", T0)
    insert_alert(platform, "decided", T0, "episode")
    insert_alert(platform, "lately", LATER - DAY)
    decide_on(platform, "episode")
    assert maintain(platform, LATER, no_runs).n_alerts == 1
    assert values_of(platform, "SELECT kind FROM monitoring_alerts") == {"open", "decided", "lately"}


@pytest.mark.parametrize("folder", ["", "cache", "dagster", "decisions", "reference"])
def test_what_a_killed_process_was_writing_goes_wherever_it_wrote(platform: Platform, folder: str) -> None:
    path = platform.settings.data_dir / folder / "half.json"
    path.parent.mkdir(exist_ok=True)
    half = temporary_name(path)
    half.touch()
    os.utime(half, (T0.timestamp(), T0.timestamp()))
    assert maintain(platform, LATER, no_runs).n_left_behind == 1
    assert not half.exists()


def test_old_files_go_but_those_of_ticks_that_were_decided_on(platform: Platform) -> None:
    insert_tick(platform, "decided", T0, "episode")
    decide_on(platform, "episode")
    old, decided = (result_file(platform, f"20260301T000000-{tick}.json", T0) for tick in ("old", "decided"))
    young = result_file(platform, "20270301T000000-young.json", LATER - DAY)
    torn = result_file(platform, "20260301T000000-torn.99.tmp", T0)
    being_written = result_file(platform, "20270301T000000-now.99.tmp", LATER)
    unnamed = platform.settings.data_dir / "audit" / "labels" / ".20260301T000000000000Z-9-0a.csv.tmp"
    unnamed.parent.mkdir(parents=True)
    unnamed.touch()
    os.utime(unnamed, (T0.timestamp(), T0.timestamp()))
    report = maintain(platform, LATER, no_runs)
    assert (report.n_results, report.n_left_behind) == (1, 2)
    kept = [path for path in (old, decided, young, torn, being_written, unnamed) if path.exists()]
    assert kept == [decided, young, being_written]


def test_files_are_old_by_their_age_and_not_by_their_number() -> None:
    written_at = {Path(f"a-{day}.json"): T0 + day * DAY for day in range(10)}
    assert old_results(written_at, T0 + 2 * DAY, decided_on={"1"}) == [Path("a-0.json")]


def test_predictions_stay_for_ever_unless_a_setting_says_otherwise() -> None:
    assert cutoffs(load_settings(), LATER, T0).predictions is None


@pytest.mark.parametrize(
    ("champion_since", "expected"),
    [(LATER - 100 * DAY, LATER - 100 * DAY), (LATER - 10 * DAY, LATER - 60 * DAY), (None, LATER - 60 * DAY)],
    ids=["the champion's own", "an earlier version's", "nothing serves"],
)
def test_predictions_since_the_champion_went_live_are_never_old(
    champion_since: datetime | None, expected: datetime
) -> None:
    assert cutoffs(load_settings(predictions_retention_days=60), LATER, champion_since).predictions == expected


def test_unlabelled_predictions_go_and_the_rollups_follow(platform: Platform) -> None:
    """Three hours of traffic, every second row of it labelled by turns of a minute; the last hour is not whole."""
    sent = serve(platform, toy_rows(180), step=timedelta(minutes=1), labelled_share=0.5)
    before = sent.created_at[150]
    n_deleted = retention.delete_unlabelled_predictions(platform.store, before)
    hour = before.replace(minute=0, second=0, microsecond=0)
    gone = [at for place, at in enumerate(sent.created_at) if place >= 90 and at < hour]
    assert n_deleted == len(gone) > 0
    assert predictions.count_labels(platform.store) == (180 - len(gone), 90)
    assert retention.delete_unlabelled_predictions(platform.store, before) == 0
    window = predictions.window_of(platform.store, 1, T0)
    assert window is not None
    assert len(predictions.window_rows(platform.store, window, 1_000)) == window.n_predictions == 180 - len(gone)


def test_one_maintenance_at_a_time(platform: Platform) -> None:
    insert_tick(platform, "old", T0)
    insert_tick(platform, "newest", T0 + DAY)
    with retention.exclusive_maintenance(platform.store) as is_mine:
        assert is_mine
        assert maintain(platform, LATER, no_runs) == MaintenanceReport(LATER, is_skipped=True)
    assert maintain(platform, LATER, no_runs).n_ticks == 1


def test_a_maintenance_that_breaks_off_is_finished_by_the_next(platform: Platform) -> None:
    insert_tick(platform, "old", T0)
    insert_tick(platform, "newest", T0 + DAY)
    result_file(platform, "20260301T000000-old.json", T0)

    def fail(_before: datetime) -> DeletedRuns:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        maintain(platform, LATER, fail)
    assert last_report(platform.settings.data_dir) is None
    report = maintain(platform, LATER, no_runs)
    assert not report.is_skipped
    assert last_report(platform.settings.data_dir) == report
    assert values_of(platform, "SELECT tick_id FROM monitoring_metrics") == {"newest"}
