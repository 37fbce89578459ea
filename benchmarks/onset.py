"""How many labels does a change of the relation take to be shown, and how often is a steady relation said to have changed?

    python -m benchmarks.onset --data cs-training.csv [--json onset.json] [--quick]

The champion is fitted to a part of the rows. Others follow, drawn with replacement, with labels that the champion announces, until a share
of the rows changes:

- `input`: the log-odds of those with the highest utilization rise by `RISE`.
- `scenario`: what the shipped scenario makes of them: incomes fall, debts grow, holders of mortgages default.

After so many further labels a change is sought in all of them (`selfheal.domain.monitoring.onset`). Given are the share of tries in which
one is shown, wherever it is said to lie, how often its interval covers the true date, and the median distance of the date in rows, of the
newest where there are several. A share of 0 is a steady relation.
`largest mean`: the alternative that looks at each mean alone (Cho and Fryzlewicz, 2015, JRSS B 77).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from scipy.special import expit, logit

from benchmarks.measured import at_least
from benchmarks.probation import Share, share_of
from benchmarks.tries import in_processes, show
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring import onset

ROWS_OF_CHAMPION, ROWS_BEFORE = 5_000, 4_000
RISEN_FEATURE, RISE = "revolving_utilization", 2.0
CHANGES = (("input", 0.1), ("input", 0.2), ("scenario", 0.1), ("scenario", 0.2), ("scenario", 1.0))
LABELS = (200, 400, 800, 1_600, 3_200)
TRIES, QUICK_TRIES = 100, 5
STEADY_TRIES, QUICK_STEADY_TRIES = 2_000, 50
PERMUTATIONS = 999


@dataclass(frozen=True)
class World:
    """The champion, the inputs of all rows but its own, and their rank by the risen input, in (0, 1]."""

    champion: Any
    inputs: pd.DataFrame
    rank: FloatArray

    def score(self, inputs: pd.DataFrame) -> FloatArray:
        """Return the champion's probabilities."""
        return np.asarray(self.champion.predict_proba(contract.feature_frame(inputs).to_numpy())[:, 1])


@dataclass(frozen=True)
class Found:
    """What one try found: whether a change was shown, by which way, and where."""

    is_shown: bool
    is_shown_by_largest: bool
    distance: float | None
    is_covered: bool


@dataclass(frozen=True)
class Outcome:
    """All tries with one change and one number of labels."""

    change: str
    share: float
    labels: int
    shown: Share
    shown_by_largest: Share
    covered: Share | None
    median_distance: float | None


@lru_cache(maxsize=1)
def world_of(data: Path, seed: int) -> World:
    """Return the rows that follow."""
    frame = load_csv(data, contract)
    at_least("rows beside the champion's", len(frame) - ROWS_OF_CHAMPION, 2_000)
    order = np.random.default_rng(seed).permutation(len(frame))
    known, others = frame.iloc[order[:ROWS_OF_CHAMPION]], frame.iloc[order[ROWS_OF_CHAMPION:]]
    champion = contract.build_estimator(seed).fit(contract.feature_frame(known).to_numpy(), known[TRUE_LABEL])
    inputs = others[list(contract.input_names)].reset_index(drop=True)
    return World(champion, inputs, inputs[RISEN_FEATURE].rank(pct=True).to_numpy())


def rows_of(world: World, change: str, share: float, n_labels: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return rows before and after a change."""
    drawn = rng.integers(len(world.rank), size=ROWS_BEFORE + n_labels)
    rows = world.inputs.iloc[drawn].reset_index(drop=True).astype(np.float64)
    log_odds = logit(np.clip(world.score(rows), 1e-6, 1 - 1e-6))
    if change == "input":
        log_odds[ROWS_BEFORE:] += RISE * (world.rank[drawn[ROWS_BEFORE:]] > 1 - share)
    labels = (rng.random(len(drawn)) < expit(log_odds)).astype(np.int64)
    if change == "scenario":
        struck = ROWS_BEFORE + np.flatnonzero(rng.random(n_labels) < share)
        changed, labels[struck] = contract.first_scenario.apply(rows.iloc[struck], labels[struck], rng)
        rows.iloc[struck] = changed[rows.columns].to_numpy()
    return rows.assign(probability=world.score(rows)).assign(**{TRUE_LABEL: labels})


def try_once(data: Path, change: str, share: float, n_labels: int, seed: int, number: int) -> Found:
    """Look for a change in rows before and after it."""
    rng = np.random.default_rng([seed, number, n_labels, round(1_000 * share)])
    rows = rows_of(world_of(data, seed), change, share, n_labels, rng)
    changes = onset.find_changes(rows, contract.input_names, seed)
    last = changes[-1] if changes else None
    return Found(
        last is not None,
        is_shown_by_largest(rows, rng),
        None if last is None else abs(last.row - ROWS_BEFORE),
        last is not None and last.low <= ROWS_BEFORE <= last.high,
    )


def is_shown_by_largest(rows: pd.DataFrame, rng: np.random.Generator) -> bool:
    """Return whether the largest of all means shows a change at the same level, by permutations of the same blocks."""
    blocks = onset.blocks_of(rows, contract.input_names)
    assert blocks is not None, "there are enough rows"
    means = blocks.means
    z = means / np.maximum(np.sqrt(np.mean(np.diff(means, axis=0) ** 2, axis=0) / 2), 1e-12)
    observed, beyond = float(np.abs(onset.cusum(z)).max()), 0
    for _ in range(PERMUTATIONS):
        beyond += bool(np.abs(onset.cusum(rng.permutation(z))).max() >= observed)
        if (beyond + 1) / (PERMUTATIONS + 1) > onset.LEVEL:
            return False
    return True


def outcome_of(change: str, share: float, n_labels: int, tries: Sequence[Found]) -> Outcome:
    """Summarise the tries."""
    shown = [one for one in tries if one.is_shown]
    distances = [one.distance for one in shown if one.distance is not None]
    return Outcome(
        change,
        share,
        n_labels,
        share_of(len(shown), len(tries)),
        share_of(sum(one.is_shown_by_largest for one in tries), len(tries)),
        share_of(sum(one.is_covered for one in shown), len(shown)) if shown and share > 0 else None,
        float(np.median(distances)) if distances and share > 0 else None,
    )


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return one row per share and number of labels."""
    found = Table(title="Changes shown (95 % bounds)", title_justify="left")
    for heading in ("change", "of rows, %", "labels since", "shown, %", "by largest mean, %", "covered, %", "off by"):
        found.add_column(heading, justify="left" if heading == "change" else "right")
    for one in outcomes:
        shares = ["-" if s is None else percent(s) for s in (one.shown, one.shown_by_largest, one.covered)]
        off = "-" if one.median_distance is None else f"{one.median_distance:,.0f} rows"
        found.add_row(one.change, f"{100 * one.share:g}", f"{one.labels:,}", *shares, off)
    return found


def percent(share: Share) -> str:
    """Return a share with its bounds as text."""
    return f"{100 * share.share:.1f} ({100 * share.low:.1f} - {100 * share.high:.1f})"


def main(
    data: Annotated[Path, typer.Option(help="labelled rows in the shape of cs-training.csv")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_TRIES} tries of each, not {TRIES}")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the champion and draws")] = 20,
) -> None:
    """Measure how many labels a change takes to be shown, and how often there is none."""
    n_tries, n_steady = (QUICK_TRIES, QUICK_STEADY_TRIES) if quick else (TRIES, STEADY_TRIES)
    cells = [("none", 0.0, LABELS[-1], n_steady), *((*change, n, n_tries) for change in CHANGES for n in LABELS)]
    console, outcomes = Console(), []
    with in_processes(console, sum(n for *_, n in cells)) as run:
        for change, share, n_labels, n in cells:
            tried = run(partial(try_once, data, change, share, n_labels, seed), range(n))
            outcomes.append(outcome_of(change, share, n_labels, tried))
    show(console, table(outcomes), outcomes, json_file)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
