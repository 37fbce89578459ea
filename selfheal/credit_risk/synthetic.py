"""A seeded stand-in for `cs-training.csv`: rows that look like the real file's, none of them copied from it.

Belongs here: how such a row is made, and the facts about the real file that it is made from (quantiles, shares,
correlations, regression coefficients). Does not belong here: reading the real file, or comparing with it
(`benchmarks.stand_in`).

A row is made in three steps:

1. **Latent ranks** (`_latent_ranks`): one rank in (0, 1) for each quantity of `LATENTS`, tied by a Gaussian copula.
2. **Inputs** (`_inputs`): each rank becomes a value through a table of quantiles or shares. Two facts of the real file
   are laws here, not statistics: the debt ratio is whole dollars of monthly debt over (income + 1), with a missing
   income as 0; and real estate loans are among the open credit lines.
3. **Label** (`_default_probability`): a scorecard sums points over curves of single inputs, one more curve turns the
   sum into log-odds, and the label is drawn by them.

Every table was measured on the first 19,999 rows of the real file ("the real rows") and rounded. Rows whose late counts
are the codes 96 or 98 ("coded rows", 33 of them) are left out unless a table says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import TRUE_LABEL, Columns, FloatArray

if TYPE_CHECKING:
    import pandas as pd

BoolArray = npt.NDArray[np.bool_]


class Curve(NamedTuple):
    """A function given by its corners: straight lines between them, constant outside."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, values: FloatArray) -> FloatArray:
        """Return the interpolated values."""
        return np.interp(values, self.x, self.y)


LATENTS = (
    "age",
    "midlife",
    "utilization",
    "late_30",
    "late_60",
    "late_90",
    "monthly_debt",
    "income",
    "open_lines",
    "real_estate",
    "dependents",
    "is_unstated",
    "is_maxed",
)
"""Quantities with a latent normal variable.

`midlife` is how near the age is to its median (see `_midlife`); `is_unstated`: the income is missing, 0 or 1;
`is_maxed`: utilization is `MAXED_OUT`.
"""

# Tables read better in rows than in one column.
# fmt: off

LATENT_CORRELATIONS = (
    (1.00,),  # age
    (0.00, 1.00),  # midlife
    (-0.27, 0.12, 1.00),  # utilization
    (-0.15, 0.15, 0.38, 1.00),  # late_30
    (-0.22, 0.12, 0.42, 0.56, 1.00),  # late_60
    (-0.23, 0.11, 0.42, 0.51, 0.65, 1.00),  # late_90
    (-0.05, 0.45, 0.27, 0.17, 0.05, -0.09, 1.00),  # monthly_debt
    (0.11, 0.36, -0.04, -0.02, -0.10, -0.16, 0.53, 1.00),  # income
    (0.16, 0.28, 0.08, 0.12, -0.05, -0.24, 0.58, 0.34, 1.00),  # open_lines
    (0.06, 0.43, 0.05, 0.06, -0.04, -0.18, 0.87, 0.45, 0.54, 1.00),  # real_estate
    (-0.34, 0.47, 0.20, 0.16, 0.14, 0.13, 0.36, 0.27, 0.15, 0.28, 1.00),  # dependents
    (0.18, -0.09, -0.20, -0.13, -0.05, -0.04, -0.18, 0.00, -0.21, -0.11, -0.37, 1.00),  # is_unstated
    (-0.11, 0.21, 0.00, 0.24, 0.28, 0.44, 0.12, -0.07, 0.00, 0.12, 0.15, 0.00, 1.00),  # is_maxed
)
"""Correlations of the latent normals, lower triangle in the order of `LATENTS`.

Fitted so that the *values* have the Spearman correlations of the real rows, each pair over the rows that have both.
Pairs without such rows (an income and its absence; a utilization and its being maxed out) have 0, and so have open
lines and `is_maxed`, whose relation is `MAXED_SHARE`, and age and midlife, by the latter's construction.
"""

UTILIZATION = Curve(
    x=(
        0.0, 0.0796, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.9777, 0.985, 0.99,
        0.995, 0.9986, 0.999, 0.9995, 1.0,
    ),
    y=(
        0.0, 0.0, 0.00192, 0.016, 0.0375, 0.0707, 0.125, 0.217, 0.351, 0.543, 0.677, 0.822, 0.889, 0.949, 0.987,
        1.0, 1.03, 1.09, 1.34, 10.0, 1_100.0, 2_600.0, 22_000.0,
    ),
)
"""Quantiles (x: share of rows, y: ratio) of utilization over the real rows that are not maxed out.

The jump at the end is the file's: above 10 the limit is unknown and the "ratio" is the balance in dollars.
"""

MAXED_OUT = 0.9999999
"""The real file's second most frequent utilization after 0: 7 % of all rows hold exactly this."""

MAXED_SHARE = Curve(
    x=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 18.0),
    y=(1.0, 0.557, 0.263, 0.157, 0.089, 0.055, 0.031, 0.022, 0.019, 0.007, 0.005, 0.001),
)
"""Share of `MAXED_OUT` by open credit lines (from 8 on: bands of lines, at their middle)."""

AGE = Curve(
    x=(0.0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.999, 1.0),
    y=(21.0, 24.0, 26.0, 29.0, 33.0, 39.0, 44.0, 48.0, 52.0, 56.0, 60.0, 65.0, 72.0, 78.0, 82.0, 87.0, 94.0, 100.0),
)
"""Quantiles of age in years."""

MONTHLY_DEBT = Curve(
    x=(
        0.0, 0.0253, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99,
        0.995, 0.999, 0.9999, 1.0,
    ),
    y=(
        0.0, 0.0, 10.0, 25.0, 48.0, 84.0, 160.0, 371.0, 723.0, 1_140.0, 1_550.0, 1_970.0, 2_480.0, 3_150.0,
        4_270.0, 5_450.0, 6_830.0, 9_210.0, 11_800.0, 27_000.0, 110_000.0, 170_000.0,
    ),
)
"""Quantiles of the monthly debt in dollars: debt ratio x (income + 1), a whole number in every real row."""

INCOME = Curve(
    x=(
        0.0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999,
        0.9999, 1.0,
    ),
    y=(
        2.0, 764.0, 1_120.0, 1_620.0, 2_250.0, 3_100.0, 3_940.0, 4_600.0, 5_460.0, 6_380.0, 7_560.0, 9_170.0,
        11_700.0, 14_600.0, 18_000.0, 25_000.0, 37_500.0, 79_000.0, 220_000.0, 250_000.0,
    ),
)
"""Quantiles of the monthly income in dollars, over the real rows that state more than 1 dollar."""

INCOME_GRAINS = (1_000.0, 500.0, 100.0, 10.0, 1.0)
"""Multiples, in dollars, to which people round their stated income."""

INCOME_GRAIN_SHARES = (0.06, 0.14, 0.23, 0.14, 0.43)
"""Share of each grain, from the shares of multiples of 1,000, 500, 100 and 10 among the incomes of the real rows."""

UNSTATED_SHARE = 0.216
"""Share of rows whose income is missing, 0 or 1."""

UNSTATED_INCOMES = (np.nan, 0.0, 1.0)
"""Values of an unstated income in the file, in dollars."""

UNSTATED_INCOME_SHARES = (0.931, 0.050, 0.019)
"""Share of each among them."""

OPEN_LINES_SHARES = (
    0.0118, 0.0301, 0.0441, 0.0626, 0.0751, 0.0905, 0.0902, 0.0866, 0.0825, 0.0781, 0.068, 0.0552, 0.0441, 0.0372,
    0.03, 0.024, 0.0189, 0.0147, 0.0119, 0.0104, 0.00781, 0.00586, 0.00521, 0.00386, 0.0025, 0.00205, 0.00165,
    0.00125, 0.000801, 0.000801, 0.00225,
)
"""Share of rows with 0, 1, 2, ... open credit lines; the last stands for itself and all above."""

REAL_ESTATE_SHARES = (0.372, 0.354, 0.209, 0.0424, 0.0136, 0.00501, 0.0024, 0.00105, 0.000651, 0.000351, 0.000601)
"""Share of rows with 0, 1, 2, ... real estate loans; the last stands for itself and all above."""

DEPENDENTS_SHARES = (0.599, 0.179, 0.132, 0.0649, 0.0189, 0.00448, 0.00124, 0.000824)
"""Share of rows with 0, 1, 2, ... dependents, where given; the last stands for itself and all above."""

DEPENDENTS_MISSING_SHARE = 0.136
"""Share of rows without dependents, among those without income (with an income, dependents are never missing)."""

LATE_30_SHARES = (0.841, 0.11, 0.0294, 0.0117, 0.00426, 0.00205, 0.0013, 0.000351, 0.000351)
"""Share of rows that were 0, 1, 2, ... times 30 to 59 days late; the last stands for itself and all above."""

LATE_60_SHARES = (0.949, 0.0406, 0.00746, 0.0017, 0.000601, 0.0002, 0.0002)
"""Share of rows that were 0, 1, 2, ... times 60 to 89 days late; the last stands for itself and all above."""

LATE_90_SHARES = (0.944, 0.0358, 0.0105, 0.00561, 0.00185, 0.00105, 0.000501, 0.00015, 0.0002)
"""Share of rows that were 0, 1, 2, ... times 90 or more days late; the last stands for itself and all above."""

LATE_CODES = (96.0, 98.0)
"""Codes that stand in all three late counts of a row at once, instead of counts."""

LATE_CODE_SHARES = (0.02, 0.98)
"""All 33 coded real rows hold 98. The full file also has the rarer 96: its share here is assumed, not measured."""

CODED_SHARE_WITHOUT_LINES = 0.12
"""Share of coded rows among all real rows without an open credit line; 32 of the 33 coded rows are there."""

CODED_DEFAULT_RATE = 0.52
"""Share of defaults among the coded rows (17 of 33)."""

SCORECARD = {
    "revolving_utilization": Curve(
        (0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 0.999, 1.03, 1.4, 5.0),
        (0.0, -0.29, -0.22, 0.32, 0.73, 1.1, 1.43, 1.85, 1.7, 1.77),
    ),
    "age": Curve((21.0, 35.0, 50.0, 65.0, 80.0), (0.0, -0.48, -0.5, -1.15, -1.12)),
    "open_credit_lines": Curve((0.0, 2.0, 5.0, 12.0, 20.0), (0.0, -0.16, -0.17, 0.11, 0.5)),
    "real_estate_loans": Curve((0.0, 1.0, 3.0, 6.0), (0.0, -0.22, 0.09, 1.02)),
    "times_30_59_days_late": Curve((0.0, 1.0, 2.0, 4.0), (0.0, 0.06, 0.46, 0.56)),
    "times_60_89_days_late": Curve((0.0, 1.0, 2.0), (0.0, 0.75, 0.77)),
    "times_90_days_late": Curve((0.0, 1.0, 2.0, 4.0), (0.0, 0.9, 0.95, 1.75)),
}
"""Points (y) by an input's value (x), 0 at each curve's start.

Logistic regression of the label on linear splines with these knots, ridge penalty C = 3, over the real rows.
"""

AFFORDABILITY_SCORECARD = {
    "monthly_income": Curve((2.0, 2_500.0, 5_000.0, 9_000.0, 15_000.0), (0.0, 0.5, 0.41, -0.02, 0.05)),
    "debt_ratio": Curve((0.0, 0.03, 0.3, 0.6, 1.0, 2.0), (0.0, -0.02, 0.05, 0.26, 0.72, 0.6)),
}
"""As `SCORECARD`, from the same regression, for rows that state an income above 1 dollar only.

Without an income the debt ratio is dollars and says little.
"""

UNSTATED_POINTS = 0.45
"""Points of the other rows instead: the regression's coefficient for them."""

LAPSES_POINTS = Curve((0.0, 1.0), (0.0, 0.98))
"""Points by the sum of the three late counts: what the first lapse of any length adds to its own curve."""

LOG_ODDS = Curve((-1.36, -0.58, 0.25, 1.15, 2.48, 4.5), (-5.8, -4.42, -3.65, -2.29, -1.12, 0.83))
"""Log-odds of default (y) by the sum of points (x).

Flatter for bad risks: bad news does not add up without end. Fitted like the points, with the knots at the 2, 30, 60,
80, 93 and 99.5 % quantiles of the real rows' sums. Then made 4 % steeper, for the stand-in to be as predictable as the
real rows (its inputs hang together less at the extremes: many a real borrower over the limit is also late), and shifted
by +0.11 to the real rows' default rate, 6.4 %.
"""

# fmt: on


def synthesize(n_rows: int, seed: int) -> pd.DataFrame:
    """Return the stand-in data set: `n_rows` independent rows, the same for the same `n_rows` and `seed`.

    Returns the contract's ten raw inputs (float64, in its order and units, NaN where missing) and `true_label` (int64,
    0 or 1): the columns and types of `selfheal.adapters.datasets.load_csv`. With 0 rows: an empty frame of these.

    Raises:
        ValueError: if `n_rows` is negative.
    """
    import pandas as pd

    if n_rows < 0:
        raise ValueError(f"n_rows={n_rows} is negative; ask for 0 rows or more")
    rng = np.random.default_rng(seed)
    inputs = _inputs(_latent_ranks(n_rows, rng), rng)
    is_default = rng.random(n_rows) < _default_probability(inputs)
    return pd.DataFrame({**inputs, TRUE_LABEL: is_default.astype(np.int64)})


def _latent_ranks(n_rows: int, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Draw correlated ranks in (0, 1), one array of shape (n_rows,) for each of `LATENTS`."""
    from scipy.special import ndtr

    independent = rng.standard_normal((n_rows, len(LATENTS)))
    independent[:, LATENTS.index("midlife")] = _midlife(independent[:, LATENTS.index("age")])
    lower = np.array([row + (0.0,) * (len(LATENTS) - len(row)) for row in LATENT_CORRELATIONS])
    correlations = lower + lower.T - np.eye(len(LATENTS))
    normals = independent @ np.linalg.cholesky(correlations).T
    return dict(zip(LATENTS, ndtr(normals).T, strict=True))


def _midlife(age: FloatArray) -> FloatArray:
    """Return how close a latent age is to the median: mean 0, variance 1, uncorrelated with the age; same shape.

    Dependents, loans and incomes rise until midlife and fall afterwards, which no correlation with the age can express. The
    result is not normal, but quantities depend on it so weakly that they are nearly normal.
    """
    return np.asarray((1.0 - age**2) / np.sqrt(2.0))


def _inputs(ranks: Columns, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Return the ten raw inputs, each of shape (n_rows,), in the contract's order."""
    open_lines = _count(ranks["open_lines"], OPEN_LINES_SHARES)
    is_coded = (open_lines == 0) & (rng.random(len(open_lines)) < CODED_SHARE_WITHOUT_LINES)
    code = rng.choice(LATE_CODES, size=len(open_lines), p=LATE_CODE_SHARES)
    income = _income(ranks, rng)
    return {
        "revolving_utilization": np.where(
            ranks["is_maxed"] > 1.0 - MAXED_SHARE(open_lines), MAXED_OUT, UTILIZATION(ranks["utilization"])
        ),
        "age": AGE(ranks["age"]).round(),
        "times_30_59_days_late": np.where(is_coded, code, _count(ranks["late_30"], LATE_30_SHARES)),
        "debt_ratio": MONTHLY_DEBT(ranks["monthly_debt"]).round() / (np.nan_to_num(income, nan=0.0) + 1.0),
        "monthly_income": income,
        "open_credit_lines": open_lines,
        "times_90_days_late": np.where(is_coded, code, _count(ranks["late_90"], LATE_90_SHARES)),
        "real_estate_loans": np.minimum(_count(ranks["real_estate"], REAL_ESTATE_SHARES), open_lines),
        "times_60_89_days_late": np.where(is_coded, code, _count(ranks["late_60"], LATE_60_SHARES)),
        "dependents": _dependents(ranks["dependents"], is_income_missing=np.isnan(income), rng=rng),
    }


def _count(ranks: FloatArray, shares: tuple[float, ...]) -> FloatArray:
    """Return counts 0, 1, 2, ... of which the k-th has the share `shares[k]`, in the order and shape of `ranks`."""
    upper_ranks = np.cumsum(shares)[:-1] / np.sum(shares)
    return np.searchsorted(upper_ranks, ranks, side="right").astype(np.float64)


def _income(ranks: Columns, rng: np.random.Generator) -> FloatArray:
    """Return the monthly income in dollars, rounded as people state it; if unstated, a value of `UNSTATED_INCOMES`."""
    exact = INCOME(ranks["income"])
    grain = rng.choice(INCOME_GRAINS, size=len(exact), p=INCOME_GRAIN_SHARES)
    stated = np.where(exact > grain, (exact / grain).round() * grain, exact.round())
    unstated = rng.choice(UNSTATED_INCOMES, size=len(exact), p=UNSTATED_INCOME_SHARES)
    return np.where(ranks["is_unstated"] > 1.0 - UNSTATED_SHARE, unstated, stated)


def _dependents(ranks: FloatArray, is_income_missing: BoolArray, rng: np.random.Generator) -> FloatArray:
    """Return the number of dependents; NaN only if the income is missing too."""
    is_missing = is_income_missing & (rng.random(len(ranks)) < DEPENDENTS_MISSING_SHARE)
    return np.where(is_missing, np.nan, _count(ranks, DEPENDENTS_SHARES))


def _default_probability(inputs: Columns) -> FloatArray:
    """Return P(default) of each row by the scorecard, shape (n_rows,); coded rows have a fixed probability."""
    late_counts = [inputs[name] for name in ("times_30_59_days_late", "times_60_89_days_late", "times_90_days_late")]
    lapses = np.sum(late_counts, axis=0)
    is_stated = np.nan_to_num(inputs["monthly_income"], nan=0.0) > 1.0
    points = _points(SCORECARD, inputs) + LAPSES_POINTS(lapses)
    points += np.where(is_stated, _points(AFFORDABILITY_SCORECARD, inputs), UNSTATED_POINTS)
    probability = 1.0 / (1.0 + np.exp(-LOG_ODDS(points)))
    return np.where(inputs["times_90_days_late"] >= min(LATE_CODES), CODED_DEFAULT_RATE, probability)


def _points(scorecard: Mapping[str, Curve], inputs: Columns) -> FloatArray:
    """Return the sum of a scorecard's curves over their inputs; NaN if an input is missing."""
    curves = [curve(inputs[name]) for name, curve in scorecard.items()]
    return np.asarray(np.sum(curves, axis=0), dtype=np.float64)
