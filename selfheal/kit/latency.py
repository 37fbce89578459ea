"""A latency histogram: counts per bucket for Prometheus, and the newest observations for quantiles."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import takewhile


class LatencyHistogram:
    """Histogram of the seconds from a request's arrival to its acknowledgement, for Prometheus, and the newest observations.

    The newest observations give the current quantiles.
    """

    BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

    MAX_RECENT = 4_096
    """Number of newest observations: enough for a p99 (40 lie above it); at thousands of requests per second they cover 1 s."""

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS_SECONDS) + 1)
        self.sum_seconds = 0.0
        self._recent: deque[tuple[float, float]] = deque(maxlen=self.MAX_RECENT)

    def observe(self, seconds: float, now: float) -> None:
        """Count one request that took `seconds`. `now` is from `time.perf_counter`."""
        self.counts[bisect_left(self.BOUNDS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds
        self._recent.append((now, seconds))

    def recent_seconds(self, since: float) -> list[float]:
        """Return the seconds of requests acknowledged since `since` (from `time.perf_counter`), newest first."""
        return [seconds for _, seconds in takewhile(lambda one: one[0] >= since, reversed(self._recent))]
