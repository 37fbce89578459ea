"""The report on policies under Dagster: a page among the others, of the platform's own logs, that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from selfheal.adapters.postgres import decisions, model_versions
from selfheal.services.reports.files import list_reports, reports_folder
from selfheal.settings import Settings
from selfheal_assets.schedules import monthly_policy_report
from tests.selfheal_assets.conftest import Dagster, metadata_of, table_of
from tests.traffic import serve, toy_rows

pytestmark = pytest.mark.integration

N_ROWS = 900
STEP = timedelta(hours=1)


def test_the_logs_of_the_last_days_become_a_page_and_nothing_else_changes(
    make_dagster: Callable[[Settings], Dagster], make_settings: Callable[..., Settings]
) -> None:
    dagster = make_dagster(make_settings(policy_report_days=60, policy_report_max_rows=1_000))
    platform = dagster.platform
    middle = datetime.now(UTC) - N_ROWS // 2 * STEP
    for seed, start in enumerate((middle - N_ROWS // 2 * STEP, middle)):
        serve(platform, toy_rows(N_ROWS // 2, seed=seed), start=start, step=STEP, labelled_share=0.9)
    before = model_versions.list_versions(platform.store), decisions.recent(platform.store)
    result = dagster.run("policy_report_job")
    assert result.success
    assert before == (model_versions.list_versions(platform.store), decisions.recent(platform.store))
    (report,) = list_reports(reports_folder(platform.settings.data_dir))
    assert report.is_of_policies
    assert report.overview is not None
    shown = metadata_of(result, "policy_report")
    assert shown["report"] == f"http://127.0.0.1:8000/monitoring/reports/{report.overview.name}"
    assert (shown["predictions"], shown["labels"]) == (N_ROWS, round(0.9 * N_ROWS))
    assert all(0 < shown[f"brier_{policy}"] < 0.25 for policy in ("never", "weekly", "ours"))
    rows = {row["policy"]: row for row in table_of(result, "policy_report", "policies")}
    assert list(rows) == ["never", "weekly", "ours PROMOTION_COOLDOWN_DAYS=0.0"], "ours with the settings in force"
    assert int(rows["weekly"]["trainings"]) >= 2, "in each week of which labels were known"
    page = report.overview.read_text()
    assert "version 1, in production then" in page


def test_a_platform_without_labels_has_no_report_and_a_green_run_that_says_so(dagster: Dagster) -> None:
    result = dagster.run("policy_report_job")
    assert result.success
    assert metadata_of(result, "policy_report")["report"].startswith("none: no prediction since")


def test_it_runs_by_itself_once_a_month_and_beside_no_tick(dagster: Dagster) -> None:
    assert monthly_policy_report.cron_schedule == "0 4 1 * *"
    graph = dagster.definitions.resolve_asset_graph()
    in_ticks = dagster.definitions.resolve_job_def("monitoring_job").asset_layer.selected_asset_keys
    assert dg.AssetKey("policy_report") in graph.get_all_asset_keys()
    assert dg.AssetKey("policy_report") not in in_ticks
