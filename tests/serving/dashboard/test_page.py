"""The dashboard in Chromium, against the real API: what it says, what it lets people do, and that everybody can use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from selfheal.domain.records import Verdict
from selfheal.services.status import SENTENCES
from selfheal.settings import Settings
from tests.browser import (
    NARROW,
    PATIENCE_MS,
    overflow_px,
    serious_findings,
    well_behaved_page,
)
from tests.serving.dashboard.conftest import REPORT
from tests.serving.history import ADA, READER, SCORER, add_tick, alert, platform_of
from tests.serving.running import Api, api_in_thread, bodies, query
from tests.waiting import eventually

expect.set_options(timeout=PATIENCE_MS)


def opened(page: Page, api: Api, key: str | None = None) -> Page:
    """The dashboard, drawn to the end."""
    page.goto(str(api.client.base_url))
    if key is not None:
        give_key(page, key)
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    expect(page.locator("main [aria-busy=true]")).to_have_count(0)
    return page


def give_key(page: Page, key: str) -> None:
    page.get_by_role("dialog", name="API key").get_by_label("Key").fill(key)
    page.get_by_role("button", name="Use this key").click()


def panel(page: Page, name: str | re.Pattern[str]) -> Locator:
    return page.get_by_role("region", name=name)


def sentence(page: Page) -> Locator:
    return page.locator("#sentence")


@pytest.fixture(scope="module")
def reading(browser: Browser, keyed_api: Api) -> Iterator[Page]:
    """One page for the tests that only look, with a key for reading."""
    with well_behaved_page(browser) as page:
        yield opened(page, keyed_api, READER)


# What is shown


def test_thirty_days_are_shown_with_the_state_in_one_sentence(reading: Page) -> None:
    expect(sentence(reading)).to_have_text(SENTENCES[Verdict.BENIGN_SHIFT])
    expect(reading.locator("#state")).to_have_attribute("data-tone", "warning")
    expect(reading.locator("#serving")).to_contain_text("Version 2")
    expect(reading.locator("#drift [role=option]")).to_have_count(5)
    expect(panel(reading, "Decisions")).to_contain_text("Gates: 6 of 6 passed")
    expect(reading.locator("#decisions .gate")).to_have_count(8)
    for charts, count in (("#distribution", 1), ("#quality", 3), ("#proxies", 4)):
        expect(reading.locator(f"{charts} .chart .bglayer")).to_have_count(count)
    assert overflow_px(reading) == 0
    assert serious_findings(reading) == []


def test_a_gate_that_was_added_is_drawn_by_what_the_api_says_of_it_and_nothing_is_assumed_of_one_that_is_gone(
    browser: Browser, keyed_api: Api
) -> None:
    added: dict[str, Any] = {
        "name": "positive_rate",
        "status": "PASS",
        "value": 0.15,
        "threshold": 0.5,
        "sentence": "15.0 % of the rows called positive, 50 % allowed",
        "interval_low": None,
        "interval_high": None,
        "n_rows": 612,
        "direction": "at_most",
        "unit": None,
        "is_counted": True,
    }
    gone = added | {"name": "gone", "direction": None, "sentence": "a gate of an earlier release"}

    def add_gates(route: Route) -> None:
        answer = route.fetch()
        decision = answer.json()
        route.fulfill(response=answer, json=decision | {"gates": [*decision["gates"], added, gone]})

    with well_behaved_page(browser) as page:
        page.route("**/decisions/*", add_gates)
        opened(page, keyed_api, READER)
        decisions = panel(page, "Decisions")
        expect(decisions).to_contain_text("Gates: 8 of 8 passed")
        expect(decisions.get_by_label("positive rate 0.1500, at most 0.5000 wanted, 612 rows")).to_be_visible()
        expect(decisions.get_by_label("gone 0.1500, limit 0.5000, 612 rows")).to_be_visible()
        expect(decisions.get_by_label("label coverage 61.0 %, at least 30.0 % wanted, 2,040 rows")).to_be_visible()


def test_a_phone_in_the_dark_shows_the_same_without_scrolling_sideways(browser: Browser, keyed_api: Api) -> None:
    with well_behaved_page(browser, width=NARROW, scheme="dark") as page:
        opened(page, keyed_api, READER)
        expect(sentence(page)).to_have_text(SENTENCES[Verdict.BENIGN_SHIFT])
        expect(page.locator("#quality .chart .bglayer")).to_have_count(3)
        assert overflow_px(page) == 0
        assert serious_findings(page) == []


def test_a_feature_is_chosen_and_read_out_by_keyboard(reading: Page) -> None:
    chosen = reading.get_by_role("option", selected=True)
    expect(chosen).to_contain_text("temperature_c")
    chosen.focus()
    reading.keyboard.press("ArrowDown")
    expect(chosen).to_contain_text("load_ratio")
    expect(panel(reading, "Distribution")).to_contain_text("Load over rated load")
    reading.keyboard.press("End")
    expect(panel(reading, "Distribution")).to_contain_text("What the model predicts")
    reading.keyboard.press("ArrowLeft")
    said = re.compile(r"^probability, .*: drifted in .* ticks?, shift 0\.\d\d")
    expect(reading.locator("#drift .readout")).to_contain_text(said)


def test_a_change_of_the_relation_is_marked_over_time_and_said_in_the_decision(reading: Page) -> None:
    for region, n_charts in (("quality", 3), ("proxies", 4)):
        expect(reading.locator(f"#{region} .annotation-text", has_text="change")).to_have_count(n_charts)
    expect(panel(reading, "Decisions")).to_contain_text("best seen by load ratio); labels count since then")


def test_how_complete_the_labels_are_is_told_by_class_and_so_is_what_is_withheld(
    browser: Browser, keyed_api: Api
) -> None:
    state = {
        "sentence": "not identifiable: labels of class 1 come first",
        "matured_after_seconds": None,
        "classes": [
            {"label": 0, "mostly_after_seconds": 7_776_000, "labelled_pct": 38.4},
            {"label": 1, "mostly_after_seconds": None, "labelled_pct": None},
        ],
        "withheld": ["realised metrics, gates and probation are withheld: labels of class 1 come first"],
    }

    def tell(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"labels": state})

    with well_behaved_page(browser) as page:
        page.route("**/monitoring/history*", tell)
        quality = opened(page, keyed_api, READER).locator("#quality")
        expect(quality.get_by_role("row", name="Class 0 90 d 38 %")).to_be_visible()
        expect(quality.get_by_role("row", name="Class 1 unknown unknown")).to_be_visible()
        expect(quality).to_contain_text("withheld realised metrics, gates and probation are withheld")
        assert overflow_px(page) == 0
        assert serious_findings(page) == []


def test_every_chart_has_its_numbers_as_a_table(reading: Page) -> None:
    for region in ("drift", "distribution", "quality", "proxies"):
        reading.locator(f"#{region} summary", has_text="As a table").click()
        expect(reading.locator(f"#{region} tbody tr").nth(4)).to_be_visible()


def test_a_key_for_reading_is_told_what_acting_takes(reading: Page) -> None:
    for region, name in (("Alerts", re.compile("Acknowledge")), ("Versions", re.compile("Roll back to"))):
        expect(panel(reading, region)).to_contain_text("a key with the scope admin is needed; reader has read.")
        expect(panel(reading, region).get_by_role("button", name=name).first).to_be_disabled()


def test_a_report_opens_from_the_page_though_a_link_sends_no_key(reading: Page) -> None:
    with reading.expect_popup() as popup:
        panel(reading, "Reports").get_by_role("link", name="Overview").click()
    report = popup.value
    report.wait_for_load_state()
    assert report.title() == "overview"
    assert report.url.endswith(f"/{REPORT}-overview.html")
    assert READER not in report.url
    report.close()


def test_another_range_of_time_is_shown_when_it_is_chosen(reading: Page) -> None:
    expect(reading.get_by_label("30 d")).to_be_checked()
    reading.get_by_label("24 h").check()
    expect(reading.locator("#drift .aside")).to_contain_text("steps of 15 min")


# Keys


def test_a_key_is_asked_for_and_stays_in_the_tab(browser: Browser, keyed_api: Api) -> None:
    with well_behaved_page(browser, excused=["status of 401", "status of 403"]) as page:
        page.goto(str(keyed_api.client.base_url))
        expect(sentence(page)).to_have_text("This service asks for an API key.")
        expect(page.locator("#state")).to_have_attribute("data-tone", "unknown")
        give_key(page, "a-key-that-nobody-has-given-out")
        expect(page.get_by_role("alert")).to_contain_text("the key is unknown")
        give_key(page, SCORER)
        expect(page.get_by_role("alert")).to_contain_text("lacks the scope read")
        give_key(page, READER)
        expect(sentence(page)).to_have_text(SENTENCES[Verdict.BENIGN_SHIFT])
        kept = page.evaluate("[JSON.stringify(localStorage), document.cookie, JSON.stringify(sessionStorage)]")
        assert [READER in text for text in kept] == [False, False, True]
        page.get_by_role("button", name="Remove key reader").click()
        expect(sentence(page)).to_have_text("This service asks for an API key.")
        expect(page.locator("#decisions")).not_to_contain_text("promote")


# Acting


def test_an_alert_is_acknowledged_and_a_version_rolled_back_with_a_key_for_it(browser: Browser, keyed_api: Api) -> None:
    with well_behaved_page(browser, width=NARROW) as page:
        opened(page, keyed_api, ADA)
        acknowledge(page, keyed_api)
        roll_back(page, keyed_api)


def acknowledge(page: Page, api: Api) -> None:
    """With a note that is shown as the text it is."""
    panel(page, "Alerts").get_by_role("button", name="Acknowledge feature drift, version 2").click()
    page.get_by_label("Note").fill("on it <b>now</b>")
    page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    expect(panel(page, "Alerts")).to_contain_text("Acknowledged by ada")
    expect(panel(page, "Alerts")).to_contain_text("on it <b>now</b>")
    (seen,) = api.client.get("/monitoring/alerts", params={"only_open": "true"}).json()["alerts"]
    assert (seen["acknowledged_by"], seen["acknowledged_note"]) == ("ada", "on it <b>now</b>")


def roll_back(page: Page, api: Api) -> None:
    """The dialog names both versions and does nothing without a reason."""
    panel(page, "Versions").get_by_role("button", name="Roll back to version 1").click()
    dialog = page.get_by_role("dialog", name="Roll back from version 2 to version 1?")
    expect(dialog).to_contain_text("Version 2, in production since")
    assert serious_findings(page) == []
    dialog.get_by_role("button", name="Roll back to version 1").click()
    expect(dialog).to_be_visible()
    dialog.get_by_label("Reason").fill("customers complain")
    dialog.get_by_role("button", name="Roll back to version 1").click()
    expect(page.locator("#serving")).to_contain_text("Version 1")
    said = "restored by a rollback, in place of version 2; ada: customers complain"
    expect(panel(page, "Versions")).to_contain_text(said)
    assert api.info()["model_version"] == 1
    expect(page.get_by_role("button", name="Roll back to version 2")).to_have_count(0)  # only force brings that back


REASON = "inventory week " + "ä" * 400


@pytest.mark.parametrize("width", [1280, NARROW])
def test_what_people_have_declared_is_listed_where_drift_is_as_long_as_it_is_in_force(
    browser: Browser, keyed_api: Api, width: int
) -> None:
    with well_behaved_page(browser, width=width) as page:
        opened(page, keyed_api, READER)
        list_of = panel(page, "Drift by feature").locator(".declared")
        expect(list_of).to_contain_text("No column is declared seasonal or sound.")
        for column, what in (("load_ratio", "seasonal"), ("_rows", "sound")):
            declare(keyed_api, what, column, f"<i>{REASON}</i>")
        expect(list_of.get_by_role("listitem")).to_have_count(2)  # the page hears of a decision over its socket
        expect(list_of).to_contain_text("load_ratio seasonal ada, ")
        expect(list_of).to_contain_text(f"<i>{REASON}</i>")
        expect(list_of).to_contain_text("repeated rows sound")
        assert overflow_px(page) == 0
        assert serious_findings(page) == []
        for column, what in (("load_ratio", "not_seasonal"), ("_rows", "not_sound")):
            declare(keyed_api, what, column, "it was no season")
        expect(list_of).to_contain_text("No column is declared seasonal or sound.")


def declare(api: Api, what: str, column: str, reason: str) -> None:
    answer = api.client.post("/declarations", json={"declared": what, "column": column, "reason": reason})
    assert answer.status_code in {200, 201, 202}, answer.text


# States


def test_every_state_reads_differently_and_none_that_is_unknown_looks_good(
    browser: Browser, api: Api, server_url: str
) -> None:
    read: list[tuple[Any, ...]] = []

    def state_of(page: Page, expected: str | re.Pattern[str]) -> None:
        expect(sentence(page)).to_have_text(expected)
        read.append((sentence(page).text_content(), page.locator("#state").get_attribute("data-tone")))

    with well_behaved_page(browser, excused=["status of 503", "WebSocket connection"]) as page:
        opened(page, api)
        state_of(page, "No monitoring tick has run yet.")
        expect(page.locator("#drift")).to_contain_text("There is no monitoring tick in this period.")
        expect(page.locator("#alerts")).to_contain_text("No alert is open.")
        with platform_of(api.settings) as platform:
            hostile = alert("broken_feed", "<img src=x onerror=alert(1)> in a column")
            post = lambda **what: add_tick(platform, datetime.now(UTC), **what)  # noqa: E731
            post(verdict=Verdict.BROKEN_FEED, alerts=[hostile])  # the page hears of each over its socket
            state_of(page, SENTENCES[Verdict.BROKEN_FEED])
            expect(page.locator("#alerts")).to_contain_text("<img src=x onerror=alert(1)> in a column")
            assert page.locator("#alerts img").count() == 0
            for verdict in (Verdict.INSUFFICIENT, Verdict.HARMFUL_SHIFT, Verdict.STABLE):
                post(verdict=verdict)
                state_of(page, SENTENCES[verdict])
        api.post("/predict", bodies(1)[0])
        made_hours_ago = "UPDATE prediction_logs SET created_at = created_at - interval '2 hours' RETURNING 1"
        query(api.settings, "UPDATE monitoring_metrics SET window_end = window_end - interval '9 hours'")
        eventually(lambda: query(api.settings, made_hours_ago), "the prediction is in the table")
        page.reload()
        state_of(page, re.compile("^The monitor is late: "))
        query(api.settings, "UPDATE model_metadata SET stage = 'Staging', promoted_at = NULL")
        page.reload()
        state_of(page, re.compile("^No version is in production"))
        name = api.settings.mlops_db_name
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            page.reload()
            state_of(page, "Postgres is unavailable: the state of the model is unknown.")
            expect(page.locator("#reasons")).to_contain_text("Scoring is not affected")
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    sentences = [text for text, _ in read]
    assert len(set(sentences)) == len(sentences) == 8
    assert [text for text, tone in read if tone == "good"] == [SENTENCES[Verdict.STABLE]]
    assert {tone for _, tone in read} == {"good", "bad", "unknown"}


def test_an_api_that_is_gone_leaves_what_was_shown_faded_and_the_state_unknown(
    browser: Browser, api_settings: Settings
) -> None:
    gone = [
        "ERR_CONNECTION_REFUSED",
        "WebSocket connection",
        "ERR_EMPTY_RESPONSE",
        "ERR_SOCKET_NOT_CONNECTED",
        "ERR_CONNECTION_RESET",
    ]
    with well_behaved_page(browser, excused=gone) as page:
        with platform_of(api_settings) as platform:
            add_tick(platform, datetime.now(UTC) - timedelta(minutes=1), verdict=Verdict.STABLE)
        with api_in_thread(api_settings) as api:
            opened(page, api)
            expect(page.locator("#state")).to_have_attribute("data-tone", "good")
        expect(sentence(page)).to_have_text("The API is unreachable: the state of the model is unknown.")
        expect(page.locator("#state")).to_have_attribute("data-tone", "unknown")
        expect(page.locator("#connection")).to_have_text("connection lost")
        expect(page.locator("#drift .body")).to_have_class(re.compile("is-stale"))
