"""Categories and flags: false alarms, detection, the days until a shift is found, and faults of the feed.

Belongs here: trying and counting. The table and its changes are in `benchmarks.drift.category_table`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Column, Table

from benchmarks.drift.category_alarms import simulate_deployment
from benchmarks.drift.category_table import CUTS, FAULTS, NAMES, POPULATION, SHIFTS, CategoryWorld, Change, contract
from benchmarks.drift.false_alarms import FalseAlarms, evidently_default
from benchmarks.drift.population import LIMITS, RATES_PER_HOUR, World
from benchmarks.drift.verdicts import TRIAGE_ROWS, verdict_on
from benchmarks.measured import at_least, exactly
from benchmarks.trust.figures import rate as share_of
from selfheal.domain.monitoring.drift import RECENT_ROWS, compare_columns
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.thresholds import derive_thresholds
from selfheal.domain.records import Verdict

SIZES = (500, 1_000, 2_000, 5_000)
WINDOWS_PER_REFERENCE = 5

ROWS_PER_DAY = 1_000
LOOK_EVERY_ROWS = 50
"""A tick comes every 5 minutes, every 3 or 4 rows then: what is found here is found at the latest by then."""

DAYS_OF_SHIFT = (1, 2, 7)
SMALL_SHIFTS = ("a level of 20 % has 30 %", "a level of 20 % has 26 %", "a level of 10 % has 15 %")
"""Those that one window may miss."""

FAULT_TARGET = 0.98


@dataclass
class CategoryOutcome:
    """All figures of categories. Shares are of windows, with Clopper and Pearson's 95 % bounds in `bounds_95`."""

    levels: dict[str, int] = field(default_factory=dict)
    deployments_simulated: int = 0
    windows: int = 0
    false_alarms_per_90_days: dict[str, dict[str, dict[str, float | list[float]]]] = field(default_factory=dict)
    false_feed_alarms: dict[str, str] = field(default_factory=dict)
    detection: dict[str, dict[int, dict[str, float | list[float]]]] = field(default_factory=dict)
    found_within_days: dict[str, dict[str, float | list[float]]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, float]] = field(default_factory=dict)
    broken_feed_bounds_95: dict[str, list[float]] = field(default_factory=dict)


def measure(
    numeric: World, *, n_deployments: int, n_windows: int, n_streams: int, seed: int, advance: Callable[[], None]
) -> CategoryOutcome:
    """Measure everything; `advance` is called `n_steps` times."""
    world = CategoryWorld.of(numeric)
    outcome = CategoryOutcome({name: int(world.rows[name].nunique()) for name in CUTS}, windows=n_windows)
    for rate in RATES_PER_HOUR:
        _count_false_alarms(world, rate, n_deployments, seed, outcome, advance)
    for name in SHIFTS:
        outcome.detection[name] = {n: detection_of(world, name, n, n_windows, seed) for n in SIZES}
        advance()
    for name in SMALL_SHIFTS:
        outcome.found_within_days[name] = found_within_days(world, name, n_streams, seed)
        advance()
    for name, (column, change) in (FAULTS | POPULATION).items():
        found = verdicts_of(world, column, change, n_windows, seed)
        outcome.verdicts[name] = {verdict: n / n_windows for verdict, n in found.items()}
        outcome.broken_feed_bounds_95[name] = bounds_of(found[Verdict.BROKEN_FEED.value], n_windows)
        advance()
    exactly("deployments with categories", outcome.deployments_simulated, n_deployments * len(RATES_PER_HOUR))
    exactly("windows with a shift of levels", sum(map(len, outcome.detection.values())), len(SHIFTS) * len(SIZES))
    return outcome


def n_steps(n_deployments: int) -> int:
    """Return how often `measure` advances."""
    return n_deployments * len(RATES_PER_HOUR) + len(SHIFTS) + len(SMALL_SHIFTS) + len(FAULTS) + len(POPULATION)


def _count_false_alarms(
    world: CategoryWorld,
    rate: int,
    n_deployments: int,
    seed: int,
    outcome: CategoryOutcome,
    advance: Callable[[], None],
) -> None:
    totals = {name: FalseAlarms() for name in ("ours", "evidently_default")}
    n_feed = n_looks = 0
    for number in range(n_deployments):
        found, (feed, looks) = simulate_deployment(world, rate, np.random.default_rng([seed, rate, number, 1]))
        for name, total in totals.items():
            total.deployments += 1
            total.alarms += found[name]
        n_feed, n_looks = n_feed + feed, n_looks + looks
        outcome.deployments_simulated += 1
        advance()
    outcome.false_alarms_per_90_days[str(rate)] = {
        name: {"per_90_days": total.per_90_days, "bounds_95": list(total.bounds)} for name, total in totals.items()
    }
    outcome.false_feed_alarms[str(rate)] = f"{n_feed} of {n_looks:,} looks"


def bounds_of(n_hits: int, n_tries: int) -> list[float]:
    """Return the 95 % bounds of a share."""
    found = share_of(n_hits, n_tries)
    return [found.low, found.high]


# Detection


def changed(rows: pd.DataFrame, column: str, change: Change, rng: np.random.Generator) -> pd.DataFrame:
    """Return the rows with a changed column, of the type it had."""
    return rows.assign(**{column: change(rows[column], rng).astype(rows[column].dtype)})


def detection_of(
    world: CategoryWorld, shift: str, n_rows: int, n_windows: int, seed: int
) -> dict[str, float | list[float]]:
    """Return the share of windows of `n_rows` changed rows in which the column is called drifted.

    `significant` is the share in which it is so by the test alone, whether or not the distance is `LIMITS.min_effect`.
    """
    column, change, _ = SHIFTS[shift]
    rng = np.random.default_rng([seed, n_rows])
    found: Counter[str] = Counter()
    for number in range(n_windows):
        if number % WINDOWS_PER_REFERENCE == 0:
            reference = PreparedRows(world.reference(rng))
        before = world.window(n_rows, rng)
        current = changed(before, column, change, rng)
        at_least(f"rows in which {column} is another one", int((current[column] != before[column]).sum()), 1)
        found["ours"] += is_called(current, reference, column)
        found["significant"] += is_significant(current, reference, column)
        is_category = column in CUTS
        found["evidently_default"] += evidently_default(
            current[column], reference.rows[column], is_category=is_category
        )
    names = ("ours", "significant", "evidently_default")
    return {name: found[name] / n_windows for name in names} | {"bounds_95": bounds_of(found["ours"], n_windows)}


def is_called(current: pd.DataFrame, reference: PreparedRows, column: str) -> bool:
    """Return whether our rule calls the column drifted in a window or its newest rows."""
    thresholds = derive_thresholds(reference, NAMES, LIMITS.n_ticks)
    (one,) = compare_columns([column], current, reference, current.tail(RECENT_ROWS), thresholds, LIMITS)
    return one.drift().is_drifted


def is_significant(current: pd.DataFrame, reference: PreparedRows, column: str) -> bool:
    """Return whether the test alone is significant in the window."""
    thresholds = derive_thresholds(reference, NAMES, LIMITS.n_ticks)
    return PreparedRows(current).distances(column, reference).p_value < thresholds.of_values[column]


def found_within_days(world: CategoryWorld, shift: str, n_streams: int, seed: int) -> dict[str, float | list[float]]:
    """Return the share of deployments of `ROWS_PER_DAY` in which a lasting shift is found within so many days after a calm one."""
    column, change, _ = SHIFTS[shift]
    delays = []
    for number in range(n_streams):
        rng = np.random.default_rng([seed, number, 2])
        reference = PreparedRows(world.reference(rng))
        calm, after = world.window(ROWS_PER_DAY, rng), world.window(max(DAYS_OF_SHIFT) * ROWS_PER_DAY, rng)
        rows = pd.concat([calm, changed(after, column, change, rng)], ignore_index=True)
        looks = range(LOOK_EVERY_ROWS, len(after) + 1, LOOK_EVERY_ROWS)
        is_found = partial(_is_found_at, rows[[column]], reference, column)
        delays.append(next((n for n in looks if is_found(n)), len(after) + 1))
    found: dict[str, float | list[float]] = {}
    for days in DAYS_OF_SHIFT:
        n_found = sum(delay <= days * ROWS_PER_DAY for delay in delays)
        found[f"within_{days}"] = n_found / n_streams
        found[f"within_{days}_bounds_95"] = bounds_of(n_found, n_streams)
    return found


def _is_found_at(rows: pd.DataFrame, reference: PreparedRows, column: str, n_after: int) -> bool:
    end = ROWS_PER_DAY + n_after
    return is_called(rows.iloc[end - ROWS_PER_DAY : end], reference, column)


# Verdicts


def verdicts_of(world: CategoryWorld, column: str, change: Change, n_windows: int, seed: int) -> Counter[str]:
    """Return the number of changed windows of `TRIAGE_ROWS` by verdict."""
    rng = np.random.default_rng([seed, 3])
    found: Counter[str] = Counter()
    for number in range(n_windows):
        if number % WINDOWS_PER_REFERENCE == 0:
            reference = world.reference(rng)
        current = changed(world.window(TRIAGE_ROWS, rng), column, change, rng)
        found[verdict_on(current, reference, contract)] += 1
    exactly("verdicts on windows with categories", found.total(), n_windows)
    return found


# Tables


def show(outcome: CategoryOutcome, console: Console) -> None:
    """Print the outcome as tables."""
    console.print(_false_alarms_table(outcome))
    console.print(_detection_table(outcome))
    console.print(_days_table(outcome))
    console.print(_verdicts_table(outcome))


def _false_alarms_table(outcome: CategoryOutcome) -> Table:
    levels = ", ".join(f"{name} {n}" for name, n in outcome.levels.items())
    title = f"Categories: false alarms in 90 days, by predictions an hour (levels: {levels})"
    table = Table("an hour", "selfheal (95 %)", "target", "Evidently", "feed check", title=title)
    for rate, found in outcome.false_alarms_per_90_days.items():
        low, high = found["ours"]["bounds_95"]  # type: ignore[misc]
        ours = f"{found['ours']['per_90_days']:.2f} ({low:.2f}-{high:.2f})"
        verdict = "<= 1" if high <= 1 else "<= 1: missed"
        others = f"{found['evidently_default']['per_90_days']:.1f}"
        table.add_row(rate, ours, verdict, others, outcome.false_feed_alarms[rate])
    return table


def _detection_table(outcome: CategoryOutcome) -> Table:
    title = (
        "Categories: share of windows in which the column is called drifted (95 %); below: by the test alone, whether"
        " or not it is material; Evidently's defaults"
    )
    table = Table(Column("shift", overflow="fold"), *(f"n={n}" for n in SIZES), "target", title=title, show_lines=True)
    for name, by_size in outcome.detection.items():
        n_wanted = SHIFTS[name][2]
        cells = (f"{_with_bounds(one['ours'], one['bounds_95'])}\n{one['significant']:.2f}; {one['evidently_default']:.2f}"
                 for one in by_size.values())  # fmt: skip
        is_met = float(by_size[n_wanted]["ours"]) >= 0.95  # type: ignore[arg-type]
        table.add_row(name, *cells, f"0.95 at {n_wanted}" + ("" if is_met else ": missed"))
    return table


def _days_table(outcome: CategoryOutcome) -> Table:
    title = f"Categories: share of shifts found within days, {ROWS_PER_DAY:,} rows each (95 %)"
    table = Table("shift", *(f"{days} days" for days in DAYS_OF_SHIFT), title=title)
    for name, found in outcome.found_within_days.items():
        keys = (f"within_{days}" for days in DAYS_OF_SHIFT)
        table.add_row(name, *(_with_bounds(found[key], found[f"{key}_bounds_95"]) for key in keys))
    return table


def _verdicts_table(outcome: CategoryOutcome) -> Table:
    title = f"Categories: verdicts on windows of {TRIAGE_ROWS} rows, all labelled"
    table = Table("feed or population", "verdicts", "broken_feed (95 %)", "target", title=title)
    for name, shares in outcome.verdicts.items():
        broken = shares.get(Verdict.BROKEN_FEED.value, 0.0)
        is_met = broken >= FAULT_TARGET if name in FAULTS else broken <= 1 - FAULT_TARGET
        target = f">= {FAULT_TARGET}" if name in FAULTS else f"<= {1 - FAULT_TARGET:.2f}"
        found = ", ".join(f"{verdict} {part:.2f}" for verdict, part in sorted(shares.items(), key=lambda one: -one[1]))
        bounds = _with_bounds(broken, outcome.broken_feed_bounds_95[name])
        table.add_row(name, found, bounds, target + ("" if is_met else ": missed"))
    return table


def _with_bounds(share: float | list[float], bounds: float | list[float]) -> str:
    low, high = bounds  # type: ignore[misc]
    return f"{share:.2f} ({low:.2f}-{high:.2f})"
