"""The daily job: Dagster's own runs, events and logs go with age, and what still says something stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from selfheal.services.maintenance import last_report
from selfheal.services.promotion.going_live import stage
from selfheal_assets.retention import delete_old_runs
from tests.candidates import passed, twin_of_champion
from tests.selfheal_assets.conftest import Dagster
from tests.times import T0

pytestmark = pytest.mark.integration


def run_ids(dagster: Dagster, job: str) -> list[str]:
    """The newest first."""
    return [record.dagster_run.run_id for record in dagster.instance.get_run_records(dg.RunsFilter(job_name=job))]


def test_old_runs_go_with_their_events_and_logs_but_the_newest_of_each_job(dagster: Dagster) -> None:
    with dg.instance_for_test() as instance:
        dagster = replace(dagster, instance=instance)
        for _ in range(3):
            assert dagster.run("monitoring_job").success
        newest, *older = run_ids(dagster, "monitoring_job")
        logs = Path(instance.storage_directory())
        assert all((logs / run_id).is_dir() for run_id in (newest, *older)), "the runs' output was captured there"
        assert delete_old_runs(instance, datetime.now(UTC) - timedelta(hours=1)) == 0
        assert delete_old_runs(instance, datetime.now(UTC) + timedelta(hours=1)) == 2
        assert run_ids(dagster, "monitoring_job") == [newest]
        assert instance.all_logs(newest)
        assert (logs / newest).is_dir()
        for run_id in older:
            assert instance.all_logs(run_id) == []
            assert not (logs / run_id).exists()


def test_the_newest_run_of_each_versions_probation_stays_because_it_is_the_versions_page(dagster: Dagster) -> None:
    twin = twin_of_champion(dagster.platform)
    stage(dagster.platform, twin, passed(dagster.platform, twin).decision, T0)
    runs = [dagster.watch_probation(version).run_id for version in (1, 2, 2, 1)]
    assert delete_old_runs(dagster.instance, datetime.now(UTC) + timedelta(hours=1)) == 2
    assert run_ids(dagster, "probation_job") == [runs[3], runs[2]]
    page = dg.AssetKey("probation_report")
    assert dagster.instance.get_materialized_partitions(page) == {"1", "2"}


def test_runs_that_decide_are_kept(dagster: Dagster) -> None:
    """Their run keys keep the sensors from asking for the same retraining twice."""
    for _ in range(2):
        assert dagster.run("retraining_job").success
    delete_old_runs(dagster.instance, datetime.now(UTC) + timedelta(days=3_650))
    assert len(run_ids(dagster, "retraining_job")) == 2


def test_the_daily_job_says_what_it_deleted(dagster: Dagster) -> None:
    assert dagster.run("maintenance_job").success
    report = last_report(dagster.platform.settings.data_dir)
    assert report is not None
    assert (report.is_skipped, report.n_runs) == (False, 0)


def test_maintenance_is_due_every_day_without_being_switched_on(dagster: Dagster) -> None:
    schedule = dagster.definitions.get_schedule_def("daily_maintenance")
    assert schedule.cron_schedule == "30 3 * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
