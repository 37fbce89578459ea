"""`selfheal demo --target compose`: the same demo on the platform in containers, which are removed afterwards.

The containers are a Compose project of their own. One more container lives through the loop (`selfheal demo --api ...`); here
they are started, measured and removed, and it is checked that nothing is left.
"""

from __future__ import annotations

import json
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfheal.adapters.datasets import load_dataset
from selfheal.domain.contract import load_contract
from selfheal.kit.errors import ConfigurationError, SelfhealError
from selfheal.settings import load_settings
from selfheal.simulate.compose import FILE, ComposeProject, deploy_folder, image_mb
from selfheal.simulate.demo import divide

if TYPE_CHECKING:
    from rich.console import Console

    from selfheal.simulate.demo import DemoOptions

PROJECT = "selfheal-demo"
FILES = (FILE, "compose.demo.yaml")
API, DAGSTER = "http://api:8000", "http://webserver:3000"
"""In the network of the containers."""

OUTCOME = "/var/lib/selfheal/demo.json"
"""On the volume that the containers share: the container of the demo is gone when it is read."""

DATA = "DEMO_DATA"
MEASURE_EVERY_SECONDS = 10.0
LOG_LINES = 30


@dataclass
class Engine:
    """What the containers came to; the keys that the demo's JSON has beside those of `DemoOutcome`.

    `ready_s` is the time until all were healthy, the first training included, `rss_mb_total` the largest sum seen.
    """

    containers: int = 0
    image_mb: float | None = None
    rss_mb_total: float | None = None
    ready_s: float | None = None
    left_behind: list[str] = field(default_factory=list)


def run_compose_demo(options: DemoOptions, console: Console) -> int:
    """Run the demo in containers; return 0 only if it healed and nothing of it is left."""
    began = time.monotonic()
    project = demo_project(options)
    project.make_secrets()
    engine, outcome = Engine(), dict[str, Any]()
    try:
        with _removed(project, engine, console, leave_running=options.leave_running):
            engine.image_mb = round(image_mb(project.image), 1)
            _start(project, engine, options, console)
            with _measured(project, engine):
                outcome = _live_through(project, options, console.width)
    finally:
        outcome |= asdict(engine) | {"seconds_total": round(time.monotonic() - began, 1)}
        if options.json_file is not None:
            options.json_file.write_text(json.dumps(outcome, indent=2) + "\n")
    _print(engine, console)
    return 0 if outcome.get("healed") is True and not engine.left_behind else 1


def demo_project(options: DemoOptions) -> ComposeProject:
    """Return the demo's Compose project: one of its own, with the share of the data that trains version 1.

    Raises:
        ConfigurationError: if there are no compose files, or the containers could not read the data.
        InvalidDataError: if the data have too few rows.
    """
    settings = load_settings(**({"data": options.data} if options.data else {}))
    contract = load_contract(settings.use_case)
    contract.scenario(options.scenario)
    rows = divide(load_dataset(settings, contract, all_rows=True), contract, options)
    variables = {
        "DEMO_ROWS": str(rows.n_bootstrap),
        "DEMO_INTERVAL": str(options.interval_seconds),
        "DEMO_SEED": str(options.seed),
    }
    if settings.data is not None:
        variables[DATA] = str(readable_by_others(settings.data.expanduser().resolve()))
    return ComposeProject(PROJECT, deploy_folder(), FILES, variables)


def readable_by_others(path: Path) -> Path:
    """Return the path of a file that the user of the containers may read.

    Raises:
        ConfigurationError: naming the command that would help.
    """
    if not path.stat().st_mode & stat.S_IROTH:
        raise ConfigurationError(
            f"DATA={path} cannot be read in the containers, which run as a user of their own; chmod o+r {path}"
        )
    return path


def demo_arguments(options: DemoOptions) -> list[str]:
    """Return the words after `selfheal` in the container that lives through the loop."""
    given = {
        "--api": API,
        "--dagster": DAGSTER,
        "--json": OUTCOME,
        "--scenario": options.scenario,
        "--rate": f"{options.rate_per_second:g}",
        "--seed": str(options.seed),
        "--timeout": f"{options.timeout_seconds:g}",
    }
    return ["demo", *(word for pair in given.items() for word in pair)]


def _start(project: ComposeProject, engine: Engine, options: DemoOptions, console: Console) -> None:
    began = time.monotonic()
    console.print(f"Starting the containers of {project.image} as the Compose project {project.name}")
    project.up()
    project.wait_until_healthy(options.timeout_seconds)
    engine.ready_s = round(time.monotonic() - began, 1)
    engine.containers = sum(one.state == "running" for one in project.containers())
    console.print(f"{engine.containers} containers are healthy after {engine.ready_s:.0f} s")


def _live_through(project: ComposeProject, options: DemoOptions, width: int) -> dict[str, Any]:
    """Run the demo in a container of its own, in lines of this width; return its outcome.

    Raises:
        ServiceUnavailableError: if there is none.
    """
    once = ("run", "--rm", "--no-deps", "-T", "--env", f"COLUMNS={width}")
    command = project.command(*once, "demo", *demo_arguments(options))
    subprocess.run(command, env=project.environment(), check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    found: dict[str, Any] = json.loads(project.compose("exec", "-T", "api", "cat", OUTCOME))
    return found


@contextmanager
def _measured(project: ComposeProject, engine: Engine) -> Iterator[None]:
    """Sum up the memory of the containers now and then, while the context is open."""
    stopping = threading.Event()

    def measure() -> None:
        while True:
            with suppress(SelfhealError):  # a container may have ended since it was listed
                engine.rss_mb_total = round(max(engine.rss_mb_total or 0.0, project.rss_mb()), 1)
            if stopping.wait(MEASURE_EVERY_SECONDS):
                return

    thread = threading.Thread(target=measure, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@contextmanager
def _removed(project: ComposeProject, engine: Engine, console: Console, *, leave_running: bool) -> Iterator[None]:
    """Remove the project at the end, and before what an interrupted demo left; note what is left all the same."""
    project.remove()
    succeeded = False
    try:
        yield
        succeeded = True
    except SelfhealError:
        _print_logs(project, console)
        raise
    finally:
        if succeeded and leave_running:
            removing = " ".join(project.command("down", "--volumes"))
            console.print(f"Left running (--keep); remove it with:\n{removing}", soft_wrap=True, highlight=False)
        else:
            project.remove()
            engine.left_behind = project.left_over()


def _print_logs(project: ComposeProject, console: Console) -> None:
    try:
        logs = project.compose("logs", "--tail", str(LOG_LINES))
    except SelfhealError:
        return
    console.print(logs, markup=False, highlight=False)


def _print(engine: Engine, console: Console) -> None:
    console.print(
        f"{engine.containers} containers, image {engine.image_mb or 0:,.0f} MB, at most "
        f"{engine.rss_mb_total or 0:,.0f} MB of memory, healthy after {engine.ready_s or 0:.0f} s"
    )
    for name in engine.left_behind:
        console.print(f"[red]left behind: {name}[/]")
