"""Options and result of a benchmark that compares this build with another one (`--against PATH`).

Belongs here: the options and the output that all such benchmarks share. Does not belong here: the statistics
(`benchmarks.ratio`) and the processes (`benchmarks.builds`).
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.ratio import METHOD, MIN_RATIO, MIN_TURNS, Comparison

N_TURNS_QUICK = 2

AGAINST_HELP = "Only compare this build with that of another checkout, which has a .venv of its own, turn by turn."
TURNS_HELP = (
    f"With --against: turns of each build; default {MIN_TURNS} ({N_TURNS_QUICK} with --quick). "
    f"Fewer than {MIN_TURNS} decide nothing."
)
MAX_TURNS = 1_000


def n_turns_of(turns: int | None, *, is_quick: bool, is_comparison: bool) -> int:
    """Return how many turns each build takes.

    Raises:
        typer.BadParameter: if turns are given without a build to compare with.
    """
    if turns is not None and not is_comparison:
        raise typer.BadParameter("it goes with --against PATH, the checkout to compare with", param_hint="--turns")
    if turns is not None:
        return turns
    return N_TURNS_QUICK if is_quick else MIN_TURNS


def conclude_comparison(comparison: Comparison, console: Console, json_file: Path | None) -> None:
    """Print the comparison and write it to the file, if one is given.

    Raises:
        typer.Exit: with code 1 if the comparison is decisive and not ok.
    """
    console.print(f"old: {comparison.revisions['old']}, new: {comparison.revisions['new']}")
    console.print(comparison_table(comparison))
    console.print(f"Ratio: {METHOD}.")
    for measure in comparison.measures:
        if comparison.decides and measure.ratio.is_ok and measure.ratio.could_hide_a_loss:
            loss = 1 - measure.ratio.low
            console.print(
                f"{measure.name}: a loss of up to {loss:.1%} is not excluded; more turns or a quieter machine narrow it."
            )
    for side, n_failed in comparison.failures.items():
        if n_failed:
            console.print(f"{n_failed:,} requests to the {side} build failed: the comparison is missed.")
    for remark in comparison.remarks:
        console.print(remark)
    if not comparison.decides:
        short = "short turns" if comparison.turns_are_short else f"{comparison.n_turns} turns of each build"
        console.print(f"This decides nothing: {short}; leave out --quick and take at least {MIN_TURNS} turns.")
    if json_file is not None:
        json_file.write_text(json.dumps(comparison.to_dict(), indent=1))
    if comparison.is_ok is False:
        raise typer.Exit(1)


def comparison_table(comparison: Comparison) -> Table:
    """Return one row per measure: the builds' medians, the ratio, its interval and the verdict."""
    title = f"{comparison.title}: {comparison.n_turns} turns each, ok if >= {MIN_RATIO:g} or the interval reaches 1"
    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    for column in ("old", "new", "ratio", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    for measure in comparison.measures:
        ratio = measure.ratio
        table.add_row(
            f"{measure.name}, {measure.unit} ({'new/old' if measure.is_rate else 'old/new'})",
            *(_figure(statistics.median(turns)) for turns in (measure.old, measure.new)),
            f"{ratio.value:.3f}",
            f"{ratio.low:.3f}-{ratio.high:.3f}",
            comparison.verdict_on(measure),
        )
    return table


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:,.4g}"
