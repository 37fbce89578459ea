"""Rules of the token bucket."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from serving.security.rate_limit import BURST_SECONDS, TokenBucket

rates = st.floats(0.01, 10_000)
pauses = st.lists(st.floats(0, 10), min_size=1, max_size=60)


@given(rates, pauses)
def test_no_span_of_time_sees_more_than_the_rate_and_one_burst(rate: float, pauses: list[float]) -> None:
    bucket = TokenBucket(rate, 0.0)
    granted = [now for now in accumulate(pauses) if bucket.take(now) == 0]
    burst = max(1.0, rate * BURST_SECONDS)
    for first, start in enumerate(granted):
        for last, end in enumerate(granted[first:], start=first):
            assert last - first + 1 <= burst + rate * (end - start) + 1e-6


@given(rates, pauses)
def test_who_waits_as_long_as_told_is_let_in(rate: float, pauses: list[float]) -> None:
    bucket = TokenBucket(rate, 0.0)
    now = 0.0
    for pause in pauses:
        now += pause
        wait_seconds = bucket.take(now)
        if wait_seconds > 0:
            now += wait_seconds * (1 + 1e-9) + 1e-9
            assert bucket.take(now) == 0


def test_an_even_client_at_the_rate_is_never_stopped() -> None:
    bucket = TokenBucket(50.0, 0.0)
    assert all(bucket.take(n * 0.02) == 0 for n in range(10_000))


def test_a_rate_below_one_a_second_still_lets_one_in() -> None:
    bucket = TokenBucket(0.01, 0.0)
    assert bucket.take(0.0) == 0
    assert bucket.take(0.0) == 100.0
    assert bucket.take(1_000_000.0) == 0
    assert bucket.take(1_000_000.0) > 0, "a long pause fills the bucket, no more"
