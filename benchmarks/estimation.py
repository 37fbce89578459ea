"""Do the intervals of monitoring's metrics hold, and does monitoring report when only labels can answer?

    python -m benchmarks.estimation --data cs-training.csv [--json estimation.json] [--quick]

Each repetition splits the rows that a model has not seen into new, disjoint sets of calibration rows (the version's frozen
reference) and rows for windows. As with fresh samples, the difference of their means then varies by s^2 (1/m + 1/n); a fixed
calibration set would measure the luck of that set. The model is refitted on other rows every `REPETITIONS_PER_MODEL`
repetitions.

An estimate's 95 % interval is compared with the metric that the labels of the same window show. A realised metric's interval is
compared with the metric on all unseen rows, from which the window is then drawn independently with replacement. Under covariate
shift, rows are chosen by their inputs alone, so the relation of inputs and outcome is unchanged; under concept drift it changes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.measured import at_least, exactly
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.intervals import metric_intervals
from selfheal.domain.monitoring.performance import concept_drift, performance_report, score_metrics
from selfheal.domain.monitoring.relation import relation_p_value
from selfheal.domain.records import ConceptDrift, Estimate, PerformanceReport, ScoreMetrics, Window
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.kit.errors import InvalidDataError

TRAIN_SHARE, CALIBRATION_SHARE = 0.2, 0.3
"""Shares of all rows. The other half is for windows, because covariate shift needs several rows for each that it selects."""

REPETITIONS, QUICK_REPETITIONS, REPETITIONS_PER_MODEL = 400, 40, 20
WINDOW_ROWS = (200, 1_000, 5_000)
REALISED_ROWS = (50, 100, 200, 500, 1_000, 5_000)
METRICS = ("f1", "precision", "recall", "auc_roc", "brier", "positive_rate")
REALISED_METRICS = METRICS[:-1]
COVERAGE_TARGET = (0.93, 0.97)
MAX_FALSE_CONCEPT_DRIFT = 0.01
MIN_CONCEPT_DRIFT_SHOWN = 0.9
CONCEPT_DRIFT_ROWS = 1_000
"""Matured labels from which concept drift must be shown in a share `MIN_CONCEPT_DRIFT_SHOWN` of the windows."""

MAX_ESTIMATE_SECONDS = 0.3
ROUNDING = 1e-6
"""Tolerance for an interval's end that is a ratio of counts and may differ from the metric by rounding."""

TILT = 1.2
"""Log-odds by which a tilted input's highest rank is preferred to its lowest."""

EXTRA_DEFAULT_RATE = 0.05


@dataclass(frozen=True)
class World:
    """A model, its threshold, and rows it has not seen: all features, `probability` and `true_label`."""

    rows: pd.DataFrame
    threshold: float
    score: Callable[[pd.DataFrame], FloatArray]


@dataclass(frozen=True)
class Source:
    """Inputs of a shift: the rows to select from, their world, and the random generator."""

    rows: pd.DataFrame
    world: World
    rng: np.random.Generator


Shift = Callable[[Source], pd.DataFrame]
Hits = list[tuple[int, bool]]
"""Repetition and result of each try; the results of one repetition are not independent."""


@dataclass
class Cell:
    """Windows of one shift and size, one per repetition; a window that does not define a metric does not count for it."""

    shift: str
    n_rows: int
    not_identifiable: Hits = field(default_factory=list)
    concept_drift_shown: Hits = field(default_factory=list)
    covered: dict[str, Hits] = field(default_factory=lambda: {name: [] for name in METRICS})
    errors: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in METRICS})

    def add(self, repetition: int, estimate: Estimate, drift: ConceptDrift, shown: ScoreMetrics) -> None:
        """Record whether the intervals of one window covered the metrics that its labels show."""
        self.concept_drift_shown.append((repetition, drift is ConceptDrift.SHOWN))
        self.not_identifiable.append((repetition, not estimate.is_identifiable))
        for name, interval in estimate.intervals.items():
            value = shown.n_positive / shown.n_rows if name == "positive_rate" else getattr(shown, name)
            if value is None or (name == "recall" and shown.n_positive == 0):
                continue
            self.covered[name].append((repetition, interval.low - ROUNDING <= value <= interval.high + ROUNDING))
            self.errors[name].append(abs(estimate.values[name] - value))


@dataclass
class Outcome:
    """All that is measured."""

    source: str
    repetitions: int
    seed: int
    estimated: list[Cell]
    concept: list[Cell]
    realised: dict[int, dict[str, Hits]]
    unknown_without_labels: Hits
    estimate_seconds: float


def tilted_inputs(source: Source) -> pd.DataFrame:
    """Prefer high or low values of three randomly chosen inputs."""
    chosen = source.rng.choice(contract.input_names, 3, replace=False)
    ranks = source.rows[list(chosen)].rank(pct=True).fillna(0.5).to_numpy()
    preference = np.exp(ranks @ (source.rng.choice([-1, 1], 3) * TILT))
    return source.rows[source.rng.random(len(source.rows)) < preference / np.quantile(preference, 0.98)]


def riskier_mix(source: Source) -> pd.DataFrame:
    """Prefer rows with a high score, which about doubles the share of true events."""
    preference = np.clip(source.rows["probability"] / np.quantile(source.rows["probability"], 0.85), 0.02, 1.0)
    return source.rows[source.rng.random(len(source.rows)) < preference]


def younger_applicants(source: Source) -> pd.DataFrame:
    """Apply the contract's scenario; rows selected twice count once, so that outcomes remain independent."""
    numbered = source.rows.reset_index(drop=True)
    taken, _ = contract.scenario("younger_applicants").apply(
        numbered.assign(row=np.arange(len(source.rows))), numbered[TRUE_LABEL].to_numpy(), source.rng
    )
    return numbered.iloc[source.rng.permutation(taken["row"].unique())]


def one_segment(source: Source) -> pd.DataFrame:
    """Select only the lowest band of the contract's first segment."""
    segment = contract.segments[0]
    return source.rows[source.rows[segment.feature] < segment.edges[0]]


def rate_shock(source: Source) -> pd.DataFrame:
    """Apply the contract's scenario, which changes the inputs and their relation to the outcome."""
    inputs, labels = contract.scenario("rate_shock").apply(
        source.rows[list(contract.input_names)], source.rows[TRUE_LABEL].to_numpy(dtype=np.int64), source.rng
    )
    features = contract.feature_frame(inputs)
    return features.assign(probability=source.world.score(features), **{TRUE_LABEL: labels})


def flipped_tenth(source: Source) -> pd.DataFrame:
    """Leave the inputs unchanged; invert the outcome in the tenth of the rows with the highest scores."""
    labels, scores = source.rows[TRUE_LABEL], source.rows["probability"]
    return source.rows.assign(**{TRUE_LABEL: np.where(scores >= np.quantile(scores, 0.9), 1 - labels, labels)})


def more_defaults(source: Source) -> pd.DataFrame:
    """Leave the inputs unchanged; let a further 5 % of all rows have the event."""
    struck = source.rng.random(len(source.rows)) < EXTRA_DEFAULT_RATE
    return source.rows.assign(**{TRUE_LABEL: np.where(struck, 1, source.rows[TRUE_LABEL])})


def no_shift(source: Source) -> pd.DataFrame:
    """Return the rows unchanged."""
    return source.rows


COVARIATE_SHIFTS: dict[str, Shift] = {
    "none": no_shift,
    "tilted inputs": tilted_inputs,
    "riskier mix": riskier_mix,
    "younger applicants": younger_applicants,
    "one segment": one_segment,
}
CONCEPT_DRIFTS: dict[str, Shift] = {
    "rate shock": rate_shock,
    "flipped tenth": flipped_tenth,
    "more defaults": more_defaults,
}


def worlds(frame: pd.DataFrame, seed: int, n_worlds: int) -> Iterator[World]:
    """Yield worlds with the contract's estimator, each fitted on different rows."""
    features = contract.feature_frame(frame).assign(**{TRUE_LABEL: frame[TRUE_LABEL].astype(np.int64)})
    names = list(contract.feature_names)
    for number in range(n_worlds):
        order = np.random.default_rng([seed, number]).permutation(len(frame))
        learn, unseen = np.split(order, [round(TRAIN_SHARE * len(order))])
        x, y = features.iloc[learn][names].to_numpy(), features.iloc[learn][TRUE_LABEL].to_numpy()
        model = contract.build_estimator(seed).fit(x, y)

        def score(rows: pd.DataFrame, model: object = model) -> FloatArray:
            return np.asarray(model.predict_proba(rows[names].to_numpy())[:, 1])  # type: ignore[attr-defined]

        rows = features.iloc[unseen]
        threshold = f1_optimal_threshold(y, model.predict_proba(x)[:, 1])
        yield World(rows.assign(probability=score(rows)), threshold, score)


def measure(frame: pd.DataFrame, source: str, seed: int, repetitions: int, progress: Progress) -> Outcome:
    """Run all repetitions and return the outcome."""
    estimated = {(s, n): Cell(s, n) for s in COVARIATE_SHIFTS for n in WINDOW_ROWS}
    concept = {(s, n): Cell(s, n) for s in CONCEPT_DRIFTS for n in WINDOW_ROWS}
    outcome = Outcome(source, repetitions, seed, [], [], {n: {} for n in REALISED_ROWS}, [], math.nan)
    n_calibration = round(CALIBRATION_SHARE * len(frame))
    task = progress.add_task("repetitions", total=repetitions)
    seconds: list[float] = []
    for number, world in enumerate(worlds(frame, seed, math.ceil(repetitions / REPETITIONS_PER_MODEL))):
        population = score_of(world.rows, world.threshold)
        first = number * REPETITIONS_PER_MODEL
        for repetition in range(first, min(first + REPETITIONS_PER_MODEL, repetitions)):
            rng = np.random.default_rng([seed, repetition])
            order = rng.permutation(len(world.rows))
            reference, rest = (world.rows.iloc[part] for part in np.split(order, [n_calibration]))
            for kinds, cells in ((COVARIATE_SHIFTS, estimated), (CONCEPT_DRIFTS, concept)):
                for name, shift in kinds.items():
                    shifted = shift(Source(rest, world, rng))
                    seconds += look_at(
                        repetition, shifted, reference, world, [cells[name, n] for n in WINDOW_ROWS], outcome
                    )
            for n_rows, covered in outcome.realised.items():
                sample = world.rows.iloc[rng.integers(len(world.rows), size=n_rows)]
                look_at_realised(repetition, sample, world.threshold, population, covered)
            progress.advance(task)
    outcome.estimated = [cell for cell in estimated.values() if cell.not_identifiable]
    outcome.concept = [cell for cell in concept.values() if cell.not_identifiable]
    check_windows(outcome)
    outcome.estimate_seconds = float(np.median(seconds))
    return outcome


def check_windows(outcome: Outcome) -> None:
    """Check that every repetition has had a window of each size without a shift, and under each concept drift.

    A shift that keeps a part of the rows alone may leave too few for the largest windows.
    """
    n_windows = {
        (cell.shift, cell.n_rows): len(cell.not_identifiable) for cell in (*outcome.estimated, *outcome.concept)
    }
    for shift in ("none", *CONCEPT_DRIFTS):
        for n_rows in WINDOW_ROWS:
            found = n_windows.get((shift, n_rows), 0)
            exactly(f"windows of {n_rows:,} rows, shift: {shift}", found, outcome.repetitions)
    for shift in COVARIATE_SHIFTS:
        at_least(f"windows, shift: {shift}", sum(n for (name, _), n in n_windows.items() if name == shift), 1)
    for n_rows, covered in outcome.realised.items():
        exactly(f"metrics measured on {n_rows:,} labelled rows", len(covered), len(REALISED_METRICS))


def look_at(
    repetition: int, rows: pd.DataFrame, reference: pd.DataFrame, world: World, cells: list[Cell], outcome: Outcome
) -> list[float]:
    """Evaluate one window per cell from the shifted rows; return the time of the largest (process time, seconds)."""
    seconds: list[float] = []
    for cell in cells:
        if len(rows) < cell.n_rows:
            continue
        window = rows.iloc[: cell.n_rows]
        began = time.process_time()
        blind = report_without_labels(window, reference, world.threshold)
        if cell.n_rows == max(WINDOW_ROWS):
            seconds.append(time.process_time() - began)
        is_unknown = blind.concept_drift is ConceptDrift.NOT_IDENTIFIABLE
        outcome.unknown_without_labels.append((repetition, is_unknown))
        drift = concept_drift(relation_p_value(window, reference, contract.input_names))
        assert blind.estimate is not None, "a window has rows"
        cell.add(repetition, blind.estimate, drift, score_of(window, world.threshold))
    return seconds


def report_without_labels(window: pd.DataFrame, reference: pd.DataFrame, threshold: float) -> PerformanceReport:
    """Return a tick's performance report on the window before its labels arrive."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return performance_report(
        Window(contract.name, 1, now, now, len(window), 0),
        window.drop(columns=TRUE_LABEL),
        window.iloc[:0],
        ScoreMetrics(0, 0, 0.0, 0.0, 0.0, None, 0.0),
        threshold,
        calibration_rows=reference,
        inputs=contract.input_names,
        label_delay=None,
        matured=None,
        seed=20,
    )


def look_at_realised(
    repetition: int, sample: pd.DataFrame, threshold: float, population: ScoreMetrics, covered: dict[str, Hits]
) -> None:
    """Record whether the intervals of realised metrics cover the metrics of the population."""
    labels, scores = sample[TRUE_LABEL].to_numpy(dtype=np.int64), sample["probability"].to_numpy()
    for name, interval in metric_intervals(labels, scores, threshold).items():
        hit = interval.low <= getattr(population, name) <= interval.high
        covered.setdefault(name, []).append((repetition, hit))


def score_of(rows: pd.DataFrame, threshold: float) -> ScoreMetrics:
    """Return the metrics of labelled rows."""
    return score_metrics(rows[TRUE_LABEL].to_numpy(dtype=np.int64), rows["probability"].to_numpy(), threshold)


# What is shown


@dataclass(frozen=True)
class Judgement:
    """A share, its Monte-Carlo error (one standard error), its target range, and the verdict."""

    name: str
    share: float
    error: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Return `met`, `missed` or `unclear`: outside the range, but by less than two standard errors."""
        if self.low <= self.share <= self.high:
            return "met"
        is_far = self.share + 2 * self.error < self.low or self.share - 2 * self.error > self.high
        return "missed" if is_far else "unclear"


def share_and_error(hits: Hits) -> tuple[float, float]:
    """Return the share and its standard error, by repetitions, because windows of one repetition share calibration rows.

    The error is at least the binomial one with one more hit and one more miss, because a share of 100 % is not certain.
    """
    repetitions, values = (np.array(column, dtype=np.float64) for column in zip(*hits, strict=True))
    share = float(values.mean())
    _, group = np.unique(repetitions, return_inverse=True)
    clustered = math.sqrt(float((np.bincount(group, weights=values - share) ** 2).sum())) / len(values)
    padded = (values.sum() + 1) / (len(values) + 2)
    return share, max(clustered, math.sqrt(padded * (1 - padded) / len(values)))


def judge(outcome: Outcome) -> list[Judgement]:
    """Judge each figure that has a target."""
    low, high = COVERAGE_TARGET
    calm = [cell for cell in outcome.estimated if cell.shift == "none"]
    shifted = [cell for cell in outcome.estimated if cell.shift != "none"]
    questions: list[tuple[str, Hits, float, float]] = []
    for metric in METRICS:
        for kind, cells in (("no shift", calm), ("covariate shift", shifted)):
            hits = [hit for cell in cells for hit in cell.covered[metric]]
            questions.append((f"estimated {metric}: coverage, {kind}", hits, low, high))
    for metric in REALISED_METRICS:
        hits = [hit for covered in outcome.realised.values() for hit in covered.get(metric, [])]
        questions.append((f"realised {metric}: coverage", hits, low, high))
    questions.append(("concept drift: not identifiable without labels", outcome.unknown_without_labels, 1.0, 1.0))
    hits = [hit for cell in outcome.estimated for hit in cell.concept_drift_shown]
    questions.append(("concept drift: shown where there is none", hits, 0.0, MAX_FALSE_CONCEPT_DRIFT))
    for cell in outcome.concept:
        if cell.n_rows >= CONCEPT_DRIFT_ROWS:
            name = f"concept drift: shown, {cell.shift}, {cell.n_rows:,} labels"
            questions.append((name, cell.concept_drift_shown, MIN_CONCEPT_DRIFT_SHOWN, 1.0))
    for name, hits, _, _ in questions:
        at_least(f"windows behind the figure {name!r}", len(hits), 1)
    return [Judgement(name, *share_and_error(hits), least, most) for name, hits, least, most in questions]


def share_of(hits: Hits) -> float | None:
    """Return the share of hits; None without any try."""
    return share_and_error(hits)[0] if hits else None


def percent(share: float | None) -> str:
    """Format a share as a percentage; `-` if unknown."""
    return "-" if share is None else f"{share:.1%}"


def cell_table(title: str, cells: list[Cell]) -> Table:
    """Return one row per cell: coverage and mean absolute error of each metric."""
    table = Table(title=title)
    for heading in ("shift", "rows", "windows", *METRICS, "not identifiable", "concept drift shown"):
        table.add_column(heading, justify="left" if heading == "shift" else "right")
    for cell in cells:
        figures = [
            f"{percent(share_of(cell.covered[name]))} ({np.mean(cell.errors[name]):.3f})" if cell.errors[name] else "-"
            for name in METRICS
        ]
        shares = (percent(share_of(hits)) for hits in (cell.not_identifiable, cell.concept_drift_shown))
        table.add_row(cell.shift, f"{cell.n_rows:,}", f"{len(cell.not_identifiable)}", *figures, *shares)
    return table


def realised_table(outcome: Outcome) -> Table:
    """Return one row per number of labelled rows: the coverage of each metric's interval."""
    table = Table(title="Coverage of realised metrics' 95 % intervals")
    for heading in ("labelled rows", *REALISED_METRICS):
        table.add_column(heading, justify="right")
    for n_rows, covered in outcome.realised.items():
        table.add_row(f"{n_rows:,}", *(percent(share_of(covered.get(name, []))) for name in REALISED_METRICS))
    return table


def verdict_table(judgements: list[Judgement], estimate_seconds: float) -> Table:
    """Return one row per target, and one for the time of an estimate."""
    table = Table(title="Targets")
    for heading in ("figure", "measured", "target", "verdict"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    colours = {"met": "green", "unclear": "yellow", "missed": "red"}
    for j in judgements:
        target = f"{j.low:.0%}" if j.low == j.high else f"{j.low:.0%} to {j.high:.0%}"
        table.add_row(j.name, f"{j.share:.1%} ± {j.error:.1%}", target, f"[{colours[j.verdict]}]{j.verdict}[/]")
    name = f"one estimate of {max(WINDOW_ROWS):,} rows, process time"
    verdict = "[green]met[/]" if estimate_seconds <= MAX_ESTIMATE_SECONDS else "[red]missed[/]"
    table.add_row(name, f"{estimate_seconds:.2f} s", f"<= {MAX_ESTIMATE_SECONDS} s", verdict)
    return table


def summary(outcome: Outcome, judgements: list[Judgement]) -> dict[str, object]:
    """Return the outcome for JSON, without the single repetitions."""

    def of_cell(cell: Cell) -> dict[str, object]:
        return {
            "shift": cell.shift,
            "n_rows": cell.n_rows,
            "windows": len(cell.not_identifiable),
            "coverage": {name: share_of(cell.covered[name]) for name in METRICS},
            "mean_absolute_error": {name: float(np.mean(e)) if e else None for name, e in cell.errors.items()},
            "not_identifiable_share": share_of(cell.not_identifiable),
            "concept_drift_shown_share": share_of(cell.concept_drift_shown),
        }

    return {
        "data": outcome.source,
        "repetitions": outcome.repetitions,
        "seed": outcome.seed,
        "estimated": [of_cell(cell) for cell in outcome.estimated],
        "concept_drift": [of_cell(cell) for cell in outcome.concept],
        "realised_coverage": {n: {m: share_of(hits) for m, hits in c.items()} for n, c in outcome.realised.items()},
        "concept_drift_unknown_without_labels": share_of(outcome.unknown_without_labels),
        "estimate_seconds": outcome.estimate_seconds,
        "targets": [asdict(judgement) | {"verdict": judgement.verdict} for judgement in judgements],
    }


def main(
    data: Annotated[Path, typer.Option(help="labelled rows in the shape of cs-training.csv")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_REPETITIONS} repetitions only")] = False,
    repetitions: Annotated[int, typer.Option(min=1, help="splits into calibration rows and windows")] = REPETITIONS,
    seed: Annotated[int, typer.Option(help="of models, splits and windows")] = 20,
) -> None:
    """Measure error and interval coverage of estimated and realised metrics."""
    console = Console()
    try:
        frame = load_csv(data, contract)
    except InvalidDataError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    with Progress(console=console) as progress:
        outcome = measure(frame, data.name, seed, QUICK_REPETITIONS if quick else repetitions, progress)
    judgements = judge(outcome)
    title = "coverage of 95 % intervals (mean absolute error)"
    console.print(cell_table(f"Estimated without labels: {title}", outcome.estimated))
    console.print(cell_table(f"Under concept drift the estimate must fail: {title}", outcome.concept))
    console.print(realised_table(outcome))
    console.print(verdict_table(judgements, outcome.estimate_seconds))
    if json_file is not None:
        json_file.write_text(json.dumps(summary(outcome, judgements), indent=2) + "\n", encoding="utf-8")
        console.print(f"written: {json_file}")


if __name__ == "__main__":
    typer.run(main)
