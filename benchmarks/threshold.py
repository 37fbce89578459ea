"""How good is the decision threshold of a model on other rows, if few labels choose it?

    python -m benchmarks.threshold --data cs-training.csv [--json threshold.json] [--quick]

Each kind of model learns from `ROWS_TO_LEARN` rows. A threshold is chosen with so many labels of rows that it has not seen, and judged by
its F1 on `ROWS_OF_TRUTH` others:

- `expected`: the highest expected F1 (`selfheal.domain.retraining.threshold`); this is what the platform does.
- `labels`: the highest F1 on the labels themselves.

The kinds differ in what their probabilities are like: calibrated, over- and underconfident, with many equal ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import f1_score, precision_recall_curve
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from benchmarks.measured import at_least
from benchmarks.tries import in_processes, show
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.retraining.evidence import IntArray
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.kit.one_thread import one_thread

ROWS_TO_LEARN, ROWS_OF_TRUTH = 5_000, 6_000
LABELS = (300, 1_000, 4_000)
DRAWS = 5
"""Sets of labels of one fitted model, for each number of labels."""

TRIES, QUICK_TRIES = 20, 2
MIN_EVENTS = 10
"""With fewer no training is made (`selfheal.domain.retraining.class_counts`), so no threshold is chosen."""

MODELS = ("logistic regression", "gradient boosting", "random forest", "random forest, 20 rows a leaf", "naive Bayes")


def estimator(name: str, seed: int) -> Any:
    """Return an estimator of a kind of model, not fitted."""
    found: dict[str, Any] = {
        "logistic regression": contract.build_estimator(seed),
        "gradient boosting": HistGradientBoostingClassifier(random_state=seed),
        "random forest": RandomForestClassifier(100, random_state=seed),
        "random forest, 20 rows a leaf": RandomForestClassifier(100, min_samples_leaf=20, random_state=seed),
        "naive Bayes": make_pipeline(SimpleImputer(), GaussianNB()),
    }
    return found[name]


def labels_best(labels: IntArray, probabilities: FloatArray) -> float:
    """Return the threshold with the highest F1 on the labels."""
    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    return float(thresholds[int(np.argmax(f1))])


@dataclass(frozen=True)
class Outcome:
    """Mean F1 on other rows by each way, in points, and the gain with its 95 % bounds over fitted models."""

    model: str
    labels: int
    expected: float
    by_labels: float
    gain: float
    low: float
    high: float


def try_once(data: Path, model: str, seed: int, number: int) -> dict[int, tuple[float, float]]:
    """Fit a model; return by number of labels the mean F1 of both thresholds on other rows."""
    frame = load_csv(data, contract)
    features, y = contract.feature_frame(frame).to_numpy(dtype=np.float64), frame[TRUE_LABEL].to_numpy(dtype=np.int64)
    at_least("rows", len(y), ROWS_TO_LEARN + max(LABELS) + ROWS_OF_TRUTH)
    rng = np.random.default_rng([seed, number])
    known, truth, pool = np.split(rng.permutation(len(y)), [ROWS_TO_LEARN, ROWS_TO_LEARN + ROWS_OF_TRUTH])
    with one_thread():
        fitted = estimator(model, seed + number).fit(features[known], y[known])
        p = fitted.predict_proba(features)[:, 1]
    found = {}
    for n_labels in LABELS:
        drawn = [rng.choice(pool, n_labels, replace=False) for _ in range(DRAWS)]
        scores = [
            [f1_score(y[truth], p[truth] >= choose(y[rows], p[rows])) for choose in (f1_optimal_threshold, labels_best)]
            for rows in drawn
            if y[rows].sum() >= MIN_EVENTS
        ]
        at_least(f"sets of {n_labels:,} labels", len(scores), 1)
        expected, by_labels = np.mean(scores, axis=0)
        found[n_labels] = float(expected), float(by_labels)
    return found


def outcomes_of(model: str, tries: Sequence[dict[int, tuple[float, float]]]) -> list[Outcome]:
    """Summarise the tries of a kind of model."""
    from scipy.stats import t

    found = []
    for n_labels in LABELS:
        expected, by_labels = 100 * np.array([one[n_labels] for one in tries]).T
        gain = expected - by_labels
        width = float(t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)))
        mean = float(gain.mean())
        found.append(
            Outcome(model, n_labels, float(expected.mean()), float(by_labels.mean()), mean, mean - width, mean + width)
        )
    return found


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return one row per kind of model and number of labels."""
    found = Table(title="F1 on other rows, in points (95 % bounds over fitted models)", title_justify="left")
    for heading in ("model", "labels", "expected", "labels' best", "gain"):
        found.add_column(heading, justify="left" if heading == "model" else "right")
    for one in outcomes:
        gain = f"{one.gain:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
        found.add_row(one.model, f"{one.labels:,}", f"{one.expected:.1f}", f"{one.by_labels:.1f}", gain)
    return found


def main(
    data: Annotated[Path, typer.Option(help="labelled rows in the shape of cs-training.csv")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_TRIES} fitted models a kind, not {TRIES}")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of models and draws")] = 20,
) -> None:
    """Measure the F1 of a threshold that few labels choose, on other rows."""
    n_tries, console = QUICK_TRIES if quick else TRIES, Console()
    outcomes: list[Outcome] = []
    with in_processes(console, len(MODELS) * n_tries) as run:
        for model in MODELS:
            outcomes += outcomes_of(model, run(partial(try_once, data, model, seed), range(n_tries)))
    show(console, table(outcomes), outcomes, json_file)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
