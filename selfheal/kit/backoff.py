"""Exponential back-off between attempts to reach a service that is unavailable."""

from __future__ import annotations

from dataclasses import dataclass

MAX_DOUBLINGS = 64
"""Largest exponent: more would overflow a float, and `max_seconds` is reached long before."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double with each failure in a row, from `initial_seconds` up to `max_seconds`.

    >>> [Backoff(0.5, 5.0).seconds(n_failures) for n_failures in (1, 2, 3, 4, 5)]
    [0.5, 1.0, 2.0, 4.0, 5.0]
    """

    initial_seconds: float
    max_seconds: float

    def seconds(self, n_failures: int) -> float:
        """Return how many seconds to wait after `n_failures` consecutive failures.

        Raises:
            ValueError: if `n_failures` is less than 1.
        """
        if n_failures < 1:
            raise ValueError(f"a back-off follows at least one failure, not {n_failures}")
        return min(self.initial_seconds * 2.0 ** min(n_failures - 1, MAX_DOUBLINGS), self.max_seconds)
