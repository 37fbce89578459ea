"""W15: feeds that are called broken although a slice of the population explains them.

Belongs here: slices, and the same columns filled or swapped for real, so that a rule that reports nothing cannot pass. The rules are
in `selfheal.domain.monitoring.feed`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TypeAlias

import numpy as np
import pandas as pd

from benchmarks.trust.figures import Target, at_least, at_most, rate
from benchmarks.trust.worlds import Figures, Found, Given, Half, Piece, TrustWorld, halves
from selfheal.credit_risk import contract as credit
from selfheal.domain.contract import Feature, Label, ModelContract
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.prepared_rows import PreparedRows

Generator: TypeAlias = np.random.Generator

WINDOW_ROWS = 500
REFERENCE_ROWS = 5_000
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

USUAL_SHARE = 0.03
"""Share of the rows from which customers may have nothing but a value, or a sender may fill it in."""


def drawn(rows: pd.DataFrame, n_rows: int, rng: Generator) -> pd.DataFrame:
    """Draw different rows."""
    return rows.iloc[rng.choice(len(rows), min(n_rows, len(rows)), replace=False)].reset_index(drop=True)


def flag(name: str) -> Feature:
    """Return an input that is 0 or 1."""
    return Feature(name, "int", 0, 1, "", name, 0)


SHOP = ModelContract(
    "shop",
    "orders by weekday and hour",
    Label("bought", "bought"),
    inputs=(
        Feature("amount", "float", 0, 10_000, "", "Amount", 10),
        Feature("hour", "int", 0, 23, "", "Hour", 12),
        *(flag(f"day_{day}") for day in DAYS),
    ),
)
PEOPLE = ModelContract(
    "people",
    "kinds of customers",
    Label("bought", "bought"),
    inputs=(flag("student"), flag("retired"), Feature("age", "int", 16, 99, "", "Age", 40)),
)


def orders(n_rows: int, rng: Generator, day: int | None = None) -> pd.DataFrame:
    """Draw orders of all days, or of one; amounts differ a little by day."""
    days = rng.integers(0, len(DAYS), n_rows) if day is None else np.full(n_rows, day)
    hours = np.clip(rng.normal(14, 3, n_rows), 0, 23).round()
    columns = {"amount": rng.gamma(2, 20 + days), "hour": hours}
    return pd.DataFrame(columns | {f"day_{name}": (days == i).astype(np.float64) for i, name in enumerate(DAYS)})


def people(n_rows: int, rng: Generator, student: float = 0.05, retired: float = 0.15) -> pd.DataFrame:
    """Draw customers of whom so many are students, or retired."""
    kind = rng.choice(3, n_rows, p=[student, retired, 1 - student - retired])
    ages = [rng.integers(18, 30, n_rows), rng.integers(60, 90, n_rows), rng.integers(25, 65, n_rows)]
    columns = {"student": kind == 0, "retired": kind == 1, "age": np.choose(kind, ages)}
    return pd.DataFrame(columns).astype(np.float64)


def share_broken(
    n_tries: int, reference: pd.DataFrame, contract: ModelContract, draw: Callable[[int], pd.DataFrame]
) -> int:
    """Return how often the feed of a drawn window is called broken."""
    then = PreparedRows(reference)
    return sum(bool(feed_problems(draw(i), then, contract)) for i in range(n_tries))


W15_TRIES, W15_TRIES_QUICK = 400, 40


def w15_pieces(given: Given) -> list[Piece]:
    """Return all tries at once: they take seconds."""
    tries = given.tries(W15_TRIES, W15_TRIES_QUICK)
    return [Piece("tries", called_broken, (tries,), 0.1 * tries)]


def called_broken(given: Given, n_tries: int) -> dict[str, int]:
    """Return how often calm rows of one day, exchanged shares, slices of customers, filled and swapped columns are called broken."""
    rng = np.random.default_rng([given.seed, 15])
    rows = halves(given.data)[1][list(credit.input_names)]
    reference = drawn(rows, REFERENCE_ROWS, rng)
    values = usual_values(rows)
    pairs = list(combinations(credit.input_names, 2))

    def slice_of(i: int) -> pd.DataFrame:
        name, value = values[i % len(values)]
        return drawn(rows[rows[name] == value], WINDOW_ROWS, rng)

    def filled(i: int) -> pd.DataFrame:
        name, value = values[i % len(values)]
        return drawn(rows, WINDOW_ROWS, rng).assign(**{name: value})

    def one_value(i: int) -> pd.DataFrame:
        name = ("age", "debt_ratio", "monthly_income")[i % 3]
        return drawn(rows, WINDOW_ROWS, rng).assign(**{name: float(rows[name].median())})

    def swapped(i: int) -> pd.DataFrame:
        now, (first, second) = drawn(rows, WINDOW_ROWS, rng), pairs[i % len(pairs)]
        return now.assign(**{first: now[second], second: now[first]})

    def swapped_flags(_: int) -> pd.DataFrame:
        now = people(WINDOW_ROWS, rng)
        return now.assign(student=now["retired"], retired=now["student"])

    days, kinds = orders(REFERENCE_ROWS, rng), people(REFERENCE_ROWS, rng)

    def one_day(i: int) -> pd.DataFrame:
        return orders(WINDOW_ROWS, rng, day=i % len(DAYS))

    def exchanged(_: int) -> pd.DataFrame:
        return people(WINDOW_ROWS, rng, 0.15, 0.05)

    def calm(_: int) -> pd.DataFrame:
        return drawn(rows, WINDOW_ROWS, rng)

    return {
        "one_day_called_broken": share_broken(n_tries, days, SHOP, one_day),
        "exchanged_shares_called_broken": share_broken(n_tries, kinds, PEOPLE, exchanged),
        "slices_called_broken": share_broken(n_tries, reference, credit, slice_of),
        "calm_called_broken": share_broken(n_tries, reference, credit, calm),
        "one_value_found": share_broken(n_tries, reference, credit, one_value),
        "usual_value_filled_found": share_broken(n_tries, reference, credit, filled),
        "swap_found": share_broken(n_tries, reference, credit, swapped),
        "swapped_flags_found": share_broken(n_tries, kinds, PEOPLE, swapped_flags),
    }


FOUND_AT_LEAST = {"one_value_found": 0.9, "swap_found": 0.85, "swapped_flags_found": 0.9}


def w15_figures(given: Given, found: Found) -> Figures:
    """Return how often a slice is called a fault, and how often a fault is found."""
    n_tries = given.tries(W15_TRIES, W15_TRIES_QUICK)
    calm = at_most(0.1 if given.is_quick else 0.01)
    targets = {name: at_least(share) for name, share in FOUND_AT_LEAST.items()}
    return {
        name: rate(hits, n_tries, calm if name.endswith("called_broken") else targets.get(name, Target()))
        for name, hits in found["tries"].items()
    }


def usual_values(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Return each column with each of its usual values."""
    shares = {name: rows[name].value_counts(normalize=True) for name in rows.columns}
    return [(name, float(value)) for name, of in shares.items() for value in of.index[of >= USUAL_SHARE]]


WORLDS: tuple[TrustWorld, ...] = (
    TrustWorld("W15", "one Monday, and more students than retired", Half.CHOSEN, w15_pieces, w15_figures),
)
