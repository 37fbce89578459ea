"""Reports of a platform: written on demand and on a change of state, kept by count and age, never lost while referred to."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.adapters.postgres import alerts, ticks
from selfheal.domain.records import TickRecord, Verdict
from selfheal.services.platform import Platform
from selfheal.services.reports.files import (
    ensure_scripts,
    find_file,
    list_reports,
    prune_reports,
    reports_folder,
    reports_to_delete,
    save_overview,
)
from selfheal.services.reports.writer import is_worth_a_page, report_now, write_overview
from selfheal.services.tick import assess, collect, compare, conclude, measure
from tests.serving.history import add_tick
from tests.times import T0
from tests.traffic import serve, toy_rows

DAY = timedelta(days=1)


def names(count: int) -> dict[str, datetime]:
    """Reports, one a day, the newest first."""
    return {f"r{number}": T0 - number * DAY for number in range(count)}


def test_reports_go_by_count_and_by_age_but_never_those_that_are_referred_to() -> None:
    old = reports_to_delete(names(6), max_files=4, not_before=T0 - 2 * DAY, protected={"r5"})
    assert old == ["r3", "r4"]
    assert reports_to_delete(names(6), max_files=2, not_before=T0 - 9 * DAY, protected=()) == ["r2", "r3", "r4", "r5"]


@given(
    count=st.integers(0, 20),
    max_files=st.integers(1, 20),
    days=st.integers(0, 20),
    protected=st.sets(st.integers(0, 19)),
)
def test_what_stays_is_bounded(count: int, max_files: int, days: int, protected: set[int]) -> None:
    reports, kept = names(count), {f"r{number}" for number in protected}
    gone = reports_to_delete(reports, max_files=max_files, not_before=T0 - days * DAY, protected=kept)
    left = set(reports) - set(gone) - kept
    assert len(left) <= max_files
    assert all(reports[name] >= T0 - days * DAY for name in left)
    assert not kept & set(gone)


def test_a_report_goes_with_all_its_files_and_nothing_else_does(tmp_path: Path) -> None:
    for age_days, name in enumerate(("20260304T120000-v1", "20260303T120000-v1")):
        for path in (save_overview("<p>", tmp_path, name), tmp_path / f"{name}.html"):
            path.write_text("<p>")
            os.utime(path, ((T0 - age_days * DAY).timestamp(),) * 2)
    (tmp_path / "notes.html").write_text("mine")
    scripts = ensure_scripts(tmp_path)
    assert prune_reports(tmp_path, max_files=1, not_before=T0 - 9 * DAY, protected=()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "20260304T120000-v1.html",
        "20260304T120000-v1-overview.html",
        "notes.html",
        *scripts,
    }


def test_reports_on_policies_are_counted_apart_from_those_on_the_traffic(tmp_path: Path) -> None:
    names = ["20260304T120000-v1", "20260304T110000-v1", "20260301T040000-policies", "20260201T040000-policies"]
    for age, name in enumerate(names):
        os.utime(save_overview("<p>", tmp_path, name), ((T0 - age * DAY).timestamp(),) * 2)
    assert [report.is_of_policies for report in list_reports(tmp_path)] == [False, False, True, True]
    assert prune_reports(tmp_path, max_files=1, not_before=T0 - 9 * DAY, protected=()) == 2
    assert [report.name for report in list_reports(tmp_path)] == [names[0], names[2]]
    assert prune_reports(tmp_path, max_files=9, not_before=T0 - DAY, protected=()) == 1, "age counts for both"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.html",
        "..",
        "",
        "a.html",
        "20260304T120000-v1.json",
        "20260304T120000-v1.html\n",
        "/etc/passwd",
        "page.js",
    ],
)
def test_only_files_of_reports_leave_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    (tmp_path / "secret.html").write_text("secret")
    (folder / "a.html").write_text("not a report")
    (folder / "20260304T120000-v1.json").write_text("{}")
    assert find_file(folder, name) is None


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "20260304T120000-v1.html").symlink_to(tmp_path / "secret")
    assert find_file(tmp_path, "20260304T120000-v1.html") is None


@pytest.mark.integration
def test_without_traffic_there_is_nothing_to_report(platform: Platform) -> None:
    assert report_now(platform, T0) is None


@pytest.mark.integration
def test_a_report_on_demand_has_both_pages_and_records_nothing(platform: Platform) -> None:
    sent = serve(platform, toy_rows(300))
    page = report_now(platform, sent.last_at)
    assert page is not None
    (report,) = list_reports(reports_folder(platform.settings.data_dir))
    assert report.overview == page
    assert report.evidently is not None
    assert f'href="{report.evidently.name}"' in page.read_text()
    assert f'href="{report.overview.name}"' in report.evidently.read_text()
    assert ticks.latest_tick(platform.store) is None
    assert alerts.list_alerts(platform.store) == []


@pytest.mark.integration
def test_a_change_of_the_verdict_is_worth_a_page_and_one_to_unknown_is_not(platform: Platform) -> None:
    sent = serve(platform, toy_rows(40))
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    drift, performance = compare(platform, proxy.window), measure(platform, proxy.window)
    for before in (Verdict.HARMFUL_SHIFT, Verdict.STABLE):
        add_tick(platform, sent.last_at + DAY * (before is Verdict.STABLE), verdict=before)
    now = sent.last_at + 9 * DAY
    triage, _ = conclude(platform, proxy, drift, performance, now)
    assert triage.verdict is Verdict.INSUFFICIENT
    tick = TickRecord(triage, proxy, drift, performance)
    assert not is_worth_a_page(platform, tick)
    import dataclasses

    def as_if(verdict: Verdict, report_ref: str | None = None) -> bool:
        changed = dataclasses.replace(triage, verdict=verdict)
        return is_worth_a_page(
            platform,
            TickRecord(changed, proxy, dataclasses.replace(drift, report_ref=report_ref), performance),
        )

    assert as_if(Verdict.BROKEN_FEED)
    assert not as_if(Verdict.STABLE), "as the tick before"
    assert as_if(Verdict.STABLE, "reports/drift/x.html"), "Evidently's page was rendered"


@pytest.mark.integration
def test_a_tick_with_too_few_rows_and_one_whose_file_is_gone_have_a_page_too(platform: Platform) -> None:
    sent = serve(platform, toy_rows(5))
    add_tick(platform, sent.last_at, has_file=False)
    proxy = collect(platform, sent.last_at)
    assert proxy is not None
    drift, performance = compare(platform, proxy.window), measure(platform, proxy.window)
    tick = TickRecord(assess(platform, drift, performance), proxy, drift, performance)
    html = write_overview(platform, tick, datetime.now(UTC)).read_text()
    assert "Too few rows to judge" in html
