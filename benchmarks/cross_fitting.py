"""How many labels does a gain take to be seen after a change: halves, forward validation, or cross-fitting in blocks of time?

    python -m benchmarks.cross_fitting --data cs-training.csv [--json cross_fitting.json] [--quick]

The champion is fitted to 5,000 rows. Then the log-odds of a fifth of the rows rise, which only a new fit can learn (by 0: nothing has
changed). So many labels come; a challenger is made of them and the champion's rows, whose weight the labels choose, and the F1 gate
judges it at the first verdict (`selfheal.domain.retraining.gates.f1_improvement`):

- `halves`: fitted to the earlier half, judged on the later one.
- `forward`: in five blocks of time, each after the first is judged by a model of the blocks before it.
- `cross-fitted`: each block is judged by a model of the other blocks; this is what the platform does.

A last row goes through the whole training of the platform (weights of older rows, search, calibration, ladder of repairs) where
nothing has changed and each customer occurs 5 times, with one outcome: what passes there passes for nothing.

Given are the share of tries that pass, the true gain of the model that goes live, and how often one passes that is truly no better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from benchmarks.measured import at_least
from benchmarks.probation import NOW, Share, share_of
from benchmarks.tries import in_processes, show
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract
from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.records import Action, Onset
from selfheal.domain.retraining.cross_fitting import blocks_of_time, decisions_of_others
from selfheal.domain.retraining.dataset import WEIGHT, OriginalRows, training_set
from selfheal.domain.retraining.evaluation import Evaluation, Scores, evaluation_on
from selfheal.domain.retraining.evidence import IntArray
from selfheal.domain.retraining.gates.f1_improvement import SPEC
from selfheal.domain.retraining.judging import evaluate_gates
from selfheal.domain.retraining.repairs import Incumbent, Ladder
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.domain.retraining.training import FOLDS, train
from selfheal.domain.retraining.weighting import CANDIDATE_WEIGHTS, INNER_SHARE
from selfheal.settings import Settings

ROWS_OF_CHAMPION, ROWS_OF_TRUTH = 5_000, 10_000
RISES, LABELS = (0.0, 1.0, 2.0), (1_000, 2_000, 4_000)
RISEN_FEATURE, RISEN_SHARE = "revolving_utilization", 0.2
TRIES, QUICK_TRIES = 200, 5
WHOLE, WHOLE_LABELS, VISITS = "whole training, customers 5 times", 2_000, 5
CHANGED = Onset(NOW, NOW, NOW, 0.001, "outcome", ROWS_OF_CHAMPION, WHOLE_LABELS)
"""A change that was seen where there was none: rows are cross-fitted after one alone."""

WAYS = ("halves", "forward", "cross-fitted")
LIMITS = {
    name: Settings.model_fields[name].default for name in ("min_f1_improvement_pct", "max_f1_degradation_pct")
} | {
    "level": Settings.model_fields["gate_level"].default,
    "primary_metric": "f1",
    "cost_of_false_alarm": 1.0,
    "cost_of_miss": 1.0,
    "seed": 1,
}


@dataclass(frozen=True)
class World:
    """All rows: raw and prepared features; the champion, its probabilities, threshold and own rows; the true probabilities now."""

    frame: pd.DataFrame
    pipeline: Pipeline
    features: FloatArray
    champion: FloatArray
    threshold: float
    known: IntArray
    labels: IntArray
    others: IntArray
    chances: FloatArray
    estimator: Any


@dataclass(frozen=True)
class Labelled:
    """Rows with their labels, oldest first."""

    rows: IntArray
    y: IntArray

    def at(self, part: slice | IntArray) -> Labelled:
        """Return a part of them."""
        return Labelled(self.rows[part], self.y[part])


@dataclass(frozen=True)
class Judged:
    """A challenger's scores of labelled rows that it has not seen, and the model that would go live."""

    labelled: Labelled
    probabilities: FloatArray
    decisions: IntArray
    model: Any
    threshold: float


@dataclass(frozen=True)
class Outcome:
    """All tries in one way."""

    rise: float
    labels: int
    way: str
    passed: Share
    passed_no_better: Share
    f1_gain: float


@lru_cache(maxsize=len(RISES))
def world_of(data: Path, rise: float, seed: int) -> World:
    """Return the world in which the log-odds of a fifth of the rows have risen."""
    frame = load_csv(data, contract)
    raw, labels = contract.feature_frame(frame), frame[TRUE_LABEL].to_numpy(dtype=np.int64)
    features = raw.to_numpy()
    known, others = np.split(np.random.default_rng(seed).permutation(len(labels)), [ROWS_OF_CHAMPION])
    at_least("rows beside the champion's", len(others), max(LABELS) + ROWS_OF_TRUTH)
    pipeline = contract.build_estimator(seed).fit(features[known], labels[known])
    prepared = np.asarray(pipeline[:-1].transform(features))
    champion = pipeline.predict_proba(features)[:, 1]
    out_of_fold = cross_val_predict(pipeline[-1], prepared[known], labels[known], cv=FOLDS, method="predict_proba")
    column = frame[RISEN_FEATURE].to_numpy(dtype=np.float64)
    is_risen = column >= np.nanquantile(column, 1 - RISEN_SHARE)
    chances = expit(logit(np.clip(champion, 1e-6, 1 - 1e-6)) + rise * is_risen)
    threshold = f1_optimal_threshold(labels[known], out_of_fold[:, 1])
    return World(raw, pipeline, prepared, champion, threshold, known, labels[known], others, chances, pipeline[-1])


# Making a challenger


def fitted(world: World, recent: Labelled, weight: float) -> Any:
    """Fit the shipped classifier to recent rows and, with a weight, to the champion's."""
    older = world.known if weight > 0 else world.known[:0]
    rows = np.concatenate([older, recent.rows])
    y = np.concatenate([world.labels[: len(older)], recent.y])
    weights = np.concatenate([np.full(len(older), weight), np.ones(len(recent.y))])
    return clone(world.estimator).fit(world.features[rows], y, sample_weight=weights)


def probabilities(world: World, model: Any, recent: Labelled) -> FloatArray:
    """Return a model's probabilities."""
    return np.asarray(model.predict_proba(world.features[recent.rows])[:, 1])


def best_weight(world: World, recent: Labelled) -> float:
    """Return the weight of the champion's rows with the lowest log loss on the later recent ones."""
    cut = len(recent.y) - round(INNER_SHARE * len(recent.y))
    earlier, later = recent.at(slice(cut)), recent.at(slice(cut, None))
    losses = {
        weight: log_loss(later.y, probabilities(world, fitted(world, earlier, weight), later), labels=[0, 1])
        for weight in CANDIDATE_WEIGHTS
        if weight > 0 or len(set(earlier.y.tolist())) == 2
    }
    return min(losses, key=lambda weight: losses[weight])


def out_of_fold(world: World, recent: Labelled, weight: float) -> tuple[FloatArray, list[tuple[IntArray, IntArray]]]:
    """Return each row's probability by a model of the other blocks of time, and the blocks."""
    folds = blocks_of_time(recent.y, FOLDS, None) or list(StratifiedKFold(FOLDS).split(recent.rows, recent.y))
    found = np.empty(len(recent.y))
    for learn, predict in folds:
        found[predict] = probabilities(world, fitted(world, recent.at(learn), weight), recent.at(predict))
    return found, folds


def in_halves(world: World, recent: Labelled) -> Judged:
    """Fit to the earlier half, judge on the later one."""
    middle = len(recent.y) // 2
    earlier, later = recent.at(slice(middle)), recent.at(slice(middle, None))
    weight = best_weight(world, earlier)
    threshold = f1_optimal_threshold(earlier.y, out_of_fold(world, earlier, weight)[0])
    model = fitted(world, earlier, weight)
    p = probabilities(world, model, later)
    return Judged(later, p, (p >= threshold).astype(np.int64), model, threshold)


def forward(world: World, recent: Labelled) -> Judged:
    """Judge each block after the first by a model of the blocks before it."""
    ends = np.linspace(0, len(recent.y), FOLDS + 1).astype(int)
    p, decisions = np.full(len(recent.y), np.nan), np.zeros(len(recent.y), dtype=np.int64)
    for begin, end in pairwise(ends[1:]):
        before, block = recent.at(slice(begin)), slice(begin, end)
        weight = best_weight(world, before)
        first = begin == ends[1]
        known = out_of_fold(world, before, weight)[0] if first else p[ends[1] : begin]
        p[block] = probabilities(world, fitted(world, before, weight), recent.at(block))
        decisions[block] = p[block] >= f1_optimal_threshold(before.y if first else before.y[ends[1] :], known)
    judged = slice(ends[1], None)
    threshold = f1_optimal_threshold(recent.y[judged], p[judged])
    model = fitted(world, recent, best_weight(world, recent))
    return Judged(recent.at(judged), p[judged], decisions[judged], model, threshold)


def cross_fitted(world: World, recent: Labelled) -> Judged:
    """Judge each block by a model of the others."""
    weight = best_weight(world, recent)
    p, folds = out_of_fold(world, recent, weight)
    decisions = decisions_of_others(recent.y, p, folds)
    return Judged(recent, p, decisions, fitted(world, recent, weight), f1_optimal_threshold(recent.y, p))


# Judging


def passes(world: World, judged: Judged) -> bool:
    """Return whether the F1 gate lets the challenger through at the first verdict."""
    evaluation = Evaluation(
        judged.labelled.y,
        Scores(judged.probabilities, judged.threshold, decisions=judged.decisions),
        Scores(world.champion[judged.labelled.rows], world.threshold),
    )
    return is_passed(evaluation)


def is_passed(evaluation: Evaluation) -> bool:
    """Return whether the F1 gate passes at the first verdict."""
    return evaluate_gates(evaluation, LIMITS, 1, gates=(SPEC,)).action is Action.PROMOTE


def try_once(data: Path, rise: float, n_labels: int, seed: int, number: int) -> dict[str, tuple[bool, float]]:
    """Return for each way whether the challenger passes, and by how much its true F1 is higher."""
    world, rng = world_of(data, rise, seed), np.random.default_rng([seed, number, n_labels])
    drawn = rng.choice(world.others, n_labels + ROWS_OF_TRUTH, replace=False)
    y = (rng.random(len(drawn)) < world.chances[drawn]).astype(np.int64)
    recent, truth = Labelled(drawn[:n_labels], y[:n_labels]), Labelled(drawn[n_labels:], y[n_labels:])
    before = f1_score(truth.y, world.champion[truth.rows] >= world.threshold)
    found = {}
    with threadpool_limits(limits=1):
        for way, make in zip(WAYS, (in_halves, forward, cross_fitted), strict=True):
            judged = make(world, recent)
            after = f1_score(truth.y, probabilities(world, judged.model, truth) >= judged.threshold)
            found[way] = (passes(world, judged), after - before)
    return found


def try_whole_training(data: Path, seed: int, number: int) -> dict[str, tuple[bool, float]]:
    """Return, where nothing has changed, whether what the platform trains passes, and by how much its true F1 is higher."""
    world, rng = world_of(data, 0.0, seed), np.random.default_rng([seed, number, VISITS])
    drawn = rng.choice(world.others, WHOLE_LABELS // VISITS + ROWS_OF_TRUTH, replace=False)
    y = (rng.random(len(drawn)) < world.chances[drawn]).astype(np.int64)
    visits = rng.permutation(np.repeat(np.arange(WHOLE_LABELS // VISITS), VISITS))
    truth = Labelled(drawn[WHOLE_LABELS // VISITS :], y[WHOLE_LABELS // VISITS :])
    known = world.frame.iloc[world.known].assign(**{TRUE_LABEL: world.labels, WEIGHT: 1.0})
    recent = world.frame.iloc[drawn[visits]].assign(
        **{
            TRUE_LABEL: y[visits],
            "created_at": NOW + pd.to_timedelta(np.arange(len(visits)), unit="min"),
            ENTITY: [f"customer {one}" for one in visits],
        }
    )
    with threadpool_limits(limits=1):
        rows = training_set(
            recent.reset_index(drop=True),
            contract,
            source="customers that come again",
            min_evaluation_rows=Settings.model_fields["min_samples_for_decision"].default,
            label_coverage_pct=None,
            original=OriginalRows(known, "the champion's rows"),
            seed=seed,
            onset=CHANGED,
        )
        champion = Incumbent(1, world.pipeline, world.threshold)
        trained = train(rows, contract, seed, ladder=Ladder(champion))
        assert trained.cross_fitted is not None, "there was a change"
        evaluation = evaluation_on(
            rows,
            contract,
            Scores(trained.cross_fitted.probabilities, trained.threshold, decisions=trained.cross_fitted.decisions),
            Scores(world.champion[drawn[visits]], world.threshold),
            len(visits),
        )
        new = trained.pipeline.predict_proba(world.frame.iloc[truth.rows].to_numpy())[:, 1]
    before = f1_score(truth.y, world.champion[truth.rows] >= world.threshold)
    return {WHOLE: (is_passed(evaluation), f1_score(truth.y, new >= trained.threshold) - before)}


def outcomes_of(
    rise: float, n_labels: int, tries: list[dict[str, tuple[bool, float]]], ways: Sequence[str] = WAYS
) -> Iterator[Outcome]:
    """Summarise the tries of each way."""
    for way in ways:
        passed, gains = (np.array(values) for values in zip(*(one[way] for one in tries), strict=True))
        yield Outcome(
            rise,
            n_labels,
            way,
            share_of(int(passed.sum()), len(tries)),
            share_of(int((passed & (gains <= 0)).sum()), len(tries)),
            float(gains.mean()),
        )


def table(outcomes: list[Outcome]) -> Table:
    """Return the outcomes as a table."""
    found = Table(title="First verdict after a change (95 % bounds)")
    for heading in (
        "log-odds rise by",
        "labels",
        "judged in",
        "passes, %",
        "passes though no better, %",
        "F1 gain, points",
    ):
        found.add_column(heading, justify="left" if heading == "judged in" else "right")
    for one in outcomes:
        shares = (
            f"{100 * s.share:.1f} ({100 * s.low:.1f} - {100 * s.high:.1f})" for s in (one.passed, one.passed_no_better)
        )
        found.add_row(f"{one.rise:g}", f"{one.labels:,}", one.way, *shares, f"{100 * one.f1_gain:+.1f}")
    return found


def main(
    data: Annotated[Path, typer.Option(help="labelled rows in the shape of cs-training.csv")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_TRIES} tries of each, not {TRIES}")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of models and draws")] = 20,
) -> None:
    """Measure how many labels a gain takes to be seen, and how often there is none."""
    n_tries, console = QUICK_TRIES if quick else TRIES, Console()
    outcomes: list[Outcome] = []
    with in_processes(console, (len(RISES) * len(LABELS) + 1) * n_tries) as run:
        for rise in RISES:
            for n_labels in LABELS:
                tried = run(partial(try_once, data, rise, n_labels, seed), range(n_tries))
                outcomes += outcomes_of(rise, n_labels, tried)
        whole = run(partial(try_whole_training, data, seed), range(n_tries))
        outcomes += outcomes_of(0.0, WHOLE_LABELS, whole, (WHOLE,))
    show(console, table(outcomes), outcomes, json_file)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
