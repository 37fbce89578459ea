"""Verdicts on windows: the feed check, drift, performance and triage together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import numpy as np
import pandas as pd

from benchmarks.drift.detection import scale
from benchmarks.drift.population import (
    HARM_LIMITS,
    LIMITS,
    Change,
    IntArray,
    World,
)
from selfheal.credit_risk import contract
from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.monitoring.drift import (
    PROBABILITY,
    compare_columns,
    drift_report,
)
from selfheal.domain.monitoring.feed import feed_problems
from selfheal.domain.monitoring.performance import performance_report, score_metrics
from selfheal.domain.monitoring.thresholds import derive_thresholds
from selfheal.domain.monitoring.triage import triage
from selfheal.domain.records import Verdict, Window
from selfheal.domain.retraining.threshold import f1_optimal_threshold

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


def verdict_on(current: pd.DataFrame, reference: pd.DataFrame, of: ModelContract = contract) -> str:
    """Return a tick's verdict on a window with all labels."""
    names = [*of.feature_names, PROBABILITY]
    end = datetime(2026, 1, 2, tzinfo=UTC)
    window = Window(of.name, 1, end - timedelta(days=1), end, len(current), len(current), end)
    thresholds = derive_thresholds(reference, names, LIMITS.n_ticks)
    compared = compare_columns(names, current, reference, None, thresholds, LIMITS)
    drift = drift_report(
        window,
        tuple(one.drift() for one in compared),
        n_current=len(current),
        n_reference=len(reference),
        n_features=len(of.feature_names),
        reference_version=1,
        limits=LIMITS,
        feed_problems=feed_problems(current, reference, of),
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
        inputs=list(of.input_names),
        label_delay=None,
        matured=window,
        seed=1,
    )
    return triage(drift, performance, HARM_LIMITS, None).verdict.value
