"""What would each policy have cost? Whole deployments, replayed on a simulated clock.

    python -m benchmarks.heal --data cs-training.csv [--stream elec2.csv ...] [--json heal.json] [--quick]
    python -m benchmarks.heal --data cs-training.csv --stream mine.csv --time when --label outcome --policy never --policy weekly
    python -m benchmarks.heal --tables heal.json [--before earlier.json] [--into docs/benchmarks.md]

A cell is one deployment of one world, seed and policy. The champion learns from rows before the stream; the traffic is drawn from the
other rows, as the world declares (`selfheal.simulate.replay.catalogue`). All policies of a world and seed get the same rows, so their
differences are paired. Figures are means over seeds with 95 % bounds (`selfheal.simulate.replay.summary`): Student's t for means,
Fieller's for the recovered share, which is null where the recoverable gap is within its own bound of 0. Decisions are every six hours.

Without `--world` and `--quick` the streams that a package ships are replayed too.

`--tables` prints the tables of such a JSON as Markdown, the worlds in which ours loses first; `--into` puts them into a page between the
lines `<!-- tables of benchmarks.heal -->` and `<!-- end of tables -->`.

Every finished cell is a line in `--results`; a run that is interrupted continues there. The lines name the code that wrote them, and
a run that takes lines of other code says so. Worlds in which a policy does badly stay in.

`--before` names the JSON of an earlier run, such as of an older release, which this benchmark of that release wrote from the same
data: our policy then and now stand side by side, as tables and as `before_after` in the JSON.

`--quick` replays the core worlds, cut to `QUICK_DAYS` days after the change, under never, the oracle and ours, with one seed.

At the end small deployments are lived through by Dagster on Postgres and MLflow, too (`benchmarks.parity`): the replay has to take the
same decisions, with the same numbers to the last bit.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.table import Table

from benchmarks.before_after import markdown, side_by_side
from benchmarks.forecast import Forecast
from benchmarks.measured import at_least, exactly
from benchmarks.parity import Parity
from benchmarks.parity_cases import ACTIONS, ALWAYS_AT_LEAST, CASES, QUICK_CASES, TRIGGERS, Case, run_cases
from selfheal.kit.code_version import code_version
from selfheal.kit.durations import span
from selfheal.kit.errors import ConfigurationError, InvalidDataError
from selfheal.simulate.replay.builders import Rebuilder, StreamFile, named_streams
from selfheal.simulate.replay.catalogue import WORLDS, core_worlds
from selfheal.simulate.replay.comparison import WorldFigures, summarised
from selfheal.simulate.replay.engine import INTERVAL
from selfheal.simulate.replay.natural import SHIPPED, recognised
from selfheal.simulate.replay.policies import NEVER, ORACLE, OURS, POLICIES, policy_named
from selfheal.simulate.replay.runs import Cell, Run, finished, run_cells
from selfheal.simulate.replay.stream_file import columns_of
from selfheal.simulate.replay.tables import markdown_tables

USE_CASE = "selfheal.credit_risk:contract"
CORE_SEEDS, OTHER_SEEDS = 20, 5
STREAM_SEEDS = 1
"""A natural stream is one deployment; a seed would only change how the folds of a training are cut."""

QUICK_POLICIES = tuple(name for name in (NEVER, ORACLE, OURS) if name in POLICIES)
FIRST_SEED = 1
QUICK_DAYS = 28.0
"""A poisoned week ends on the 21st day after the change; a look waits a week longer."""

SHOWN_DIFFERENCES = 20
MIN_COMPARED, MIN_COMPARED_QUICK = 200, 20
"""Fewest decisions of a comparison with Dagster."""

BEFORE_AFTER = "Our policy before and now:"
TABLES_BEGIN, TABLES_END = "<!-- tables of benchmarks.heal -->", "<!-- end of tables -->"


def cells_of(worlds: list[str], streams: list[str], policies: list[str], *, quick: bool) -> list[Cell]:
    """Return all cells of the benchmark."""
    core = {world.name for world in core_worlds()}
    found: list[Cell] = []
    for name in worlds:
        n_seeds = 1 if quick else CORE_SEEDS if name in core else OTHER_SEEDS
        found += [Cell(name, FIRST_SEED + number, policy) for number in range(n_seeds) for policy in policies]
    return found + [
        Cell(name, FIRST_SEED + n, policy) for name in streams for n in range(STREAM_SEEDS) for policy in policies
    ]


def check(done: Mapping[Cell, dict[str, Any]], wanted: list[Cell]) -> None:
    """Check that every cell was replayed, that policies were asked, and that the champion served where nothing was promoted."""
    exactly("cells replayed", len(done), len(set(wanted)))
    for cell, figures in done.items():
        at_least(f"decisions of {cell.policy} in {cell.world}", figures["n_decisions"], 4)
        if cell.policy == NEVER:
            exactly(f"promotions of {NEVER} in {cell.world}", figures["promotions"], 0)


def parity_figures(found: Parity) -> dict[str, Any]:
    """Return the figures of the comparison with Dagster."""
    return {
        "parity_decisions_compared": found.compared,
        "parity_ticks_compared": found.ticks,
        "parity_differences": len(found.differences),
        "parity_by_action": found.by_action,
        "parity_by_trigger": found.by_trigger,
    }


def check_parity(found: Parity, *, quick: bool) -> None:
    """Check that enough was compared, each action and each trigger often enough."""
    at_least("decisions compared", found.compared, MIN_COMPARED_QUICK if quick else MIN_COMPARED)
    for names, counts in ((ACTIONS, found.by_action), (TRIGGERS, found.by_trigger)):
        for name in () if quick else names:
            at_least(f"compared decisions, {name}", counts.get(name, 0), ALWAYS_AT_LEAST)


def world_table(worlds: Mapping[str, WorldFigures]) -> Table:
    """Return one row per world, one column per policy: the share recovered, the restricted mean hours to healing, wrong promotions."""
    policies = list(next(iter(worlds.values()), {}))
    table = Table(
        title="Share recovered | hours to healing | wrong promotions (means over seeds)", title_justify="left"
    )
    table.add_column("world")
    for policy in policies:
        table.add_column(policy, justify="right")
    for name, by_policy in worlds.items():
        table.add_row(name, *(_cell(by_policy[policy]) for policy in policies))
    return table


def _cell(figures: Mapping[str, Any]) -> str:
    parts = (("recovered_share", "{:.0%}"), ("heal_h", "{:.0f} h"), ("wrong_promotions", "{:.1f}"))
    return " | ".join("-" if figures[key][1] is None else form.format(figures[key][1]) for key, form in parts)


def stream_table(streams: Mapping[str, WorldFigures]) -> Table:
    """Return one row per stream and policy."""
    table = Table(title="Natural streams, on their own labels", title_justify="left")
    for heading in ("stream", "policy", "Brier", "F1", "AUC", "trainings"):
        table.add_column(heading, justify="left" if heading in {"stream", "policy"} else "right")
    for name, by_policy in streams.items():
        for policy, figures in by_policy.items():
            shown = ("-" if (v := figures[key][1]) is None else f"{v:.3f}" for key in ("brier", "f1", "auc"))
            table.add_row(name, policy, *shown, f"{figures['trainings'][1]:.0f}")
    return table


def with_tables(page: str, tables: str) -> str:
    """Return a page of Markdown with these tables in the place of those before.

    Raises:
        InvalidDataError: if the page does not have one place for them.
    """
    before, begin, rest = page.partition(TABLES_BEGIN)
    _, end, after = rest.partition(TABLES_END)
    if not begin or not end:
        raise InvalidDataError(
            f"the page has no lines {TABLES_BEGIN!r} and {TABLES_END!r} to put tables between; add them"
        )
    return f"{before}{TABLES_BEGIN}\n\n{tables}\n{TABLES_END}{after}"


def earlier_run(path: Path) -> dict[str, Any]:
    """Return the JSON of an earlier run.

    Raises:
        InvalidDataError: if the file cannot be read, or is none of this benchmark.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        side_by_side(found, {"worlds": {}})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidDataError(f"--before {path}: no JSON of this benchmark: {error}") from error
    return found


def print_tables(json_file: Path, page: Path | None, before: dict[str, Any] | None = None) -> None:
    """Print the tables of a finished benchmark, or put them into a page.

    Raises:
        InvalidDataError: if a file cannot be read, or is none of a benchmark.
    """
    try:
        found = json.loads(json_file.read_text(encoding="utf-8"))
        tables = markdown_tables(found)
        beside = found.get("before_after") if before is None else side_by_side(before, found)
        if beside is not None:
            tables = f"{tables}\n{BEFORE_AFTER}\n\n{markdown(beside)}"
        if page is not None:
            page.write_text(with_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDataError(f"--tables {json_file}: no JSON of this benchmark, or no such page: {error}") from error
    typer.echo(tables if page is None else f"tables written into {page}")


def main(
    data: Annotated[Path | None, typer.Option(help="labelled rows in the shape of cs-training.csv")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
    stream: Annotated[
        list[Path] | None, typer.Option(help="a natural stream (Elec2's file is recognised); repeatable")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option("--time", help="a stream's column of times, unless it is a known stream")
    ] = None,
    label: Annotated[str | None, typer.Option(help="a stream's column of labels, 0 or 1")] = None,
    every: Annotated[float | None, typer.Option(help="minutes between the rows of a stream without times")] = None,
    label_delay: Annotated[float, typer.Option(help="hours from a stream's row to its label")] = 24.0,
    exclude: Annotated[list[str] | None, typer.Option(help="a stream's column that is no input; repeatable")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="only these; repeatable")] = None,
    world: Annotated[list[str] | None, typer.Option(help="only these; repeatable")] = None,
    results: Annotated[Path | None, typer.Option(help="one line per finished cell; default: beside --json")] = None,
    processes: Annotated[int, typer.Option(help="worker processes")] = os.cpu_count() or 1,
    parity: Annotated[bool, typer.Option(help="compare with Dagster on Postgres, too")] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="core worlds, shortened; never, oracle and ours; one seed")
    ] = False,
    tables: Annotated[
        Path | None, typer.Option(help="print the tables of this JSON as Markdown, replay nothing")
    ] = None,
    into: Annotated[Path | None, typer.Option(help="with --tables: the page that gets them")] = None,
    before: Annotated[
        Path | None, typer.Option(help="the JSON of an earlier run, set beside this one (or beside that of --tables)")
    ] = None,
) -> None:
    """Replay every world and stream under every policy. Exit code 1 if Dagster decides otherwise than the replay."""
    console = Console()
    began = time.monotonic()
    try:
        earlier = None if before is None else earlier_run(before)
        if tables is not None:
            print_tables(tables, into, earlier)
            return
        if data is None:
            raise ConfigurationError("--data is missing; name labelled rows in the shape of cs-training.csv")
        policies = policy or list(QUICK_POLICIES if quick else POLICIES)
        for name in policies:
            policy_named(name)
        worlds = world or [w.name for w in (core_worlds() if quick else WORLDS.values())]
        columns = columns_of(time_column, label, every, label_delay, tuple(exclude or ()))
        files = named_streams(tuple(StreamFile(path, None if recognised(path) else columns) for path in stream or []))
        streams = [name for name, _ in files] + ([] if quick or world else list(SHIPPED))
        wanted = cells_of(worlds, streams, policies, quick=quick)
        path = results or (json_file or Path("heal.json")).with_suffix(".cells.jsonl")
        run = Run(Rebuilder(USE_CASE, data.resolve(), files, QUICK_DAYS if quick else None), path)
        cases = () if not parity else QUICK_CASES if quick else CASES
        done, beside = replayed(run, wanted, cases, processes, console)
    except (ConfigurationError, InvalidDataError) as error:
        raise typer.BadParameter(str(error)) from error
    check(done, wanted)
    found = summarised(done, worlds, streams)
    if parity:
        check_parity(beside, quick=quick)
        found |= parity_figures(beside)
        print_parity(beside, console)
    found["code"] = codes = sorted({str(line.get("code")) for line in done.values()})
    if codes != [code_version()]:
        console.print(f"{path} has results of other code: {', '.join(codes)}; delete it to replay all with this one")
    console.print(world_table(found["worlds"]))
    if streams:
        console.print(stream_table(found["streams"]))
    if earlier is not None:
        found["before_after"] = side_by_side(earlier, found) | {"code_before": earlier.get("code")}
        console.print(BEFORE_AFTER, markdown(found["before_after"]), sep="\n\n", markup=False, soft_wrap=True)
    if json_file is not None:
        about = {"data": data.name, "interval_hours": INTERVAL / timedelta(hours=1), "quick": quick}
        about["wall_s"] = round(time.monotonic() - began, 1)
        json_file.write_text(json.dumps(about | found, indent=2) + "\n", encoding="utf-8")
        console.print(f"written: {json_file}")
    raise typer.Exit(1 if beside.differences else 0)


CPU_S_PER_DAY = {
    NEVER: 0.001,
    "weekly": 0.04,
    "evidently": 0.03,
    "adwin": 0.005,
    "nannyml": 0.1,
    ORACLE: 0.01,
    OURS: 0.5,
}
"""Of a deployment, roughly: from which the first estimate is made. A policy that is not named takes as long as ours."""

DAYS_OF_STREAM = 365.0
REPORT_EVERY_SECONDS = 60.0


class Remaining:
    """Says before a run, and once in a minute, how long the replays that are left will take.

    Args:
        say: called with each sentence.
    """

    def __init__(self, run: Run, wanted: Sequence[Cell], processes: int, say: Callable[[str], None]) -> None:
        self._run, self._wanted, self._processes, self._say = run, sorted(set(wanted)), max(1, processes), say
        self._began = self._said = time.monotonic()
        forecast, n_done, self._cpu_s_before = self._forecast()
        say(forecast.plan(f"{len(self._wanted) - n_done:,} of {len(self._wanted):,} replays"))

    def report(self) -> None:
        """Say it if the last time was long ago."""
        now = time.monotonic()
        if now - self._said < REPORT_EVERY_SECONDS:
            return
        self._said = now
        forecast, n_done, cpu_s = self._forecast()
        left = span(forecast.time_left(now - self._began, cpu_s - self._cpu_s_before))
        self._say(f"{n_done:,} of {len(self._wanted):,} replays are done, about {left} left")

    def _forecast(self) -> tuple[Forecast, int, float]:
        """Return the forecast, the number of finished replays, and the CPU seconds that these took."""
        done, forecast = finished(self._run, self._wanted), Forecast(self._processes)
        for cell in self._wanted:
            expected = CPU_S_PER_DAY.get(cell.policy, CPU_S_PER_DAY[OURS]) * days_of(cell.world)
            if cell in done:
                forecast.learn(cell.policy, expected, done[cell]["cpu_seconds"])
            else:
                forecast.add(cell.policy, expected)
        return forecast, len(done), float(sum(line["cpu_seconds"] for line in done.values()))


def days_of(name: str) -> float:
    """Return the length of a world's deployments, about that of a stream's."""
    return WORLDS[name].days if name in WORLDS else DAYS_OF_STREAM


def replayed(
    run: Run, wanted: list[Cell], cases: Sequence[Case], processes: int, console: Console
) -> tuple[dict[Cell, dict[str, Any]], Parity]:
    """Replay the cells, and let Dagster live through the cases; show how far both are."""
    with Progress("{task.description}", BarColumn(), MofNCompleteColumn(), console=console) as progress:
        remaining = Remaining(run, wanted, processes, progress.console.print)

        def shown(title: str, n_all: int) -> Callable[[int, int], None]:
            task = progress.add_task(title, total=n_all)
            return lambda n, total: progress.update(task, completed=n, total=total)

        show_cells = shown("replays", len(wanted))

        def on_cells(n_done: int, n_all: int) -> None:
            show_cells(n_done, n_all)
            remaining.report()

        done = run_cells(run, wanted, processes=processes, on_progress=on_cells)
        if not cases:
            return done, Parity()
        on_case = shown("deployments by Dagster, too", len(cases))
        return done, run_cases(cases, processes=max(1, processes), on_progress=on_case)


def print_parity(found: Parity, console: Console) -> None:
    """Print how many decisions and ticks were compared, and the first differences."""
    console.print(
        f"{found.compared:,} decisions and {found.ticks:,} ticks by Dagster and by the replay: "
        f"{len(found.differences)} differences"
    )
    for one in found.differences[:SHOWN_DIFFERENCES]:
        console.print(one, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
