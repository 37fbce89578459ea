"""W13 and W14: seasons and campaigns, and rows that are sent again: 90 days of ticks.

Belongs here: calm worlds in which time moves the mix, and drift for real, so that a rule that reports nothing cannot pass. The rules
are in `selfheal.domain.monitoring`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.trust.figures import (
    NEVER,
    Figure,
    at_most,
    exact,
    mean,
    median,
    rate_by_cluster,
)
from benchmarks.trust.worlds import Figures, Found, Given, Half, Piece, TrustWorld, found_by, halves
from selfheal.credit_risk import contract as credit
from selfheal.domain.clusters import row_clusters
from selfheal.domain.contract import TRUE_LABEL, FloatArray, ModelContract
from selfheal.domain.monitoring.drift import PROBABILITY, RECENT_ROWS, DriftLimits, detect_drift
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.seasons import Calm
from selfheal.domain.monitoring.triage import HarmLimits, triage
from selfheal.domain.records import PerformanceReport, ScoreMetrics, SeasonMemory, Verdict, Window
from selfheal.services.tick import harm_limits
from selfheal.settings import default_settings

Generator: TypeAlias = np.random.Generator

REFERENCE_ROWS = 5_000
N_DAYS, LEARNING_DAYS = 90, 28
TICK_HOURS, TICK_HOURS_QUICK = 2, 6
"""Between two ticks. The platform's are minutes apart; what they see in between is seen by a window of a day, too."""

ROWS_PER_HOUR = 120
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

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
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

    def prepared(self, which: npt.NDArray[np.int64], contract: ModelContract) -> PreparedRows:
        """Return these rows as a tick has them."""
        chosen = self.rows.iloc[which].reset_index(drop=True)
        return PreparedRows(chosen, row_clusters(chosen, contract))


@lru_cache(maxsize=2)
def population_of(data: Path, seed: int) -> Population:
    """Return the rows that judge, with the scores of a model that was trained on the other half."""
    return Population(scored_rows(data, seed))


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
    """The verdicts of the ticks of a deployment, from its beginning on."""

    verdicts: tuple[Verdict, ...]
    tick_hours: int = TICK_HOURS

    def episodes(self, from_day: int = 0) -> int:
        """Return the number of drift episodes that began after a day."""
        is_drifted = np.array([one.is_shift for one in self.verdicts])
        began = is_drifted & ~np.concatenate([[False], is_drifted[:-1]])
        return int(began[from_day * self.ticks_per_day :].sum())

    def days_until_drift(self, day: int) -> float:
        """Return the days from `day` to the first drifted tick; infinite if there is none."""
        later = self.verdicts[day * self.ticks_per_day :]
        return next((place / self.ticks_per_day for place, one in enumerate(later) if one.is_shift), math.inf)

    @property
    def ticks_per_day(self) -> int:
        """Return the number of ticks in a day."""
        return 24 // self.tick_hours

    @property
    def n_ticks(self) -> int:
        """Return the number of ticks with a whole day's rows."""
        return len(self.verdicts) - self.ticks_per_day

    @property
    def n_broken(self) -> int:
        """Return the number of ticks that called the feed broken."""
        return sum(one is Verdict.BROKEN_FEED for one in self.verdicts)


def deployment(
    population: Population,
    tilt: Tilt,
    rng: Generator,
    *,
    tick_hours: int = TICK_HOURS,
    sent_again: float = 0.0,
    change: Callable[[FloatArray], FloatArray] | None = None,
) -> Deployment:
    """Live through 90 days of ticks of a version whose reference is of all seasons, in no order of time, like a file's.

    Args:
        sent_again: share of the rows that are sent again, within hours; if there are any, rows are counted by entity. Elsewhere
            rows that are drawn again are different customers.
        change: tilt by hour on top of the season's, for real drift from `CHANGE_DAY` on; nothing after its discovery is lived
            through.
    """
    n_rows = rng.poisson(ROWS_PER_HOUR * (1 - sent_again) * N_DAYS * 24)
    hours = np.sort(rng.random(n_rows)) * N_DAYS * 24
    extra = 0.0 if change is None else change(hours)
    rows = population.draw(tilt(hours, rng) + extra, rng)
    again = np.flatnonzero(rng.random(len(rows)) < sent_again / (1 - sent_again))
    hours, rows = (
        np.concatenate([hours, hours[again] + rng.exponential(0.5, len(again))]),
        np.concatenate([rows, rows[again]]),
    )
    n_ticks, per_day = N_DAYS * 24 // tick_hours, 24 // tick_hours
    rows, ends = rows[np.argsort(hours)], np.searchsorted(np.sort(hours), (np.arange(n_ticks) + 1) * tick_hours)
    frozen = population.draw(tilt(rng.random(REFERENCE_ROWS) * N_DAYS * 24, rng), rng)
    contract = replace(credit, equal_inputs_are_one_case=sent_again > 0)
    reference, memory, harm = (
        population.prepared(frozen, contract),
        SeasonMemory(BEGAN),
        harm_limits(default_settings()),
    )
    verdicts = [Verdict.INSUFFICIENT] * per_day
    for number in range(per_day, n_ticks):
        of_day = rows[ends[number - per_day] : ends[number]]
        day, newest = (population.prepared(which, contract) for which in (of_day, of_day[-RECENT_ROWS:]))
        end = BEGAN + timedelta(hours=(number + 1) * tick_hours)
        previous = verdicts[-1] if number > per_day else None
        verdict, memory = tick(day, newest, reference, contract, end, Calm(memory, previous), harm)
        verdicts.append(verdict)
        if change is not None and verdict.is_shift and number >= CHANGE_DAY * per_day:
            break
    return Deployment(tuple(verdicts), tick_hours)


def tick(
    day: PreparedRows,
    newest: PreparedRows,
    reference: PreparedRows,
    contract: ModelContract,
    end: datetime,
    calm: Calm,
    harm: HarmLimits,
) -> tuple[Verdict, SeasonMemory]:
    """Return the verdict of a tick at which no label is known, and what is remembered after it."""
    window = Window(contract.name, 1, end - timedelta(days=1), end, len(day), 0)
    drift = detect_drift(
        window,
        day,
        reference,
        features=contract.feature_names,
        reference_version=1,
        limits=LIMITS,
        recent=newest,
        feed_problems=feed_problems(newest, reference, contract),
        seed=20,
        calm=calm,
    )
    assert drift.seasons is not None, "something was remembered before"
    return triage(drift, unlabelled(window), harm, None).verdict, drift.seasons


def unlabelled(window: Window) -> PerformanceReport:
    """Return a report that neither labels nor an estimate tell anything."""
    nothing = ScoreMetrics(0, 0, 0.0, 0.0, 0.0, None, 0.0)
    return PerformanceReport(window, nothing, None, None, None, None, None, None, None)


def sudden(hours: FloatArray) -> FloatArray:
    """Return a shift from one day on."""
    return np.where(hours >= CHANGE_DAY * 24, SUDDEN_TILT, 0.0)


def gradual(hours: FloatArray) -> FloatArray:
    """Return a drift that grows by the day."""
    return DAILY_TILT * np.maximum(0.0, hours / 24 - CHANGE_DAY)


CHANGES: dict[str, tuple[Callable[[FloatArray], FloatArray], float]] = {
    "sudden": (sudden, 3.0),
    "gradual": (gradual, 25.0),
}
"""Real drift, each with the days after which it has to be found even where a season hides it."""


CALM_DEPLOYMENTS, CHANGED_DEPLOYMENTS = 40, 20
MIXES: dict[str, Tilt] = {"still": still, **SEASONS}
CPU_S_PER_TICK = 0.031


def tick_hours_of(given: Given) -> int:
    """Return the hours between two ticks."""
    return given.tries(TICK_HOURS, TICK_HOURS_QUICK)


def cpu_s(given: Given, days: float) -> float:
    """Return the CPU seconds that so many days of ticks take."""
    return CPU_S_PER_TICK * days * 24 / tick_hours_of(given)


def w13_pieces(given: Given) -> list[Piece]:
    """Return the deployments in which the mix moves with the calendar, and those with real drift on top."""
    calm = [
        Piece(
            f"{name}.calm.{i}",
            calm_episodes,
            (name, tick_hours_of(given), [given.seed, 13, number, i]),
            cpu_s(given, N_DAYS),
        )
        for number, name in enumerate(SEASONS)
        for i in range(given.tries(CALM_DEPLOYMENTS, 1))
    ]
    mixes = QUICK_MIXES if given.is_quick else tuple(MIXES)
    return calm + [
        Piece(
            f"{kind}_in_{mix}.{i}",
            days_until_found,
            (kind, mix, tick_hours_of(given), [given.seed, 113, number, i]),
            cpu_s(given, 1.2 * CHANGE_DAY),
        )
        for number, kind in enumerate(CHANGES)
        for mix in mixes
        for i in range(given.tries(CHANGED_DEPLOYMENTS, 1))
    ]


QUICK_MIXES = ("day_and_night",)


def calm_episodes(given: Given, season: str, tick_hours: int, seed: list[int]) -> int:
    """Return the number of drift episodes after the first 28 days, in which the season may be reported and is learned."""
    rng = np.random.default_rng(seed)
    lived = deployment(population_of(given.data, given.seed), SEASONS[season], rng, tick_hours=tick_hours)
    return lived.episodes(LEARNING_DAYS)


def days_until_found(given: Given, kind: str, mix: str, tick_hours: int, seed: list[int]) -> float:
    """Return the days after which real drift is found."""
    change, _ = CHANGES[kind]
    rng = np.random.default_rng(seed)
    population = population_of(given.data, given.seed)
    return deployment(population, MIXES[mix], rng, tick_hours=tick_hours, change=change).days_until_drift(CHANGE_DAY)


def w13_figures(given: Given, found: Found) -> Figures:
    """Return how many episodes a season costs once it is known, and how soon real drift is found."""
    figures = {"hours_between_ticks": exact(float(tick_hours_of(given)))}
    for name in SEASONS:
        calm = found_by(found, f"{name}.calm")
        figures[f"{name}.episodes_after_day_28"] = look(calm, 1.0) if given.is_quick else mean(calm, at_most(1.0))
    for kind, (_, most) in CHANGES.items():
        for mix in QUICK_MIXES if given.is_quick else MIXES:
            days = found_by(found, f"{kind}_in_{mix}")
            figure = look(days, most) if given.is_quick else median(days, at_most(most))
            figures[f"{kind}_in_{mix}_found_after_days"] = figure
    return figures


def look(values: Sequence[float], most: float) -> Figure:
    """Return a mean without bounds: too few tries for any."""
    value = float(np.mean(values))
    return Figure(value, value, value, at_most(most))


SENT_AGAIN = {"share_15": 0.15, "share_30": 0.30}


def w14_pieces(given: Given) -> list[Piece]:
    """Return the deployments in which a client sends rows again."""
    return [
        Piece(
            f"{name}.{i}",
            sent_again,
            (share, tick_hours_of(given), [given.seed, 14, number, i]),
            cpu_s(given, 1.25 * N_DAYS),
        )
        for number, (name, share) in enumerate(SENT_AGAIN.items())
        for i in range(given.tries(CALM_DEPLOYMENTS, 1))
    ]


def sent_again(given: Given, share: float, tick_hours: int, seed: list[int]) -> dict[str, int]:
    """Return the number of drift episodes, of ticks, and of those that call the feed broken."""
    rng = np.random.default_rng(seed)
    population = population_of(given.data, given.seed)
    lived = deployment(population, still, rng, tick_hours=tick_hours, sent_again=share)
    return {"episodes": lived.episodes(), "n_ticks": lived.n_ticks, "n_broken": lived.n_broken}


def w14_figures(given: Given, found: Found) -> Figures:
    """Return how often rows that are sent again are called drift, or a fault."""
    figures = {"hours_between_ticks": exact(float(tick_hours_of(given)))}
    for name in SENT_AGAIN:
        lived = found_by(found, name)
        n_episodes, n_broken, n_ticks = ([one[key] for one in lived] for key in ("episodes", "n_broken", "n_ticks"))
        if given.is_quick:
            figures[f"{name}.episodes"] = look(n_episodes, 1.0)
            figures[f"{name}.called_broken"] = look([sum(n_broken) / sum(n_ticks)], 0.02)
            continue
        figures[f"{name}.episodes"] = mean(n_episodes, at_most(1.0))
        figures[f"{name}.called_broken"] = rate_by_cluster(n_broken, n_ticks, NEVER)
    return figures


WORLDS: tuple[TrustWorld, ...] = (
    TrustWorld("W13", "a mix that moves with the calendar and with campaigns", Half.CHOSEN, w13_pieces, w13_figures),
    TrustWorld("W14", "rows that are sent again", Half.JUDGED, w14_pieces, w14_figures),
)
