"""The site that `make site` builds works without a network: search, diagrams, links out of docs/. `make lint` builds it strictly."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from mkdocs.exceptions import PluginError
from playwright.sync_api import Browser, expect

from tests.browser import browser, serious_findings, well_behaved_page
from tests.docs.pages import PAGES
from tests.processes import REPOSITORY

__all__ = ["browser"]

OF_AXE = ("from origin 'null'", "preload assets", "net::ERR_FAILED")
"""What the browser says when axe reads the style sheets of a page opened as a file."""

WEBSITE = REPOSITORY / "docs/website"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site without the pages of Python modules, which take most of the time to build."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"SITE_PYTHON_REFERENCE": "false", "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(WEBSITE)
    spec = importlib.util.spec_from_file_location("site_hooks", WEBSITE / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("reference", None)


def links_of(site: Path, page: str) -> set[str]:
    return set(re.findall(r'href="([^"]+)"', (site / page).read_text()))


def test_every_page_of_the_repository_is_in_the_site(site: Path) -> None:
    places = {"README.md": "index", "docs/README.md": "documentation", "data/README.md": "data"}
    for page in PAGES:
        place = places.get(page, re.sub(r"^docs/|README$|\.md$", "", page))
        place = place.lower() if "/" not in place else place.replace("README", "index")
        assert (site / f"{place}.html").exists(), page


def test_a_link_out_of_the_docs_leads_to_its_place_in_the_site(site: Path) -> None:
    assert {"serving.html#what-it-costs", "contributing.html", "data.html", "source/env.example.html"} <= links_of(
        site, "index.html"
    )
    glossary = links_of(site, "glossary.html")
    module = "selfheal.adapters.postgres.circuit_breaker"
    assert f"reference/python/selfheal.adapters.postgres.html#{module}" in glossary
    assert "source/serving/scoring/micro_batcher.py.html" in glossary


def test_the_reference_has_every_endpoint_setting_and_command(site: Path) -> None:
    from typer.main import get_command

    from selfheal.cli import app
    from selfheal.settings import FORMER_NAMES, Settings

    rest, settings, commands = (
        (site / f"reference/{name}.html").read_text() for name in ("rest", "settings", "commands")
    )
    for endpoint in ("POST /predict", "GET /decisions/{decision_id}", "POST /monitoring/alerts/{alert_id}/acknowledge"):
        assert f"<code>{endpoint}</code>" in rest
    assert [name for name in Settings.model_fields if f"<code>{name.upper()}</code>" not in settings] == []
    assert [name for name in FORMER_NAMES.values() if f"<code>{name.upper()}</code>" not in settings] == []
    named = get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in named if f"<code>selfheal {name}</code>" not in commands] == []


@pytest.mark.parametrize(
    "loading",
    [
        '<script src="https://example.com/a.js"></script>',
        "<link rel=stylesheet href=//example.com/a.css>",
        '<img alt="a" src="http://example.com/a.png">',
        "<iframe src='https://example.com/'></iframe>",
    ],
)
def test_a_page_that_loads_from_another_host_fails_the_build(hooks: ModuleType, tmp_path: Path, loading: str) -> None:
    page = tmp_path / "page.html"
    page.write_text('<a href="https://example.com/">a link</a><script src="assets/a.js"></script>')
    hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    page.write_text(loading)
    with pytest.raises(PluginError, match=r"page\.html: .*example\.com"):
        hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))


def test_doctests_are_shown_as_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(WEBSITE)
    import doctests  # type: ignore[import-not-found]

    shown = doctests.fenced("Return it.\n\n>>> [1, 2]\n[1, 2]\n\nRaises:\n    ValueError: never")
    assert "```pycon\n>>> [1, 2]\n[1, 2]\n```\n\nRaises:" in shown


def test_diagrams_are_drawn_without_a_network(site: Path, browser: Browser) -> None:
    with well_behaved_page(browser) as page:
        page.goto((site / "architecture.html").as_uri())
        drawn = page.locator("div.mermaid")
        expect(drawn).to_have_count(5)
        assert all((box := drawn.nth(number).bounding_box()) and box["height"] > 100 for number in range(5))


def test_search_finds_a_term_of_the_glossary_on_a_page_opened_as_a_file(site: Path, browser: Browser) -> None:
    with well_behaved_page(browser) as page:
        page.goto((site / "index.html").as_uri())
        page.get_by_role("textbox", name="Search").click()
        page.keyboard.type("reconciliation")
        expect(page.locator(".md-search-result__link[href*='glossary.html']").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_page_can_be_read_by_everybody(site: Path, browser: Browser, scheme: str) -> None:
    with well_behaved_page(browser, scheme=scheme, excused=OF_AXE) as page:
        page.goto((site / "index.html").as_uri())
        assert serious_findings(page) == []
