"""How often do the gates promote a model that is not better, and how often one that is?

    python -m benchmarks.gates --data cs-training.csv [--json gates.json] [--quick]

Models learn from 40 % of the rows; the others are the population. A model's true F1 is that on the population, at its threshold.
Evaluation rows are drawn from the population with replacement, so they are independent. A verdict is that of `evaluate_gates`
with all six gates; to save time it is computed only if the F1 gate passes. `point_rule` is the usual "F1 +2 %"; `plain_bootstrap`
has the other five gates, and for F1 the percentile bootstrap of rows at the same level.

- Not better: challengers that learned like the champion, from other rows, and whose F1 is below the champion's by at most one
  point. `stricter`: the champion's own scores at a higher threshold with equal F1, for which rows that show losses are rare.
- Ten attempts on one champion, each with a new challenger and a quarter more labels of the same traffic, of which the newest 30 %
  are for evaluation (n at the first attempt): a champion counts as replaced if any attempt replaces it. A verdict on few rows is
  a part of one, as in the platform.
- Worse by five points: log-odds with noise, at the threshold that is then best.
- Better (`power`): a rate shock has affected a share of the rows. The challenger learned after it, the champion before. Up to
  11 % of these rows are positive.
- Better, rate shock (`power_rate_shock`): the shock has affected all rows. The challenger learned after that, the champion when it
  had affected such a share that the challenger's gain in F1 is as stated. About 23 % of these rows are positive.
- Better, rare events (`power_rare_events`): on the original rows, 6 % of them positive, the champion is the challenger with such
  noise in its log-odds that the gain is as stated.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from statistics import NormalDist
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.measured import at_least, exactly, within
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.records import Action, GateStatus
from selfheal.domain.retraining.conditions import NEW_LABELS_GROWTH
from selfheal.domain.retraining.dataset import EVALUATION_SHARE
from selfheal.domain.retraining.evaluation import Evaluation, Scores
from selfheal.domain.retraining.evidence import (
    CHAMPION_SAYS_SO,
    f1,
    f1_difference,
    f1_difference_bounds,
    kind_counts,
    level_of_verdict,
    whole_verdicts,
)
from selfheal.domain.retraining.judging import evaluate_gates
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.kit.errors import InvalidDataError
from selfheal.services.retraining import gate_limits
from selfheal.settings import default_settings

LIMITS = gate_limits(default_settings())
"""The gates' limits under the default settings."""

ROWS = (200, 500, 1_000, 2_000)
TRUE_GAINS = (0.02, 0.05, 0.09, 0.13)
ATTEMPTS = 10

LEARN_SHARE = 0.4
MODELS, ROWS_TO_LEARN = 40, 2_500
MAX_DIFFERENCE = 0.01
"""Largest F1 by which a challenger that is not better may be below the champion: closer models are harder to distinguish."""

STRICTER_LOSS = 0.02
"""Difference from the best F1 at both thresholds, of a stricter challenger and of its champion."""

LOSS = 0.05
GAIN_ERROR = 0.015
"""By how much the true gain of a figure's models, on average, may differ from the one it is named by: models that are
trained anew differ in steps, and this is half the distance of the two nearest gains."""

SCENARIO = "rate_shock"
WORLDS_PER_GAIN = 3

BOOTSTRAP_RESAMPLES = 20_000
PARTS = 4
"""Number of parts into which each figure's tries are divided, for parallel processes."""

TEN_ATTEMPTS = "false_promotion_10_attempts"
POWERS = ("power_rate_shock", "power", "power_rare_events")
"""Names of the figures of power, whose order is part of the seeds."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Effort:
    """Number of tries of each figure, for each number of rows."""

    equal: int
    histories: int
    worse: int
    better: int


FULL = Effort(equal=2_000, histories=800, worse=20_000, better=400)
QUICK = Effort(equal=200, histories=40, worse=1_000, better=20)


@dataclass(frozen=True)
class Pair:
    """Challenger and champion on the whole population."""

    labels: IntArray
    challenger: Scores
    champion: Scores

    @cached_property
    def kinds(self) -> IntArray:
        """Return which of the 8 kinds each row of the population is."""
        return self.labels * 4 + self.challenger.predictions * 2 + self.champion.predictions

    @cached_property
    def shares(self) -> FloatArray:
        """Return the share of each kind among the rows of the population, shape (8,)."""
        return np.bincount(self.kinds, minlength=8) / len(self.kinds)

    @cached_property
    def rows_of_kind(self) -> list[IntArray]:
        """Return the positions of the rows of each kind."""
        return [np.flatnonzero(self.kinds == kind) for kind in range(8)]

    @property
    def true_gain(self) -> float:
        """Return the challenger's F1 minus the champion's on the whole population."""
        return float(f1_difference(self.shares))

    def evaluation(self, rows: IntArray) -> Evaluation:
        """Return the evaluation on these rows."""
        challenger, champion = (Scores(s.probabilities[rows], s.threshold) for s in (self.challenger, self.champion))
        return Evaluation(self.labels[rows], challenger, champion, label_coverage_pct=100.0, n_labels=len(rows))

    def sample(self, counts: IntArray, rng: np.random.Generator) -> IntArray:
        """Draw the given number of rows of each kind. With counts drawn by `shares` they are independent rows."""
        parts = [rng.choice(rows, count) for rows, count in zip(self.rows_of_kind, counts, strict=True) if count]
        return np.concatenate(parts)


@dataclass(frozen=True)
class Worlds:
    """Pairs by figure and true gain (None if not controlled), and for each champion a sequence of challengers."""

    pairs: dict[tuple[str, float | None], list[Pair]]
    histories: list[list[Pair]]


@dataclass
class Tally:
    """Number of tries, and of promotions by rule."""

    n: int = 0
    hits: dict[str, int] = field(default_factory=dict)

    def add(self, **happened: bool) -> None:
        """Count one try; `happened` says for each rule whether it promoted."""
        self.n += 1
        for rule, hit in happened.items():
            self.hits[rule] = self.hits.get(rule, 0) + int(hit)

    def merge(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.n += other.n
        for rule, hits in other.hits.items():
            self.hits[rule] = self.hits.get(rule, 0) + hits


@dataclass(frozen=True)
class Share:
    """A share of tries and its 95 % bounds (Clopper and Pearson, 1934, Biometrika 26)."""

    share: float
    low: float
    high: float
    tries: int

    @classmethod
    def of(cls, hits: int, tries: int) -> Share:
        """Return the share of hits with its bounds."""
        from scipy.stats import beta

        low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, tries - hits + 1))
        high = 1.0 if hits == tries else float(beta.ppf(0.975, hits + 1, tries - hits))
        return cls(hits / tries, low, high, tries)


# The worlds


def build_worlds(frame: pd.DataFrame, seed: int, progress: Progress) -> Worlds:
    """Build all pairs from the file's rows.

    Raises:
        InvalidDataError: if no two models are close enough to each other.
    """
    rng = np.random.default_rng(seed)
    learn, population = np.split(rng.permutation(len(frame)), [round(LEARN_SHARE * len(frame))])
    features, labels = matrix(frame), frame[TRUE_LABEL].to_numpy(dtype=np.int64)
    task = progress.add_task("models", total=MODELS + len(TRUE_GAINS) * WORLDS_PER_GAIN)
    models: list[Scores] = []
    for _ in range(MODELS):
        models.append(fitted(features, labels, learn, rng)(features[population]))
        progress.advance(task)
    truth = labels[population]
    by_champion = [no_better(truth, models, i) for i in range(MODELS)]
    equal = [pair for pairs in by_champion for pair in pairs]
    if not equal:
        raise InvalidDataError("no two models have about the same F1: more rows are needed")
    pairs: dict[tuple[str, float | None], list[Pair]] = {
        ("false_promotion", None): equal,
        ("false_promotion_stricter", None): [stricter_pair(truth, scores) for scores in models[:10]],
        ("worse_challenger", None): [exchanged(noisy_champion(truth, m, LOSS, rng)) for m in models[:WORLDS_PER_GAIN]],
    }
    shock = Shock(frame, features, labels, rng)
    for gain in TRUE_GAINS:
        worlds = range(WORLDS_PER_GAIN)
        pairs["power_rare_events", gain] = [noisy_champion(truth, models[i], gain, rng) for i in worlds]
        pairs["power", gain] = [partial_shift(shock, learn, population, gain, rng) for _ in worlds]
        pairs["power_rate_shock", gain] = []
        for _ in worlds:
            pairs["power_rate_shock", gain].append(older_champion(shock, learn, population, gain, rng))
            progress.advance(task)
    most = max(len(found) for found in by_champion)
    return Worlds(pairs, histories=[found for found in by_champion if len(found) >= min(ATTEMPTS, most)])


def matrix(frame: pd.DataFrame) -> FloatArray:
    """Return the feature matrix of a frame."""
    return contract.feature_frame(frame)[list(contract.feature_names)].to_numpy(dtype=np.float64)


def fitted(
    features: FloatArray, labels: IntArray, learn: IntArray, rng: np.random.Generator
) -> Callable[[FloatArray], Scores]:
    """Fit the contract's estimator to a sample of the training rows; return its scoring with the F1-optimal threshold."""
    rows = rng.choice(learn, min(ROWS_TO_LEARN, round(0.8 * len(learn))), replace=False)
    model = contract.build_estimator(int(rng.integers(2**31))).fit(features[rows], labels[rows])
    threshold = f1_optimal_threshold(labels[rows], model.predict_proba(features[rows])[:, 1])
    return lambda others: Scores(model.predict_proba(others)[:, 1], threshold)


def no_better(truth: IntArray, models: list[Scores], champion: int) -> list[Pair]:
    """Return the pairs with challengers whose F1 is below the champion's by at most one point."""
    pairs = [Pair(truth, model, models[champion]) for i, model in enumerate(models) if i != champion]
    return [pair for pair in pairs if -MAX_DIFFERENCE <= pair.true_gain <= 0]


def f1_by_threshold(truth: IntArray, probabilities: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return an ascending grid of thresholds and F1 at each."""
    thresholds = np.quantile(probabilities, np.linspace(0.5, 0.995, 100))
    says = [(probabilities >= threshold).astype(np.int64) for threshold in thresholds]
    return thresholds, np.array([float(f1(kind_counts(truth, s, s), CHAMPION_SAYS_SO)) for s in says])


def stricter_pair(truth: IntArray, scores: Scores) -> Pair:
    """Return the same scores at a threshold below the best one and at one above it with no better F1."""
    thresholds, quality = f1_by_threshold(truth, scores.probabilities)
    best = int(quality.argmax())
    lower = max((i for i in range(best) if quality[i] <= quality[best] - STRICTER_LOSS), default=0)
    higher = next((i for i in range(best, len(quality)) if quality[i] <= quality[lower]), len(quality) - 1)
    challenger, champion = (Scores(scores.probabilities, float(thresholds[i])) for i in (higher, lower))
    return Pair(truth, challenger, champion)


def noisy_champion(truth: IntArray, scores: Scores, gain: float, rng: np.random.Generator) -> Pair:
    """Return a pair whose champion has the challenger's log-odds plus noise that costs the gain, at its best threshold."""
    odds, noise = np.log(scores.probabilities / (1 - scores.probabilities)), rng.normal(size=len(truth))

    def with_noise(size: float) -> Pair:
        probabilities = 1 / (1 + np.exp(-(odds + size * noise)))
        thresholds, quality = f1_by_threshold(truth, probabilities)
        return Pair(truth, scores, Scores(probabilities, float(thresholds[quality.argmax()])))

    return nearest(with_noise, 6.0, gain)


def exchanged(pair: Pair) -> Pair:
    """Return the pair with champion and challenger exchanged."""
    return Pair(pair.labels, pair.champion, pair.challenger)


class Shock:
    """Features and labels once the rate shock has affected a share of the rows. Rows are affected in a fixed order."""

    def __init__(self, frame: pd.DataFrame, features: FloatArray, labels: IntArray, rng: np.random.Generator) -> None:
        inputs, self._labels_after = contract.scenario(SCENARIO).apply(frame[list(contract.input_names)], labels, rng)
        self._before, self._labels_before, self._after = features, labels, matrix(inputs)
        self._reached_at = rng.random(len(labels))

    def at(self, share: float) -> tuple[FloatArray, IntArray]:
        """Return features and labels once the shock has reached this share of the rows."""
        is_reached = self._reached_at < share
        features = np.where(is_reached[:, None], self._after, self._before)
        return features, np.where(is_reached, self._labels_after, self._labels_before)


def older_champion(shock: Shock, learn: IntArray, population: IntArray, gain: float, rng: np.random.Generator) -> Pair:
    """Return a challenger that learned after the shock, and a champion that learned when it had affected fewer rows."""
    after, truth = shock.at(1.0)
    challenger, seed = fitted(after, truth, learn, rng)(after[population]), int(rng.integers(2**31))

    def with_missed(share: float) -> Pair:
        champion = fitted(*shock.at(1.0 - share), learn, np.random.default_rng(seed))
        return Pair(truth[population], challenger, champion(after[population]))

    return nearest(with_missed, 1.0, gain)


def partial_shift(shock: Shock, learn: IntArray, population: IntArray, gain: float, rng: np.random.Generator) -> Pair:
    """Return a champion that learned before the shock, and a challenger that learned after it affected the current share."""
    champion, seed = fitted(*shock.at(0.0), learn, rng), int(rng.integers(2**31))

    def with_reached(share: float) -> Pair:
        world, truth = shock.at(share)
        challenger = fitted(world, truth, learn, np.random.default_rng(seed))
        return Pair(truth[population], challenger(world[population]), champion(world[population]))

    return nearest(with_reached, 1.0, gain)


def nearest(pair_at: Callable[[float], Pair], most: float, gain: float) -> Pair:
    """Return the pair with the true gain or slightly more, by ten bisections of the number (0 to `most`) it grows with."""
    low, high = 0.0, most
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (low, middle) if pair_at(middle).true_gain >= gain else (middle, high)
    return pair_at(high)


# The tries


def passes_point_rule(counts: IntArray) -> bool:
    """Return whether F1 improves by the minimum, without regard to chance."""
    old = float(f1(counts, CHAMPION_SAYS_SO))
    return float(f1_difference(counts)) >= LIMITS["min_f1_improvement_pct"] / 100 * old


def is_hopeless(counts: IntArray, level: float) -> bool:
    """Return whether the difference is below half of what a normal bound at the level needs, so that no bound exceeds 0.

    Only rows on which the models differ count: a hit weighs 2 - F1, a false alarm F1; the spread is that without a difference.
    """
    quality = max(float(f1(counts, CHAMPION_SAYS_SO)), float(f1_difference(counts)))
    hits, alarms = (2 - quality) * (counts[6] - counts[5]), quality * (counts[2] - counts[1])
    spread = math.sqrt((2 - quality) ** 2 * (counts[6] + counts[5]) + quality**2 * (counts[2] + counts[1]))
    return bool(hits - alarms < -0.5 * NormalDist().inv_cdf(level) * spread)


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of three rules on the same rows."""

    point_rule: bool
    plain_bootstrap: bool
    ours: bool


def judge(
    pair: Pair, rows: IntArray | None, counts: IntArray, verdict_number: float, rng: np.random.Generator
) -> Verdicts:
    """Return all verdicts on evaluation rows of the population with these counts of kinds.

    Args:
        rows: positions of the rows; None: any rows with these counts.
    """
    if not passes_point_rule(counts):
        return Verdicts(point_rule=False, plain_bootstrap=False, ours=False)
    n_rows = int(counts.sum())
    if is_hopeless(counts, level_of_verdict(LIMITS["level"], verdict_number, n_rows, has_brier_risen=False)):
        return Verdicts(point_rule=True, plain_bootstrap=False, ours=False)
    evaluation = pair.evaluation(pair.sample(counts, rng) if rows is None else rows)
    level = level_of_verdict(LIMITS["level"], verdict_number, n_rows, has_brier_risen=has_brier_risen(evaluation))
    is_certain_by_bootstrap = bootstrap_low(counts, level, rng) > 0
    if not is_certain_by_bootstrap and f1_difference_bounds(counts, level, LIMITS["seed"]).low <= 0:
        return Verdicts(point_rule=True, plain_bootstrap=False, ours=False)
    outcome = evaluate_gates(evaluation, LIMITS, verdict_number)
    others = {gate.status for gate in outcome.gates if gate.name != "f1_improvement"}
    return Verdicts(
        point_rule=True,
        plain_bootstrap=is_certain_by_bootstrap and others <= {GateStatus.PASS, GateStatus.NOT_APPLICABLE},
        ours=outcome.action is Action.PROMOTE,
    )


def has_brier_risen(evaluation: Evaluation) -> bool:
    """Return whether the challenger's Brier score is above the champion's."""
    assert evaluation.champion is not None, "all verdicts here are on a pair"
    new, old = (
        ((scores.probabilities - evaluation.labels) ** 2).mean()
        for scores in (evaluation.challenger, evaluation.champion)
    )
    return bool(new > old)


def bootstrap_low(counts: IntArray, level: float, rng: np.random.Generator) -> float:
    """Return the percentile bound of the paired bootstrap (Efron, 1979)."""
    draws = rng.multinomial(counts.sum(), counts / counts.sum(), size=BOOTSTRAP_RESAMPLES)
    return float(np.quantile(f1_difference(draws), level))


def try_pairs(pairs: list[Pair], n_rows: int, tries: int, rng: np.random.Generator) -> Tally:
    """Count first verdicts on `n_rows` rows, each on one of the pairs."""
    tally = Tally()
    for pair, n_tries in zip(pairs, rng.multinomial(tries, np.full(len(pairs), 1 / len(pairs))), strict=True):
        for counts in rng.multinomial(n_rows, pair.shares, size=n_tries):
            tally.add(**asdict(judge(pair, None, counts, 1, rng)))
    return tally


def numbers_of_verdicts(n_rows: Sequence[int]) -> list[float]:
    """Return each verdict's number, of verdicts on so many rows on one champion: 1 and what the earlier ones add up to."""
    return list(accumulate(map(whole_verdicts, n_rows[:-1]), initial=1.0))


def try_histories(histories: list[list[Pair]], n_rows: int, tries: int, rng: np.random.Generator) -> Tally:
    """Count champions replaced in ten attempts, which share rows as real ones do."""
    tally = Tally()
    first = n_rows / EVALUATION_SHARE
    ends = [round(first * NEW_LABELS_GROWTH**attempt) for attempt in range(ATTEMPTS)]
    judged = [round(EVALUATION_SHARE * end) for end in ends]
    attempts = list(zip(ends, judged, numbers_of_verdicts(judged), strict=True))
    for _ in range(tries):
        pairs = histories[rng.integers(len(histories))]
        chosen = [pairs[i] for i in rng.choice(len(pairs), ATTEMPTS, replace=len(pairs) < ATTEMPTS)]
        traffic = rng.integers(len(chosen[0].labels), size=ends[-1])
        replaced: dict[str, bool] = {}
        for pair, (end, n_judged, verdict_number) in zip(chosen, attempts, strict=True):
            rows = traffic[end - n_judged : end]
            counts = np.bincount(pair.kinds[rows], minlength=8)
            for rule, is_promoted in asdict(judge(pair, rows, counts, verdict_number, rng)).items():
                replaced[rule] = replaced.get(rule, False) or is_promoted
        tally.add(**replaced)
    return tally


@dataclass(frozen=True)
class Job:
    """A part of one figure, for one process."""

    figure: str
    gain: float | None
    n_rows: int
    tries: int
    seed: tuple[int, ...]

    def run(self, worlds: Worlds) -> Tally:
        """Run this job's tries and count their results."""
        rng = np.random.default_rng(self.seed)
        if self.figure == TEN_ATTEMPTS:
            return try_histories(worlds.histories, self.n_rows, self.tries, rng)
        return try_pairs(worlds.pairs[self.figure, self.gain], self.n_rows, self.tries, rng)


def jobs(effort: Effort, seed: int, n_parts: int) -> Iterator[Job]:
    """Yield all jobs, longest first."""
    figures: list[tuple[str, float | None, int]] = [
        (TEN_ATTEMPTS, None, effort.histories),
        *((figure, gain, effort.better) for figure in POWERS for gain in TRUE_GAINS),
        ("false_promotion", None, effort.equal),
        ("false_promotion_stricter", None, effort.equal),
        ("worse_challenger", None, effort.worse),
    ]
    for number, (figure, gain, tries) in enumerate(figures):
        for n_rows in sorted(ROWS, reverse=True):
            for part in range(n_parts):
                yield Job(figure, gain, n_rows, math.ceil(tries / n_parts), (seed, number, n_rows, part))


_worlds: Worlds | None = None
"""The worlds of this process, which forked worker processes inherit without a transfer."""


def run_job(job: Job) -> tuple[Job, Tally]:
    """Run a job in a worker process on the worlds that it inherited."""
    assert _worlds is not None, "the worlds are built before the processes start"
    return job, job.run(_worlds)


def check_tries(todo: list[Job], tallies: dict[tuple[str, float | None, int], Tally], worlds: Worlds) -> None:
    """Check that every figure had all its tries, on models whose true difference is what the figure says."""
    for (figure, gain, n_rows), tally in tallies.items():
        wanted = sum(job.tries for job in todo if (job.figure, job.gain, job.n_rows) == (figure, gain, n_rows))
        exactly(f"tries of {figure} ({gain}) at {n_rows:,} rows", tally.n, wanted)
    for (figure, gain), pairs in worlds.pairs.items():
        gains = [pair.true_gain for pair in pairs]
        at_least(f"pairs of models of {figure} ({gain})", len(gains), 1)
        if gain is not None:
            within(f"mean true gain of {figure} in F1", float(np.mean(gains)), gain - GAIN_ERROR, gain + GAIN_ERROR)
        else:
            within(f"largest true gain of {figure} in F1", max(gains), -1.0, 1e-9)


@dataclass(frozen=True)
class Outcome:
    """All measured figures: shares by figure (and true gain, for power), number of rows and rule."""

    source: str
    seed: int
    true_gains: dict[str, float]
    shares: dict[tuple[str, float | None], dict[str, dict[str, Share]]]


def measure(frame: pd.DataFrame, source: str, seed: int, effort: Effort, progress: Progress) -> Outcome:
    """Build the worlds, run all jobs in parallel, and return the shares."""
    global _worlds  # noqa: PLW0603  (see there)
    _worlds = build_worlds(frame, seed, progress)
    todo = list(jobs(effort, seed, PARTS))
    tallies: dict[tuple[str, float | None, int], Tally] = {(job.figure, job.gain, job.n_rows): Tally() for job in todo}
    task = progress.add_task("tries", total=len(todo))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as pool:
        for done in as_completed([pool.submit(run_job, job) for job in todo]):
            job, tally = done.result()
            tallies[job.figure, job.gain, job.n_rows].merge(tally)
            progress.advance(task)
    check_tries(todo, tallies, _worlds)
    shares: dict[tuple[str, float | None], dict[str, dict[str, Share]]] = {}
    for (figure, gain, n_rows), tally in sorted(tallies.items(), key=lambda item: item[0][2]):
        by_rule = {rule: Share.of(hits, tally.n) for rule, hits in tally.hits.items()}
        shares.setdefault((figure, gain), {})[str(n_rows)] = by_rule
    means = {
        figure if gain is None else f"{figure}, {gain:g}": float(np.mean([pair.true_gain for pair in pairs]))
        for (figure, gain), pairs in _worlds.pairs.items()
    }
    return Outcome(source, seed, means, shares)


# What is shown


@dataclass(frozen=True)
class Judgement:
    """A figure, its target, and the verdict. `unclear`: its bounds include the target."""

    name: str
    figure: Share
    at_most: float | None = None
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        """Return `met`, `missed` or `unclear`."""
        if self.at_most is not None:
            if self.figure.high <= self.at_most:
                return "met"
            return "missed" if self.figure.low > self.at_most else "unclear"
        assert self.at_least is not None, "a judgement has an edge"
        if self.figure.share >= self.at_least:
            return "met"
        return "missed" if self.figure.high < self.at_least else "unclear"

    @property
    def target(self) -> str:
        """Return the target as text."""
        return f"upper bound <= {self.at_most:.2%}" if self.at_most is not None else f">= {self.at_least:.0%}"


MAX_REPLACED, MAX_WORSE_PROMOTED, MIN_POWER, MAX_POWER_LOST = 0.06, 0.001, 0.85, 0.10
POWER_GAIN, POWER_ROWS = 0.13, "1000"


def targets(outcome: Outcome) -> list[Judgement]:
    """Return the judgement of each target, on the worst number of rows and gain."""

    def ours(figure: str) -> Share:
        return max((rules["ours"] for rules in outcome.shares[figure, None].values()), key=lambda share: share.high)

    found = [
        Judgement("champion replaced in ten attempts", ours(TEN_ATTEMPTS), at_most=MAX_REPLACED),
        Judgement("five points worse promoted", ours("worse_challenger"), at_most=MAX_WORSE_PROMOTED),
    ]
    for figure in POWERS:
        name = figure.replace("_", " ")
        share = outcome.shares[figure, POWER_GAIN][POWER_ROWS]["ours"]
        found.append(Judgement(f"{name}, +13 points, 1,000 rows", share, at_least=MIN_POWER))
        cells = [rules for gain in TRUE_GAINS for rules in outcome.shares[figure, gain].values()]
        worst = min(cells, key=lambda rules: rules["ours"].share - rules["plain_bootstrap"].share)
        least = max(0.0, worst["plain_bootstrap"].share - MAX_POWER_LOST)
        found.append(Judgement(f"{name}, farthest below the plain bootstrap", worst["ours"], at_least=least))
    return found


def share_table(title: str, by_rows: dict[str, dict[str, Share]]) -> Table:
    """Return one row per number of rows: the share of each rule with its bounds."""
    table = Table(title=title, title_justify="left")
    rules = list(next(iter(by_rows.values())))
    for heading in ("rows", *(rule.replace("_", " ") for rule in rules)):
        table.add_column(heading, justify="right")
    for n, shares in by_rows.items():
        cells = (f"{s.share:.2%} ({s.low:.2%} - {s.high:.2%})" for s in (shares[rule] for rule in rules))
        table.add_row(f"{int(n):,}", *cells)
    return table


def target_table(judgements: list[Judgement]) -> Table:
    """Return one row per target."""
    table = Table(title="Targets", title_justify="left")
    for heading in ("figure", "measured (95 % bounds)", "target", "verdict"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    colours = {"met": "green", "unclear": "yellow", "missed": "red"}
    for j in judgements:
        measured = f"{j.figure.share:.2%} ({j.figure.low:.2%} - {j.figure.high:.2%})"
        table.add_row(j.name, measured, j.target, f"[{colours[j.verdict]}]{j.verdict}[/]")
    return table


TITLES = {
    "false_promotion": "A challenger that is no better is promoted at the first look",
    "false_promotion_stricter": "A stricter threshold that is no better is promoted at the first look",
    TEN_ATTEMPTS: "A champion is replaced by a model that is no better, in ten attempts",
    "worse_challenger": "A challenger that is five points worse is promoted at the first look",
    "power_rate_shock": "A challenger that is better where all rows have changed is promoted at the first look",
    "power": "A challenger that is better is promoted at the first look",
    "power_rare_events": "A challenger that is better where events are rare is promoted at the first look",
}


def tables(outcome: Outcome) -> Iterator[Table]:
    """Yield one table per figure and true gain."""
    for (figure, gain), by_rows in outcome.shares.items():
        better = "" if gain is None else f", {100 * gain:g} points of F1"
        yield share_table(f"{TITLES[figure]}{better}: share of tries (95 % bounds)", by_rows)


def summary(outcome: Outcome, judgements: list[Judgement]) -> dict[str, object]:
    """Return the outcome for JSON, by figure, gain (for power), rows and rule."""
    figures: dict[str, dict[str, object]] = {}
    for (figure, gain), by_rows in outcome.shares.items():
        plain = {n: {rule: asdict(share) for rule, share in rules.items()} for n, rules in by_rows.items()}
        figures.setdefault(figure, {}).update(plain if gain is None else {f"{gain:g}": plain})
    return {
        "data": outcome.source,
        "seed": outcome.seed,
        "mean_true_gain": outcome.true_gains,
        **figures,
        "targets": [{"name": j.name, "target": j.target, "verdict": j.verdict} | asdict(j.figure) for j in judgements],
    }


def main(
    data: Annotated[Path, typer.Option(help="labelled rows in the shape of cs-training.csv")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a tenth of the tries: wide bounds")] = False,
    seed: Annotated[int, typer.Option(help="of models, worlds and rows")] = 20,
) -> None:
    """Measure the error rates and the power of the gates."""
    console = Console()
    try:
        frame = load_csv(data, contract)
        with Progress(console=console) as progress:
            outcome = measure(frame, data.name, seed, QUICK if quick else FULL, progress)
    except InvalidDataError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    for table in tables(outcome):
        console.print(table)
    judgements = targets(outcome)
    console.print(target_table(judgements))
    if json_file is not None:
        json_file.write_text(json.dumps(summary(outcome, judgements), indent=2) + "\n", encoding="utf-8")
        console.print(f"written: {json_file}")


if __name__ == "__main__":
    typer.run(main)
