"""`python -m benchmarks.drift`: see `benchmarks.drift`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from benchmarks.drift import categories
from benchmarks.drift.categories import CategoryOutcome
from benchmarks.drift.detection import SHIFTS, SIZES, delay_of, detection_of, multivariate_of
from benchmarks.drift.false_alarms import (
    FalseAlarms,
    simulate_deployment,
)
from benchmarks.drift.population import (
    LEARNING_DAYS,
    MIX_TILT,
    RATES_PER_HOUR,
    World,
)
from benchmarks.drift.verdicts import SCENARIOS, TRIAGE_ROWS, TRIAGE_TARGETS, verdicts_of
from benchmarks.measured import exactly
from selfheal.domain.monitoring.shift import column_shift


@dataclass
class Outcome:
    """All measured figures. Shares are of windows; `_rows` are shifted rows until the first alarm."""

    data: str
    deployments_simulated: int = 0
    mix_moves_by_rank_shift: float = 0.0
    false_alarms_per_90_days: dict[str, dict[str, dict[str, float | list[float]]]] = field(default_factory=dict)
    false_feed_alarms: dict[str, str] = field(default_factory=dict)
    detection: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    delay_rows: dict[str, dict[str, float]] = field(default_factory=dict)
    multivariate: dict[str, float | str] = field(default_factory=dict)
    triage: dict[str, dict[str, float]] = field(default_factory=dict)
    categories: CategoryOutcome | None = None


class Part(StrEnum):
    """What can be measured alone."""

    NUMBERS = "numbers"
    CATEGORIES = "categories"


class Sizes(NamedTuple):
    """How often everything is tried."""

    n_deployments: int
    n_windows: int
    n_streams: int


QUICK, FULL = Sizes(1, 20, 5), Sizes(10, 100, 30)


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few deployments and windows: a look, not a figure.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 1,
    only: Annotated[Part | None, typer.Option(help="Measure numeric columns or categories alone.")] = None,
    deployments: Annotated[int | None, typer.Option(min=1, help="Number of deployments for each rate.")] = None,
    windows: Annotated[int | None, typer.Option(min=1, help="Number of windows for each figure.")] = None,
) -> None:
    """Measure false alarms, detection and triage."""
    console = Console()
    world = World(data, seed)
    outcome = Outcome(data=world.description)
    sizes = QUICK if quick else FULL
    if deployments is not None:
        sizes = sizes._replace(n_deployments=deployments)
    if windows is not None:
        sizes = sizes._replace(n_windows=windows, n_streams=min(windows, sizes.n_streams))
    with Progress(console=console) as progress:
        if only != Part.CATEGORIES:
            measure_numbers(world, outcome, sizes, seed, progress)
        if only != Part.NUMBERS:
            task = progress.add_task("Categories", total=categories.n_steps(sizes.n_deployments))
            advance = partial(progress.advance, task)
            outcome.categories = categories.measure(world, **sizes._asdict(), seed=seed, advance=advance)
    if only != Part.CATEGORIES:
        check_counts(outcome, sizes.n_deployments, sizes.n_windows)
        show(outcome, console)
    if outcome.categories is not None:
        categories.show(outcome.categories, console)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(outcome), indent=1))


def measure_numbers(world: World, outcome: Outcome, sizes: Sizes, seed: int, progress: Progress) -> None:
    """Measure the use case's own columns, which are all numbers."""
    n_deployments, n_windows, n_streams = sizes
    tilted = world.rows["age"].to_numpy()[world.draw(200_000, np.random.default_rng(seed), np.full(10_000, MIX_TILT))]
    outcome.mix_moves_by_rank_shift = abs(column_shift(tilted, world.rows["age"].to_numpy()).rank_shift)
    task = progress.add_task("Deployments of 90 days", total=n_deployments * len(RATES_PER_HOUR))
    for rate in RATES_PER_HOUR:
        totals = {name: FalseAlarms() for name in ("ours", "evidently_default", "ks_05")}
        n_feed = n_looks = 0
        for number in range(n_deployments):
            found, (feed, looks) = simulate_deployment(world, rate, np.random.default_rng([seed, rate, number]))
            for name, total in totals.items():
                total.deployments += 1
                total.alarms += found[name]
            n_feed, n_looks = n_feed + feed, n_looks + looks
            outcome.deployments_simulated += 1
            progress.advance(task)
        outcome.false_alarms_per_90_days[str(rate)] = {
            name: {"per_90_days": total.per_90_days, "bounds_95": list(total.bounds)} for name, total in totals.items()
        }
        outcome.false_feed_alarms[str(rate)] = f"{n_feed} of {n_looks:,} looks"
    task = progress.add_task("Detection", total=len(SHIFTS) * (len(SIZES) + 1))
    for name, (change, column, _) in SHIFTS.items():
        outcome.detection[name] = {}
        for n_rows in SIZES:
            outcome.detection[name][n_rows] = detection_of(world, change, column, n_rows, n_windows, seed)
            progress.advance(task)
        outcome.delay_rows[name] = delay_of(world, change, column, n_streams, seed)
        progress.advance(task)
    outcome.multivariate = multivariate_of(world, n_windows, seed)
    task = progress.add_task("Triage", total=len(SCENARIOS))
    for name, (of_window, _) in SCENARIOS.items():
        outcome.triage[name] = verdicts_of(world, of_window, n_windows, seed)
        progress.advance(task)


def check_counts(outcome: Outcome, n_deployments: int, n_windows: int) -> None:
    """Check that all deployments, shifts and scenarios were tried."""
    exactly("deployments", outcome.deployments_simulated, n_deployments * len(RATES_PER_HOUR))
    exactly("windows with a shift", sum(map(len, outcome.detection.values())), len(SHIFTS) * len(SIZES))
    exactly("shifts after a calm day", len(outcome.delay_rows), len(SHIFTS))
    for scenario in SCENARIOS:
        n_found = round(n_windows * sum(outcome.triage.get(scenario, {}).values()))
        exactly(f"verdicts on windows: {scenario}", n_found, n_windows)


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome as tables."""
    console.print(_false_alarms_table(outcome))
    console.print(_detection_table(outcome))
    console.print("Domain classifier:", outcome.multivariate)
    console.print(_triage_table(outcome))


def _false_alarms_table(outcome: Outcome) -> Table:
    title = f"False alarms in 90 days (ours: after the first {LEARNING_DAYS}), by predictions an hour ({outcome.data})"
    table = Table("an hour", "selfheal (95 %)", "target", "Evidently", "KS 5 %", "feed check", title=title)
    for rate, found in outcome.false_alarms_per_90_days.items():
        low, high = found["ours"]["bounds_95"]  # type: ignore[misc]
        ours = f"{found['ours']['per_90_days']:.2f} ({low:.2f}-{high:.2f})"
        others = (f"{found[name]['per_90_days']:.1f}" for name in ("evidently_default", "ks_05"))
        verdict = "<= 1" if high <= 1 else "<= 1: missed"
        table.add_row(rate, ours, verdict, *others, outcome.false_feed_alarms[rate])
    return table


def _detection_table(outcome: Outcome) -> Table:
    title = "Share of windows in which the shifted column is called drifted (below: Evidently's defaults)"
    shift = Column("shift", overflow="fold")
    table = Table(shift, *(f"n={n}" for n in SIZES), "target", "rows to alarm", title=title, show_lines=True)
    for name, by_size in outcome.detection.items():
        n_wanted = SHIFTS[name][2]
        shares = (f"{share['ours']:.2f}\n{share['evidently_default']:.2f}" for share in by_size.values())
        verdict = f"0.95 at {n_wanted}" + ("" if by_size[n_wanted]["ours"] >= 0.95 else ": missed")
        delay = outcome.delay_rows[name]
        table.add_row(name, *shares, verdict, f"half: {delay['median']:.0f}\n95 %: {delay['p95']:.0f}")
    return table


def _triage_table(outcome: Outcome) -> Table:
    title = f"Verdicts on windows of {TRIAGE_ROWS} rows, all labelled"
    table = Table("scenario", "verdicts", "target", title=title)
    for scenario, shares in outcome.triage.items():
        wanted, comparison, bound = TRIAGE_TARGETS[SCENARIOS[scenario][1]]
        share = shares.get(wanted.value, 0.0)
        is_met = share >= bound if comparison == ">=" else share <= bound
        found = ", ".join(f"{verdict} {part:.2f}" for verdict, part in sorted(shares.items(), key=lambda one: -one[1]))
        table.add_row(scenario, found, f"{wanted.value} {comparison} {bound:g}" + ("" if is_met else ": missed"))
    return table


if __name__ == "__main__":
    typer.run(main)
