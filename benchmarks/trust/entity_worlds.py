"""W1 to W4: customers recur, with equal or nearly equal rows, so that rows are no independent evidence.

Each world is measured with a key that is sent with the rows (`key`), and without one: `copies` recur with equal inputs, `near`
ones with inputs that have moved by 2 %. A customer's outcome is one. Rows of seeds from 100 on are those of the first half of
the file, on which parameters are chosen; the others are of the second half.

Belongs here: customers that recur. Does not belong here: how their rows are judged (`selfheal.domain.clusters`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.gates import LIMITS, MAX_DIFFERENCE
from benchmarks.probation import LIMITS as PROBATION_LIMITS
from benchmarks.probation import NOW, VERSION, Case
from benchmarks.trust.figures import Figure, at_most, between, mean, rate
from benchmarks.trust.worlds import Figures, Found, Given, Half, Piece, TrustWorld, halves
from selfheal.credit_risk import contract as credit_contract
from selfheal.domain.clusters import ENTITY, Clusters, row_clusters
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.performance import performance_report, score_metrics
from selfheal.domain.probation import PairedScores, judge_probation, labels_of_next_evaluation
from selfheal.domain.records import Action, ConceptDrift, PerformanceReport, ScoreMetrics, Window
from selfheal.domain.retraining.class_counts import EVALUATION
from selfheal.domain.retraining.dataset import training_set
from selfheal.domain.retraining.evaluation import Evaluation, Scores, evaluation_on
from selfheal.domain.retraining.judging import evaluate_gates
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.domain.retraining.training import train
from selfheal.kit.errors import InvalidDataError, TrainingFailedError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

IntArray = npt.NDArray[np.int64]

RECURRENCES = (2, 5, 10)
MOVED = 0.02
"""Standard deviation of the factor by which an input moves from one occurrence to the next."""

CHOOSING_SEEDS = 100
LEARN_SHARE, ROWS_TO_LEARN, MODELS = 0.4, 2_000, 8

KEY = "customer"
IDENTITIES: Mapping[str, float] = {"copies": 0.0, "near": MOVED, "key": MOVED}
"""How customers are recognised, and by how much their inputs move."""


@dataclass(frozen=True)
class Model:
    """A fitted estimator with its F1-optimal threshold."""

    pipeline: Pipeline
    threshold: float

    def scores(self, inputs: pd.DataFrame) -> Scores:
        """Return the scores of raw inputs."""
        return Scores(self.pipeline.predict_proba(matrix(inputs))[:, 1], self.threshold)


@dataclass(frozen=True)
class Population:
    """Customers that no model has learned from, one row each, and models of other customers."""

    inputs: pd.DataFrame
    labels: IntArray
    models: tuple[Model, ...]

    def recurring(
        self, n_rows: int, times: int, moved: float, rng: np.random.Generator, weights: FloatArray | None = None
    ) -> tuple[pd.DataFrame, IntArray, IntArray]:
        """Draw customers, each `times` times in any order; return inputs, labels, and who each row is of."""
        drawn = rng.choice(len(self.labels), n_rows // times, p=weights)
        visits = rng.permutation(np.repeat(np.arange(len(drawn)), times))
        return with_moves(self.inputs.iloc[drawn[visits]], moved, rng), self.labels[drawn[visits]], visits


def matrix(inputs: pd.DataFrame) -> FloatArray:
    """Return the feature matrix of raw inputs."""
    return credit_contract.feature_frame(inputs)[list(credit_contract.feature_names)].to_numpy(dtype=np.float64)


def with_moves(inputs: pd.DataFrame, moved: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return inputs multiplied by random factors around 1; whole numbers stay whole, and limits hold."""
    found = inputs.reset_index(drop=True)
    if not moved:
        return found
    factors = np.exp(moved * rng.normal(size=found.shape))
    values = found.to_numpy(dtype=np.float64) * factors
    for place, feature in enumerate(credit_contract.inputs):
        column = np.round(values[:, place]) if feature.kind == "int" else values[:, place]
        values[:, place] = np.clip(column, feature.lower, feature.upper)
    return pd.DataFrame(values, columns=found.columns)


def clusters_of(inputs: pd.DataFrame, identity: str, visits: IntArray) -> Clusters:
    """Return the entity of each row as the platform knows it: by the key, or by the inputs alone."""
    return visits if identity == "key" else row_clusters(inputs, credit_contract)


@lru_cache(maxsize=2)
def rows_of(data: Path, seed: int) -> tuple[pd.DataFrame, IntArray]:
    """Return inputs and labels of the half of the file that a seed draws from."""
    chosen_on, judging = halves(data)
    part = chosen_on if seed >= CHOOSING_SEEDS else judging
    return part[list(credit_contract.input_names)], part[TRUE_LABEL].to_numpy(dtype=np.int64)


@lru_cache(maxsize=2)
def population_of(data: Path, seed: int) -> Population:
    """Fit models on a part of the rows; the rest is the population."""
    inputs, labels = rows_of(data, seed)
    rng = np.random.default_rng([seed, 0])
    learn, rest = np.split(rng.permutation(len(labels)), [round(LEARN_SHARE * len(labels))])
    models = tuple(fitted(inputs, labels, learn, rng) for _ in range(MODELS))
    return Population(inputs.iloc[rest], labels[rest], models)


def fitted(inputs: pd.DataFrame, labels: IntArray, learn: IntArray, rng: np.random.Generator) -> Model:
    """Fit the contract's estimator to a sample of these rows."""
    rows = rng.choice(learn, min(ROWS_TO_LEARN, round(0.8 * len(learn))), replace=False)
    x, y = matrix(inputs.iloc[rows]), labels[rows]
    pipeline = credit_contract.build_estimator(int(rng.integers(2**31))).fit(x, y)
    return Model(pipeline, f1_optimal_threshold(y, pipeline.predict_proba(x)[:, 1]))


# W1: no better challenger is promoted

W1_TRIES, W1_QUICK = 600, 25
W1_ROWS = (500, 1_000)


def no_better_pairs(population: Population) -> list[tuple[Model, Model]]:
    """Return challenger and champion whose F1 on the population is lower by at most a point, or equal."""
    models = population.models
    quality = [
        score_metrics(population.labels, (found := model.scores(population.inputs)).probabilities, found.threshold).f1
        for model in models
    ]
    return [
        (models[i], models[j])
        for i in range(len(models))
        for j in range(len(models))
        if i != j and -MAX_DIFFERENCE <= quality[i] - quality[j] <= 0
    ]


def is_promoted(challenger: Scores, champion: Scores, labels: IntArray, clusters: Clusters) -> bool:
    """Return whether the gates promote, at the first verdict on a champion."""
    new, old = (score_metrics(labels, scores.probabilities, scores.threshold).f1 for scores in (challenger, champion))
    if new - old < LIMITS["min_f1_improvement_pct"] / 100 * old:
        return False
    evaluation = Evaluation(
        labels, challenger, champion, label_coverage_pct=100.0, n_labels=len(labels), clusters=clusters
    )
    if (
        evaluation.n_independent_rows < LIMITS["min_samples"]
    ):  # inconclusive, whatever the others say, and those take long
        return False
    return evaluate_gates(evaluation, LIMITS, 1).action is Action.PROMOTE


def w1_pieces(given: Given) -> list[Piece]:
    """Return one piece per way to recognise customers, number of rows and of recurrences."""
    tries = given.tries(W1_TRIES, W1_QUICK)
    cases = [(identity, n_rows, times) for identity in IDENTITIES for n_rows in W1_ROWS for times in RECURRENCES]
    return [
        Piece(
            f"{identity}.rows_{n_rows}.customers_{times}",
            promoted,
            (identity, n_rows, times, number, tries),
            0.05 * tries,
        )
        for number, (identity, n_rows, times) in enumerate(cases)
    ]


def promoted(given: Given, identity: str, n_rows: int, times: int, number: int, tries: int) -> int:
    """Return how often a challenger that is no better is promoted."""
    population = population_of(given.data, given.seed)
    pairs = no_better_pairs(population)
    rng = np.random.default_rng([given.seed, 1, n_rows, times, number])
    n_promoted = 0
    for _ in range(tries):
        challenger, champion = pairs[rng.integers(len(pairs))]
        inputs, labels, visits = population.recurring(n_rows, times, IDENTITIES[identity], rng)
        clusters = clusters_of(inputs, identity, visits)
        n_promoted += is_promoted(challenger.scores(inputs), champion.scores(inputs), labels, clusters)
    return n_promoted


def w1_figures(given: Given, found: Found) -> Figures:
    """Return the shares of challengers that are promoted."""
    tries = given.tries(W1_TRIES, W1_QUICK)
    return {name: rate(n_promoted, tries, at_most(0.05)) for name, n_promoted in found.items()}


# W2: a version that is not worse is not rolled back

W2_TRIES, W2_QUICK = 2_000, 20
W2_HORIZON = 5_000


def is_rolled_back(scores: PairedScores) -> bool:
    """Return whether probation fails at any of its evaluations, of which one is due after each tenth more of the labels."""
    assert scores.previous_probabilities is not None, "both versions score every row"
    n, smallest = 0, PROBATION_LIMITS.min_labels
    while (n := labels_of_next_evaluation(n, smallest)) <= len(scores.labels):
        seen = PairedScores(
            scores.labels[:n],
            scores.probabilities[:n],
            scores.previous_probabilities[:n],
            clusters=None if scores.clusters is None else scores.clusters[:n],
        )
        if judge_probation(VERSION, seen, PROBATION_LIMITS, NOW).is_harmful:
            return True
    return False


def w2_pieces(given: Given) -> list[Piece]:
    """Return one piece per way to recognise customers and number of recurrences."""
    tries = given.tries(W2_TRIES, W2_QUICK)
    cases = [(identity, times) for identity in IDENTITIES for times in RECURRENCES]
    return [
        Piece(f"{identity}.customers_{times}", rolled_back, (identity, times, number, tries), 0.3 * tries)
        for number, (identity, times) in enumerate(cases)
    ]


def rolled_back(given: Given, identity: str, times: int, number: int, tries: int) -> int:
    """Return how often one of two versions of exactly the same Brier score is rolled back."""
    population = population_of(given.data, given.seed)
    found = [model.scores(population.inputs).probabilities for model in population.models]
    cases = [
        (i, j, Case(population.labels, found[i], found[j]).with_mean(0.0)) for i in range(4) for j in range(4, MODELS)
    ]
    rng = np.random.default_rng([given.seed, 2, times, number])
    return sum(
        is_rolled_back(probation(population, cases[rng.integers(len(cases))], identity, times, rng))
        for _ in range(tries)
    )


def w2_figures(given: Given, found: Found) -> Figures:
    """Return the shares of versions that are rolled back."""
    tries = given.tries(W2_TRIES, W2_QUICK)
    return {name: rate(n_back, tries, at_most(0.002)) for name, n_back in found.items()}


def probation(
    population: Population, case: tuple[int, int, Case], identity: str, times: int, rng: np.random.Generator
) -> PairedScores:
    """Return the labelled rows of a probation in which customers recur.

    What a move by 2 % changes in a score is too little to matter here, so that scores are those of the first visit.
    """
    _, _, weighted = case
    drawn = rng.choice(len(population.labels), W2_HORIZON // times, p=weighted.weights)
    visits = rng.permutation(np.repeat(np.arange(len(drawn)), times))
    rows = drawn[visits]
    clusters: Clusters = visits
    if identity != "key":
        inputs = with_moves(population.inputs.iloc[rows], IDENTITIES[identity], rng)
        clusters = row_clusters(inputs, credit_contract)
    return PairedScores(population.labels[rows], weighted.new[rows], weighted.old[rows], clusters=clusters)


# W3: intervals hold, and no concept drift is shown where there is none

W3_TRIES, W3_QUICK = 1_500, 40
W3_ROWS, W3_TIMES = 1_000, 5


def w3_pieces(given: Given) -> list[Piece]:
    """Return one piece per way to recognise customers."""
    tries = given.tries(W3_TRIES, W3_QUICK)
    return [Piece(identity, intervals, (identity, tries), 0.15 * tries) for identity in IDENTITIES]


def intervals(given: Given, identity: str, tries: int) -> dict[str, list[bool]]:
    """Return whether each interval of F1 covers the truth, and each time whether concept drift is shown although there is none."""
    found: dict[str, list[bool]] = {"realised_f1": [], "estimated_f1": [], "concept_drift": []}
    for report, truth, later in reports(given, identity, IDENTITIES[identity], tries):
        interval = report.realised_intervals.get("f1")
        if interval is not None:
            found["realised_f1"].append(interval.low <= truth <= interval.high)
        assert report.estimate is not None, "a window has rows"
        predicted = report.estimate.intervals.get("f1")
        if predicted is not None:
            found["estimated_f1"].append(predicted.low <= later <= predicted.high)
        found["concept_drift"].append(report.concept_drift is ConceptDrift.SHOWN)
    return found


def w3_figures(_: Given, found: Found) -> Figures:
    """Return how often intervals cover, and how often concept drift is shown."""
    targets = {"realised_f1": between(0.93, 0.97), "estimated_f1": between(0.93, 0.97), "concept_drift": at_most(0.01)}
    return {
        f"{identity}.{name}": rate(sum(hits[name]), len(hits[name]), target)
        for identity, hits in found.items()
        for name, target in targets.items()
    }


def reports(given: Given, identity: str, moved: float, tries: int) -> Iterator[tuple[PerformanceReport, float, float]]:
    """Yield performance reports, with F1 on the population and on the labels of the very rows."""
    population = population_of(given.data, given.seed)
    rng = np.random.default_rng([given.seed, 3, len(identity)])
    for number in range(tries):
        model = population.models[number % MODELS]
        order = rng.permutation(len(population.labels))
        frozen, rest = np.split(order, [len(order) // 2])
        others = replace(population, inputs=population.inputs.iloc[rest], labels=population.labels[rest])
        reference = with_scores(population.inputs.iloc[frozen], population.labels[frozen], model)
        inputs, labels, visits = others.recurring(W3_ROWS, W3_TIMES, moved, rng)
        rows = with_scores(inputs, labels, model)
        clusters = clusters_of(inputs, identity, visits)
        everyone = model.scores(with_moves(population.inputs, moved, rng)).probabilities
        truth = score_metrics(population.labels, everyone, model.threshold).f1
        later = score_metrics(labels, rows["probability"].to_numpy(), model.threshold).f1
        yield report_on(rows, reference, model.threshold, clusters), truth, later


def with_scores(inputs: pd.DataFrame, labels: IntArray, model: Model) -> pd.DataFrame:
    """Return inputs with the model's probability and the labels."""
    return inputs.assign(probability=model.scores(inputs).probabilities, **{TRUE_LABEL: labels})


def report_on(rows: pd.DataFrame, reference: pd.DataFrame, threshold: float, clusters: Clusters) -> PerformanceReport:
    """Return a tick's performance report on a window whose labels have matured."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    window = Window(credit_contract.name, 1, start, start + timedelta(days=1), len(rows), len(rows))
    return performance_report(
        window,
        rows,
        rows,
        ScoreMetrics(0, 0, 0.0, 0.0, 0.0, None, 0.0),
        threshold,
        calibration_rows=reference,
        inputs=credit_contract.input_names,
        label_delay=None,
        matured=window,
        seed=20,
        clusters=clusters,
        labelled_clusters=clusters,
    )


# W4: what remembers customers is not promoted

W4_DEPLOYMENTS, W4_QUICK = 40, 2
W4_CUSTOMERS, W4_TIMES = 600, 5
W4_TREES = 30


def forest(seed: int) -> Pipeline:
    """Return an estimator that remembers its rows."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline as Steps

    trees = RandomForestClassifier(W4_TREES, class_weight="balanced", random_state=seed)
    return Steps([("fill", SimpleImputer(strategy="median")), ("classify", trees)])


FOREST = replace(
    credit_contract,
    build_estimator=forest,
    param_grid={"classify__min_samples_leaf": [1]},
    trusted_types=("sklearn.tree._tree.Tree",),
)


@dataclass(frozen=True)
class Remembered:
    """A challenger by the gates and by the truth: F1 of champion and challenger in evaluation, and on new customers."""

    is_promoted: bool
    evaluated: tuple[float, float]
    true: tuple[float, float]


def w4_pieces(given: Given) -> list[Piece]:
    """Return one piece per way to recognise customers; the deployments of one draw from the same stream of numbers."""
    tries = given.tries(W4_DEPLOYMENTS, W4_QUICK)
    return [Piece(identity, remembered, (identity, tries), 4.0 * tries) for identity in IDENTITIES]


def remembered(given: Given, identity: str, tries: int) -> list[dict[str, Any] | None]:
    """Return what became of each deployment in which a challenger remembers its customers; None where none was trained."""
    population = population_of(given.data, given.seed)
    rng = np.random.default_rng([given.seed, 4, len(identity)])
    found = [deployment(population, identity, number, rng) for number in range(tries)]
    return [None if one is None else asdict(one) for one in found]


def w4_figures(_: Given, found: Found) -> Figures:
    """Count deployments in which a challenger that remembers its customers is promoted."""
    figures: dict[str, Figure] = {}
    for identity, tried in found.items():
        trained = [Remembered(**one) for one in tried if one is not None]
        figures[f"{identity}.trained"] = rate(len(trained), len(tried))
        n_promoted = float(sum(one.is_promoted for one in trained if one.true[1] <= one.true[0]))
        figures[f"{identity}.promoted"] = Figure(n_promoted, n_promoted, n_promoted, at_most(0.0))
        for place, model in enumerate(("champion", "challenger")):
            figures[f"{identity}.{model}.evaluated_f1"] = mean([one.evaluated[place] for one in trained])
            figures[f"{identity}.{model}.true_f1"] = mean([one.true[place] for one in trained])
    return figures


def deployment(population: Population, identity: str, number: int, rng: np.random.Generator) -> Remembered | None:
    """Train a challenger on labelled traffic in which customers recur, cut in time, and judge it by the gates.

    None if too few rows are left to learn from, of customers that are not judged on too.
    """
    champion = population.models[number % MODELS]
    order = rng.permutation(len(population.labels))
    known, new = order[:W4_CUSTOMERS], order[W4_CUSTOMERS:]
    visits = rng.permutation(np.repeat(np.arange(W4_CUSTOMERS), W4_TIMES))
    inputs = with_moves(population.inputs.iloc[known[visits]], IDENTITIES[identity], rng)
    contract = replace(FOREST, entity=KEY) if identity == "key" else FOREST
    rows = contract.feature_frame(inputs).assign(**{TRUE_LABEL: population.labels[known[visits]]})
    if identity == "key":
        rows = rows.assign(**{ENTITY: [f"customer {one}" for one in visits]})
    others, truth = population.inputs.iloc[new], population.labels[new]
    try:
        found = training_set(
            rows, contract, source="traffic", min_evaluation_rows=LIMITS["min_samples"], label_coverage_pct=100.0
        )
        trained = train(found, contract, seed=number)
    except (InvalidDataError, TrainingFailedError):  # the loop records that, and nothing is promoted
        return None
    names = list(contract.feature_names)

    def challenger(features: FloatArray) -> FloatArray:
        return np.asarray(trained.pipeline.predict_proba(features)[:, 1])

    judged = found.part(EVALUATION)
    pair = (Scores(challenger(judged[names].to_numpy()), trained.threshold), champion.scores(judged))
    outcome = evaluate_gates(evaluation_on(found, contract, *pair, n_labels=len(rows)), LIMITS, 1)
    true = (champion.scores(others), Scores(challenger(matrix(others)), trained.threshold))
    evaluated = (judged[TRUE_LABEL].to_numpy(dtype=np.int64), pair[::-1])
    return Remembered(outcome.action is Action.PROMOTE, f1_of(*evaluated), f1_of(truth, true))


def f1_of(labels: IntArray, scores: tuple[Scores, Scores]) -> tuple[float, float]:
    """Return F1 of champion and challenger."""
    first, second = (score_metrics(labels, one.probabilities, one.threshold).f1 for one in scores)
    return first, second


WORLDS: tuple[TrustWorld, ...] = (
    TrustWorld("W1", "customers recur in the evaluation rows", Half.CHOSEN, w1_pieces, w1_figures),
    TrustWorld("W2", "customers recur in probation", Half.JUDGED, w2_pieces, w2_figures),
    TrustWorld("W3", "customers recur in the monitored window", Half.CHOSEN, w3_pieces, w3_figures),
    TrustWorld(
        "W4", "customers recur in training and evaluation, and are remembered", Half.JUDGED, w4_pieces, w4_figures
    ),
)
