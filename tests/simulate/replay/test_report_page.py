"""The report is a page that one understands without the docs, on a desk and on a phone, by day and by night, and offline."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.replay.catalogue import WORLDS
from selfheal.simulate.replay.report_files import check_report_path, write_report
from selfheal.simulate.replay.report_page import GLOSSARY, ReportInput, report_page
from tests.browser import NARROW, WIDE, browser, overflow_px, serious_findings, well_behaved_page
from tests.simulate.replay.results import results
from tests.simulate.replay.test_report_figures import EVENTS
from tests.times import T0

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from selfheal.simulate.replay.comparison import WorldResult

__all__ = ["browser"]

HOSTILE = "</script><script>alert(1)</script>&<img src=x onerror=alert(2)>'\""
SEVEN = ("never", "weekly", "evidently", "adwin", "nannyml", "oracle", "ours")
MAX_BYTES = 3_000_000
HIDDEN_WIDTH = "[...document.querySelectorAll('td span, dd, h3')].filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline').length"


def seven(n_worlds: int = 2, **changes: Any) -> tuple[WorldResult, ...]:
    """Worlds in which ours loses to weekly in the first."""
    worlds = {
        f"world_{number}": {
            name: [0.2 - 0.01 * place * (number != 0 or name != "ours") + 0.001 * seed for seed in range(3)]
            for place, name in enumerate(SEVEN)
        }
        for number in range(n_worlds)
    }
    return results(worlds, events=EVENTS, **changes)


def page(found: tuple[WorldResult, ...], **changes: Any) -> str:
    values: dict[str, Any] = {
        "results": found,
        "rows_of": "rows.csv",
        "interval_hours": 6.0,
        "written_at": T0,
        "release": "1.0",
        "library": "plotly-1.min.js",
        "drawing": "page-1.js",
    }
    return report_page(ReportInput(**(values | changes)))


def drawn(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found.group(1))
    return content


def test_each_world_has_one_picture_a_sentence_and_the_cost_of_each_policy() -> None:
    html = page(seven())
    figures = [figure["id"] for figure in drawn(html)["figures"]]
    assert figures == ["world-0", "world-1"]
    for place in figures:
        assert html.count(f"id='{place}'") == 1
        assert f"href='#{place}-title'" in html, "the summary leads to it"
    assert "Ours loses: it costs" in html
    assert "No policy costs less than ours" in html
    assert html.index(">world_0<") < html.index(">world_1<"), "where ours loses comes first"
    for word in (*SEVEN, *GLOSSARY, "Written 2026-03-02", "every 6 hours", "rows.csv"):
        assert word in html


def test_without_ours_the_page_claims_nothing_about_it() -> None:
    html = page(results({"w": {"never": [0.2], "weekly": [0.1]}}, natural=["w"], change_day=None))
    assert "ours" not in html.replace("hours", "")
    assert "Of these policies, weekly costs least." in html
    assert "policy that never does anything" in html, "what costs are relative to"
    assert "share recovered" not in html


def test_text_from_outside_stays_text() -> None:
    found = results({HOSTILE: {"never": [0.2], "ours MLFLOW_TRACKING_URI=<img/src=x>": [0.1]}})
    html = page(found, rows_of=HOSTILE, release=HOSTILE)
    assert "<img" not in html
    assert html.count("<script") == 3, "the data and the two scripts beside the page"


def test_it_asks_nothing_of_another_host() -> None:
    assert "//" not in re.sub(r'<script type="application/json".*?</script>', "", page(seven()), flags=re.DOTALL)


def test_all_worlds_under_all_policies_weigh_less_than_3_mb() -> None:
    many = [(24.0 * day, kind, 1) for day in range(0, 270, 3) for kind in ("alarm", "trained", "promoted")]
    (one,) = results({"w": {name: [0.2] for name in SEVEN}}, days=300, events=many)
    html = page(tuple(replace(one, name=f"world_{number}") for number in range(len(WORLDS) + 10)))
    assert len(html.encode()) < MAX_BYTES


@pytest.mark.parametrize("name", ["report.txt", "nowhere/report.html"])
def test_a_report_that_could_not_be_written_is_refused_before_anything_runs(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="--report"):
        check_report_path(tmp_path / name)


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_a_person_reads_it_offline_at_any_width_and_in_any_light(
    tmp_path: Path, browser: Browser, width: int, scheme: str
) -> None:
    path = write_report(
        tmp_path / "r.html", seven(6), rows_of="rows.csv", interval_hours=6.0, now=T0 + timedelta(days=1)
    )
    with well_behaved_page(browser, width=width, scheme=scheme) as shown:
        shown.goto(path.as_uri())
        shown.get_by_role("link", name="world_0").click()
        shown.locator("#world-0 .main-svg").first.wait_for()
        assert shown.locator("#world-5 .main-svg").count() == 0, "a picture is drawn when it is about to be seen"
        assert overflow_px(shown) == 0
        shown.get_by_role("link", name="world_5").click()
        shown.locator("#world-5 .main-svg").first.wait_for()
        assert shown.evaluate(HIDDEN_WIDTH) == 0, "no text is cut"
        ink = shown.locator("#world-5 .xtick text").first.evaluate("e => getComputedStyle(e).fill")
        assert ink == ("rgb(28, 39, 51)" if scheme == "light" else "rgb(223, 230, 238)")
        assert not serious_findings(shown)


def test_scripts_beside_a_report_are_added_and_nothing_in_the_folder_is_deleted(tmp_path: Path) -> None:
    mine = [tmp_path / f"page-{number}.js" for number in range(9)]
    for path in mine:
        path.write_text("mine")
    write_report(tmp_path / "r.html", seven(1), rows_of="rows.csv", interval_hours=6.0, now=T0)
    assert all(path.read_text() == "mine" for path in mine)
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".js"}
    assert len(list(tmp_path.iterdir())) == 9 + 3
