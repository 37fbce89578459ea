"""`make screenshots`: take the pictures in `docs/images` from a platform that has just healed itself.

It runs `selfheal demo --keep` in a temporary folder, sends the new version some traffic of its own, opens dashboard and Dagster in
Chromium, and stops everything. With `DATA=path/to/cs-training.csv` it uses real data, else the synthetic stand-in. Nothing here is
made up: a demo that does not heal leaves the old pictures as they are. The captions speak of version 2, so a demo in which another
version goes live before the pictures are taken is run again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).with_name("images")
MAX_BYTES = 300_000
COLOURS = 128
"""Of a picture's palette: enough for flat pages and a heat map."""

ROWS_FOR_NEW_VERSION = 900
ROWS_MEANWHILE = 10_000
"""Sent while pictures are taken: the page of a service without traffic shows little."""

FIRST_FRESH_ROW = 15_000
"""Beyond the rows that the demo has sent."""

MAX_DEMOS = 3
CAPTIONED_VERSION = 2
SETTLE_TIMEOUT_SECONDS = 180.0
STOP_TIMEOUT_SECONDS = 40.0
ADDRESS = re.compile(r"^ *(API|Dagster|MLflow) +(http://\S+)", re.MULTILINE)
PICTURES = "pictures"
KEPT = re.compile(r"kill (\d+)")


@dataclass(frozen=True)
class Healed:
    """A platform that a demo left running."""

    api: str
    dagster: str


def main() -> int:
    """Run the demo, take the pictures and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES, help="where the pictures go (default: docs/images)")
    out: Path = parser.parse_args().out
    for _ in range(MAX_DEMOS):
        with tempfile.TemporaryDirectory(prefix="selfheal-pictures-") as folder:
            version = pictures_of_a_demo(Path(folder))
            if version == CAPTIONED_VERSION:
                write_compressed(Path(folder) / PICTURES, out)
                return 0
            print(f"version {version} went live before the pictures were taken: once more")  # noqa: T201
    raise SystemExit(
        f"in each of {MAX_DEMOS} demos another version than {CAPTIONED_VERSION} went live; the pictures are as before"
    )


def pictures_of_a_demo(folder: Path) -> int | None:
    """Run a demo, take its pictures into a folder in the given one, and return the version that was live afterwards."""
    with healed_platform(folder) as healed:
        let_the_new_version_be_judged(healed, folder)
        with traffic(healed, folder, ROWS_MEANWHILE), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            take_pictures(browser, healed, folder / PICTURES)
            browser.close()
        version: int | None = httpx.get(f"{healed.api}/health", timeout=20).json()["model_version"]
        return version


def write_compressed(taken: Path, out: Path) -> None:
    """Write the pictures of a folder to another, in fewer colours."""
    out.mkdir(parents=True, exist_ok=True)
    for picture in sorted(taken.glob("*.png")):
        n_bytes = compress(picture, out / picture.name)
        print(f"{out / picture.name}: {n_bytes:,} bytes")  # noqa: T201


@contextmanager
def healed_platform(folder: Path) -> Iterator[Healed]:
    """Run the demo and yield the platform that it leaves running; stop it at the end, whatever happens.

    Raises:
        SystemExit: if the demo does not heal, with its output.
    """
    command = [sys.executable, "-m", "selfheal", "demo", "--keep"]
    print("running the demo: some minutes")  # noqa: T201
    done = subprocess.run(  # noqa: S603  (our own command, no shell)
        command, env=environment(folder), stdout=subprocess.PIPE, text=True, check=False
    )
    kept = KEPT.search(done.stdout)
    try:
        if done.returncode != 0 or kept is None:
            raise SystemExit(f"the demo did not heal, so there is nothing to take pictures of:\n{done.stdout}")
        addresses = dict(ADDRESS.findall(done.stdout))
        yield Healed(addresses["API"], addresses["Dagster"])
    finally:
        if kept is not None:
            stop(int(kept.group(1)))


def environment(folder: Path) -> dict[str, str]:
    """Return our environment, with paths that mean the same from another folder."""
    data = os.environ.get("DATA")
    found = {"DATA": str(Path(data).resolve())} if data else {}
    return os.environ | found | {"DATA_DIR": str(folder / "data"), "COLUMNS": "200"}


def stop(pid: int) -> None:
    """Ask the platform to stop, as `kill` does, and wait for all of it."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    family[0].terminate()
    _, alive = psutil.wait_procs(family, STOP_TIMEOUT_SECONDS)
    for process in alive:
        process.kill()


@contextmanager
def traffic(healed: Healed, folder: Path, n_rows: int) -> Iterator[subprocess.Popen[bytes]]:
    """Send drifted traffic to the new version until the block ends."""
    options = {"--scenario": "rate_shock", "--rows": n_rows, "--start": FIRST_FRESH_ROW, "--rate": 30}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "selfheal", "simulate", "--url", healed.api, *words]
    sender = subprocess.Popen(  # noqa: S603  (our own command, no shell)
        command, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield sender
    finally:
        sender.terminate()
        sender.wait()


def let_the_new_version_be_judged(healed: Healed, folder: Path) -> None:
    """Send traffic until a tick has a verdict on the new version.

    Raises:
        SystemExit: if no tick has covered the traffic in time.
    """
    with traffic(healed, folder, ROWS_FOR_NEW_VERSION) as sender:
        sender.wait()
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        stats = httpx.get(f"{healed.api}/monitoring/stats", timeout=20).json()
        tick = stats["tick"]
        if tick is not None and tick["verdict"] != "insufficient" and stats["unseen_since"] is None:
            return
        time.sleep(2)
    raise SystemExit(f"no tick has covered all of the traffic within {SETTLE_TIMEOUT_SECONDS:.0f} s")


def chromium() -> str | None:
    """Return the path of the system's Chromium; None: the one that playwright has installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def take_pictures(browser: Browser, healed: Healed, folder: Path) -> None:
    """Take all pictures, uncompressed, into a folder."""
    folder.mkdir()
    for name, width, height, scheme in (
        ("dashboard-light", 1280, 1360, "light"),
        ("dashboard-dark", 1280, 1360, "dark"),
        ("dashboard-phone", 390, 1200, "light"),
    ):
        with opened(browser, width, height, scheme) as page:
            show_dashboard(page, healed.api)
            page.screenshot(path=folder / f"{name}.png")
            if name == "dashboard-light":
                page.locator("#decisions").screenshot(path=folder / "dashboard-gates.png")
    with opened(browser, 1920, 900, "light") as page:
        show_asset_graph(page, healed.dagster)
        page.screenshot(path=folder / "dagster-asset-graph.png")
    with opened(browser, 1900, 1180, "light") as page:
        show_asset(page, healed.dagster, "gate_verdict")
        page.screenshot(path=folder / "dagster-asset.png")


@contextmanager
def opened(browser: Browser, width: int, height: int, scheme: str) -> Iterator[Page]:
    """Yield a page of a browser context of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    yield context.new_page()
    context.close()


def show_dashboard(page: Page, api: str) -> None:
    """Open the dashboard with its last hour, and wait until its charts are drawn."""
    page.goto(f"{api}/")
    page.get_by_role("radio", name="1 h").check(force=True)
    page.locator("main:not(:has([aria-busy=true]))").wait_for()
    page.wait_for_timeout(30_000)  # rate and latency of so many seconds


def show_asset_graph(page: Page, dagster: str) -> None:
    """Open the asset graph with all groups expanded: the loop from left to right."""
    page.goto(f"{dagster}/asset-groups/")
    page.get_by_text("serving_logs").first.wait_for()
    page.wait_for_timeout(2_000)
    page.keyboard.press("Alt+KeyE")
    page.get_by_text("gate_verdict").first.wait_for()
    page.wait_for_timeout(5_000)
    page.mouse.move(1200, 500)
    page.mouse.wheel(45, -145)  # it does not centre what has grown
    page.wait_for_timeout(2_000)


def show_asset(page: Page, dagster: str, asset: str) -> None:
    """Open the page of an asset."""
    page.goto(f"{dagster}/assets/{asset}")
    page.get_by_text("Latest materialization").first.wait_for()
    page.wait_for_timeout(4_000)


def compress(picture: Path, target: Path) -> int:
    """Write the picture, with a palette where pillow is installed, and return its size in bytes.

    Raises:
        SystemExit: if it is too large for the repository.
    """
    try:
        from PIL import Image
    except ImportError:
        shutil.copy(picture, target)
    else:
        with Image.open(picture) as image:
            image.convert("RGB").quantize(COLOURS).save(target, optimize=True)
    n_bytes = target.stat().st_size
    if n_bytes > MAX_BYTES:
        raise SystemExit(f"{target} has {n_bytes:,} bytes, more than {MAX_BYTES:,}; install pillow, or show less")
    return n_bytes


if __name__ == "__main__":
    sys.exit(main())
