"""W13 to W15: seasons and campaigns, rows that are sent again, feeds that are called broken although a slice explains them.

Belongs here: calm worlds in which time moves the mix, and the same faults and shifts for real, so that a rule that reports nothing
cannot pass. The rules are in `selfheal.domain.monitoring`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.trust.figures import Figure, Target, at_least, at_most, mean, median, rate
from benchmarks.trust.worlds import Figures, Given, Half, TrustWorld, halves
from selfheal.credit_risk import contract as credit
from selfheal.domain.clusters import row_clusters
from selfheal.domain.contract import TRUE_LABEL, Feature, FloatArray, Label, ModelContract
from selfheal.domain.monitoring.drift import PROBABILITY, RECENT_ROWS, DriftLimits, compare_columns
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.seasons import Calm, explain
from selfheal.domain.monitoring.thresholds import derive_thresholds
from selfheal.domain.records import SeasonMemory, Verdict

Generator: TypeAlias = np.random.Generator

WINDOW_ROWS = 500
REFERENCE_ROWS = 5_000
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

USUAL_SHARE = 0.03
"""Share of the rows from which customers may have nothing but a value, or a sender may fill it in."""


def drawn(rows: pd.DataFrame, n_rows: int, rng: Generator) -> pd.DataFrame:
    """Draw different rows."""
    return rows.iloc[rng.choice(len(rows), min(n_rows, len(rows)), replace=False)].reset_index(drop=True)


# W15: feeds that a slice of the population explains


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
    n_tries: int,
    reference: pd.DataFrame,
    contract: ModelContract,
    draw: Callable[[int], pd.DataFrame],
    target: Target,
) -> Figure:
    """Return how often the feed of a drawn window is called broken."""
    then = PreparedRows(reference)
    return rate(sum(bool(feed_problems(draw(i), then, contract)) for i in range(n_tries)), n_tries, target)


def calm_feeds(given: Given) -> Figures:
    """W15: calm rows of one day, exchanged shares and slices of real customers are no fault; filled and swapped columns are."""
    rng = np.random.default_rng([given.seed, 15])
    n_tries = given.tries(400, 40)
    bound = at_most(0.01 if n_tries >= 400 else 0.1)
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
    return {
        "one_day_called_broken": share_broken(
            n_tries, days, SHOP, lambda i: orders(WINDOW_ROWS, rng, day=i % len(DAYS)), bound
        ),
        "exchanged_shares_called_broken": share_broken(
            n_tries, kinds, PEOPLE, lambda _: people(WINDOW_ROWS, rng, 0.15, 0.05), bound
        ),
        "slices_called_broken": share_broken(n_tries, reference, credit, slice_of, bound),
        "calm_called_broken": share_broken(n_tries, reference, credit, lambda _: drawn(rows, WINDOW_ROWS, rng), bound),
        "one_value_found": share_broken(n_tries, reference, credit, one_value, at_least(0.9)),
        "usual_value_filled_found": share_broken(n_tries, reference, credit, filled, Target()),
        "swap_found": share_broken(n_tries, reference, credit, swapped, at_least(0.85)),
        "swapped_flags_found": share_broken(n_tries, kinds, PEOPLE, swapped_flags, at_least(0.9)),
    }


def usual_values(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Return each column with each of its usual values."""
    shares = {name: rows[name].value_counts(normalize=True) for name in rows.columns}
    return [(name, float(value)) for name, of in shares.items() for value in of.index[of >= USUAL_SHARE]]


# W13 and W14: 90 days of ticks

COLUMNS = ("age", "revolving_utilization", "open_credit_lines", "debt_ratio", PROBABILITY)
"""What is compared: the column that moves, some that follow it, and the score."""

N_DAYS, LEARNING_DAYS = 90, 28
STEP_HOURS = 2.0
STEPS_PER_DAY = round(24 / STEP_HOURS)
N_STEPS = N_DAYS * STEPS_PER_DAY
ROWS_PER_HOUR = 120
FEED_STEPS = 3
LIMITS = DriftLimits(n_ticks=90 * 288.0, min_effect=0.05, min_rows=200)
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)

SEASON = 0.18
"""Tilt of the mix, in standard deviations of the ranks of age, that moves age by a rank shift of .10."""

CAMPAIGN_TILT, CAMPAIGN_SHARE, CAMPAIGN_HOURS = -1.5, 0.3, (10.0, 13.0)
CHANGE_DAY = 45
SUDDEN_TILT, DAILY_TILT = 0.36, 0.01
"""A sudden shift of twice the season's, and a drift of 0.01 standard deviations a day."""

TILTS = np.linspace(-2.0, 2.0, 201)

Tilt: TypeAlias = Callable[[FloatArray, Generator], FloatArray]
"""The mix by hour since the beginning: the tilt of each row."""


def still(hours: FloatArray, _: Generator) -> FloatArray:
    """Return the mix that never moves."""
    return np.zeros(len(hours))


def day_and_night(hours: FloatArray, _: Generator) -> FloatArray:
    """Return a mix that is older at noon and younger at night."""
    return SEASON * np.sin(2 * np.pi * (hours - 6) / 24)


def weekday(hours: FloatArray, _: Generator) -> FloatArray:
    """Return a mix that is older at weekends, and younger on the other days."""
    return np.where(hours // 24 % 7 >= 5, SEASON, -SEASON * 2 / 5)


def month(hours: FloatArray, _: Generator) -> FloatArray:
    """Return a mix that moves with the day of the month."""
    return SEASON * np.sin(2 * np.pi * hours / 24 / 30)


def campaign(hours: FloatArray, rng: Generator) -> FloatArray:
    """Return a mix of which 30 % are much younger for three hours every other day."""
    is_on = (hours // 24 % 2 == 1) & (hours % 24 >= CAMPAIGN_HOURS[0]) & (hours % 24 < CAMPAIGN_HOURS[1])
    return np.where(is_on & (rng.random(len(hours)) < CAMPAIGN_SHARE), CAMPAIGN_TILT, 0.0)


SEASONS: dict[str, Tilt] = {"weekday": weekday, "day_and_night": day_and_night, "month": month, "campaign": campaign}


class Population:
    """Customers that are drawn with a tilt: rows of older people are likelier by exp(tilt x rank of age)."""

    def __init__(self, given: Given) -> None:
        self.rows = scored_rows(given.data, given.seed)
        rank = self.rows["age"].rank().to_numpy()
        self._rank = (rank - rank.mean()) / rank.std()
        self._cumulative: dict[int, FloatArray] = {}

    def draw(self, tilts: FloatArray, rng: Generator) -> npt.NDArray[np.int64]:
        """Draw a row for each tilt."""
        level = np.clip(np.rint((tilts - TILTS[0]) / (TILTS[1] - TILTS[0])), 0, len(TILTS) - 1).astype(np.int64)
        drawn_rows = np.zeros(len(tilts), dtype=np.int64)
        for one in np.unique(level):
            if one not in self._cumulative:
                weights = np.exp(TILTS[one] * self._rank)
                self._cumulative[one] = np.cumsum(weights / weights.sum())
            which = np.flatnonzero(level == one)
            drawn_rows[which] = np.searchsorted(self._cumulative[one], rng.random(len(which)))
        return np.minimum(drawn_rows, len(self.rows) - 1)


@cache
def scored_rows(data: Path, seed: int) -> pd.DataFrame:
    """Return the rows that judge, with all features and the scores of a model that was trained on the other half."""
    learn, rest = halves(data)
    features = list(credit.feature_names)
    pipeline = credit.build_estimator(seed).fit(
        credit.feature_frame(learn)[features].to_numpy(dtype=np.float64), learn[TRUE_LABEL].to_numpy()
    )
    rows = credit.feature_frame(rest).reset_index(drop=True)
    scores = pipeline.predict_proba(rows[features].to_numpy(dtype=np.float64))[:, 1]
    return rows.assign(**{PROBABILITY: scores})


@dataclass(frozen=True)
class Deployment:
    """90 days of ticks: whether each was drifted, and whether each feed that was checked was called broken."""

    is_drifted: npt.NDArray[np.bool_]
    is_broken: tuple[bool, ...]

    def episodes(self, from_day: int = 0) -> int:
        """Return the number of drift episodes that began after a day."""
        began = self.is_drifted & ~np.concatenate([[False], self.is_drifted[:-1]])
        return int(began[from_day * STEPS_PER_DAY :].sum())

    def days_until_drift(self, day: int) -> float:
        """Return the days from `day` to the first drifted tick; infinite if there is none."""
        found = np.flatnonzero(self.is_drifted[day * STEPS_PER_DAY :])
        return float(found[0] / STEPS_PER_DAY) if len(found) else math.inf


def deployment(
    population: Population,
    tilt: Tilt,
    rng: Generator,
    *,
    sent_again: float = 0.0,
    change: Callable[[FloatArray], FloatArray] | None = None,
) -> Deployment:
    """Live through 90 days of ticks of a version whose reference is of all seasons, in no order of time, like a file's.

    Args:
        sent_again: share of the rows that are sent again, within hours; if there are any, the feed is checked, and rows are
            counted by entity. Elsewhere rows that are drawn again are different customers.
        change: tilt by hour on top of the season's, for real drift.
    """
    n_rows = rng.poisson(ROWS_PER_HOUR * (1 - sent_again) * STEP_HOURS, N_STEPS)
    hours = np.sort(rng.random(int(n_rows.sum()))) * N_DAYS * 24
    extra = 0.0 if change is None else change(hours)
    rows = population.draw(tilt(hours, rng) + extra, rng)
    again = np.flatnonzero(rng.random(len(rows)) < sent_again / (1 - sent_again))
    hours, rows = (
        np.concatenate([hours, hours[again] + rng.exponential(0.5, len(again))]),
        np.concatenate([rows, rows[again]]),
    )
    rows, ends = rows[np.argsort(hours)], np.searchsorted(np.sort(hours), (np.arange(N_STEPS) + 1) * STEP_HOURS)
    frozen = population.draw(tilt(rng.random(REFERENCE_ROWS) * N_DAYS * 24, rng), rng)
    contract = replace(credit, equal_inputs_are_one_case=sent_again > 0)

    def prepared(which: npt.NDArray[np.int64]) -> PreparedRows:
        chosen = population.rows.iloc[which].reset_index(drop=True)
        return PreparedRows(chosen, row_clusters(chosen, contract))

    reference = prepared(frozen)
    thresholds = derive_thresholds(reference, COLUMNS, LIMITS.n_ticks)
    calm, is_drifted, is_broken = Calm(SeasonMemory(BEGAN)), np.zeros(N_STEPS, dtype=np.bool_), []
    for step in range(STEPS_PER_DAY, N_STEPS):
        day = rows[ends[step - STEPS_PER_DAY] : ends[step]]
        newest = prepared(day[-RECENT_ROWS:])
        compared = compare_columns(COLUMNS, prepared(day), reference, newest, thresholds, LIMITS)
        moves = [move for one in compared for move in one.moves()]
        positions = [position for one in compared for position in one.positions()]
        found = explain(moves, calm, BEGAN + timedelta(hours=(step + 1) * STEP_HOURS), positions)
        is_drifted[step] = len(found.sentences) < len(moves)
        assert found.memory is not None
        calm = Calm(found.memory, Verdict.BENIGN_SHIFT if is_drifted[step] else Verdict.STABLE)
        if sent_again and step % FEED_STEPS == 0:
            is_broken.append(bool(feed_problems(newest, reference, contract)))
    return Deployment(is_drifted, tuple(is_broken))


def sudden(hours: FloatArray) -> FloatArray:
    """Return a shift from one day on."""
    return np.where(hours >= CHANGE_DAY * 24, SUDDEN_TILT, 0.0)


def gradual(hours: FloatArray) -> FloatArray:
    """Return a drift that grows by the day."""
    return DAILY_TILT * np.maximum(0.0, hours / 24 - CHANGE_DAY)


def seasonal_mixes(given: Given) -> Figures:
    """W13: a mix that moves with the calendar is one drift at most once it is known; real drift still is found."""
    population, n_tries = Population(given), given.tries(40, 1)
    figures: dict[str, Figure] = {}
    for number, (name, tilt) in enumerate(SEASONS.items()):
        rngs = [np.random.default_rng([given.seed, 13, number, i]) for i in range(n_tries)]
        calm = [deployment(population, tilt, rng).episodes(LEARNING_DAYS) for rng in rngs]
        figures[f"{name}.episodes_after_day_28"] = look(calm, 1.0) if given.is_quick else mean(calm, at_most(1.0))
    mixes = {"day_and_night": day_and_night} if given.is_quick else {"still": still, **SEASONS}
    for number, (kind, (change, most)) in enumerate(CHANGES.items()):
        for mix, tilt in mixes.items():
            rngs = [np.random.default_rng([given.seed, 113, number, i]) for i in range(given.tries(20, 1))]
            days = [deployment(population, tilt, rng, change=change).days_until_drift(CHANGE_DAY) for rng in rngs]
            found = look(days, most) if given.is_quick else median(days, at_most(most))
            figures[f"{kind}_in_{mix}_found_after_days"] = found
    return figures


CHANGES: dict[str, tuple[Callable[[FloatArray], FloatArray], float]] = {
    "sudden": (sudden, 3.0),
    "gradual": (gradual, 25.0),
}
"""Real drift, each with the days after which it has to be found even where a season hides it."""


def look(values: Sequence[float], most: float) -> Figure:
    """Return a mean without bounds: too few tries for any."""
    value = float(np.mean(values))
    return Figure(value, value, value, at_most(most))


def sent_again(given: Given) -> Figures:
    """W14: rows that a client sends again are neither drift nor a fault."""
    population, n_tries = Population(given), given.tries(40, 1)
    figures: dict[str, Figure] = {}
    for number, share in enumerate((0.15, 0.30)):
        rngs = [np.random.default_rng([given.seed, 14, number, i]) for i in range(n_tries)]
        lived = [deployment(population, still, rng, sent_again=share) for rng in rngs]
        broken = [one for each in lived for one in each.is_broken]
        name = f"share_{round(share * 100)}"
        n_episodes = [one.episodes() for one in lived]
        figures[f"{name}.episodes"] = look(n_episodes, 1.0) if given.is_quick else mean(n_episodes, at_most(1.0))
        figures[f"{name}.called_broken"] = rate(sum(broken), len(broken), at_most(0.02 if given.is_quick else 0.01))
    return figures


WORLDS: tuple[TrustWorld, ...] = (
    TrustWorld("W13", "a mix that moves with the calendar and with campaigns", Half.CHOSEN, seasonal_mixes),
    TrustWorld("W14", "rows that are sent again", Half.JUDGED, sent_again),
    TrustWorld("W15", "one Monday, and more students than retired", Half.CHOSEN, calm_feeds),
)
