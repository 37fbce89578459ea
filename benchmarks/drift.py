"""How often is drift reported without any, and how fast is real drift detected?

    python -m benchmarks.drift --data cs-training.csv [--json drift.json] [--quick]

Half of the rows train the contract's estimator; the other half is the population, from which references and traffic are drawn
with replacement in runs of neighbouring rows, so that ties, tails and dependence between columns are those of the file.

- False alarms: complete deployments of 90 days with a tick every 5 minutes, traffic that falls to a fifth at night, and a mix
  that changes with the hour by more than `LIMITS.min_effect`, so that the tests alone would report it every day. Every tick is
  evaluated: both tests' statistics are computed for all ticks from counts, the platform's own comparison decides each tick near a
  threshold, and `explain` what the version's own traffic has shown to come and go. The domain classifier looks every six hours,
  and what it finds holds until it looks again. Alarms count after the first 28 days, in which the cycle may be reported and is
  learned. For comparison, Evidently's defaults and KS at 5 % (any column
  drifted) run only once per day, which favours them.
- Detection: single windows of n shifted rows; and the number of shifted rows until an alarm after a calm day.
- Triage: verdicts on windows of 500 rows, through feed check, drift, performance and triage.

Belongs here: simulating and counting. The rules are in `selfheal.domain.monitoring`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from scipy.stats import chi2

from benchmarks.measured import at_least, exactly, within
from selfheal.adapters.datasets import load_dataset
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.drift import (
    LOOKBACK,
    NEWEST,
    PROBABILITY,
    RECENT_ROWS,
    DomainTest,
    DriftLimits,
    compare_columns,
    drift_report,
)
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.multivariate import MATERIAL_AUC, domain_check
from selfheal.domain.monitoring.performance import performance_report, score_metrics
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.seasons import Calm, Move, Position, explain
from selfheal.domain.monitoring.shift import column_shift, ks_distance, ks_p_value
from selfheal.domain.monitoring.thresholds import Thresholds, derive_thresholds
from selfheal.domain.monitoring.triage import HarmLimits, triage
from selfheal.domain.records import SeasonMemory, Verdict, Window
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.settings import load_settings

IntArray: TypeAlias = npt.NDArray[np.int64]
Change: TypeAlias = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]

DAYS = 90
TICKS_PER_DAY = 288
N_TICKS = DAYS * TICKS_PER_DAY
LEARNING_DAYS = 28
TICK = timedelta(days=1) / TICKS_PER_DAY
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
LIMITS = DriftLimits(n_ticks=float(N_TICKS), min_effect=0.05, min_rows=200)
HARM_LIMITS = HarmLimits(min_brier_excess=0.01, min_auc=0.72)
"""The platform's default limits of harm."""

N_REFERENCE = 6_000
SAMPLE_ROWS = 5_000
"""Rows of a day's traffic that are compared."""

RUN_ROWS = 20
NIGHT_SHARE = 0.2
MIX_TILT = 0.5
"""By how much a run of older people (one standard deviation) is likelier in the morning and less likely in the evening."""

N_BINS = 64
DOMAIN_EVERY_TICKS = TICKS_PER_DAY // 4
RATES_PER_HOUR = (2, 20, 200, 2_000)
MAX_LOOKBACK_TICKS = 30 * TICKS_PER_DAY
"""How far a window reaches back that a day does not fill with `LIMITS.min_rows`: MONITORING_MAX_LOOKBACK."""

NAMES = [*contract.feature_names, PROBABILITY]


@dataclass
class FalseAlarms:
    """Alarms in simulated time, with two-sided 95 % bounds of a Poisson rate."""

    deployments: int = 0
    alarms: int = 0

    @property
    def per_90_days(self) -> float:
        """Return the mean number of alarms per deployment of 90 days."""
        return self.alarms / self.deployments

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the 95 % bounds of `per_90_days`."""
        low = float(chi2.ppf(0.025, 2 * self.alarms)) / 2 if self.alarms else 0.0
        return low / self.deployments, float(chi2.ppf(0.975, 2 * (self.alarms + 1))) / 2 / self.deployments


@dataclass
class Outcome:
    """All measured figures. Shares are of windows; `_rows` are shifted rows until the first alarm."""

    data: str
    deployments_simulated: int = 0
    mix_moves_by_rank_shift: float = 0.0
    false_alarms_per_90_days: dict[str, dict[str, dict[str, float | list[float]]]] = field(default_factory=dict)
    false_feed_alarms: dict[str, str] = field(default_factory=dict)
    detection: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    delay_rows: dict[str, dict[str, float]] = field(default_factory=dict)
    multivariate: dict[str, float | str] = field(default_factory=dict)
    triage: dict[str, dict[str, float]] = field(default_factory=dict)


class World:
    """The population, and draws from it."""

    def __init__(self, data: Path | None, seed: int) -> None:
        settings = load_settings(data=data)
        dataset = load_dataset(settings, contract)
        self.description = dataset.description
        half = len(dataset.frame) // 2
        learn, rest = dataset.frame.iloc[:half], dataset.frame.iloc[half:].reset_index(drop=True)
        features = list(contract.feature_names)
        self.pipeline = contract.build_estimator(seed).fit(
            contract.feature_frame(learn)[features].to_numpy(dtype=np.float64), learn[TRUE_LABEL].to_numpy()
        )
        self.inputs = rest[list(contract.input_names)]
        self.labels = rest[TRUE_LABEL].to_numpy(dtype=np.int64)
        self.rows = self.scored(self.inputs).assign(**{TRUE_LABEL: self.labels})
        age = self.rows["age"].rank().to_numpy()
        in_runs = np.lib.stride_tricks.sliding_window_view(np.concatenate([age, age[:RUN_ROWS]]), RUN_ROWS)
        of_runs = in_runs[: len(age)].mean(axis=1)
        self.run_ages = (of_runs - of_runs.mean()) / of_runs.std()

    def scored(self, inputs: pd.DataFrame) -> pd.DataFrame:
        """Return all features and the model's probability."""
        features = contract.feature_frame(inputs)
        matrix = features[list(contract.feature_names)].to_numpy(dtype=np.float64)
        return features.assign(**{PROBABILITY: self.pipeline.predict_proba(matrix)[:, 1]})

    def draw(self, n_rows: int, rng: np.random.Generator, tilt: FloatArray | None = None) -> IntArray:
        """Draw positions of rows, in runs; `tilt` (one value per run) makes runs of older people likelier."""
        n_runs = -(-n_rows // RUN_ROWS)
        starts = rng.integers(0, len(self.rows), n_runs)
        if tilt is not None:  # rejection sampling: each run is drawn until it is accepted
            redo = np.arange(n_runs)
            while len(redo):
                kept = rng.random(len(redo)) < np.exp(
                    np.minimum(0.0, tilt[redo] * self.run_ages[starts[redo]] - 3 * MIX_TILT)
                )
                redo = redo[~kept]
                starts[redo] = rng.integers(0, len(self.rows), len(redo))
        return ((starts[:, None] + np.arange(RUN_ROWS)) % len(self.rows)).ravel()[:n_rows]

    def reference(self, rng: np.random.Generator) -> pd.DataFrame:
        """Draw a reference."""
        return self.rows.iloc[self.draw(N_REFERENCE, rng)].reset_index(drop=True)


# False alarms


def simulate_deployment(
    world: World, rate_per_hour: int, rng: np.random.Generator
) -> tuple[dict[str, int], tuple[int, int]]:
    """Simulate 90 days; return alarms by method, and (alarms, checks) of the feed check, which runs every 6 hours."""
    reference = world.reference(rng)
    hours = np.arange(N_TICKS) * 24.0 / TICKS_PER_DAY
    daily = (1 + NIGHT_SHARE) / 2 + (1 - NIGHT_SHARE) / 2 * np.sin(2 * np.pi * (hours - 9) / 24)
    n_rows = rng.poisson(rate_per_hour * 24 / TICKS_PER_DAY * daily / daily.mean())
    ends = np.cumsum(n_rows)
    tick_of_run = np.searchsorted(ends, np.arange(0, ends[-1], RUN_ROWS), side="right")
    traffic = world.draw(int(ends[-1]), rng, MIX_TILT * np.sin(2 * np.pi * hours[tick_of_run] / 24))
    exactly("rows of traffic", len(traffic), int(ends[-1]))
    expected = rate_per_hour * 24 * DAYS
    within("rows of 90 days", len(traffic), expected - 6 * expected**0.5, expected + 6 * expected**0.5)
    stream = Stream(traffic, ends, rng)
    largest = max(len(stream.day(tick)) for tick in range(TICKS_PER_DAY, N_TICKS, TICKS_PER_DAY))
    within("rows of a day that are compared", largest, min(LIMITS.min_rows, rate_per_hour * 24 // 2), 1.2 * SAMPLE_ROWS)
    thresholds = derive_thresholds(reference, NAMES, LIMITS.n_ticks)
    alarms = our_alarms(world, reference, stream, thresholds)
    alarms[: LEARNING_DAYS * TICKS_PER_DAY] = False
    days = range(TICKS_PER_DAY, N_TICKS, TICKS_PER_DAY)
    default, ks_05 = zip(*(other_alarms(world.rows.iloc[stream.day(tick)], reference) for tick in days), strict=True)
    looks = range(TICKS_PER_DAY, N_TICKS, TICKS_PER_DAY // 4)
    n_feed = sum(bool(feed_problems(world.rows.iloc[stream.recent(tick)], reference, contract)) for tick in looks)
    found = {"ours": episodes(alarms), "evidently_default": episodes(default), "ks_05": episodes(ks_05)}
    return found, (n_feed, len(looks))


def our_alarms(world: World, reference: pd.DataFrame, stream: Stream, thresholds: Thresholds) -> npt.NDArray[np.bool_]:
    """Return at which ticks drift is reported, with what the version's own traffic has shown before.

    The domain classifier, which costs more than all columns, is asked every `DOMAIN_EVERY_TICKS`; its answer holds until the next.
    """
    columns = {name: world.rows[name].to_numpy(dtype=np.float64) for name in NAMES}
    known = {name: reference[name].to_numpy(dtype=np.float64) for name in NAMES}
    near: dict[int, dict[str, None]] = {}
    for name in NAMES:
        for tick in stream.near_alarm(columns[name], known[name], thresholds, name):
            near.setdefault(tick, {})[name] = None
    alarms = np.zeros(N_TICKS, dtype=np.bool_)
    calm = Calm(SeasonMemory(BEGAN))
    places = {name: stream.places(columns[name], known[name]) for name in NAMES}
    prepared, together = PreparedRows(reference), None
    for tick in range(N_TICKS):
        if tick % DOMAIN_EVERY_TICKS == 0:
            together = moved_together(world.rows.iloc[stream.day(tick)], prepared, thresholds.level)
        names = list(near.get(tick, ()))
        day, recent = (world.rows[names].iloc[which] for which in (stream.day(tick), stream.recent(tick)))
        compared = compare_columns(names, day, prepared, recent, thresholds, LIMITS) if names else ()
        moves = [move for one in compared for move in one.moves()] + ([] if together is None else [together])
        positions = [
            Position(name, window, float(shift[tick]), 1 / (3 * n_rows[tick]))
            for name, of_windows in places.items()
            for window, shift, n_rows in of_windows
            if n_rows[tick] >= LIMITS.min_rows
        ]
        found = explain(moves, calm, BEGAN + tick * TICK, positions)
        alarms[tick] = len(found.sentences) < len(moves)
        calm = Calm(found.memory or calm.memory, Verdict.BENIGN_SHIFT if alarms[tick] else Verdict.STABLE)
    return alarms


def moved_together(current: pd.DataFrame, reference: PreparedRows, level: float) -> Move | None:
    """Return the move of all columns together, if the domain classifier tells the rows from the reference as in a tick."""
    test = DomainTest(PreparedRows(current), reference, level, seed=1)
    if test.n_rows < LIMITS.min_rows:
        return None
    found = test.of(contract.feature_names)
    return test.move(found) if test.is_apart(found) else None


class Stream:
    """Traffic by tick: the sample of the last day's rows, or of as many days as give enough rows, and the newest rows."""

    def __init__(self, traffic: IntArray, ends: IntArray, rng: np.random.Generator) -> None:
        self._traffic = traffic
        self._ends = ends
        per_day = len(traffic) / DAYS
        is_sampled = rng.random(len(traffic)) < min(1.0, 0.9 * SAMPLE_ROWS / per_day)
        self._sampled = np.flatnonzero(is_sampled)
        self._sampled_ends = np.searchsorted(self._sampled, ends)
        ticks = np.arange(N_TICKS)
        filled = np.searchsorted(self._sampled_ends, self._sampled_ends - LIMITS.min_rows, side="right") - 1
        self._before = np.maximum(np.minimum(ticks - TICKS_PER_DAY, filled), ticks - MAX_LOOKBACK_TICKS)
        """The tick after which each tick's window begins; below 0: with the traffic."""

    def day(self, tick: int) -> IntArray:
        """Return the positions of the rows that represent the day before a tick."""
        first = self._sampled_ends[self._before[tick]] if self._before[tick] >= 0 else 0
        return self._traffic[self._sampled[first : self._sampled_ends[tick]]]

    def recent(self, tick: int) -> IntArray:
        """Return the positions of the newest rows of a tick's window."""
        first = self._ends[self._before[tick]] if self._before[tick] >= 0 else 0
        return self._traffic[max(first, self._ends[tick] - RECENT_ROWS) : self._ends[tick]]

    def places(self, column: FloatArray, reference: FloatArray) -> list[tuple[str, FloatArray, IntArray]]:
        """Return each window's rank shift and number of known values, by tick."""
        known = np.sort(reference[~np.isnan(reference)])
        below, upto = np.searchsorted(known, column, "left"), np.searchsorted(known, column, "right")
        is_known = ~np.isnan(column)
        middle = np.where(is_known, (below + upto) / len(known) - 1, 0.0)
        found = []
        for window, rows, ends in (
            (LOOKBACK, self._traffic[self._sampled], self._sampled_ends),
            (NEWEST, self._traffic, self._ends),
        ):
            first = np.where(self._before >= 0, ends[self._before], 0)
            if window == NEWEST:
                first = np.maximum(first, ends - RECENT_ROWS)
            sums = np.concatenate([[0.0], np.cumsum(middle[rows])])
            counts = np.concatenate([[0], np.cumsum(is_known[rows])])
            n_rows = counts[ends] - counts[first]
            found.append((window, (sums[ends] - sums[first]) / np.maximum(n_rows, 1), n_rows))
        return found

    def near_alarm(self, column: FloatArray, reference: FloatArray, thresholds: Thresholds, name: str) -> Iterator[int]:
        """Yield the ticks at which a test of the column may be significant: all that are, and a few others."""
        known = np.sort(reference[~np.isnan(reference)])
        below, upto = np.searchsorted(known, column, "left"), np.searchsorted(known, column, "right")
        is_missing = np.isnan(column)
        middle = np.where(is_missing, 0.0, (below + upto) / len(known) - 1)  # twice the mid-rank, -1 to 1
        edges = np.unique(known[np.linspace(0, len(known) - 1, N_BINS).astype(np.int64)])
        bins = np.where(is_missing, len(edges) + 1, np.searchsorted(edges, column, "left"))
        in_reference = np.bincount(np.searchsorted(edges, known, "left"), minlength=len(edges) + 2) / len(known)
        expected = np.cumsum(in_reference[: len(edges) + 1])
        missing_share = float(np.isnan(reference).mean())
        threshold = thresholds.of_values[name] / 2
        slack = float(np.diff(expected).max()) if len(edges) >= N_BINS - 2 else 0.0
        for counts, ranks in (self._of_days(bins, middle, len(edges)), self._of_recent(bins, middle, len(edges))):
            n = counts[:, :-1].sum(axis=1)
            distances = np.abs(np.cumsum(counts[:, :-1], axis=1) / np.maximum(n, 1)[:, None] - expected).max(axis=1)
            rows = np.sqrt(n * len(known) / np.maximum(n + len(known), 1))
            shares = counts[:, -1] / np.maximum(counts.sum(axis=1), 1)
            missing_z = np.abs(shares - missing_share) * rows / np.sqrt(max(missing_share * (1 - missing_share), 1e-4))
            may_be = (np.minimum(distances + min(slack, 0.02), 1) * rows > np.sqrt(-np.log(threshold / 2) / 2)) | (
                np.abs(ranks / np.maximum(n, 1)) * np.sqrt(3) * rows > 3.5
            )
            may_be |= (missing_z > 3.5) & (np.abs(shares - missing_share) > 0.04)
            yield from np.flatnonzero(may_be & (counts.sum(axis=1) >= LIMITS.min_rows)).tolist()

    def _of_days(self, bins: IntArray, middle: FloatArray, n_edges: int) -> tuple[FloatArray, FloatArray]:
        rows = self._traffic[self._sampled]
        ticks = np.searchsorted(self._sampled_ends, np.arange(len(rows)), side="right")
        flat = np.bincount(ticks * (n_edges + 2) + bins[rows], minlength=N_TICKS * (n_edges + 2))
        counts = np.cumsum(flat.reshape(N_TICKS, n_edges + 2), axis=0, dtype=np.float64)
        ranks = np.cumsum(np.bincount(ticks, middle[rows], N_TICKS))
        is_cut = self._before >= 0
        return (
            counts - np.where(is_cut[:, None], counts[self._before], 0.0),
            ranks - np.where(is_cut, ranks[self._before], 0.0),
        )

    def _of_recent(self, bins: IntArray, middle: FloatArray, n_edges: int) -> tuple[FloatArray, FloatArray]:
        counts = np.zeros((N_TICKS, n_edges + 2))
        sums = np.concatenate([[0.0], np.cumsum(middle[self._traffic])])
        ranks = sums[self._ends] - sums[np.maximum(0, self._ends - RECENT_ROWS)]
        full = np.flatnonzero(self._ends >= RECENT_ROWS)
        for part in np.array_split(full, 20):  # in parts, because 13 million rows at once are too many
            rows = self._traffic[self._ends[part][:, None] - RECENT_ROWS + np.arange(RECENT_ROWS)]
            flat = np.arange(len(part))[:, None] * (n_edges + 2) + bins[rows]
            counts[part] = np.bincount(flat.ravel(), minlength=len(part) * (n_edges + 2)).reshape(len(part), -1)
        return counts, ranks


def other_alarms(current: pd.DataFrame, reference: pd.DataFrame) -> tuple[bool, bool]:
    """Return whether Evidently's defaults, and whether KS at 5 %, report drift in any column."""
    is_default = any(evidently_default(current[name], reference[name]) for name in NAMES)
    values = ((current[name].to_numpy(), reference[name].to_numpy()) for name in NAMES)
    return is_default, any(ks_05(*pair) for pair in values)


def evidently_default(current: pd.Series, reference: pd.Series) -> bool:
    """Return whether Evidently reports drift of this column by its default method and threshold."""
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    now, then = current.dropna(), reference.dropna()
    if now.empty or then.empty:
        return False
    return bool(get_stattest(then, now, ColumnType.Numerical, None)(then, now, ColumnType.Numerical, None).drifted)


def ks_05(current: FloatArray, reference: FloatArray) -> bool:
    """Return whether the KS test rejects at 5 %."""
    n_current, n_reference = int((~np.isnan(current)).sum()), int((~np.isnan(reference)).sum())
    return n_current > 0 and ks_p_value(ks_distance(current, reference), n_current, n_reference) < 0.05


def episodes(alarms: Any) -> int:
    """Return the number of runs of consecutive alarms."""
    flags = np.concatenate([[False], np.asarray(alarms, dtype=bool)])
    return int((flags[1:] & ~flags[:-1]).sum())


# Detection


def scale(name: str, factor: float) -> Change:
    """Return the change that multiplies a column by a factor."""
    return lambda inputs, _: inputs.assign(**{name: inputs[name] * factor})


def more_lates(inputs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Let 10 percentage points more of the rows have been 90 days late once."""
    late = inputs["times_90_days_late"].to_numpy(dtype=np.float64).copy()
    never = np.flatnonzero(late == 0)
    late[rng.permutation(never)[: round(0.1 * len(late))]] = 1
    return inputs.assign(times_90_days_late=late)


SHIFTS: dict[str, tuple[Change, str, int]] = {
    "utilization_x2": (scale("revolving_utilization", 2.0), "revolving_utilization", 500),
    "income_x0.7": (scale("monthly_income", 0.7), "monthly_income", 500),
    "debt_ratio_x2": (scale("debt_ratio", 2.0), "debt_ratio", 500),
    "age_plus_3": (lambda inputs, _: inputs.assign(age=inputs["age"] + 3), "age", 2_000),
    "late_90_plus_10_points": (more_lates, "times_90_days_late", 2_000),
}
"""Changes, each with the column that must be reported, and the rows at which 95 % of the windows must report it."""

SIZES = (200, 500, 1_000, 2_000, 5_000)


def detection_of(world: World, change: Change, column: str, n_rows: int, n_windows: int, seed: int) -> dict[str, float]:
    """Return the share of windows of `n_rows` changed rows in which the column is called drifted, by method."""
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for _ in range(n_windows):
        reference = world.reference(rng)
        inputs = world.inputs.iloc[world.draw(n_rows, rng)].reset_index(drop=True)
        current = world.scored(change(inputs, rng))
        exactly("rows of a window", len(current), n_rows)
        at_least(f"rows in which {column} is another one", int((current[column] != inputs[column]).sum()), 1)
        found["ours"] += is_called(current, reference, column)
        found["evidently_default"] += evidently_default(current[column], reference[column])
    return {name: found[name] / n_windows for name in ("ours", "evidently_default")}


def is_called(current: pd.DataFrame, reference: pd.DataFrame, name: str) -> bool:
    """Return whether our rule calls the column drifted, by its values or its missing rate."""
    thresholds = derive_thresholds(reference, NAMES, LIMITS.n_ticks)
    (compared,) = compare_columns([name], current, reference, current.tail(RECENT_ROWS), thresholds, LIMITS)
    column = compared.drift()
    return column.is_drifted or column.is_missing_rate_drifted


def delay_of(world: World, change: Change, column: str, n_streams: int, seed: int) -> dict[str, float]:
    """Measure the shifted rows until the first alarm after a calm day of 2,000 rows, evaluated every 50 rows."""
    rng = np.random.default_rng(seed)
    delays = []
    for _ in range(n_streams):
        reference = world.reference(rng)
        calm = world.rows.iloc[world.draw(2_000, rng)]
        inputs = world.inputs.iloc[world.draw(4_000, rng)].reset_index(drop=True)
        stream = pd.concat([calm, world.scored(change(inputs, rng))], ignore_index=True)
        looks = range(50, 4_001, 50)
        delays.append(
            next(
                (n for n in looks if is_called(stream.iloc[: 2_000 + n].tail(2_000), reference, column)),
                float("inf"),
            )
        )
    return {"median": float(np.median(delays)), "p95": float(np.quantile(delays, 0.95, method="higher"))}


def multivariate_of(world: World, n_windows: int, seed: int) -> dict[str, float | str]:
    """Measure the domain classifier without a change, and with one column that lost its relation to the others."""
    rng = np.random.default_rng(seed)
    features = list(contract.feature_names)
    by_chance, broken = [], []
    for number in range(n_windows):
        reference = world.reference(rng)
        current = world.rows.iloc[world.draw(2_000, rng)].reset_index(drop=True)
        by_chance.append(domain_check(current, reference, features, number))
        inputs = current[list(contract.input_names)].assign(age=rng.permutation(current["age"].to_numpy()))
        broken.append(domain_check(world.scored(inputs), reference, features, number))
    level = derive_thresholds(world.rows, NAMES, LIMITS.n_ticks).level
    n_below = sum(check.p_value < 0.05 for check in by_chance)
    return {
        "null_auc_mean": float(np.mean([check.auc for check in by_chance])),
        "null_p_below_0.05": f"{n_below} of {n_windows}",
        "null_alarms": float(sum(check.p_value < level for check in by_chance)),
        "age_shuffled_detected_at_2000": float(
            np.mean([check.p_value < level and check.auc >= MATERIAL_AUC for check in broken])
        ),
    }


# Triage

TRIAGE_ROWS = 500

ManyChange: TypeAlias = Callable[[World, np.random.Generator], tuple[pd.DataFrame, IntArray]]
"""A change that returns a window's inputs and labels."""


def drawn(world: World, rng: np.random.Generator) -> tuple[pd.DataFrame, IntArray]:
    """Draw the inputs and labels of an unchanged window."""
    rows = world.draw(TRIAGE_ROWS, rng)
    return world.inputs.iloc[rows].reset_index(drop=True), world.labels[rows]


def with_inputs(change: Change) -> ManyChange:
    """Return a change of inputs as a change of windows that leaves the labels."""

    def changed(world: World, rng: np.random.Generator) -> tuple[pd.DataFrame, IntArray]:
        inputs, labels = drawn(world, rng)
        return change(inputs, rng), labels

    return changed


def fewer_incomes(inputs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Remove 30 % of the incomes."""
    return inputs.assign(monthly_income=inputs["monthly_income"].where(rng.random(len(inputs)) >= 0.3))


def swap(first: str, second: str) -> Change:
    """Return the change that exchanges two columns."""
    return lambda inputs, _: inputs.assign(**{first: inputs[second], second: inputs[first]})


def stale(world: World, rng: np.random.Generator) -> tuple[pd.DataFrame, IntArray]:
    """Repeat the same 20 rows."""
    inputs, labels = drawn(world, rng)
    again = np.arange(TRIAGE_ROWS) % 20
    return inputs.iloc[again].reset_index(drop=True), labels[again]


def younger(world: World, rng: np.random.Generator) -> tuple[pd.DataFrame, IntArray]:
    """Draw a younger mix of the same people: fewer by the factor e for every 15 years of age."""
    weights = np.exp(-world.inputs["age"].to_numpy(dtype=np.float64) / 15)
    rows = rng.choice(len(weights), TRIAGE_ROWS, p=weights / weights.sum())
    return world.inputs.iloc[rows].reset_index(drop=True), world.labels[rows]


def rate_shock(world: World, rng: np.random.Generator) -> tuple[pd.DataFrame, IntArray]:
    """Apply the contract's scenario: incomes fall, debts grow, and mortgage holders begin to default."""
    (scenario,) = [one for one in contract.scenarios if one.name == "rate_shock"]
    return scenario.apply(*drawn(world, rng), rng)


SCENARIOS: dict[str, tuple[ManyChange, str]] = {
    "as before": (drawn, "sound"),
    "income x1000": (with_inputs(scale("monthly_income", 1_000.0)), "broken"),
    "income /1000": (with_inputs(scale("monthly_income", 0.001)), "broken"),
    "30 % of incomes missing": (with_inputs(fewer_incomes), "broken"),
    "constant age": (with_inputs(lambda inputs, _: inputs.assign(age=40)), "broken"),
    "utilization and debt ratio swapped": (with_inputs(swap("revolving_utilization", "debt_ratio")), "broken"),
    "credit lines and real estate loans swapped": (
        with_inputs(swap("open_credit_lines", "real_estate_loans")),
        "broken",
    ),
    "age in months": (with_inputs(scale("age", 12.0)), "broken"),
    "20 rows repeated": (stale, "broken"),
    "younger applicants": (younger, "benign"),
    "rate shock": (rate_shock, "harmful"),
}
TRIAGE_TARGETS = {
    "sound": (Verdict.STABLE, ">=", 0.98),
    "broken": (Verdict.BROKEN_FEED, ">=", 0.98),
    "benign": (Verdict.HARMFUL_SHIFT, "<=", 0.05),
    "harmful": (Verdict.HARMFUL_SHIFT, ">=", 0.9),
}


def verdicts_of(world: World, change: ManyChange, n_windows: int, seed: int) -> dict[str, float]:
    """Return the share of changed windows by verdict."""
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for _ in range(n_windows):
        reference = world.reference(rng)
        inputs, labels = change(world, rng)
        found[verdict_on(world.scored(inputs).assign(**{TRUE_LABEL: labels}), reference)] += 1
    return {verdict: count / n_windows for verdict, count in found.items()}


def verdict_on(current: pd.DataFrame, reference: pd.DataFrame) -> str:
    """Return a tick's verdict on a window with all labels."""
    end = datetime(2026, 1, 2, tzinfo=UTC)
    window = Window(contract.name, 1, end - timedelta(days=1), end, len(current), len(current), end)
    thresholds = derive_thresholds(reference, NAMES, LIMITS.n_ticks)
    compared = compare_columns(NAMES, current, reference, None, thresholds, LIMITS)
    drift = drift_report(
        window,
        tuple(one.drift() for one in compared),
        n_current=len(current),
        n_reference=len(reference),
        n_features=len(contract.feature_names),
        reference_version=1,
        limits=LIMITS,
        feed_problems=feed_problems(current, reference, contract),
    )
    known = reference[TRUE_LABEL].to_numpy(), reference[PROBABILITY].to_numpy()
    threshold = f1_optimal_threshold(*known)
    performance = performance_report(
        window,
        current,
        current,
        score_metrics(*known, threshold),
        threshold,
        calibration_rows=reference,
        inputs=list(contract.input_names),
        label_delay=None,
        matured=window,
        seed=1,
    )
    return triage(drift, performance, HARM_LIMITS, None).verdict.value


def main(
    data: Annotated[Path | None, typer.Option(help="Labelled CSV; default: synthetic rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few deployments and windows: a look, not a figure.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 1,
) -> None:
    """Measure false alarms, detection and triage."""
    console = Console()
    world = World(data, seed)
    outcome = Outcome(data=world.description)
    n_deployments, n_windows, n_streams = (1, 20, 5) if quick else (10, 100, 30)
    tilted = world.rows["age"].to_numpy()[world.draw(200_000, np.random.default_rng(seed), np.full(10_000, MIX_TILT))]
    outcome.mix_moves_by_rank_shift = abs(column_shift(tilted, world.rows["age"].to_numpy()).rank_shift)
    with Progress(console=console) as progress:
        task = progress.add_task("Deployments of 90 days", total=n_deployments * len(RATES_PER_HOUR))
        for rate in RATES_PER_HOUR:
            totals = {name: FalseAlarms() for name in ("ours", "evidently_default", "ks_05")}
            n_feed = n_looks = 0
            for number in range(n_deployments):
                found, (feed, looks) = simulate_deployment(world, rate, np.random.default_rng([seed, rate, number]))
                for name, total in totals.items():
                    total.deployments += 1
                    total.alarms += found[name]
                n_feed, n_looks = n_feed + feed, n_looks + looks
                outcome.deployments_simulated += 1
                progress.advance(task)
            outcome.false_alarms_per_90_days[str(rate)] = {
                name: {"per_90_days": total.per_90_days, "bounds_95": list(total.bounds)}
                for name, total in totals.items()
            }
            outcome.false_feed_alarms[str(rate)] = f"{n_feed} of {n_looks:,} looks"
        task = progress.add_task("Detection", total=len(SHIFTS) * (len(SIZES) + 1))
        for name, (change, column, _) in SHIFTS.items():
            outcome.detection[name] = {}
            for n_rows in SIZES:
                outcome.detection[name][n_rows] = detection_of(world, change, column, n_rows, n_windows, seed)
                progress.advance(task)
            outcome.delay_rows[name] = delay_of(world, change, column, n_streams, seed)
            progress.advance(task)
        outcome.multivariate = multivariate_of(world, n_windows, seed)
        task = progress.add_task("Triage", total=len(SCENARIOS))
        for name, (of_window, _) in SCENARIOS.items():
            outcome.triage[name] = verdicts_of(world, of_window, n_windows, seed)
            progress.advance(task)
    check_counts(outcome, n_deployments, n_windows)
    show(outcome, console)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(outcome), indent=1))


def check_counts(outcome: Outcome, n_deployments: int, n_windows: int) -> None:
    """Check that all deployments, shifts and scenarios were tried."""
    exactly("deployments", outcome.deployments_simulated, n_deployments * len(RATES_PER_HOUR))
    exactly("windows with a shift", sum(map(len, outcome.detection.values())), len(SHIFTS) * len(SIZES))
    exactly("shifts after a calm day", len(outcome.delay_rows), len(SHIFTS))
    for scenario in SCENARIOS:
        n_found = round(n_windows * sum(outcome.triage.get(scenario, {}).values()))
        exactly(f"verdicts on windows: {scenario}", n_found, n_windows)


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome as tables."""
    console.print(_false_alarms_table(outcome))
    console.print(_detection_table(outcome))
    console.print("Domain classifier:", outcome.multivariate)
    console.print(_triage_table(outcome))


def _false_alarms_table(outcome: Outcome) -> Table:
    title = f"False alarms in 90 days (ours: after the first {LEARNING_DAYS}), by predictions an hour ({outcome.data})"
    table = Table("an hour", "selfheal (95 %)", "target", "Evidently", "KS 5 %", "feed check", title=title)
    for rate, found in outcome.false_alarms_per_90_days.items():
        low, high = found["ours"]["bounds_95"]  # type: ignore[misc]
        ours = f"{found['ours']['per_90_days']:.2f} ({low:.2f}-{high:.2f})"
        others = (f"{found[name]['per_90_days']:.1f}" for name in ("evidently_default", "ks_05"))
        verdict = "<= 1" if high <= 1 else "<= 1: missed"
        table.add_row(rate, ours, verdict, *others, outcome.false_feed_alarms[rate])
    return table


def _detection_table(outcome: Outcome) -> Table:
    title = "Share of windows in which the shifted column is called drifted (below: Evidently's defaults)"
    shift = Column("shift", overflow="fold")
    table = Table(shift, *(f"n={n}" for n in SIZES), "target", "rows to alarm", title=title, show_lines=True)
    for name, by_size in outcome.detection.items():
        n_wanted = SHIFTS[name][2]
        shares = (f"{share['ours']:.2f}\n{share['evidently_default']:.2f}" for share in by_size.values())
        verdict = f"0.95 at {n_wanted}" + ("" if by_size[n_wanted]["ours"] >= 0.95 else ": missed")
        delay = outcome.delay_rows[name]
        table.add_row(name, *shares, verdict, f"half: {delay['median']:.0f}\n95 %: {delay['p95']:.0f}")
    return table


def _triage_table(outcome: Outcome) -> Table:
    title = f"Verdicts on windows of {TRIAGE_ROWS} rows, all labelled"
    table = Table("scenario", "verdicts", "target", title=title)
    for scenario, shares in outcome.triage.items():
        wanted, comparison, bound = TRIAGE_TARGETS[SCENARIOS[scenario][1]]
        share = shares.get(wanted.value, 0.0)
        is_met = share >= bound if comparison == ">=" else share <= bound
        found = ", ".join(f"{verdict} {part:.2f}" for verdict, part in sorted(shares.items(), key=lambda one: -one[1]))
        table.add_row(scenario, found, f"{wanted.value} {comparison} {bound:g}" + ("" if is_met else ": missed"))
    return table


if __name__ == "__main__":
    typer.run(main)
