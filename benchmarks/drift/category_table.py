"""A table of categories and flags, derived from the rows of the numeric one by a rule, and changes of it.

The rule: a column is put in order, ties by chance, and cut so that each level has its stated share of the known values. (Ties as
they stand would give neighbouring rows the same level, and rows are drawn in runs of neighbours.) Gaps, and the relations to the probability and the outcome, are those of the file. The model does not see the levels.

Belongs here: the table, and what is changed in it. How often something is found is counted in `benchmarks.drift.categories`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from benchmarks.drift.population import N_REFERENCE, IntArray, World
from selfheal.domain.contract import TRUE_LABEL, Feature, FloatArray, Label, ModelContract
from selfheal.domain.levels import TextArray
from selfheal.domain.monitoring.drift import PROBABILITY

Column: TypeAlias = "pd.Series[object]"
Change: TypeAlias = Callable[[Column, np.random.Generator], Column]
"""A change of one column."""

N_MERCHANTS = 400
"""As many levels as a newest-rows window nearly has rows."""

N_COMMON_MERCHANTS = 40


def _normed(weights: FloatArray) -> FloatArray:
    return np.asarray(weights / weights.sum())


PLANS = ("month-to-month", "one year", "two years", "prepaid")
REGIONS = tuple(f"Région {number:02}" for number in range(40))
MERCHANTS = tuple(f"merchant {number:04}" for number in range(N_MERCHANTS))

CUTS: Mapping[str, tuple[str, tuple[str, ...], FloatArray]] = {
    "plan": ("debt_ratio", PLANS, np.array([0.4, 0.3, 0.2, 0.1])),
    "region": ("monthly_income", REGIONS, _normed(0.9 ** np.arange(len(REGIONS)))),
    "merchant": ("revolving_utilization", MERCHANTS, _normed(1 / np.arange(1.0, N_MERCHANTS + 1))),
}
"""Each category: the column that is cut, its levels and their shares (geometric: 10 % to 0.2 %; Zipf's law: 15 % to 0.04 %)."""

FLAGS: Mapping[str, tuple[str, float]] = {
    "has_dependents": ("dependents", 0.0),
    "was_late": ("times_90_days_late", 0.0),
}
"""Each flag: the column, and the value above which it is true."""

contract = ModelContract(
    name="credit_levels",
    description="The shipped use case's rows as categories and flags.",
    label=Label("is_late", "1 if the person was 90 days late within two years, else 0"),
    inputs=(
        *(Feature(name, "category", description=f"{of}, cut", example=levels[0], is_nullable=True)
          for name, (of, levels, _) in CUTS.items()),
        *(Feature(name, "bool", description=f"{of} is above {at:g}", example=True, is_nullable=True)
          for name, (of, at) in FLAGS.items()),
    ),
)  # fmt: skip
NAMES = [*contract.feature_names, PROBABILITY]


def cut(values: FloatArray, levels: tuple[str, ...], shares: FloatArray) -> TextArray:
    """Return a level for each value, None where it is missing: the lowest values get the first level, as many as its share says."""
    is_known = ~np.isnan(values)
    known = values[is_known]
    order = np.lexsort((np.random.default_rng(1).random(len(known)), known))
    ranks = np.empty(len(order))
    ranks[order] = (np.arange(len(order)) + 0.5) / len(order)
    which = np.minimum(np.searchsorted(np.cumsum(shares), ranks), len(levels) - 1)
    found: TextArray = np.full(len(values), None, dtype=object)
    found[is_known] = np.array(levels, dtype=object)[which]
    return found


@dataclass(frozen=True)
class CategoryWorld:
    """The population with levels instead of numbers."""

    world: World
    rows: pd.DataFrame

    @classmethod
    def of(cls, world: World) -> CategoryWorld:
        """Derive the table from the numeric one."""
        columns = {name: world.rows[name].to_numpy(dtype=np.float64) for name in world.rows}
        levels = {name: cut(columns[of], names, shares) for name, (of, names, shares) in CUTS.items()}
        flags = {
            name: np.where(np.isnan(columns[of]), np.nan, (columns[of] > at).astype(np.float64))
            for name, (of, at) in FLAGS.items()
        }
        rows = pd.DataFrame({**levels, **flags, PROBABILITY: columns[PROBABILITY], TRUE_LABEL: world.labels})
        return cls(world, rows.astype(dict.fromkeys(CUTS, "object")))

    def draw(self, n_rows: int, rng: np.random.Generator) -> IntArray:
        """Draw positions of rows, in runs of neighbours."""
        return self.world.draw(n_rows, rng)

    def window(self, n_rows: int, rng: np.random.Generator) -> pd.DataFrame:
        """Draw rows."""
        return self.rows.iloc[self.draw(n_rows, rng)].reset_index(drop=True)

    def reference(self, rng: np.random.Generator) -> pd.DataFrame:
        """Draw a reference."""
        return self.window(N_REFERENCE, rng)


# Changes of one column


def rise(level: str | float, before: float, after: float) -> Change:
    """Return the change by which the share of a level, new or not, rises: other rows take it, whichever level they have."""

    def changed(column: Column, rng: np.random.Generator) -> Column:
        takes_it = column.notna().to_numpy() & (rng.random(len(column)) < (after - before) / (1 - before))
        return column.mask(takes_it, level)

    return changed


def vanish(level: str) -> Change:
    """Return the change by which a level's rows get the levels of other rows, drawn at random."""

    def changed(column: Column, rng: np.random.Generator) -> Column:
        others = column[column.notna() & (column != level)].to_numpy()
        return column.mask(column == level, pd.Series(rng.choice(others, len(column)), column.index))

    return changed


def crowd_out(column: Column, _rng: np.random.Generator) -> Column:
    """Let each rare merchant of an odd number lose its customers to the next: no level moves by more than 0.4 points."""
    rare = dict(zip(MERCHANTS[N_COMMON_MERCHANTS::2], MERCHANTS[N_COMMON_MERCHANTS + 1 :: 2], strict=True))
    return column.replace(rare)


def renamed(before: str, after: str) -> Change:
    """Return the change of a level's name."""
    return lambda column, _: column.replace(before, after)


def in_upper_case(column: Column, _rng: np.random.Generator) -> Column:
    """Write all levels in upper case."""
    return column.str.upper()


def cut_off(n_characters: int) -> Change:
    """Return the change that cuts off the levels' names."""
    return lambda column, _: column.str[:n_characters]


def as_codes(levels: tuple[str, ...]) -> Change:
    """Return the change of levels to their numbers."""
    codes = {level: str(number) for number, level in enumerate(levels)}
    return lambda column, _: column.map(codes, na_action="ignore").astype("object")


PLAN_2, PLAN_3, REGION, MERCHANT = PLANS[2], PLANS[3], REGIONS[1], MERCHANTS[200]

SHIFTS: Mapping[str, tuple[str, Change, int]] = {
    "a level of 20 % has 30 %": ("plan", rise(PLAN_2, 0.20, 0.30), 1_000),
    "a level of 20 % has 26 %": ("plan", rise(PLAN_2, 0.20, 0.26), 5_000),
    "a level of 10 % has 15 %": ("plan", rise(PLAN_3, 0.10, 0.15), 1_000),
    "a new level has 8 %": ("plan", rise("flat rate", 0.0, 0.08), 1_000),
    "a level of 9 % has vanished": ("region", vanish(REGION), 1_000),
    "of 400 levels a rare one has 8 %": ("merchant", rise(MERCHANT, 0.0, 0.08), 1_000),
    "of 400 levels 180 rare ones have gone to others": ("merchant", crowd_out, 2_000),
    "10 points more of a flag are true": ("has_dependents", rise(1.0, 0.40, 0.50), 1_000),
}
"""Changes: the column, how it changes, and the rows at which 95 % of the windows must report it."""

FAULTS: Mapping[str, tuple[str, Change]] = {
    "a level of 20 % is spelled otherwise": ("plan", renamed(PLAN_2, "Two Years ")),
    "a level of 20 % is renamed": ("plan", renamed(PLAN_2, "24 months")),
    "a level of 10 % is renamed": ("plan", renamed(PLAN_3, "card")),
    "40 levels in upper case": ("region", in_upper_case),
    "400 levels in upper case": ("merchant", in_upper_case),
    "4 levels cut off after 5 characters": ("plan", cut_off(5)),
    "40 levels cut off to one": ("region", cut_off(6)),
    "4 levels as codes": ("plan", as_codes(PLANS)),
    "40 levels as codes": ("region", as_codes(REGIONS)),
    "400 levels as codes": ("merchant", as_codes(MERCHANTS)),
}
"""Faults of a feed: the column, and what its sender does."""

POPULATION: Mapping[str, tuple[str, Change]] = {
    "as before": ("plan", lambda column, _: column),
    "a new level has 30 %": ("plan", rise("flat rate", 0.0, 0.30)),
    "a level of 9 % has vanished": ("region", vanish(REGION)),
}
"""What a population does, and no sender: no fault of the feed."""
