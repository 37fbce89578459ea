"""How the dashboard's files are handed out: small, kept for good under paths that change with them, and to everybody."""

from __future__ import annotations

import gzip
import re

import httpx
import pytest

from serving.dashboard.files import STATIC, DashboardFiles
from tests.serving.running import Api
from tests.serving.schemas.test_problems import assert_problem

MAX_BYTES = 1_000_000


@pytest.fixture
def page(watched_api: Api) -> httpx.Response:
    """As anybody gets it: no key is sent."""
    return httpx.get(f"{watched_api.client.base_url}/", headers={"accept-encoding": "gzip"})


def named_in(page: httpx.Response) -> list[str]:
    return sorted(set(re.findall(r'(?:href|src|content)="(/dashboard/[^"]+)"', page.text)))


def test_the_page_and_its_files_are_open_and_hold_no_data(watched_api: Api, page: httpx.Response) -> None:
    assert page.headers["content-type"].startswith("text/html")
    assert "machine_failure" not in page.text
    paths = named_in(page)
    assert len(paths) == sum(path.is_file() for path in STATIC.rglob("*")) - 1 + 1, "all but the page, and Plotly"
    for path in paths:
        answer = httpx.get(f"{watched_api.client.base_url}{path}")
        assert answer.status_code == 200, path
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["vary"] == "accept-encoding"


def test_all_but_plotly_is_far_smaller_than_a_megabyte(page: httpx.Response) -> None:
    files = DashboardFiles(asks_for_keys=True)
    packed = [
        len(file.packed)
        for path in named_in(page)
        if (file := files.find(*path.split("/", 3)[2:])) and "plotly" not in path
    ]
    assert len(packed) > 10
    assert sum(packed) + len(files.index.packed) < MAX_BYTES / 5


def test_a_page_that_has_not_changed_is_not_sent_again(watched_api: Api, page: httpx.Response) -> None:
    assert page.headers["cache-control"] == "no-cache"
    again = httpx.get(f"{watched_api.client.base_url}/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    changed = httpx.get(f"{watched_api.client.base_url}/", headers={"if-none-match": '"other"'})
    assert changed.status_code == 200


def test_whoever_takes_no_gzip_gets_the_same_plain(watched_api: Api, page: httpx.Response) -> None:
    assert page.headers["content-encoding"] == "gzip"
    plain = httpx.get(f"{watched_api.client.base_url}/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == page.content == gzip.decompress(DashboardFiles(asks_for_keys=True).index.packed)


def test_the_page_may_run_its_own_scripts_and_reach_its_own_host_only(page: httpx.Response) -> None:
    policy = dict(part.strip().split(" ", 1) for part in page.headers.get_list("content-security-policy")[0].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in str(policy)
    assert re.findall(r"<script(?! type=\"module\" src=)|<style| style=| on\w+=", page.text) == []


@pytest.mark.parametrize("path", ["0123456789abcdef/main.js", "{digest}/nothing.js", "{digest}/%2e%2e/files.py"])
def test_another_release_and_anything_else_is_not_found(shared_api: Api, path: str) -> None:
    digest = DashboardFiles(asks_for_keys=True).digest
    assert_problem(shared_api.client.get(f"/dashboard/{path.format(digest=digest)}"), 404)


def test_files_that_change_change_their_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import shutil

    from serving.dashboard import files

    copy = tmp_path_factory.mktemp("static") / "static"
    shutil.copytree(STATIC, copy)
    (copy / "panels" / "gates.js").write_text("// other")
    before = DashboardFiles(asks_for_keys=True).digest
    monkeypatch.setattr(files, "STATIC", copy)
    assert DashboardFiles(asks_for_keys=True).digest != before
