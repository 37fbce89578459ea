"""`python -m benchmarks.crash`: see `benchmarks.crash`."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.crash.api import measure
from benchmarks.crash.operations import OPERATIONS
from benchmarks.crash.ordeal import FULL as FULL_API
from benchmarks.crash.ordeal import QUICK as QUICK_API
from benchmarks.crash.outcome import FULL, QUICK, Demands, outcome_of, show
from benchmarks.crash.points import POINTS_OF_EACH_STEP, try_points
from benchmarks.crash.processes import kill_processes
from benchmarks.crash.resuming import PointsFile, code_of_points
from benchmarks.crash.states import roomy_folder


class Part(StrEnum):
    """One of the three ordeals."""

    POINTS = "points"
    PROCESSES = "processes"
    API = "api"


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Every step once, few kills: a look, not a proof.")] = False,
    part: Annotated[list[Part] | None, typer.Option(help="Only this ordeal; may be repeated.")] = None,
    operation: Annotated[list[str] | None, typer.Option(help="Only points of this operation; may be repeated.")] = None,
    each: Annotated[
        int, typer.Option(min=1, max=10_000, help="Points of each step; with --quick one.")
    ] = POINTS_OF_EACH_STEP,
    lanes: Annotated[int, typer.Option(min=1, max=64, help="Points tried at once; default: one a core.")] = (
        os.cpu_count() or 1
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of states and moments.")] = 20,
    points_file: Annotated[
        Path | None, typer.Option("--points", help="Keep each point in this file, and go on from those that it has.")
    ] = None,
) -> None:
    """End the platform's processes at every durable step and at random moments, and count what it forgot.

    Exit code 1 if anything, or if less was measured than asked.
    """
    unknown = set(operation or ()) - set(OPERATIONS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; the operations are {', '.join(OPERATIONS)}")
    console, began = Console(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))  # as Ctrl-C: take everything down
    random.seed(seed)
    parts = set(part or ([Part.POINTS] if operation else Part))
    only = tuple(operation or ())
    points = survived = api = None
    with _progress(console) as progress:
        if Part.POINTS in parts:
            with roomy_folder("selfheal-crash-") as folder:
                points = try_points(
                    folder,
                    progress,
                    n_each=1 if quick else each,
                    n_lanes=lanes,
                    only=only,
                    seed=seed,
                    file=None if points_file is None else PointsFile(points_file, code_of_points()),
                )
        if Part.PROCESSES in parts:
            with roomy_folder("selfheal-crash-") as folder:
                survived = kill_processes(folder, data, console, progress, n_kills=1 if quick else 10)
    if Part.API in parts:
        with tempfile.TemporaryDirectory(prefix="selfheal-crash-") as name:
            Path(name).chmod(0o755)  # as root, the embedded Postgres runs as a user of its own
            api = measure(Path(name), data, QUICK_API if quick else FULL_API, console)
    demands = _demands(QUICK if quick else dataclasses.replace(FULL, points_of_each_step=each), parts, only)
    outcome = outcome_of(points, survived, api, demands, (time.monotonic() - began) / 60)
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(outcome.to_dict(), indent=1))
    raise typer.Exit(0 if outcome.is_ok else 1)


def _demands(all_parts: Demands, parts: set[Part], operations: tuple[str, ...]) -> Demands:
    """Of the parts that were asked for."""
    return dataclasses.replace(
        all_parts,
        points=None if Part.POINTS not in parts else 0 if operations else all_parts.points,
        kills=all_parts.kills if Part.PROCESSES in parts else None,
        api_kills=all_parts.api_kills if Part.API in parts else None,
        operations=operations or all_parts.operations,
    )


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
