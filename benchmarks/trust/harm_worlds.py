"""W9, W10 and W12: harm that a signed excess of loss does not see, and estimates while the base rate moves.

The champion learns from the first half of the rows in file order; its reference and all traffic are drawn, independently and with
replacement, from the other half, which is then the whole population: nothing but chance tells calm traffic from the reference.

Belongs here: building these worlds and counting. Does not belong here: any rule of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.trust.figures import at_least, at_most, between, rate
from benchmarks.trust.worlds import Figures, Found, Given, Half, Piece, TrustWorld, blocks, flat, found_by, halves
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.drift import PROBABILITY, RECENT_ROWS, detect_drift
from selfheal.domain.monitoring.estimation import estimate_performance
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.performance import performance_report, score_metrics
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.triage import harm_reasons, triage
from selfheal.domain.records import PerformanceReport, ScoreMetrics, Triage, Window
from selfheal.domain.retraining.requests import LatestTick, retraining_need
from selfheal.domain.retraining.threshold import f1_optimal_threshold
from selfheal.services.tick import drift_limits, harm_limits
from selfheal.settings import default_settings
from selfheal.simulate.replay.changes import Traffic, apply_changes, choose_rows
from selfheal.simulate.replay.models import Rows
from selfheal.simulate.replay.worlds import Change, PriorShift, RelationGone, RiskiestChange

DAY_ROWS = 1_440
N_REFERENCE = 5_000
LOOKS_PER_DAY, DAYS = 4, 90
NOW = datetime(2026, 3, 4, tzinfo=UTC)
"""Of every look: nothing here depends on the time of day."""


@dataclass(frozen=True, eq=False)
class Deployment:
    """A champion, its reference, and the rows that traffic is drawn from."""

    champion: object
    pool: Rows
    reference: PreparedRows
    threshold: float

    @classmethod
    def of(cls, pool: Rows, champion: object, rng: np.random.Generator) -> Deployment:
        """Draw a champion's reference from the rows that its traffic is drawn from."""
        drawn = rng.integers(len(pool), size=N_REFERENCE)
        reference = scored(champion, pool.columns, pool.labels, drawn)
        known = reference[TRUE_LABEL].to_numpy(), reference[PROBABILITY].to_numpy()
        return cls(champion, pool, PreparedRows(reference), f1_optimal_threshold(*known))

    @cached_property
    def metrics(self) -> ScoreMetrics:
        """Return the champion's metrics on its reference."""
        labels = self.reference.rows[TRUE_LABEL].to_numpy()
        return score_metrics(labels, self.reference.values(PROBABILITY), self.threshold)

    def traffic(
        self, changes: tuple[Change, ...], n_rows: int, rng: np.random.Generator, hours: float = 0.0
    ) -> pd.DataFrame:
        """Draw changed traffic: features, probability and outcome, `hours` after the change."""
        at = np.full(n_rows, hours)
        drawn = choose_rows(self.pool, contract, changes, at, rng)
        traffic = Traffic(at, {name: v[drawn] for name, v in self.pool.columns.items()}, self.pool.labels[drawn].copy())
        apply_changes(traffic, contract, changes, self.pool, self._score, rng)
        return scored(self.champion, traffic.columns, traffic.labels)

    def _score(self, rows: Rows) -> FloatArray:
        return probabilities(self.champion, rows.columns)


def rows_of(frame: pd.DataFrame) -> Rows:
    """Return the inputs by name and the outcomes."""
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in contract.input_names}
    return Rows(columns, frame[TRUE_LABEL].to_numpy(dtype=np.int8))


def fitted(frame: pd.DataFrame, seed: int) -> object:
    """Fit the contract's estimator."""
    features = contract.feature_frame(frame)[list(contract.feature_names)].to_numpy(dtype=np.float64)
    return contract.build_estimator(seed).fit(features, frame[TRUE_LABEL].to_numpy(dtype=np.int64))


def probabilities(champion: object, columns: Mapping[str, FloatArray]) -> FloatArray:
    """Return the champion's probability of each row."""
    return scored(champion, columns)[PROBABILITY].to_numpy()


def scored(
    champion: object,
    columns: Mapping[str, FloatArray],
    labels: np.ndarray | None = None,
    drawn: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return features, the champion's probability, and the outcome where it is given."""
    chosen = slice(None) if drawn is None else drawn
    features = contract.feature_frame(pd.DataFrame({name: values[chosen] for name, values in columns.items()}))
    matrix = features[list(contract.feature_names)].to_numpy(dtype=np.float64)
    found = features.assign(**{PROBABILITY: champion.predict_proba(matrix)[:, 1]})  # type: ignore[attr-defined]
    return found if labels is None else found.assign(**{TRUE_LABEL: labels[chosen].astype(np.int64)})


def measured(deployment: Deployment, rows: pd.DataFrame, labelled: pd.DataFrame) -> PerformanceReport:
    """Return a tick's report on a window of rows and on matured labelled rows."""
    window = window_of(rows, len(labelled))
    return performance_report(
        window,
        rows,
        labelled,
        deployment.metrics,
        deployment.threshold,
        calibration_rows=deployment.reference,
        inputs=contract.input_names,
        label_delay=None,
        matured=window if len(labelled) else None,
        seed=20,
        decides_at_auc=harm_limits(default_settings()).min_auc,
    )


def window_of(rows: pd.DataFrame, n_labels: int) -> Window:
    """Return the window of these rows."""
    return Window(contract.name, 1, NOW - timedelta(days=1), NOW, len(rows), n_labels)


def tick(deployment: Deployment, rows: pd.DataFrame) -> Triage:
    """Decide as a tick does on a day's rows with all labels."""
    recent = PreparedRows(rows.tail(RECENT_ROWS).reset_index(drop=True))
    drift = detect_drift(
        window_of(rows, len(rows)),
        rows,
        deployment.reference,
        features=contract.feature_names,
        reference_version=1,
        limits=drift_limits(default_settings()),
        recent=recent,
        baseline=None,
        feed_problems=feed_problems(recent, deployment.reference, contract),
        seed=20,
    )
    return triage(drift, measured(deployment, rows, rows), harm_limits(default_settings()), None)


def asks(outcome: Triage) -> bool:
    """Return whether the sensors ask for a retraining at this verdict."""
    return retraining_need(LatestTick("tick", outcome.verdict, outcome.episode_id, 0)).trigger is not None


CALM: tuple[Change, ...] = ()
GONE: tuple[Change, ...] = (RelationGone(0.4),)
RISKIEST: tuple[Change, ...] = (RiskiestChange(0.1, "average"),)
BASE_RATE_UP: tuple[Change, ...] = (PriorShift(1.56),)
"""The odds that raise the base rate by half."""

ESTIMATED = ("f1", "precision", "recall", "auc_roc", "brier", "positive_rate")
ESTIMATE_ROWS = 5_000
ROUNDING = 1e-6
"""Tolerance for an interval's end that is a ratio of counts and may differ from the metric by rounding."""


@lru_cache(maxsize=2)
def shared_champion(data: Path, seed: int) -> tuple[Rows, object]:
    """Return the rows that judge, and the champion of all tries, which has learned from the others."""
    learn, judging = halves(data)
    return rows_of(judging), fitted(learn, seed)


TRIES, TRIES_QUICK = 400, 40


def harm_pieces(number: int, changes: tuple[Change, ...]) -> Callable[[Given], list[Piece]]:
    """Return the tries of a change, in blocks."""

    def pieces(given: Given) -> list[Piece]:
        tries = given.tries(TRIES, TRIES_QUICK)
        return [
            Piece(f"tries.{start}", called_harmful, (number, changes, start, stop), 0.4 * (stop - start))
            for start, stop in blocks(tries)
        ]

    return pieces


def called_harmful(
    given: Given, number: int, changes: tuple[Change, ...], start: int, stop: int
) -> list[tuple[bool, bool, bool]]:
    """Return whether a day of labels asks for a retraining: the first after the change, one of two, and without a change."""
    pool, champion = shared_champion(given.data, given.seed)
    found = []
    for number_of_try in range(start, stop):
        rng = np.random.default_rng([given.seed, number, number_of_try])
        deployment = Deployment.of(pool, champion, rng)
        is_first = asks(tick(deployment, deployment.traffic(changes, DAY_ROWS, rng)))
        is_second = bool(reasons_of(deployment, deployment.traffic(changes, DAY_ROWS, rng)))
        is_calm = bool(reasons_of(deployment, deployment.traffic(CALM, DAY_ROWS, rng)))
        found.append((is_first, is_first or is_second, is_calm))
    return found


def harm_figures(_: Given, found: Found) -> Figures:
    """Return how often a day of labels asks for a retraining."""
    tries = flat(found, "tries")
    n_harmful, n_within_two_days, n_calm = (sum(hits) for hits in zip(*tries, strict=True))
    return {
        f"labels_{DAY_ROWS}.called_harmful": rate(n_harmful, len(tries), at_least(0.95)),
        "within_two_days.called_harmful": rate(n_within_two_days, len(tries)),
        "unchanged.called_harmful": rate(n_calm, len(tries), at_most(0.01)),
    }


def reasons_of(deployment: Deployment, rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the reasons of harm in a day's rows with all labels."""
    report = measured(deployment, rows, rows)
    return harm_reasons(report, harm_limits(default_settings()), is_estimate_sufficient=True)


CALM_DEPLOYMENTS = 100


def calm_deployment(given: Given, number: int) -> bool:
    """Return whether a calm deployment of 90 days, evaluated every 6 hours, is called harmful at least once."""
    pool, champion = shared_champion(given.data, given.seed)
    rng = np.random.default_rng([given.seed, 90, number])
    deployment = Deployment.of(pool, champion, rng)
    rows = deployment.traffic(CALM, DAY_ROWS * (DAYS + 1), rng)
    n_step = DAY_ROWS // LOOKS_PER_DAY
    starts = range(0, n_step * LOOKS_PER_DAY * DAYS, n_step)
    return any(reasons_of(deployment, rows.iloc[start : start + DAY_ROWS]) for start in starts)


def w9_pieces(given: Given) -> list[Piece]:
    """Return the tries, and calm deployments unless it is a look."""
    calm = [Piece(f"calm_90_days.{number}", calm_deployment, (number,), 20.0) for number in range(CALM_DEPLOYMENTS)]
    return harm_pieces(9, GONE)(given) + ([] if given.is_quick else calm)


def w9_figures(given: Given, found: Found) -> Figures:
    """Return how often a day of labels asks for a retraining, and how many calm deployments are called harmful."""
    calm = found_by(found, "calm_90_days")
    more = {"calm_90_days.called_harmful": rate(sum(calm), len(calm), at_most(0.05))} if calm else {}
    return {**harm_figures(given, found), **more}


def w12_pieces(given: Given) -> list[Piece]:
    """Return the tries, in blocks."""
    return [
        Piece(f"tries.{start}", base_rate_up, (start, stop), 0.3 * (stop - start))
        for start, stop in blocks(given.tries(TRIES, TRIES_QUICK))
    ]


def base_rate_up(given: Given, start: int, stop: int) -> list[dict[str, bool]]:
    """Return for each try which of the estimate's intervals hold what the labels of the same rows show; none if it is withheld."""
    pool, champion = shared_champion(given.data, given.seed)
    found = []
    for number in range(start, stop):
        rng = np.random.default_rng([given.seed, 12, number])
        deployment = Deployment.of(pool, champion, rng)
        rows = deployment.traffic(BASE_RATE_UP, ESTIMATE_ROWS, rng)
        blind = estimate_performance(rows, deployment.reference, contract.input_names, deployment.threshold, 20)
        shown = score_metrics(rows[TRUE_LABEL].to_numpy(), rows[PROBABILITY].to_numpy(), deployment.threshold)
        values = {
            name: shown.n_positive / shown.n_rows if name == "positive_rate" else getattr(shown, name)
            for name in blind.intervals
        }
        found.append(
            {
                name: interval.low - ROUNDING <= values[name] <= interval.high + ROUNDING
                for name, interval in blind.intervals.items()
            }
        )
    return found


def w12_figures(_: Given, found: Found) -> Figures:
    """Return how often each interval holds, and how often there is none."""
    tries = flat(found, "tries")
    hits = {name: [one[name] for one in tries if name in one] for name in ESTIMATED}
    covered = {f"{name}.covered": rate(sum(hits[name]), len(hits[name]), between(0.93, 0.97)) for name in ESTIMATED}
    return covered | {"withheld": rate(len(tries) - len(hits["brier"]), len(tries))}


WORLDS: tuple[TrustWorld, ...] = (
    TrustWorld("W9", "the inputs say nothing in 40 % of the rows", Half.CHOSEN, w9_pieces, w9_figures),
    TrustWorld("W10", "the riskiest tenth becomes average", Half.JUDGED, harm_pieces(10, RISKIEST), harm_figures),
    TrustWorld("W12", "base rate x 1.5, the same inputs in each class", Half.JUDGED, w12_pieces, w12_figures),
)
