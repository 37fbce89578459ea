"""W19 and W20: what the gates promote under a declared primary metric, and which probabilities they refuse.

Models learn from 40 % of the second half of the rows; the others are the population, from which evaluation rows are drawn
independently, so that every true value is known.

- W19: the champion has the challenger's decisions and scrambled scores on either side of the threshold, so that its AUC-ROC is
  lower by .071. Besides, for each primary metric, the share of champions that ten attempts replace by challengers that are no
  better: trained on other rows, or made so that few rows show their losses and exactly equal by weights of the rows.
  On Elec2, where it is among the streams: a champion of the first 8,000 rows and challengers of the newest 8,000, on windows in
  which they lower the Brier score by .03 or more.
- W20: the challenger is the champion with all odds 2.7 times as high. Besides, what the gate refuses although it is harmless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.gates import is_hopeless as is_hopeless_for_f1
from benchmarks.gates import numbers_of_verdicts
from benchmarks.probation import labels_until_rollback
from benchmarks.trust.figures import Target, at_least, at_most, mean, rate
from benchmarks.trust.worlds import Figures, Found, Given, Half, Piece, TrustWorld, halves
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.performance import roc_auc
from selfheal.domain.probation import PairedScores
from selfheal.domain.records import Action, GateStatus
from selfheal.domain.retraining.conditions import NEW_LABELS_GROWTH
from selfheal.domain.retraining.dataset import EVALUATION_SHARE
from selfheal.domain.retraining.evaluation import Evaluation, Scores
from selfheal.domain.retraining.evidence import CHALLENGER_SAYS_SO as SAYS_SO
from selfheal.domain.retraining.evidence import f1, kind_counts, level_of_verdict
from selfheal.domain.retraining.gates import GATES_BY_NAME
from selfheal.domain.retraining.judging import evaluate_gates
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.services.retraining import gate_limits
from selfheal.settings import Settings, default_settings

IntArray = npt.NDArray[np.int64]
Metric = Literal["f1", "log_loss", "brier", "auc", "expected_cost"]

METRICS: tuple[Metric, ...] = get_args(Settings.model_fields["primary_metric"].annotation)
DECLARED: tuple[Metric, ...] = ("log_loss", "brier", "auc")
"""Metrics under which W19 has to be promoted: F1 and the cost of the decisions are the same for both models."""

MODELS, ROWS_TO_LEARN, LEARN_SHARE = 12, 2_500, 0.4
ATTEMPTS, FIRST_ROWS = 10, 1_000
ROWS = (1_000, 2_000)
AUC_LOSS, ODDS_OVERSTATED = 0.071, 2.7
COSTS = {"cost_of_false_alarm": 1.0, "cost_of_miss": 8.0}
CLOSE: dict[Metric, float] = {"f1": 0.01, "log_loss": 0.002, "brier": 0.0005, "auc": 0.005, "expected_cost": 0.005}
"""By how much a challenger that is no better may be worse: closer models are harder to distinguish."""

ELEC2_ROWS, ELEC2_WINDOW, ELEC2_STEP, ELEC2_GAIN = 8_000, 2_400, 2_000, 0.03
LABELS_WATCHED = 5_000
MAX_FALSE, MAX_HARMLESS_REFUSED, MIN_PROMOTED, MIN_REFUSED = 0.05, 0.05, 0.9, 0.95


@dataclass(frozen=True)
class Pair:
    """Both models on the population, whose rows are drawn with `weights` (None: evenly)."""

    labels: IntArray
    challenger: Scores
    champion: Scores
    weights: FloatArray | None = None

    def draw(self, n_rows: int, rng: np.random.Generator) -> IntArray:
        """Draw the positions of independent rows."""
        return rng.choice(len(self.labels), n_rows, p=self.weights)

    def on(self, rows: IntArray) -> Evaluation:
        """Return what the gates judge on these rows."""
        new, old = (Scores(one.probabilities[rows], one.threshold) for one in (self.challenger, self.champion))
        return Evaluation(self.labels[rows], new, old, label_coverage_pct=100.0, n_labels=len(rows))


# Models


@lru_cache(maxsize=2)
def models_and_labels(data: Path, seed: int) -> tuple[list[Scores], IntArray]:
    """Return the scores of models, each trained on rows of its own, on the population, and its labels."""
    frame = halves(data)[1]
    features = contract.feature_frame(frame)[list(contract.feature_names)].to_numpy(dtype=np.float64)
    labels, rng = frame[TRUE_LABEL].to_numpy(dtype=np.int64), np.random.default_rng([seed, 19])
    learn, population = np.split(rng.permutation(len(frame)), [round(LEARN_SHARE * len(frame))])
    found = []
    for _ in range(MODELS):
        rows = rng.choice(learn, min(ROWS_TO_LEARN, round(0.8 * len(learn))), replace=False)
        model = contract.build_estimator(int(rng.integers(2**31))).fit(features[rows], labels[rows])
        threshold = f1_optimal_threshold(labels[rows], model.predict_proba(features[rows])[:, 1])
        found.append(Scores(model.predict_proba(features[population])[:, 1], threshold))
    return found, labels[population]


def log_odds(scores: Scores) -> FloatArray:
    """Return the log-odds of the scores."""
    return np.asarray(logit(np.clip(scores.probabilities, 1e-6, 1 - 1e-6)))


def scrambled(scores: Scores, labels: IntArray, auc_loss: float, rng: np.random.Generator) -> Scores:
    """Return scores with the same decisions and an AUC-ROC lower by the loss: noise that keeps to its side of the threshold."""
    odds, edge, noise = log_odds(scores), float(logit(scores.threshold)), rng.normal(size=len(labels))
    is_above = odds >= edge

    def with_noise(size: float) -> FloatArray:
        noisy = odds + size * noise
        return np.asarray(expit(np.where(is_above, np.maximum(noisy, edge + 1e-9), np.minimum(noisy, edge - 1e-9))))

    wanted = roc_auc(labels, scores.probabilities) - auc_loss
    size = brentq(lambda one: roc_auc(labels, with_noise(one)) - wanted, 0.0, 8.0, xtol=1e-3)
    return Scores(with_noise(size), scores.threshold)


def value_of(metric: Metric, labels: IntArray, scores: Scores) -> float:
    """Return the true value of a metric on the population, larger where better."""
    p = np.clip(scores.probabilities, 1e-6, 1 - 1e-6)
    if metric == "auc":
        return roc_auc(labels, scores.probabilities)
    if metric == "f1":
        return float(f1(kind_counts(labels, scores.predictions, scores.predictions), SAYS_SO))
    if metric == "brier":
        return -float(((p - labels) ** 2).mean())
    if metric == "log_loss":
        return float((labels * np.log(p) + (1 - labels) * np.log1p(-p)).mean())
    misses, alarms = labels * (1 - scores.predictions), (1 - labels) * scores.predictions
    return -float((COSTS["cost_of_miss"] * misses + COSTS["cost_of_false_alarm"] * alarms).mean())


def no_better(metric: Metric, models: Sequence[Scores], labels: IntArray) -> list[list[Pair]]:
    """Return, for each champion that has them, the challengers that are worse by a little or not at all."""
    values = [value_of(metric, labels, model) for model in models]
    by_champion = [
        [
            Pair(labels, new, old)
            for new, value in zip(models, values, strict=True)
            if -CLOSE[metric] <= value - own <= 0
        ]
        for old, own in zip(models, values, strict=True)
    ]
    return [pairs for pairs in by_champion if any(pair.challenger is not pair.champion for pair in pairs)]


def seldom_shown(metric: Metric, models: Sequence[Scores], labels: IntArray) -> list[list[Pair]]:
    """Return challengers that are exactly equal and whose losses few rows show; each alone is all attempts of a history.

    With proper scores: odds a third lower, or low probabilities thirded. With AUC-ROC: a twenty-fifth of the rows sent to the
    bottom, and noise in the champion.
    """
    if metric in {"f1", "expected_cost"}:
        return []
    if metric == "auc":
        return [[_lost_rows(model, labels, number)] for number, model in enumerate(models[:3])]
    found = []
    for model in models[:3]:
        lower = Scores(np.asarray(expit(log_odds(model) - 0.3)), model.threshold)
        thirded = np.where(model.probabilities < 0.02, model.probabilities / 3, model.probabilities)
        found += [
            [equalised(metric, Pair(labels, lower, model))],
            [equalised(metric, Pair(labels, Scores(thirded, model.threshold), model))],
        ]
    return found


def equalised(metric: Metric, pair: Pair) -> Pair:
    """Return the pair with weights exp(t d) of its rows, d being the gain of a row, such that the mean gain is 0."""
    chances = [np.clip(one.probabilities, 1e-6, 1 - 1e-6) for one in (pair.challenger, pair.champion)]
    if metric == "brier":
        new, old = ((p - pair.labels) ** 2 for p in chances)
    else:
        new, old = (-(pair.labels * np.log(p) + (1 - pair.labels) * np.log1p(-p)) for p in chances)
    gains = (old - new) / (old - new).std()

    def weights(tilt: float) -> FloatArray:
        found = np.exp(np.clip(tilt * gains, -50, 50))
        return np.asarray(found / found.sum())

    return Pair(pair.labels, pair.challenger, pair.champion, weights(brentq(lambda t: weights(t) @ gains, -8, 8)))


def _lost_rows(model: Scores, labels: IntArray, number: int) -> Pair:
    rng = np.random.default_rng([19, number])
    lost = Scores(np.where(rng.random(len(labels)) < 0.04, 1e-5, model.probabilities), model.threshold)
    noise, wanted = rng.normal(size=len(labels)), roc_auc(labels, lost.probabilities)

    def noisy(size: float) -> FloatArray:
        return np.asarray(expit(log_odds(model) + size * noise))

    size = brentq(lambda one: roc_auc(labels, noisy(one)) - wanted, 0.0, 6.0, xtol=1e-4)
    return Pair(labels, lost, Scores(noisy(size), model.threshold))


# Tries


def limits_for(metric: Metric) -> dict[str, Any]:
    """Return the default limits of the gates with this primary metric."""
    return {**gate_limits(default_settings()), **COSTS, "primary_metric": metric}


def is_promoted(pair: Pair, rows: IntArray, verdict_number: float, limits: dict[str, Any]) -> bool:
    """Return whether all gates pass."""
    return evaluate_gates(pair.on(rows), limits, verdict_number).action is Action.PROMOTE


def promotions(pairs: Sequence[Pair], metric: Metric, n_rows: int, tries: int, seed: Sequence[int]) -> int:
    """Return how many first verdicts on so many rows promote."""
    rng, limits = np.random.default_rng(list(seed)), limits_for(metric)
    return sum(is_promoted(one := pairs[k % len(pairs)], one.draw(n_rows, rng), 1, limits) for k in range(tries))


def replaced_champions(histories: list[list[Pair]], metric: Metric, tries: int, seed: Sequence[int]) -> int:
    """Return how many champions are replaced in ten attempts, each with a quarter more labels of the same traffic."""
    rng, limits = np.random.default_rng(list(seed)), limits_for(metric)
    ends = [round(FIRST_ROWS / EVALUATION_SHARE * NEW_LABELS_GROWTH**attempt) for attempt in range(ATTEMPTS)]
    judged = [round(EVALUATION_SHARE * end) for end in ends]
    attempts = list(zip(ends, judged, numbers_of_verdicts(judged), strict=True))
    n_replaced = 0
    for _ in range(tries):
        pairs = histories[rng.integers(len(histories))]
        traffic = pairs[0].draw(ends[-1], rng)
        for end, n_judged, number in attempts:
            pair, rows = pairs[rng.integers(len(pairs))], traffic[end - n_judged : end]
            if not is_hopeless(metric, pair.on(rows), number, limits) and is_promoted(pair, rows, number, limits):
                n_replaced += 1
                break
    return n_replaced


def is_hopeless(metric: Metric, evaluation: Evaluation, verdict_number: float, limits: dict[str, Any]) -> bool:
    """Return whether no bound can be above 0: no gain, or one far below what a normal bound needs; it saves most of the time."""
    assert evaluation.champion is not None, "a gain is one over a champion"
    labels, new, old = evaluation.labels, evaluation.challenger, evaluation.champion
    gain = value_of(metric, labels, new) - value_of(metric, labels, old)
    if gain <= 0 or metric not in {"f1", "expected_cost"}:
        return gain <= 0
    level = level_of_verdict(limits["level"], verdict_number, len(labels), has_brier_risen=False)
    if metric == "f1":
        return is_hopeless_for_f1(kind_counts(labels, new.predictions, old.predictions), level)
    costs = np.where(labels == 1, COSTS["cost_of_miss"], -COSTS["cost_of_false_alarm"])
    spread = float((costs * (new.predictions - old.predictions)).std())
    return gain < -0.5 * NormalDist().inv_cdf(level) * spread / math.sqrt(len(labels))


def brier_gate_fails(pair: Pair, rows: IntArray, limits: dict[str, Any]) -> bool:
    """Return whether the Brier gate refuses the challenger, whatever the other gates say."""
    spec = GATES_BY_NAME["brier_degradation"]
    gates = evaluate_gates(pair.on(rows), limits, 1, gates=[spec]).gates
    return gates[0].status is GateStatus.FAIL


def refused(pairs: Sequence[Pair], n_rows: int, tries: int, seed: Sequence[int]) -> int:
    """Return in how many tries the Brier gate refuses."""
    rng, limits = np.random.default_rng(list(seed)), limits_for("f1")
    return sum(brier_gate_fails(one := pairs[k % len(pairs)], one.draw(n_rows, rng), limits) for k in range(tries))


def contradictions(pairs: Sequence[Pair], n_rows: int, tries: int, seed: Sequence[int]) -> int:
    """Return in how many tries the Brier gate lets a challenger pass that probation then rolls back."""
    rng, limits, hits = np.random.default_rng(list(seed)), limits_for("f1"), 0
    for k in range(tries):
        pair = pairs[k % len(pairs)]
        if brier_gate_fails(pair, pair.draw(n_rows, rng), limits):
            continue
        rows = pair.draw(LABELS_WATCHED, rng)
        served = PairedScores(pair.labels[rows], pair.challenger.probabilities[rows], pair.champion.probabilities[rows])
        hits += labels_until_rollback(served) is not None
    return hits


# Elec2


@lru_cache(maxsize=1)
def elec2_pairs(path: Path) -> list[Pair]:
    """Return champion and challenger on windows of the stream in which the challenger's Brier score is lower by `ELEC2_GAIN`."""
    frame = pd.read_csv(path)
    features, labels = frame.iloc[:, :-1].to_numpy(dtype=np.float64), frame.iloc[:, -1].to_numpy(dtype=np.int64)
    champion = _linear(features[:ELEC2_ROWS], labels[:ELEC2_ROWS])
    found = []
    for start in range(2 * ELEC2_ROWS, len(frame) - ELEC2_WINDOW, ELEC2_STEP):
        learned, window = slice(start - ELEC2_ROWS, start), slice(start, start + ELEC2_WINDOW)
        challenger = _linear(features[learned], labels[learned])
        pair = Pair(labels[window], challenger(features[window]), champion(features[window]))
        values = [value_of("brier", pair.labels, one) for one in (pair.challenger, pair.champion)]
        if values[0] - values[1] >= ELEC2_GAIN:
            found.append(pair)
    return found


def _linear(features: FloatArray, labels: IntArray) -> Callable[[FloatArray], Scores]:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(features, labels)
    threshold = f1_optimal_threshold(labels, model.predict_proba(features)[:, 1])
    return lambda others: Scores(model.predict_proba(others)[:, 1], threshold)


# The worlds


W19_TRIES, W19_TRIES_QUICK = 400, 30
HISTORIES, HISTORIES_QUICK = 1_000, 20
NO_BETTER: dict[str, Callable[..., list[list[Pair]]]] = {"no_better": no_better, "seldom_shown": seldom_shown}
ELEC2 = "elec2"


@lru_cache(maxsize=2)
def w19_pairs(data: Path, seed: int) -> list[Pair]:
    """Return challengers with the champion's decisions and a larger area."""
    models, labels = models_and_labels(data, seed)
    rng = np.random.default_rng([seed, 191])
    return [Pair(labels, model, scrambled(model, labels, AUC_LOSS, rng)) for model in models]


def w19_pieces(given: Given) -> list[Piece]:
    """Return the tries by primary metric: of a better model with the same decisions, and of models that are no better."""
    tries, histories = given.tries(W19_TRIES, W19_TRIES_QUICK), given.tries(HISTORIES, HISTORIES_QUICK)
    has_elec2 = any(path.stem == ELEC2 for path in given.streams)
    return [
        Piece("truths", w19_truths),
        *(
            Piece(f"{metric}.promoted_{n_rows}_rows", w19_promotions, (metric, n_rows, tries), 0.03 * tries)
            for metric in METRICS
            for n_rows in ROWS
        ),
        *(
            Piece(f"elec2.{metric}.promoted_{min(ROWS)}_rows", elec2_promotions, (metric, tries), 0.03 * tries)
            for metric in METRICS
            if has_elec2
        ),
        *(
            Piece(f"{metric}.{name}_promoted_in_ten_attempts", w19_replaced, (metric, name, histories), 0.2 * histories)
            for metric in METRICS
            for name in NO_BETTER
        ),
    ]


def w19_truths(given: Given) -> dict[str, list[float]]:
    """Return both models' true values."""
    return _truths(w19_pairs(given.data, given.seed))


def w19_promotions(given: Given, metric: Metric, n_rows: int, tries: int) -> int:
    """Return how often a better model with the same decisions is promoted."""
    return promotions(w19_pairs(given.data, given.seed), metric, n_rows, tries, [given.seed, 192, n_rows])


def elec2_promotions(given: Given, metric: Metric, tries: int) -> int:
    """Return how often a model that lowers the Brier score on Elec2 is promoted."""
    path = next(path for path in given.streams if path.stem == ELEC2)
    return promotions(elec2_pairs(path), metric, min(ROWS), tries, [given.seed, 194])


def w19_replaced(given: Given, metric: Metric, name: str, tries: int) -> int | None:
    """Return how many champions ten attempts replace by models that are no better; None if there are no such models."""
    histories = NO_BETTER[name](metric, *models_and_labels(given.data, given.seed))
    return replaced_champions(histories, metric, tries, [given.seed, 193, len(name)]) if histories else None


def w19_figures(given: Given, found: Found) -> Figures:
    """Return the true values, and the shares of promotions under each primary metric."""
    tries, histories = given.tries(W19_TRIES, W19_TRIES_QUICK), given.tries(HISTORIES, HISTORIES_QUICK)
    figures = {name: mean(values) for name, values in found["truths"].items()}
    for name, hits in found.items():
        metric = name.split(".")[-2] if "." in name else ""
        if name.endswith("_in_ten_attempts"):
            if hits is not None:
                figures[name] = rate(hits, histories, at_most(MAX_FALSE))
        elif name.startswith(f"{ELEC2}."):
            figures[name] = rate(hits, tries, at_least(MIN_PROMOTED) if metric in {"log_loss", "brier"} else Target())
        elif metric:
            is_asked = metric in DECLARED and name.endswith(f"_{max(ROWS)}_rows")
            figures[name] = rate(hits, tries, at_least(MIN_PROMOTED) if is_asked else Target())
    return figures


def _truths(pairs: Sequence[Pair]) -> dict[str, list[float]]:
    """Return both models' true AUC-ROC and Brier score, pair by pair."""
    sides = {"champion": [p.champion for p in pairs], "challenger": [p.challenger for p in pairs]}
    labels = pairs[0].labels
    metrics: tuple[Metric, ...] = ("auc", "brier")
    return {
        f"true_{metric}_of_{side}": [abs(value_of(metric, labels, one)) for one in scores]
        for side, scores in sides.items()
        for metric in metrics
    }


W20_TRIES, W20_TRIES_QUICK = 1_000, 100
CONTRADICTIONS, CONTRADICTIONS_QUICK = 400, 60
W20_ROWS = (500, *ROWS)
OVERSTATED = "overstated"
REFUSED: dict[str, tuple[int, Target]] = {
    OVERSTATED: (201, at_least(MIN_REFUSED)),
    "retrained": (202, at_most(MAX_HARMLESS_REFUSED)),
    "higher_but_equal": (202, at_most(MAX_HARMLESS_REFUSED)),
}
"""What is brought before the Brier gate, each with the seed of its tries and its target."""


@lru_cache(maxsize=6)
def w20_pairs(data: Path, seed: int, name: str) -> list[Pair]:
    """Return challengers of a kind: odds 2.7 times as high, trained on other rows, or higher and exactly as good."""
    models, labels = models_and_labels(data, seed)
    if name == "retrained":
        histories = no_better("brier", models, labels)
        return [pair for pairs in histories for pair in pairs if pair.challenger is not pair.champion]
    factor = ODDS_OVERSTATED if name == OVERSTATED else 1.35
    pairs = [
        Pair(labels, Scores(np.asarray(expit(log_odds(one) + math.log(factor))), one.threshold), one) for one in models
    ]
    return pairs if name == OVERSTATED else [equalised("brier", pair) for pair in pairs]


def w20_pieces(given: Given) -> list[Piece]:
    """Return the tries by kind of challenger and number of rows."""
    tries, n_watched = given.tries(W20_TRIES, W20_TRIES_QUICK), given.tries(CONTRADICTIONS, CONTRADICTIONS_QUICK)
    return [
        Piece("truths", w20_truths),
        *(
            Piece(f"{name}.refused_{n_rows}_rows", w20_refused, (name, n_rows, tries), 0.0015 * tries)
            for n_rows in W20_ROWS
            for name in REFUSED
        ),
        Piece("overstated.passed_and_rolled_back", w20_contradictions, (n_watched,), 0.01 * n_watched),
    ]


def w20_truths(given: Given) -> dict[str, list[float]]:
    """Return both models' true values."""
    return _truths(w20_pairs(given.data, given.seed, OVERSTATED))


def w20_refused(given: Given, name: str, n_rows: int, tries: int) -> int:
    """Return how often the Brier gate refuses a kind of challenger."""
    return refused(w20_pairs(given.data, given.seed, name), n_rows, tries, [given.seed, REFUSED[name][0], n_rows])


def w20_contradictions(given: Given, tries: int) -> int:
    """Return how often probation takes back what the Brier gate let pass."""
    return contradictions(w20_pairs(given.data, given.seed, OVERSTATED), min(ROWS), tries, [given.seed, 203])


def w20_figures(given: Given, found: Found) -> Figures:
    """Return how often the Brier gate refuses overstated odds, and how often a challenger that does no harm."""
    tries, n_watched = given.tries(W20_TRIES, W20_TRIES_QUICK), given.tries(CONTRADICTIONS, CONTRADICTIONS_QUICK)
    figures = {name: mean(values) for name, values in found["truths"].items()}
    for name, hits in found.items():
        if ".refused_" in name:
            figures[name] = rate(hits, tries, REFUSED[name.split(".")[0]][1])
        elif name != "truths":
            figures[name] = rate(hits, n_watched, at_most(MAX_FALSE))
    return figures


WORLDS: tuple[TrustWorld, ...] = (
    TrustWorld("W19", "AUC-ROC and Brier score improve, decisions do not", Half.CHOSEN, w19_pieces, w19_figures),
    TrustWorld("W20", "all odds overstated 2.7 times", Half.JUDGED, w20_pieces, w20_figures),
)
