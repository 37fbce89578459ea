"""Rules of the latency histogram: bounds that include their end, and a bounded memory of the newest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.kit.latency import LatencyHistogram


@given(st.lists(st.floats(0, 20, allow_nan=False)))
def test_a_latency_is_counted_under_the_first_bound_that_it_does_not_exceed(latencies: list[float]) -> None:
    histogram = LatencyHistogram()
    for seconds in latencies:
        histogram.observe(seconds, now=0.0)
    up_to = 0
    for bound, count in zip((*LatencyHistogram.BOUNDS_SECONDS, math.inf), histogram.counts, strict=True):
        up_to += count
        assert up_to == sum(seconds <= bound for seconds in latencies)
    assert histogram.sum_seconds == pytest.approx(sum(latencies))


def test_recent_latencies_are_the_newest_since_a_moment_and_bounded() -> None:
    histogram = LatencyHistogram()
    for second in range(LatencyHistogram.MAX_RECENT + 10):
        histogram.observe(second / 1_000, now=float(second))
    last = LatencyHistogram.MAX_RECENT + 9
    assert histogram.recent_seconds(last - 2.0) == [last / 1_000, (last - 1) / 1_000, (last - 2) / 1_000]
    assert len(histogram.recent_seconds(0.0)) == LatencyHistogram.MAX_RECENT
    assert histogram.recent_seconds(last + 1.0) == []
