"""A slope and its interval: right for series that resemble themselves, and honest about those that are too short."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trend import SECONDS_PER_DAY, trend

EVERY_S = 10.0
LEVEL = 1_000.0


def ar1(n: int, rho: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A stationary AR(1) series whose innovations have a standard deviation of 1."""
    noise = rng.normal(size=n)
    series = np.empty(n)
    series[0] = noise[0] / np.sqrt(1 - rho**2)
    for i in range(1, n):
        series[i] = rho * series[i - 1] + noise[i]
    return series


def coverage(n: int, rho: float, slope: float, n_segments: int = 1, n_series: int = 150) -> float:
    """How often the interval holds the true slope."""
    rng = np.random.default_rng(20)
    times = EVERY_S * np.arange(n)
    segments = np.arange(n) * n_segments // n
    n_covered = 0
    for _ in range(n_series):
        values = LEVEL + slope * times + ar1(n, rho, rng) + 50.0 * (segments % 3)
        found = trend(times.tolist(), values.tolist(), segments.tolist())
        assert found is not None
        n_covered += found.low <= 100 * SECONDS_PER_DAY * slope / values.mean() <= found.high
    return n_covered / n_series


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.95])
def test_the_interval_holds_the_true_slope_as_often_as_it_says_however_the_samples_resemble_each_other(
    rho: float,
) -> None:
    assert coverage(360, rho, slope=0.002) >= 0.9


def test_lives_of_a_process_have_levels_of_their_own_and_share_the_slope() -> None:
    assert coverage(360, 0.8, slope=0.002, n_segments=4) >= 0.9


def test_a_growing_series_is_told_from_one_that_does_not_grow() -> None:
    rng = np.random.default_rng(20)
    times = (EVERY_S * np.arange(720)).tolist()
    flat = LEVEL + ar1(720, 0.5, rng)
    growing_series = flat + 0.005 * np.array(times)
    still, grows = trend(times, flat.tolist()), trend(times, growing_series.tolist())
    assert still is not None and grows is not None
    assert still.low < 0 < still.high
    assert 0 < grows.low < 100 * SECONDS_PER_DAY * 0.005 / growing_series.mean() < grows.high


@given(st.integers(0, 10), st.floats(0.01, 100))
def test_a_slope_is_relative_so_the_unit_does_not_matter(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    times = (EVERY_S * np.arange(60)).tolist()
    values = LEVEL + ar1(60, 0.5, rng)
    one, other = trend(times, values.tolist()), trend(times, (unit * values).tolist())
    assert one is not None and other is not None
    assert other.as_list() == pytest.approx(one.as_list(), rel=1e-6, abs=1e-6)


def test_a_constant_series_does_not_grow() -> None:
    found = trend([EVERY_S * i for i in range(30)], [7.0] * 30)
    assert found is not None
    assert found.as_list() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("n", [0, 1, 12])
def test_a_series_that_is_too_short_says_nothing(n: int) -> None:
    assert trend([EVERY_S * i for i in range(n)], [float(i) for i in range(n)]) is None


def test_many_lives_too_short_to_tell_say_nothing() -> None:
    assert trend([EVERY_S * i for i in range(30)], [1.0] * 30, [i // 3 for i in range(30)]) is None
