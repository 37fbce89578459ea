"""`GET /monitoring/report...`: pages for people, shown with as few rights as they need; nothing else of the folder leaves."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from selfheal.services.reports.files import ensure_scripts, reports_folder, save_overview
from serving.security.signed_links import LIFETIME_SECONDS, SignedLinks
from tests.serving.history import SCORER
from tests.serving.routes.test_monitoring import as_reader, as_stranger
from tests.serving.running import Api
from tests.serving.schemas.test_problems import assert_problem

NAME = "20260302T120000-v1"


@pytest.fixture
def folder(api: Api) -> Path:
    """The API's folder with one report."""
    folder = reports_folder(api.settings.data_dir)
    save_overview("<p>overview</p>", folder, NAME)
    (folder / f"{NAME}.html").write_text("<p>evidently</p>")
    ensure_scripts(folder)
    (folder / "secret.html").write_text("secret")
    return folder


def policy_of(answer: httpx.Response) -> str:
    """What all policies together say: a browser obeys each."""
    return "; ".join(answer.headers.get_list("content-security-policy"))


def test_without_a_report_the_remedy_is_told(api: Api) -> None:
    assert "selfheal report" in assert_problem(api.client.get("/monitoring/report"), 404)["detail"]
    assert api.client.get("/monitoring/reports").json() == {"reports": [], "ticket": None}


def test_the_latest_report_is_one_step_away(api: Api, folder: Path) -> None:
    (listed,) = api.client.get("/monitoring/reports").json()["reports"]
    assert listed["name"] == NAME
    answer = api.client.get("/monitoring/report", follow_redirects=True)
    assert (answer.status_code, answer.text) == (200, "<p>overview</p>")
    assert answer.url.path == listed["overview"]
    assert api.client.get(listed["evidently"]).text == "<p>evidently</p>"


def test_a_report_on_policies_is_listed_and_served_and_never_taken_for_the_traffic(api: Api, folder: Path) -> None:
    name = "20260303T040000-policies"
    save_overview("<p>policies</p>", folder, name)
    listed = api.client.get("/monitoring/reports").json()["reports"]
    assert [report["name"] for report in listed] == [name, NAME]
    answer = api.client.get(listed[0]["overview"])
    assert answer.text == "<p>policies</p>"
    assert "sandbox allow-scripts" in policy_of(answer)
    assert api.client.get("/monitoring/report", follow_redirects=True).text == "<p>overview</p>"


def test_a_page_may_run_its_own_scripts_and_reach_nobody(api: Api, folder: Path) -> None:
    for name, scripts in (
        (f"{NAME}-overview.html", "script-src 'self'"),
        (f"{NAME}.html", "script-src 'unsafe-inline'"),
    ):
        answer = api.client.get(f"/monitoring/reports/{name}")
        assert answer.headers["content-type"].startswith("text/html")
        policy = policy_of(answer)
        assert scripts in policy
        for part in ("default-src 'none'", "sandbox allow-scripts", "frame-ancestors 'self'", "form-action 'none'"):
            assert part in policy
        for part in ("connect-src", "allow-same-origin", "http:", "https:", "*"):
            assert part not in policy
    assert (
        "'unsafe-inline'"
        not in policy_of(api.client.get(f"/monitoring/reports/{NAME}-overview.html"))
        .partition("script-src")[2]
        .partition(";")[0]
    )


def test_scripts_are_kept_by_the_browser_and_pages_are_asked_for_again(api: Api, folder: Path) -> None:
    (library,) = (path.name for path in folder.glob("plotly-*.js"))
    answer = api.client.get(f"/monitoring/reports/{library}")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    assert "no-cache" in api.client.get(f"/monitoring/reports/{NAME}.html").headers["cache-control"]


@pytest.mark.parametrize(
    "name",
    [
        "secret.html",
        "..",
        "%2e%2e",
        "..%2f..%2faudit",
        "..%5csecret.html",
        f"{NAME}.html%00",
        f"{NAME}.json",
        "a" * 5_000,
    ],
)
def test_nothing_else_leaves_the_folder(api: Api, folder: Path, name: str) -> None:
    answer = api.client.get(f"/monitoring/reports/{name}")
    assert answer.status_code in {404, 400, 414}
    assert "secret" not in answer.text.replace("secret.html", "")
    assert str(folder) not in answer.text


@pytest.mark.parametrize("path", ["/monitoring/report", "/monitoring/reports", f"/monitoring/reports/{NAME}.html"])
def test_looking_at_reports_takes_the_scope_read(watched_api: Api, path: str) -> None:
    with as_stranger(watched_api) as stranger:
        assert_problem(stranger.get(path), 401)
    assert_problem(httpx.get(f"{watched_api.client.base_url}{path}", headers={"X-API-Key": SCORER}), 403)
    with as_reader(watched_api) as reader:
        assert reader.get(path).status_code in {200, 404}


# Tickets, for browsers, which send no key with a link


def test_a_ticket_opens_pages_and_their_scripts_without_a_key(watched_api: Api) -> None:
    folder = reports_folder(watched_api.settings.data_dir)
    save_overview("<p>overview</p>", folder, NAME)
    library, _ = ensure_scripts(folder)
    with as_reader(watched_api) as reader:
        ticket = reader.get("/monitoring/reports").json()["ticket"]
    with as_stranger(watched_api) as stranger:
        page = stranger.get(f"/monitoring/tickets/{ticket}/{NAME}-overview.html")
        assert (page.status_code, page.text) == (200, "<p>overview</p>")
        assert "sandbox allow-scripts" in policy_of(page)
        assert page.headers["referrer-policy"] == "no-referrer"
        assert stranger.get(f"/monitoring/tickets/{ticket}/{library}").status_code == 200
        assert_problem(stranger.get(f"/monitoring/tickets/{ticket}/secret.html"), 404)
        assert_problem(stranger.get(f"/monitoring/reports/{NAME}-overview.html"), 401)


def test_a_ticket_that_has_expired_or_is_made_up_opens_nothing(watched_api: Api) -> None:
    folder = watched_api.settings.data_dir
    save_overview("<p>overview</p>", reports_folder(watched_api.settings.data_dir), NAME)
    expired = SignedLinks(folder, clock=lambda: time.time() - LIFETIME_SECONDS - 1).issue()
    valid = SignedLinks(folder).issue()
    with as_stranger(watched_api) as stranger:
        for ticket in (expired, f"{valid}0", expired.rpartition(".")[0] + "." + valid.rpartition(".")[2], "x"):
            refused = stranger.get(f"/monitoring/tickets/{ticket}/{NAME}-overview.html")
            assert assert_problem(refused, 403)["type"] == "ticket_expired"
        assert stranger.get(f"/monitoring/tickets/{valid}/{NAME}-overview.html").status_code == 200
