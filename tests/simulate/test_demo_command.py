"""The demo as people run it, and the dashboard open beside it: what they are promised to see happens before their eyes.

One demo for all tests here: the first ones watch it, the last asks for its outcome.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import (
    NARROW,
    PATIENCE_MS,
    WIDE,
    browser,  # noqa: F401  (a fixture)
    overflow_px,
    well_behaved_page,
)
from tests.processes import running_with, selfheal, start, stop
from tests.waiting import eventually

expect.set_options(timeout=PATIENCE_MS)
pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(500)]

KEY = "selfheal_a-plain-key-may-do-everything"
START_SECONDS, HEAL_SECONDS = 200, 300
HEAL_MS = 1_000.0 * HEAL_SECONDS
REFUSED = "the server responded with a status of 401"
"""Chromium writes into the console that the page asked before it had the key."""


@dataclass(frozen=True)
class Demo:
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "demo.log").read_text()

    @property
    def outcome_file(self) -> Path:
        return self.folder / "outcome.json"

    @property
    def platform(self) -> psutil.Process | None:
        """The process that the demo has left running; None: there is none (any more)."""
        pid = self.said(r"kill (\d+)")
        return psutil.Process(int(pid)) if pid is not None and psutil.pid_exists(int(pid)) else None

    def said(self, pattern: str) -> str | None:
        """What the first group of the pattern is in its output so far."""
        found = re.search(pattern, self.log)
        return None if found is None else found.group(1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A running demo that leaves its platform running when it is done; in the end nothing of it is left."""
    folder = tmp_path_factory.mktemp("demo")
    env = dict(os.environ) | {"DATA_DIR": str(folder / "data"), "COLUMNS": "160", "API_KEYS": KEY}
    command = selfheal("demo", "--keep", "--rate", "80", "--interval", "5", "--json", str(folder / "outcome.json"))
    running = Demo(folder, start(command, env, folder / "demo.log"))
    yield running
    assert stop(running.process) == []
    if running.platform is not None:
        running.platform.terminate()
    eventually(lambda: running_with(folder) == [], "everything has stopped", 60)


def api_of(demo: Demo) -> str:
    pattern = r"watch it at (http://\S+)"
    eventually(
        lambda: demo.said(pattern) is not None or demo.process.poll() is not None, "the API answers", START_SECONDS
    )
    address = demo.said(pattern)
    assert address is not None, demo.log
    return address


def enter(page: Page, address: str) -> None:
    """Opens the dashboard with the admin key."""
    page.goto(address)
    page.get_by_role("dialog", name="API key").get_by_label("Key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")


def region(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def drifted_features(page: Page) -> Locator:
    features = page.get_by_role("listbox", name="Features, by drift over time")
    return features.get_by_role("option", name=re.compile("▲.* drifted"))


def acknowledges(page: Page, alert: re.Pattern[str], note: str) -> None:
    alerts = region(page, "Alerts")
    alerts.get_by_role("button", name=alert).first.click(timeout=HEAL_MS)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Note").fill(note)
    dialog.get_by_role("button", name="Acknowledge").click()
    expect(alerts.get_by_text(note)).to_be_visible()


def sees_the_decision_and_the_new_version(page: Page) -> None:
    versions = region(page, "Versions")
    live = versions.get_by_role("listitem").filter(has_text="in production")
    expect(live).to_contain_text("Version 2", timeout=HEAL_MS)
    expect(live).to_contain_text("passed its gates, in place of version 1")
    decisions = region(page, "Decisions")
    promoted = decisions.locator("details").filter(has_text="promote").first
    if promoted.get_attribute("open") is None:
        promoted.locator("summary").click()
    expect(promoted.get_by_text("Gates: 6 of 6 passed")).to_be_visible()
    for gate in ("f1 improvement", "brier degradation", "labelled samples", "label coverage", "recall", "auc roc"):
        expect(promoted.get_by_text(gate, exact=True)).to_be_visible()


def rolls_back(page: Page, version: int, reason: str) -> None:
    region(page, "Versions").get_by_role("button", name=f"Roll back to version {version}").click()
    dialog = page.get_by_role("dialog", name=f"to version {version}?")
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=f"Roll back to version {version}").click()
    expect(page.get_by_text(f"Version {version} is in production again.")).to_be_visible()
    live = region(page, "Versions").get_by_role("listitem").filter(has_text="in production")
    expect(live).to_contain_text(f"Version {version}")
    expect(live).to_contain_text(reason)


def promoted_by_force(address: str, version: int, reason: str) -> None:
    wish = {"model_version": version, "reason": reason}
    httpx.post(f"{address}/promotions", json=wish, headers={"X-API-Key": KEY}, timeout=60).raise_for_status()


def test_the_dashboard_shows_the_loop_and_lets_the_person_with_the_admin_key_act(
    demo: Demo,
    browser: Browser,  # noqa: F811
) -> None:
    with ExitStack() as stack:
        wide, narrow = pages = [
            stack.enter_context(well_behaved_page(browser, width=width, excused=(REFUSED,))) for width in (WIDE, NARROW)
        ]
        address = api_of(demo)
        for page in pages:
            enter(page, address)
            assert drifted_features(page).count() == 0, "calm at first"
        acknowledges(wide, re.compile("Acknowledge harmful shift"), "ada is looking")
        acknowledges(narrow, re.compile("Acknowledge (?!harmful shift)"), "so is bob, on his phone")
        expect(region(narrow, "Alerts").get_by_text("ada is looking")).to_be_visible()
        for page in pages:
            expect(drifted_features(page).first).to_be_visible()
            sees_the_decision_and_the_new_version(page)
        demo.process.wait(HEAL_SECONDS)  # it compares both versions before anybody rolls back
        rolls_back(wide, 1, "customers complain")
        promoted_by_force(address, 2, "they were wrong")
        rolls_back(narrow, 1, "they were right")
        assert [overflow_px(page) for page in pages] == [0, 0]


def test_the_demo_heals_on_the_synthetic_stand_in(demo: Demo) -> None:
    demo.process.wait(START_SECONDS + HEAL_SECONDS)
    assert demo.process.returncode == 0, demo.log
    outcome = json.loads(demo.outcome_file.read_text())
    assert outcome["healed"] is True
    assert outcome["dataset"] == "synthetic"
    assert outcome["failed_requests"] == 0
    assert outcome["f1_after"] > outcome["f1_before"]
    assert "SYNTHETIC" in demo.log


def processes_of(up: psutil.Process, word: str) -> list[psutil.Process]:
    """Those that `up` itself has started, with this word in their command."""
    return [child for child in up.children() if word in child.cmdline()]


def is_healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").is_success
    except httpx.TransportError:
        return False


def test_a_killed_process_of_the_platform_is_restarted_alone(demo: Demo) -> None:
    up = demo.platform
    assert up is not None, "the demo has left it running"
    killed = [*processes_of(up, "grpc"), *processes_of(up, "serving")]
    others = {child.pid for child in up.children()} - {process.pid for process in killed}
    for process in killed:
        process.kill()
    psutil.wait_procs(killed)
    for word in ("grpc", "serving"):
        eventually(lambda word=word: processes_of(up, word) != [], f"{word} runs again")  # type: ignore[misc]
    eventually(lambda: is_healthy(api_of(demo)), "the API answers again", START_SECONDS)
    assert {child.pid for child in up.children()} >= others


def test_with_a_killed_up_all_is_gone(demo: Demo) -> None:
    """The last of the module: it ends what the others use."""
    assert demo.platform is not None
    demo.platform.kill()
    eventually(lambda: running_with(demo.folder) == [], "everything has stopped, the embedded server too", 60)
