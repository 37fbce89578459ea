"""How long does a rollback take until the old version serves, by `selfheal rollback` and by `POST /rollbacks`?

    python -m benchmarks.rollback --data cs-training.csv [--json rollback.json] [--quick]

A running API serves version 2, promoted by force; each round rolls back to version 1 and promotes version 2 again. A version
serves when `GET /health`, polled every 10 ms, reports it. For a rollback from the shell, the time includes the start of the
process.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.measured import exactly
from benchmarks.stage import api_command, api_environment, free_port, prepare, server, start
from selfheal.adapters.postgres.decisions import recent
from selfheal.domain.records import Action
from selfheal.kit.child_processes import log_end

MAX_SHELL_SECONDS = 5.0
"""Target: the longest time in seconds from the command until the old version serves."""

TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.01
ROUNDS, QUICK_ROUNDS = 10, 2
REASON = "a benchmark"
MAX_DECISIONS = 10_000


@dataclass(frozen=True)
class Seconds:
    """Seconds of several rollbacks from the request until the old version serves."""

    median: float
    longest: float
    rollbacks: int

    @classmethod
    def of(cls, seconds: list[float]) -> Seconds:
        """Summarise measured times."""
        return cls(statistics.median(seconds), max(seconds), len(seconds))


@dataclass(frozen=True)
class Service:
    """A running API, and commands for it."""

    address: str
    environment: dict[str, str]
    log: Path

    def served(self) -> int:
        """Return the version that the API serves now."""
        return int(httpx.get(f"{self.address}/health").json()["model_version"])

    def seconds_until_served(self, version: int, wish: Callable[[], object]) -> float:
        """Make the request and return the seconds until the version serves.

        Raises:
            RuntimeError: if it does not serve within `TIMEOUT_SECONDS`.
        """
        began = time.perf_counter()
        wish()
        while self.served() != version:
            if time.perf_counter() - began > TIMEOUT_SECONDS:
                raise RuntimeError(f"version {version} is not served; the end of {self.log}:\n{log_end(self.log)}")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - began

    def run(self, *words: str) -> psutil.Process:
        """Start a command of `selfheal`."""
        return start([sys.executable, "-m", "selfheal", *words, "--reason", REASON], self.log, self.environment)

    def post(self, path: str, **body: object) -> None:
        """Post a command to the API."""
        httpx.post(f"{self.address}{path}", json={"reason": REASON, **body}, timeout=TIMEOUT_SECONDS).raise_for_status()


def by_shell(service: Service) -> float:
    """Return the seconds until version 1 serves after `selfheal rollback`.

    The end of the command is not measured, because MLflow follows after the switch.
    """
    processes: list[psutil.Process] = []
    seconds = service.seconds_until_served(1, lambda: processes.append(service.run("rollback")))
    ended, _ = psutil.wait_procs(processes, TIMEOUT_SECONDS)
    exactly("commands that ended well", sum(process.returncode == 0 for process in ended), 1)
    return seconds


def by_api(service: Service) -> float:
    """Return the seconds until version 1 serves after `POST /rollbacks`."""
    return service.seconds_until_served(1, lambda: service.post("/rollbacks"))


def measure(service: Service, rounds: int, console: Console) -> dict[str, Seconds]:
    """Roll back and promote again `rounds` times, by both ways."""
    found: dict[str, list[float]] = {"selfheal rollback": [], "POST /rollbacks": []}
    for _ in track(range(rounds), "rollbacks", console=console):
        for name, go_back in (("selfheal rollback", by_shell), ("POST /rollbacks", by_api)):
            service.seconds_until_served(2, lambda: service.post("/promotions", model_version=2))
            found[name].append(go_back(service))
    return {name: Seconds.of(seconds) for name, seconds in found.items()}


def table(found: dict[str, Seconds]) -> Table:
    """Return one row per way, with the target."""
    shown = Table(title="From the wish to the old version being served", title_justify="left")
    for heading in ("", "median", "longest", "target", "verdict"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for name, seconds in found.items():
        is_met = seconds.longest <= MAX_SHELL_SECONDS
        verdict = "[green]met[/]" if is_met else "[red]missed[/]"
        shown.add_row(
            name, f"{seconds.median:.2f} s", f"{seconds.longest:.2f} s", f"<= {MAX_SHELL_SECONDS:g} s", verdict
        )
    return shown


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two rollbacks each way.")] = False,
) -> None:
    """Measure how soon the old version serves after a rollback by hand."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="selfheal-rollback-") as name:
        folder, port = Path(name), free_port()
        platform, _ = prepare(folder, data, console)
        address, log = f"http://127.0.0.1:{port}", folder / "api.log"
        environment = api_environment(platform.settings, port)
        service = Service(address, environment, log)
        try:
            with server(api_command(), f"{address}/health", log, **environment):
                rounds = QUICK_ROUNDS if quick else ROUNDS
                found = measure(service, rounds, console)
            for action in (Action.ROLLBACK, Action.FORCE_PROMOTE):
                n_recorded = len(recent(platform.store, MAX_DECISIONS, [action]))
                exactly(f"decisions to {action.value}", n_recorded, len(found) * rounds)
        finally:
            platform.close()
    console.print(table(found))
    if json_file is not None:
        json_file.write_text(json.dumps({name: asdict(seconds) for name, seconds in found.items()}, indent=2) + "\n")
        console.print(f"written: {json_file}")


if __name__ == "__main__":
    typer.run(main)
