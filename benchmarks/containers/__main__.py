"""`python -m benchmarks.containers`: see `benchmarks.containers`."""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.containers.outcome import Outcome, Scenario, show
from benchmarks.containers.platform import ContainerPlatform, new_platform
from benchmarks.containers.scenarios import FULL, NEXT_IMAGE, QUICK, RESTORED, SCENARIOS, Plan, run_scenario
from benchmarks.stage import request_rows
from benchmarks.witness import Ledger
from selfheal.adapters.datasets import load_dataset
from selfheal.domain.contract import TRUE_LABEL, load_contract
from selfheal.kit.errors import SelfhealError
from selfheal.settings import load_settings
from selfheal.simulate.compose import docker

N_ROWS = 3_000
COUNTS = (
    "n_asked_rows",
    "n_refused",
    "n_broken",
    "n_retried",
    "n_asked_again",
    "n_answered_differently",
    "n_other_answers",
)


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few kills, a short absence: a look, not a proof.")] = False,
    scenario: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    n_kills: Annotated[int | None, typer.Option("--kills", min=1, max=1_000, help="Kills in all.")] = None,
    away: Annotated[float | None, typer.Option(min=10, max=3_600, help="Seconds without the daemon.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of victims and moments.")] = 20,
) -> None:
    """Kill, restart, upgrade and restore the platform's containers under traffic, and count what it forgot.

    Exit code 1 if anything, or if less was measured than asked.
    """
    unknown = set(scenario or ()) - set(SCENARIOS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; the scenarios are {', '.join(SCENARIOS)}")
    console, began = Console(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))  # as Ctrl-C: remove everything
    random.seed(seed)
    standard = QUICK if quick else FULL
    plan = Plan(n_kills or standard.n_kills, away or standard.away_seconds)
    wanted = [name for name in SCENARIOS if scenario is None or name in scenario]
    ledger = _ledger()
    with tempfile.TemporaryDirectory(prefix="selfheal-containers-") as folder, _removed(Path(folder)) as platform:
        ledger.api_key = platform.api_key
        console.print(f"Starting the containers of {platform.project.image}")
        ready_s, rss_mb = platform.start(), platform.project.rss_mb()
        console.print(f"healthy after {ready_s:.0f} s", highlight=False)
        done = _lived_through(wanted, platform, plan, ledger, console)
    left = [name for project in _projects(platform) for name in project.project.left_over()]
    outcome = Outcome(
        scenarios=done,
        kills_wanted=plan.n_kills if "kills" in wanted else None,
        ready_s=round(ready_s, 1),
        rss_mb_total=round(rss_mb, 1),
        minutes=round((time.monotonic() - began) / 60, 1),
        clients={name: getattr(ledger, name) for name in COUNTS},
        left_behind=left,
    )
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(outcome.to_dict(), indent=1) + "\n")
    raise typer.Exit(1 if outcome.problems else 0)


def _lived_through(
    names: Sequence[str], platform: ContainerPlatform, plan: Plan, ledger: Ledger, console: Console
) -> list[Scenario]:
    """Live through the scenarios; each goes on with the platform that the one before has left."""
    done: list[Scenario] = []

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    for name in names:
        scenario, platform = run_scenario(name, platform, plan, ledger, say)
        done.append(scenario)
    return done


def _ledger() -> Ledger:
    """Return a ledger of calm rows, those that the containers have as well."""
    settings = load_settings()
    contract = load_contract(settings.use_case)
    dataset = load_dataset(settings, contract)
    labels = dataset.frame[TRUE_LABEL].head(N_ROWS).astype(int).tolist()
    return Ledger(request_rows(dataset, contract, N_ROWS), labels)


@contextmanager
def _removed(folder: Path) -> Iterator[ContainerPlatform]:
    """Open a platform; at the end nothing of it is left."""
    platform = new_platform(folder)
    for project in _projects(platform):
        project.project.remove()
    try:
        yield platform
    finally:
        for project in _projects(platform):
            project.project.remove()
        with suppress(SelfhealError):  # there is none unless an upgrade was tried
            docker("image", "rm", NEXT_IMAGE)


def _projects(platform: ContainerPlatform) -> list[ContainerPlatform]:
    return [platform, platform.with_variables(RESTORED)]


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
