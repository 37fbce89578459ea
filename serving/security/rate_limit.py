"""Rate limit of one caller: a token bucket."""

from __future__ import annotations

BURST_SECONDS = 2.0
"""Seconds' worth of requests that may come at once after a pause, because clients are uneven and a limit is an average."""


class TokenBucket:
    """Grants at most `rate_per_second * t + burst` requests in any t seconds. For one thread."""

    def __init__(self, rate_per_second: float, now_seconds: float) -> None:
        self._rate = rate_per_second
        self._burst = max(1.0, rate_per_second * BURST_SECONDS)
        self._tokens = self._burst
        self._filled_at = now_seconds

    def take(self, now_seconds: float) -> float:
        """Take a token and return 0, or take none and return the seconds until there is one.

        `now_seconds` is the time of a monotonic clock.
        """
        tokens = min(self._burst, self._tokens + (now_seconds - self._filled_at) * self._rate)
        self._filled_at = now_seconds
        if tokens < 1:
            self._tokens = tokens
            return (1 - tokens) / self._rate
        self._tokens = tokens - 1
        return 0.0
