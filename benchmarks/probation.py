"""How often is a version rolled back that is not worse, and how fast one that is?

    python -m benchmarks.probation --data cs-training.csv [--json probation.json] [--quick]

Labels arrive one by one, and probation evaluates after every 50, from MIN_PROBATION_LABELS on, by the platform's rule
(`selfheal.domain.probation.judge_probation`). Each version is fitted on rows of its own; the rows on which they are compared are
drawn with replacement from the rest, so the population is known. To make two versions *exactly* equal, rows are drawn with
weights exp(t d), where d is the difference of the squared errors and t is chosen so that its mean is 0: d keeps its shape.

- `equal`: fitted on as many other rows; exactly equal.
- `equal, scores higher`: the same scores with odds 1.35 times as high; exactly equal. It is the hardest case: its rare large
  gains are on true events, so a sample with few events shows a false loss.
- `slightly better`: better by exactly 0.0005 of Brier score.
- `lower threshold`, `higher threshold`: the same scores, with 3 % of the rows decided otherwise; events among these rows are weighted
  so that F1 is exactly equal. Such versions are judged by their decisions.
- `F1 5 points worse`, `AUC 5 points worse`: the old version's log-odds with as much noise as needed.
- `threshold too low`: the same scores, with so low a threshold that F1 is 5 points worse.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
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
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.measured import at_least, exactly
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.probation import FALSE_ROLLBACK_LEVEL, PairedScores, ProbationLimits, judge_probation
from selfheal.domain.records import ModelVersion, Stage
from selfheal.domain.retraining.decision_losses import decision_losses
from selfheal.domain.retraining.paired_gain import EQUAL_COSTS
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.kit.errors import InvalidDataError
from selfheal.settings import Settings

TRAIN_SHARE = 0.25
"""Share of all rows for training each of the two versions; the other half is the population."""

FALSE_REPETITIONS, WORSE_REPETITIONS, QUICK_SHARE = 6_000, 400, 0.05
PAIRS = 20
"""Number of pairs of versions, fitted on different rows."""

LOOK_EVERY = 50
FIRST_LOOK = Settings.model_fields["min_probation_labels"].default
FALSE_HORIZON, WORSE_HORIZON = 5_000, 20_000
"""Number of labels in a probation: of versions that are not worse, and of worse ones."""

ROUNDING = 1e-9
"""Of a mean that is sought: no worse than by this is no worse."""

HIGHER_LOG_ODDS, SLIGHT_GAIN, POINTS_WORSE = 0.3, 0.0005, 0.05
DECIDED_OTHERWISE = 0.03
"""Share of the rows that a version with another threshold decides otherwise."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = ProbationLimits(FIRST_LOOK, timedelta(days=30))
VERSION = ModelVersion(
    model_name=contract.name,
    version=2,
    stage=Stage.PRODUCTION,
    registered_at=NOW,
    promoted_at=NOW,
    trigger_reason="manual",
    mlflow_run_id="",
    artifact_uri="",
    artifact_sha256="",
    reference_sha256="",
    contract_hash="",
    threshold=0.5,
    metrics={},
    n_samples=0,
    previous_version=1,
    decision_id=None,
    probation_until=NOW + timedelta(days=3),
)


@dataclass(frozen=True)
class Case:
    """Weighted rows with both versions' scores; with `thresholds`, these are equal and the decisions differ."""

    labels: npt.NDArray[np.int64]
    new: FloatArray
    old: FloatArray
    weights: FloatArray | None = None
    thresholds: tuple[float, float] | None = None

    @property
    def differences(self) -> FloatArray:
        """Return the new version's squared error minus the old one's, by row."""
        return np.asarray((self.new - self.labels) ** 2 - (self.old - self.labels) ** 2)

    def with_mean(self, mean: float) -> Case:
        """Return the same rows, weighted so that the mean difference is `mean`."""
        d = self.differences
        tilt = brentq(lambda t: float(np.average(d, weights=np.exp(t * d))) - mean, -100, 100)
        weights = np.exp(tilt * d)
        return replace(self, weights=weights / weights.sum())

    @property
    def f1s(self) -> tuple[float, float]:
        """Return F1 of the new and of the old version, at their thresholds."""
        assert self.thresholds is not None, "decisions are compared"
        new, old = (
            float(f1_score(self.labels, scores >= threshold, sample_weight=self.weights))
            for scores, threshold in zip((self.new, self.old), self.thresholds, strict=True)
        )
        return new, old

    @property
    def loss(self) -> float:
        """Return by how much the new version is worse: Brier score, or F1 where only the thresholds differ."""
        if self.thresholds is None:
            return float(np.average(self.differences, weights=self.weights))
        new, old = self.f1s
        return old - new

    def with_equal_f1(self) -> Case:
        """Return the same rows, with events among those decided otherwise weighted so that F1 is equal."""
        assert self.thresholds is not None, "decisions are compared"
        low, high = sorted(self.thresholds)
        is_counted = (self.new >= low) & (self.new < high) & (self.labels == 1)

        def tilted(tilt: float) -> Case:
            weights = np.exp(tilt * is_counted)
            return replace(self, weights=weights / weights.sum())

        return tilted(brentq(lambda tilt: tilted(tilt).loss, -20, 20))

    def check(self, name: str, is_right: Callable[[float], bool]) -> None:
        """Check that the new version is what the case is called, by its true loss against the old one.

        Raises:
            MeasuredOtherwiseError: if it is not.
        """
        exactly(f"{name}: versions of another quality (loss {self.loss:+.6f})", 0 if is_right(self.loss) else 1, 0)

    def draw(self, n_rows: int, rng: np.random.Generator) -> PairedScores:
        """Draw independent rows with the weights of the case."""
        chosen = rng.choice(len(self.labels), n_rows, p=self.weights)
        return PairedScores(self.labels[chosen], self.new[chosen], self.old[chosen], thresholds=self.thresholds)


@dataclass(frozen=True)
class Share:
    """A share of repetitions, with exact 95 % bounds (Clopper and Pearson, 1934)."""

    hits: int
    repetitions: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class FalseRollbacks:
    """False rollbacks by our rule, and by the fixed-n bound at the same level, evaluated as often."""

    case: str
    ours: Share
    fixed_n: Share


@dataclass(frozen=True)
class Detection:
    """Labels until a worse version is rolled back; None: not within the horizon.

    `fixed_n` divides its level evenly among the evaluations, so that its total error is the same.
    """

    case: str
    brier_change: float
    ours_median: float | None
    ours_90: float | None
    fixed_n_median: float | None
    fixed_n_90: float | None


def share_of(hits: int, repetitions: int) -> Share:
    """Return the share of hits with its bounds."""
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, repetitions - hits + 1))
    high = 1.0 if hits == repetitions else float(beta.ppf(0.975, hits + 1, repetitions - hits))
    return Share(hits, repetitions, hits / repetitions, low, high)


def labels_until_rollback(scores: PairedScores) -> int | None:
    """Return the labels until a rollback by the platform's rule, evaluated every `LOOK_EVERY` labels."""
    assert scores.previous_probabilities is not None
    for n in range(FIRST_LOOK, len(scores.labels) + 1, LOOK_EVERY):
        seen = replace(
            scores,
            labels=scores.labels[:n],
            probabilities=scores.probabilities[:n],
            previous_probabilities=scores.previous_probabilities[:n],
        )
        if judge_probation(VERSION, seen, LIMITS, NOW).is_harmful:
            return n
    return None


def labels_until_fixed_n(scores: PairedScores, level: float) -> int | None:
    """Return the labels until a rollback by a normal bound with this one-sided level at each evaluation."""
    assert scores.previous_probabilities is not None
    if scores.differ_by_threshold_alone:
        return _decisions_until_fixed_n(scores, level)
    labels = scores.labels
    d = (scores.probabilities - labels) ** 2 - (scores.previous_probabilities - labels) ** 2
    n = np.arange(1, len(d) + 1)
    mean = np.cumsum(d) / n
    variance = np.maximum((np.cumsum(d**2) - n * mean**2) / np.maximum(n - 1, 1), 0)
    looks = np.arange(FIRST_LOOK, len(d) + 1, LOOK_EVERY) - 1
    is_worse = mean[looks] > NormalDist().inv_cdf(1 - level) * np.sqrt(variance[looks] / n[looks])
    return int(n[looks][np.argmax(is_worse)]) if is_worse.any() else None


def _decisions_until_fixed_n(scores: PairedScores, level: float) -> int | None:
    kinds, quantile_of_level = scores.kinds, NormalDist().inv_cdf(1 - level)
    for n in range(FIRST_LOOK, len(kinds) + 1, LOOK_EVERY):
        losses = decision_losses("f1", kinds[:n], EQUAL_COSTS).by_row
        if losses.mean() > quantile_of_level * losses.std() / np.sqrt(n):
            return n
    return None


def pairs(frame: pd.DataFrame, seed: int) -> list[Case]:
    """Return cases of two versions, each fitted on rows of its own, on the rest of the rows."""
    features = contract.feature_frame(frame).to_numpy()
    labels = frame[TRUE_LABEL].to_numpy(dtype=np.int64)
    n_train = round(TRAIN_SHARE * len(frame))
    found = []
    for number in range(PAIRS):
        order = np.random.default_rng([seed, number]).permutation(len(frame))
        first, second, rest = np.split(order, [n_train, 2 * n_train])
        new, old = (
            contract.build_estimator(seed).fit(features[part], labels[part]).predict_proba(features[rest])[:, 1]
            for part in (first, second)
        )
        exactly(
            "rows that a model has learned from and is asked about", len(np.intersect1d(rest, order[: 2 * n_train])), 0
        )
        at_least("rows to draw from", len(rest), len(frame) // 3)
        found.append(Case(labels[rest], new, old))
    return found


def noisier(case: Case, quality: Callable[[FloatArray], float], seed: int) -> Case:
    """Return a case whose new version has the old one's log-odds plus noise that lowers `quality` by `POINTS_WORSE`."""
    noise = np.random.default_rng(seed).normal(size=len(case.labels))

    def scores(sd: float) -> FloatArray:
        return np.asarray(expit(logit(np.clip(case.old, 1e-6, 1 - 1e-6)) + sd * noise))

    wanted = quality(case.old) - POINTS_WORSE
    return replace(case, new=scores(brentq(lambda sd: quality(scores(sd)) - wanted, 0.0, 5.0, xtol=1e-3)))


def f1_worse(case: Case, seed: int) -> Case:
    """Return the case with F1 of the new version lower by `POINTS_WORSE`."""
    threshold = f1_optimal_threshold(case.labels, case.old)
    return noisier(case, lambda scores: float(f1_score(case.labels, scores >= threshold)), seed)


def auc_worse(case: Case, seed: int) -> Case:
    """Return the case with AUC of the new version lower by `POINTS_WORSE`."""
    return noisier(case, lambda scores: float(roc_auc_score(case.labels, scores)), seed)


def threshold_worse(case: Case) -> Case:
    """Return the case with the old scores and a threshold so low that F1 is lower by `POINTS_WORSE`."""
    best = f1_optimal_threshold(case.labels, case.old)
    wanted = float(f1_score(case.labels, case.old >= best)) - POINTS_WORSE
    low = brentq(lambda at: float(f1_score(case.labels, case.old >= at)) - wanted, 0.0, best)
    return replace(case, new=case.old, thresholds=(low, best))


def threshold_moved(case: Case, share: float) -> Case:
    """Return the case with the old scores and a threshold that flags so large a share of the rows more; less if it is negative."""
    best = f1_optimal_threshold(case.labels, case.old)
    flagged = float((case.old >= best).mean())
    return replace(case, new=case.old, thresholds=(float(np.quantile(case.old, 1 - flagged - share)), best))


def no_worse_cases(found: list[Case]) -> dict[str, list[Case]]:
    """Return the cases in which the new version is not worse, by name."""

    def higher(case: Case) -> Case:
        return replace(case, new=np.asarray(expit(logit(np.clip(case.old, 1e-6, 1 - 1e-6)) + HIGHER_LOG_ODDS)))

    return {
        "equal": [case.with_mean(0.0) for case in found],
        "equal, scores higher": [higher(case).with_mean(0.0) for case in found],
        "slightly better": [case.with_mean(-SLIGHT_GAIN) for case in found],
        "lower threshold": [threshold_moved(case, DECIDED_OTHERWISE).with_equal_f1() for case in found],
        "higher threshold": [threshold_moved(case, -DECIDED_OTHERWISE).with_equal_f1() for case in found],
    }


def measure_false(found: list[Case], repetitions: int, seed: int, progress: Progress) -> list[FalseRollbacks]:
    """Count rollbacks of versions that are not worse."""
    results = []
    for name, cases in no_worse_cases(found).items():
        for case in cases:
            case.check(name, lambda change: change <= ROUNDING)
        ours = fixed = 0
        for repetition in progress.track(range(repetitions), description=name):
            rng = np.random.default_rng([seed, repetition])
            drawn = cases[repetition % len(cases)].draw(FALSE_HORIZON, rng)
            ours += labels_until_rollback(drawn) is not None
            fixed += labels_until_fixed_n(drawn, FALSE_ROLLBACK_LEVEL) is not None
        results.append(FalseRollbacks(name, share_of(ours, repetitions), share_of(fixed, repetitions)))
    return results


def measure_worse(found: list[Case], repetitions: int, seed: int, progress: Progress) -> list[Detection]:
    """Measure the labels until worse versions are rolled back."""
    n_looks = len(range(FIRST_LOOK, WORSE_HORIZON + 1, LOOK_EVERY))
    results = []
    worse = {
        "F1 5 points worse": [f1_worse(case, seed + number) for number, case in enumerate(found)],
        "AUC 5 points worse": [auc_worse(case, seed + number) for number, case in enumerate(found)],
        "threshold too low, F1 5 points worse": [threshold_worse(case) for case in found],
    }
    for name, cases in worse.items():
        for case in cases:
            case.check(name, lambda change: change > 0.0)
        ours, fixed = [], []
        for repetition in progress.track(range(repetitions), description=name):
            rng = np.random.default_rng([seed, repetition])
            drawn = cases[repetition % len(cases)].draw(WORSE_HORIZON, rng)
            ours.append(labels_until_rollback(drawn))
            fixed.append(labels_until_fixed_n(drawn, FALSE_ROLLBACK_LEVEL / n_looks))
        exactly(f"{name}: probations", len(ours), repetitions)
        change = float(np.mean([case.differences.mean() for case in cases]))
        results.append(
            Detection(
                name, change, quantile(ours, 0.5), quantile(ours, 0.9), quantile(fixed, 0.5), quantile(fixed, 0.9)
            )
        )
    return results


def quantile(labels: list[int | None], q: float) -> float | None:
    """Return a quantile; None if that share was not rolled back within the horizon."""
    value = float(np.quantile([np.inf if n is None else float(n) for n in labels], q, method="higher"))
    return None if np.isinf(value) else value


def verdict_of(share: Share) -> str:
    """Return `met`, `missed` or `unclear` for the share of false rollbacks."""
    if share.high <= FALSE_ROLLBACK_LEVEL:
        return "met"
    return "missed" if share.low > FALSE_ROLLBACK_LEVEL else "unclear"


def tables(false: list[FalseRollbacks], worse: list[Detection]) -> list[Table]:
    """Return the tables of false rollbacks and of detections."""
    first = Table(title=f"Rolled back although no worse, {FALSE_HORIZON:,} labels (95 % bounds)")
    for heading in ("version", "ours", f"fixed-n at {FALSE_ROLLBACK_LEVEL:.1%}", "target", "verdict"):
        first.add_column(heading, justify="left" if heading == "version" else "right")
    colours = {"met": "green", "unclear": "yellow", "missed": "red"}
    for row in false:
        shares = (f"{s.share:.2%} ({s.low:.2%} - {s.high:.2%})" for s in (row.ours, row.fixed_n))
        verdict = verdict_of(row.ours)
        first.add_row(row.case, *shares, f"<= {FALSE_ROLLBACK_LEVEL:.1%}", f"[{colours[verdict]}]{verdict}[/]")
    second = Table(title=f"Labels until a worse version is rolled back (within {WORSE_HORIZON:,})")
    for heading in ("version", "Brier change", "ours: median, 90 %", "fixed-n, same total error: median, 90 %"):
        second.add_column(heading, justify="left" if heading == "version" else "right")
    for found in worse:
        ours = f"{count(found.ours_median)}, {count(found.ours_90)}"
        fixed = f"{count(found.fixed_n_median)}, {count(found.fixed_n_90)}"
        second.add_row(found.case, f"{found.brier_change:+.4f}", ours, fixed)
    return [first, second]


def count(n: float | None) -> str:
    """Format a number of labels; beyond the horizon if None."""
    return f"> {WORSE_HORIZON:,}" if n is None else f"{n:,.0f}"


def main(
    data: Annotated[Path, typer.Option(help="labelled rows in the shape of cs-training.csv")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_SHARE:.0%} of the repetitions only")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of versions and draws")] = 20,
) -> None:
    """Measure false rollbacks, and labels until a true one."""
    console = Console()
    try:
        frame = load_csv(data, contract)
    except InvalidDataError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    share = QUICK_SHARE if quick else 1.0
    with Progress(console=console) as progress:
        found = pairs(frame, seed)
        false = measure_false(found, round(FALSE_REPETITIONS * share), seed, progress)
        worse = measure_worse(found, round(WORSE_REPETITIONS * share), seed, progress)
    for table in tables(false, worse):
        console.print(table)
    if json_file is not None:
        figures = {
            "data": data.name,
            "seed": seed,
            "false_rollbacks": [asdict(row) | {"verdict": verdict_of(row.ours)} for row in false],
            "labels_until_rollback": [asdict(row) for row in worse],
        }
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        console.print(f"written: {json_file}")


if __name__ == "__main__":
    typer.run(main)
