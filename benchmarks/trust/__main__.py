"""`python -m benchmarks.trust`: see `benchmarks.trust`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.trust.figures import NO_TARGET
from benchmarks.trust.results import Done, Results, code_of_worlds
from benchmarks.trust.work import measure
from benchmarks.trust.worlds import Figures, Given, TrustWorld, all_worlds
from selfheal.kit.errors import InvalidDataError


def main(
    data: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Labelled rows like cs-training.csv.")],
    stream: Annotated[list[Path] | None, typer.Option(exists=True, help="A natural stream; repeatable.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    world: Annotated[list[str] | None, typer.Option(help="Only this world, such as W9; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few tries: a look, not a figure.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes; default: one a core.")] = os.cpu_count() or 1,
    results: Annotated[
        Path | None, typer.Option(help="Keep each finished piece in this file, and go on from those that it has.")
    ] = None,
) -> None:
    """Measure the loop in worlds in which it can go wrong. Exit code 1 if a target is missed."""
    worlds, console, began = all_worlds(), Console(), time.monotonic()
    unknown = sorted(set(world or ()) - set(worlds))
    if unknown:
        raise typer.BadParameter(
            f"--world {', '.join(unknown)}; the worlds are {', '.join(sorted(worlds, key=_place))}"
        )
    chosen = [worlds[name] for name in sorted(set(world or worlds), key=_place)]
    given = Given(data, tuple(stream or ()), quick, seed)
    found: dict[str, dict[str, Any]] = {}

    def on_world(one: TrustWorld, done: Mapping[str, Done]) -> None:
        figures = one.figures(given, {name: piece.found for name, piece in done.items()})
        found[one.name] = _as_json(one, figures) | {"cpu_s": round(sum(piece.cpu_s for piece in done.values()), 1)}
        console.print(_table(one, figures))

    try:
        known = Results(results, given, code_of_worlds())
    except InvalidDataError as error:
        raise typer.BadParameter(f"--results: {error}") from error
    measure(chosen, given, known, n_processes=jobs, on_world=on_world, on_progress=console.print)
    found = {one.name: found[one.name] for one in chosen}
    if json_file is not None:
        about = {"data": data.name, "streams": [path.name for path in given.streams], "quick": quick, "seed": seed}
        about["wall_s"] = round(time.monotonic() - began, 1)
        json_file.write_text(json.dumps(about | {"worlds": found}, indent=2) + "\n", encoding="utf-8")
    raise typer.Exit(0 if all(one["met"] for one in found.values()) else 1)


def _place(name: str) -> int:
    return int(name.removeprefix("W")) if name.removeprefix("W").isdigit() else 0


def _as_json(world: TrustWorld, figures: Figures) -> dict[str, Any]:
    return {
        "title": world.title,
        "half": world.half.value,
        "met": all(figure.is_met for figure in figures.values()),
        "figures": {name: figure.to_dict() for name, figure in figures.items()},
    }


def _table(world: TrustWorld, figures: Figures) -> Table:
    table = Table(title=f"{world.name}: {world.title} ({world.half.value})", title_justify="left")
    for heading in ("figure", "value", "95 % bounds", "target", ""):
        table.add_column(heading, justify="left" if heading in {"figure", "target"} else "right")
    for name, figure in figures.items():
        mark = "" if figure.target == NO_TARGET else "met" if figure.is_met else "missed"
        table.add_row(name, f"{figure.value:.4g}", f"{figure.low:.4g} to {figure.high:.4g}", str(figure.target), mark)
    return table


if __name__ == "__main__":
    typer.run(main)
