"""The report that the platform writes of itself covers its last days, and stays among the reports as long as they do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from selfheal.services.platform import open_platform
from selfheal.services.reports.files import list_reports, reports_folder
from selfheal.settings import Settings
from selfheal.simulate.replay import policy_report
from selfheal.simulate.replay.policy_report import write_policy_report
from tests.times import T0
from tests.traffic import serve, toy_rows

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)


def test_it_covers_the_last_days_and_says_what_each_policy_reached(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_report, "POLICIES_FOR_LOGS", ("never", "weekly"))
    platform = open_platform(make_settings(policy_report_days=5))
    sent = serve(platform, toy_rows(1_500), step=timedelta(minutes=10))
    counted: list[tuple[int, int]] = []
    report = write_policy_report(platform, sent.last_at, lambda *counts: counted.append(counts))
    assert report.n_predictions == report.n_labels == 5 * 24 * 6
    assert set(report.brier) == {"never", "weekly"}
    assert [row["policy"] for row in report.rows] == ["never", "weekly"]
    assert counted[-1] == (2, 2)
    (listed,) = list_reports(reports_folder(platform.settings.data_dir))
    assert listed.overview == report.page
    assert f"{T0 + 10 * DAY:%Y%m%d}" in report.page.name
    platform.close()
