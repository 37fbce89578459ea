"""Chromium for tests of pages, and what a page must never do: complain, or ask another host.

`browser` is a fixture of one module: playwright's loop would be in the way of tests that run their own. A package's conftest
imports it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRED = "SELFHEAL_REQUIRE_BROWSER"
MISSING = "no Chromium on this machine; install the package chromium (Debian: apt-get install chromium)"
PATIENCE_MS = 30_000
"""A bound for broken code on a busy machine, not a promise."""

HEIGHT = 900
WIDE, NARROW = 1280, 390


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; skipped where there is none, unless the environment requires it."""
    from playwright.sync_api import sync_playwright

    path = next((found for found in map(shutil.which, NAMES) if found), None)
    if path is None:
        if os.environ.get(REQUIRED):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def well_behaved_page(
    browser: Browser, *, width: int = WIDE, scheme: Any = "light", excused: Sequence[str] = ()
) -> Iterator[Page]:
    """A page in a browser of its own (no cookies, no storage), which at the end must not have misbehaved.

    Args:
        excused: parts of messages that are the browser's own about answers that the test wants, such as of a refusal.
    """
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints: list[str] = []
    hosts: set[str] = set()
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None
    )
    page.on("pageerror", lambda error: complaints.append(f"{error}\n{error.stack}"))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).netloc))
    try:
        yield page
        own = urlsplit(page.url).netloc
        assert hosts - {""} <= {own}, f"the page asked another host: {hosts}"
        unexcused = [text for text in complaints if not any(part in text for part in excused)]
        assert not unexcused, "\n".join(unexcused)
    finally:
        context.close()


def serious_findings(page: Page) -> list[str]:
    """What axe-core finds of serious or critical impact: rule, help and the first places."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]


def overflow_px(page: Page) -> int:
    """By how much the page is wider than its window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wider
