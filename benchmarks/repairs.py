"""Which repair does a challenger become, and how good is it beside a retraining?

    python -m benchmarks.repairs --data cs-training.csv [--json repairs.json] [--quick]

The champion is fitted once to a quarter of the rows, calibrated and with the F1-optimal threshold. Then something happens, so many
labels come, and the platform's rule chooses between the rungs of the ladder (`selfheal.domain.retraining.repairs`); the new fit that
it chooses against has the shipped estimator without a search. What is chosen is judged on rows that nobody has seen, of the world
as it is then: F1 and log loss of the chosen repair less those of the new fit on the same labels (means over tries, 95 % bounds).

- `calm`: nothing has happened: whatever is cheap repairs nothing.
- `base rate x 0.5`, `x 3`: other numbers of rows of each class; the classes have the inputs that they had.
- `odds overstated 2.7 times`, `log-odds stretched 2 times`: the champion itself is off; its ranking is right.
- `relation gone in 40 % of rows`: their outcome is that of any other row; a part of the ranking is lost.
- `relation turned round`: the safest rows are the risky ones now.
- `turned round, seen before`: as before, and an archived version knows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from benchmarks.measured import at_least
from benchmarks.tries import in_processes, show
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.model.correction import Correction
from selfheal.domain.records import Repair
from selfheal.domain.retraining.calibration import folded_into_linear_step
from selfheal.domain.retraining.evidence import IntArray
from selfheal.domain.retraining.repairs import Candidate, Incumbent, Ladder, RecentRows, choose_repair
from selfheal.domain.retraining.threshold import f1_optimal_threshold

LEARN_SHARE, JUDGE_ROWS = 0.25, 4_000
"""Of all rows for the champion; rows that judge a choice."""

ROWS = (300, 1_000, 3_000)
TRIES, QUICK_TRIES = 100, 4
FOLDS = 5
GONE_SHARE = 0.4


@dataclass(frozen=True)
class Rows:
    """Feature rows and labels."""

    x: FloatArray
    y: IntArray

    def __getitem__(self, rows: IntArray) -> Rows:
        return Rows(self.x[rows], self.y[rows])


Draw = Callable[[Rows, Incumbent, int, np.random.Generator], Rows]


@dataclass(frozen=True)
class Situation:
    """What has happened: how rows are drawn now, what the champion has become, and whether an archived version knows it."""

    name: str
    draw: Draw
    champion: Correction = Correction(0.0)  # noqa: RUF009  (frozen)
    is_known: bool = False


@dataclass(frozen=True)
class Try:
    """One choice, and what is gained by it: over the champion, and less a retraining."""

    repair: Repair
    f1_over_champion: float
    f1_less_retraining: float
    log_loss_less_retraining: float


@dataclass(frozen=True)
class Outcome:
    """All tries of a situation with so many labels."""

    situation: str
    n_rows: int
    tries: int
    shares: dict[str, float]
    f1_over_champion: tuple[float, float, float]
    f1_less_retraining: tuple[float, float, float]
    log_loss_less_retraining: tuple[float, float, float]


# What happens


def as_ever(rows: Rows, _: Incumbent, n: int, rng: np.random.Generator) -> Rows:
    """Draw rows of the world of before."""
    return rows[rng.choice(len(rows.y), n, replace=False)]


def with_base_rate(factor: float) -> Draw:
    """Return a draw with `factor` times the odds of the event."""

    def draw(rows: Rows, _: Incumbent, n: int, rng: np.random.Generator) -> Rows:
        weights = np.where(rows.y == 1, factor, 1.0)
        return rows[rng.choice(len(rows.y), n, p=weights / weights.sum())]

    return draw


def relation_gone(rows: Rows, champion: Incumbent, n: int, rng: np.random.Generator) -> Rows:
    """Draw rows of which a part has the outcome of any other row."""
    drawn = as_ever(rows, champion, n, rng)
    labels = np.where(rng.random(n) < GONE_SHARE, rng.permutation(drawn.y), drawn.y)
    return Rows(drawn.x, labels)


def turned_round(rows: Rows, champion: Incumbent, n: int, rng: np.random.Generator) -> Rows:
    """Draw rows whose probabilities are those of the row at the other end of the champion's ranking."""
    drawn = as_ever(rows, champion, n, rng)
    p = probabilities(champion, drawn)
    ranks = np.argsort(np.argsort(p))
    return Rows(drawn.x, (rng.random(n) < np.sort(p)[::-1][ranks]).astype(np.int64))


SITUATIONS = (
    Situation("calm", as_ever),
    Situation("base rate x 0.5", with_base_rate(0.5)),
    Situation("base rate x 3", with_base_rate(3.0)),
    Situation("odds overstated 2.7 times", as_ever, Correction(float(np.log(2.7)))),
    Situation("log-odds stretched 2 times", as_ever, Correction(0.0, 2.0, 2.0)),
    Situation("relation gone in 40 % of rows", relation_gone),
    Situation("relation turned round", turned_round),
    Situation("turned round, seen before", turned_round, is_known=True),
)


# Models


def fitted(rows: Rows, seed: int) -> Pipeline:
    """Fit the shipped estimator."""
    return contract.build_estimator(seed).fit(rows.x, rows.y)


def probabilities(one: Incumbent | Pipeline, rows: Rows) -> FloatArray:
    """Return a model's probabilities."""
    pipeline = one.pipeline if isinstance(one, Incumbent) else one
    return np.asarray(pipeline.predict_proba(rows.x)[:, 1])


def incumbent(rows: Rows, version: int, seed: int) -> Incumbent:
    """Fit a version, with the threshold that is best on its own rows."""
    pipeline = fitted(rows, seed)
    return Incumbent(version, pipeline, f1_optimal_threshold(rows.y, pipeline.predict_proba(rows.x)[:, 1]))


def new_fit(rows: Rows, seed: int) -> tuple[Candidate, list[tuple[IntArray, IntArray]]]:
    """Fit a new model, and predict each fold by the others."""
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(rows.x, rows.y))
    found = np.empty(len(rows.y))
    for learn, predict in folds:
        found[predict] = fitted(rows[learn], seed).predict_proba(rows.x[predict])[:, 1]
    return Candidate(Repair.RETRAINING, None, found, found, lambda: fitted(rows, seed)), folds


# Trying


def try_once(rows: Rows, place: int, n_rows: int, seed: int) -> Try:
    """Choose once, and judge the choice on fresh rows. `place` is that of the situation: its functions cannot be sent."""
    situation = SITUATIONS[place]
    rng = np.random.default_rng(seed)
    learn, rest = np.split(rng.permutation(len(rows.y)), [round(LEARN_SHARE * len(rows.y))])
    before, world = rows[learn], rows[rest]
    with threadpool_limits(limits=1):
        right = incumbent(before, 1, seed)
        pipeline = folded_into_linear_step(right.pipeline, situation.champion, before.x[:200])
        assert pipeline is not None, "the shipped estimator is logistic"
        champion = Incumbent(1, pipeline, right.threshold)
        drawn = situation.draw(world, right, n_rows + JUDGE_ROWS, rng)
        seen, judged = drawn[np.arange(n_rows)], drawn[np.arange(n_rows, n_rows + JUDGE_ROWS)]
        archived = (
            (incumbent(situation.draw(before, right, len(before.y), rng), 0, seed),) if situation.is_known else ()
        )
        candidate, folds = new_fit(seen, seed)
        recent = RecentRows(seen.x, seen.y, folds, None)
        found = choose_repair(Ladder(champion, archived), candidate, recent, contract, seed)
        assert found is not None, "the champion scores all rows"
        chosen, again = (
            (probabilities(one.build(), judged), f1_optimal_threshold(seen.y, one.probabilities))
            for one in (found.candidate, candidate)
        )
    f1_of_chosen, f1_of_new = (f1_score(judged.y, p >= threshold) for p, threshold in (chosen, again))
    f1_of_champion = f1_score(judged.y, probabilities(champion, judged) >= champion.threshold)
    return Try(
        found.choice.repair,
        f1_of_chosen - f1_of_champion,
        f1_of_chosen - f1_of_new,
        log_loss(judged.y, chosen[0]) - log_loss(judged.y, again[0]),
    )


def outcome_of(situation: Situation, n_rows: int, tries: list[Try]) -> Outcome:
    """Summarise the tries."""
    counts = Counter(one.repair for one in tries)

    def bounded(name: str) -> tuple[float, float, float]:
        values = np.array([getattr(one, name) for one in tries])
        half = 1.96 * float(values.std(ddof=1)) / np.sqrt(len(values))
        return float(values.mean() - half), float(values.mean()), float(values.mean() + half)

    return Outcome(
        situation.name,
        n_rows,
        len(tries),
        {repair.value: counts[repair] / len(tries) for repair in Repair},
        bounded("f1_over_champion"),
        bounded("f1_less_retraining"),
        bounded("log_loss_less_retraining"),
    )


def table(outcomes: list[Outcome]) -> Table:
    """Return the outcomes as a table."""
    found = Table(title="What the challenger becomes, % of tries; what is chosen less a retraining on the same labels")
    shown = [repair for repair in Repair if repair is not Repair.BETA]
    for heading in ("situation", "labels", *(repair.value for repair in shown), "F1 over champion", "F1", "log loss"):
        found.add_column(heading, justify="left" if heading == "situation" else "right")
    for one in outcomes:
        gains = (
            f"{mean:+.{places}f} ({low:+.{places}f} - {high:+.{places}f})"
            for (low, mean, high), places in (
                (one.f1_over_champion, 3),
                (one.f1_less_retraining, 3),
                (one.log_loss_less_retraining, 4),
            )
        )
        shares = (f"{100 * one.shares[repair.value]:.0f}" for repair in shown)
        found.add_row(one.situation, f"{one.n_rows:,}", *shares, *gains)
    return found


def main(
    data: Annotated[Path, typer.Option(help="labelled rows in the shape of cs-training.csv")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_TRIES} tries of each, not {TRIES}")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of models and draws")] = 20,
) -> None:
    """Measure what the ladder of repairs chooses, and what that is worth."""
    frame = load_csv(data, contract)
    rows = Rows(contract.feature_frame(frame).to_numpy(), frame[TRUE_LABEL].to_numpy(dtype=np.int64))
    at_least("rows to draw from", len(rows.y), 2 * (max(ROWS) + JUDGE_ROWS))
    n_tries, console = QUICK_TRIES if quick else TRIES, Console()
    outcomes = []
    with in_processes(console, len(SITUATIONS) * len(ROWS) * n_tries) as run:
        for place, situation in enumerate(SITUATIONS):
            for n_rows in ROWS:
                seeds = range(seed * 10_000, seed * 10_000 + n_tries)
                tried = run(partial(try_once, rows, place, n_rows), seeds)
                outcomes.append(outcome_of(situation, n_rows, tried))
    show(console, table(outcomes), outcomes, json_file)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
