"""The base rate of a window without labels, and estimates that hold whether it or the mix has moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.estimation import (
    N_DRAWS,
    estimate_performance,
    interval_under_each,
    prediction_interval,
)
from selfheal.domain.monitoring.outcome_curve import UNCALIBRATED, curve_basis, log_odds_of
from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.monitoring.prepared_rows import PreparedRows
from selfheal.domain.monitoring.prior_shift import MIN_Z, Curve, Side, drawn_curves, prior_shift
from selfheal.domain.records import Estimate

THRESHOLD = 0.3
RATE, HIGHER_RATE = 0.1, 0.16


def rows_of(n_rows: int, seed: int, rate: float = RATE, load_above: float = -np.inf) -> pd.DataFrame:
    """The load is normal in each class, 1.5 apart, so that the score is certain; other rates have the same load in each class."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(8 * n_rows) < rate).astype(np.int64)
    load = rng.normal(size=len(labels)) + 1.5 * labels
    labels, load = (values[load >= load_above][:n_rows] for values in (labels, load))
    odds = RATE / (1 - RATE) * np.exp(1.5 * load - 1.5**2 / 2)
    return pd.DataFrame({"load": load, "probability": odds / (1 + odds), TRUE_LABEL: labels})


REFERENCE = PreparedRows(rows_of(5_000, seed=1))


def curve_of(window: pd.DataFrame, reference: pd.DataFrame | None = None) -> Curve:
    known = REFERENCE.rows if reference is None else reference
    sides = [log_odds_of(rows["probability"].to_numpy()) for rows in (window, known)]
    window_side, reference_side = (Side(one, curve_basis(one, UNCALIBRATED.knots), len(one)) for one in sides)
    return Curve(UNCALIBRATED.coefficients, UNCALIBRATED.covariance, window_side, reference_side)


def test_the_rate_is_found_and_its_error_is_that_of_many_windows() -> None:
    found = [prior_shift(curve_of(rows_of(2_000, seed, HIGHER_RATE))) for seed in range(10, 50)]
    rates = np.array([one.base_rate for one in found])
    assert rates.mean() == pytest.approx(HIGHER_RATE, abs=0.012)  # all have the same reference, and its luck
    errors = [(one.base_rate - one.reference_rate) / one.z for one in found]
    assert np.mean(errors) == pytest.approx(rates.std(), rel=0.35)


def test_a_rate_that_has_not_moved_is_not_reported_as_moved() -> None:
    z = np.array([prior_shift(curve_of(rows_of(2_000, seed))).z for seed in range(10, 50)])
    assert np.abs(z).max() < 3.5
    assert z.std() < 1.4


def test_half_of_the_windows_with_the_rate_of_before_seem_to_have_another_one_by_chance() -> None:
    """The luck of the reference moves both rates; without its part in the difference 57 % would."""
    z = np.array([prior_shift(curve_of(rows_of(2_000, seed), rows_of(500, 10_000 + seed))).z for seed in range(400)])
    assert z.std() == pytest.approx(1, abs=0.09)
    assert np.mean(np.abs(z) >= MIN_Z) == pytest.approx(0.5, abs=0.05)


def test_drawn_curves_scatter_as_the_rate_is_uncertain() -> None:
    curve = curve_of(rows_of(2_000, 10, HIGHER_RATE))
    found = prior_shift(curve)
    levels = drawn_curves(curve, found, 400, np.random.default_rng(1))[:, 0]
    error = (found.base_rate - found.reference_rate) / found.z
    assert levels.mean() == pytest.approx(found.log_odds_shift, abs=0.05)
    assert levels.std() * found.base_rate * (1 - found.base_rate) == pytest.approx(error, rel=0.35)


def test_rows_that_recur_make_a_moved_rate_as_uncertain_as_the_entities_do() -> None:
    once = rows_of(400, 10, HIGHER_RATE)
    five_times = curve_of(pd.concat([once] * 5, ignore_index=True))
    as_entities = replace(five_times, window=five_times.window._replace(n_independent=400.0))
    found = prior_shift(as_entities)
    assert found.z == pytest.approx(prior_shift(curve_of(once)).z)
    assert found.z < prior_shift(five_times).z / 1.5
    spreads = [
        drawn_curves(curve, found, 400, np.random.default_rng(1))[:, 0].std() for curve in (as_entities, five_times)
    ]
    assert spreads[0] > 1.5 * spreads[1]


def estimate_of(rows: pd.DataFrame) -> Estimate:
    return estimate_performance(rows.drop(columns=TRUE_LABEL), REFERENCE, ["load"], THRESHOLD, seed=1)


def test_the_estimate_holds_where_the_base_rate_has_moved_and_says_so() -> None:
    hits = []
    for seed in range(10, 30):
        rows = rows_of(2_000, seed, HIGHER_RATE)
        found = estimate_of(rows)
        shown = score_metrics(rows[TRUE_LABEL].to_numpy(), rows["probability"].to_numpy(), THRESHOLD)
        rate = found.intervals["positive_rate"]
        hits.append(rate.low <= rows[TRUE_LABEL].mean() <= rate.high)
        hits.append(found.intervals["precision"].low <= shown.precision <= found.intervals["precision"].high)
        assert "the base rate has moved to" in found.reason
    assert np.mean(hits) >= 0.85


def test_a_mix_that_no_base_rate_explains_is_estimated_as_a_mix() -> None:
    """The lower half of the loads stays away: within each class the load is another one."""
    found = estimate_of(rows_of(1_000, 10, load_above=0.0))
    assert found.is_identifiable
    assert "base rate" not in found.reason


def test_a_rate_by_which_there_would_hardly_be_an_event_is_no_reading() -> None:
    few = rows_of(20, 3)
    assert "base rate" not in estimate_of(pd.concat([few.sort_values("load").head(10)] * 2, ignore_index=True)).reason


def normal_draws(mean: float, seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(mean, 1.0, N_DRAWS)


def test_under_two_assumptions_the_interval_reaches_from_one_to_the_other() -> None:
    one, other = normal_draws(0.0, 1), normal_draws(5.0, 2)
    found, low, high = interval_under_each(one, other), prediction_interval(one), prediction_interval(other)
    assert found is not None
    assert low is not None
    assert high is not None
    assert (found.low, found.high) == (low.low, high.high)


def test_an_undefined_metric_under_either_assumption_has_no_interval() -> None:
    assert interval_under_each(normal_draws(0.0, 1), np.full(N_DRAWS, np.nan)) is None
