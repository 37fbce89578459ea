"""Windows with a shift: in how many is it reported, and after how many rows?"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from benchmarks.drift.false_alarms import (
    evidently_default,
)
from benchmarks.drift.population import (
    LIMITS,
    NAMES,
    Change,
    World,
)
from benchmarks.measured import at_least, exactly
from selfheal.credit_risk import contract
from selfheal.domain.monitoring.drift import (
    RECENT_ROWS,
    compare_columns,
)
from selfheal.domain.monitoring.multivariate import MATERIAL_AUC, domain_check
from selfheal.domain.monitoring.thresholds import derive_thresholds


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
