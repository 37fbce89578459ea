"""How fast does the dashboard appear with 30 days of ticks every five minutes, and how many bytes does it transfer?

    python -m benchmarks.dashboard --data cs-training.csv [--json outcome.json] [--quick]

The API is a process of its own, which Chromium requests over loopback; each load starts with an empty cache and a window of
1280 px. First paint is the browser's `first-contentful-paint`; `known` is the time until the state's sentence appears, `drawn`
the time until the heat map and all charts do. Bytes are those transferred, bodies and heads, until everything is drawn.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measured import at_least, exactly, within
from benchmarks.monitored_past import DAYS, write_monitored_past
from benchmarks.stage import api_command, api_environment, free_port, prepare, server
from selfheal.cli.supervisor import stop_in_order_on_signals

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TICKS_EVERY = timedelta(minutes=5)
N_LOADS, N_QUICK_LOADS = 11, 5
N_QUESTIONS = 20
N_POINTS = 120
MIN_PLOTLY_KB = 100.0
"""Less is no Plotly: it came from a cache, or not at all."""

TARGETS = {"first_paint_ms": 1_000.0, "other_kb": 1_000.0}
TIMEOUT_MS = 60_000

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
KNOWN = "document.getElementById('state').dataset.tone !== 'loading' && performance.now()"
DRAWN = """document.querySelectorAll('.chart .bglayer').length === 8 && document.querySelector('#drift [role=option]') &&
    performance.now()"""


@dataclass(frozen=True)
class Load:
    """One load: milliseconds since the start of navigation, and transferred kilobytes (1,000 bytes)."""

    first_paint_ms: float
    known_ms: float
    drawn_ms: float
    other_kb: float
    plotly_kb: float


@dataclass(frozen=True)
class Outcome:
    """Medians of the loads. `history_ms` is the API's time to thin 30 days to 120 points: median and 95th percentile."""

    n_ticks: int
    n_loads: int
    first_paint_ms: float
    first_paint_worst_ms: float
    known_ms: float
    drawn_ms: float
    other_kb: float
    plotly_kb: float
    history_ms: float
    history_p95_ms: float


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer loads.")] = False,
) -> None:
    """Measure the dashboard's first paint and what it transfers."""
    stop_in_order_on_signals()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="selfheal-dashboard-") as name:
        Path(name).chmod(0o755)  # as root, the embedded Postgres runs as a user of its own
        outcome = measure(Path(name), data, console, N_QUICK_LOADS if quick else N_LOADS)
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(outcome), indent=1))


def measure(folder: Path, data: Path | None, console: Console, n_loads: int) -> Outcome:
    """Measure `n_loads` loads of the dashboard on a platform below `folder`."""
    platform, _ = prepare(folder, data, console)
    try:
        n_ticks = write_monitored_past(platform, datetime.now(UTC), TICKS_EVERY)
        exactly("looks written", n_ticks, timedelta(days=DAYS) // TICKS_EVERY)
        console.print(f"{n_ticks:,} looks written")
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        environment = api_environment(platform.settings, port)
        with server(api_command(), f"{url}/health/ready", folder / "api.log", **environment):
            question = f"{url}/monitoring/history?hours={DAYS * 24}&points={N_POINTS}"
            steps = httpx.get(question, timeout=30).raise_for_status().json()["steps"]
            within("steps of the history", len(steps), N_POINTS // 2, N_POINTS + 1)  # the period begins within a step
            within("looks behind the history", sum(step["n_ticks"] for step in steps), n_ticks - 1, n_ticks)
            history = [asked_ms(question) for _ in range(N_QUESTIONS)]
            loads = in_chromium(lambda browser: [load(browser, url) for _ in range(n_loads + 1)][1:])
    finally:
        platform.close()
    exactly("loads of the page", len(loads), n_loads)
    for one in loads:
        at_least("kilobytes of Plotly in a load with an empty cache", one.plotly_kb, MIN_PLOTLY_KB)
    median = {name: statistics.median(getattr(one, name) for one in loads) for name in Load.__dataclass_fields__}
    return Outcome(
        n_ticks=n_ticks,
        n_loads=n_loads,
        first_paint_worst_ms=max(one.first_paint_ms for one in loads),
        history_ms=statistics.median(history),
        history_p95_ms=statistics.quantiles(history, n=20)[-1],
        **median,
    )


def asked_ms(url: str) -> float:
    """Return the milliseconds of one GET request."""
    began = time.perf_counter()
    httpx.get(url, timeout=30).raise_for_status()
    return 1_000 * (time.perf_counter() - began)


def in_chromium(work: Callable[[Browser], list[Load]]) -> list[Load]:
    """Return the result of `work` with a headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise typer.BadParameter("no Chromium on this machine; install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            return work(browser)
        finally:
            browser.close()


def load(browser: Browser, url: str) -> Load:
    """Load the page once with an empty cache."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, bypass_csp=True
    )  # so that its scripts can be evaluated
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    devtools.send("Network.enable")
    urls: dict[str, str] = {}
    n_bytes = {"plotly": 0.0, "other": 0.0}

    def finished(event: Any) -> None:
        kind = "plotly" if urls.get(event["requestId"], "").endswith("plotly.min.js") else "other"
        n_bytes[kind] += event["encodedDataLength"]

    devtools.on("Network.requestWillBeSent", lambda event: urls.update({event["requestId"]: event["request"]["url"]}))
    devtools.on("Network.loadingFinished", finished)
    page.goto(url, wait_until="commit")
    known_ms = page.wait_for_function(KNOWN).json_value()
    drawn_ms = page.wait_for_function(DRAWN).json_value()
    first_paint_ms = page.evaluate(PAINTED)
    context.close()
    return Load(first_paint_ms, known_ms, drawn_ms, n_bytes["other"] / 1_000, n_bytes["plotly"] / 1_000)


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome as a table with the targets."""
    table = Table(
        title=f"Dashboard with {outcome.n_ticks:,} looks behind it, median of {outcome.n_loads} loads, cold cache"
    )
    for heading in ("what", "measured", "target"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    rows = (
        (
            "first paint",
            f"{outcome.first_paint_ms:,.0f} ms (worst {outcome.first_paint_worst_ms:,.0f})",
            "first_paint_ms",
        ),
        ("state known", f"{outcome.known_ms:,.0f} ms", None),
        ("all charts drawn", f"{outcome.drawn_ms:,.0f} ms", None),
        ("transferred besides Plotly", f"{outcome.other_kb:,.0f} kB", "other_kb"),
        ("Plotly", f"{outcome.plotly_kb:,.0f} kB", None),
        ("30 days thinned by the API", f"{outcome.history_ms:,.0f} ms (95 %: {outcome.history_p95_ms:,.0f})", None),
    )
    for what, measured, name in rows:
        if name is None:
            table.add_row(what, measured, "")
            continue
        is_met = getattr(outcome, name) <= TARGETS[name]
        unit = "ms" if name.endswith("ms") else "kB"
        table.add_row(what, f"[{'green' if is_met else 'red'}]{measured}[/]", f"<= {TARGETS[name]:,.0f} {unit}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
