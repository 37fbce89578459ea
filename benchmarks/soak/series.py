"""A series of samples of one measure: how it grows, and the floor that it comes back to. Pure.

Belongs here: what a series says. Does not belong here: taking the samples (`benchmarks.soak.samples`), and what is a
problem (`benchmarks.soak.bounds`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from benchmarks.trend import Trend, trend

FLOOR_QUANTILE = 0.25
"""Of the samples of a block. What leaks is never given back, so that a leak raises this as it raises the mean; what comes and
goes (a request, a run, garbage that waits for its collection) does not, nor does the dip of a short outage."""

FULL_SHARE = 0.5
"""Of the samples of the fullest block, that a block must have: the edges of a life have fewer, and say less."""


@dataclass
class Series:
    """One measure of one process: times, values, and which life of the process each is of."""

    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)

    def add(self, time_s: float, value: float, segment: int = 0) -> None:
        """Add a sample: its time in seconds, its value, and the life of the process that it is of."""
        self.times_s.append(time_s)
        self.values.append(value)
        self.segments.append(segment)

    def settled(self, *, after_start_s: float = 0.0, after_s: float = 0.0) -> Series:
        """Return the samples without those of the first seconds of each life, and of all."""
        begins: dict[int, float] = {}
        kept = Series()
        for time_s, value, segment in zip(self.times_s, self.values, self.segments, strict=True):
            if time_s >= begins.setdefault(segment, time_s) + after_start_s and time_s >= after_s:
                kept.add(time_s, value, segment)
        return kept

    def floors(self, block_s: float) -> Series:
        """Return one value for each block of so many seconds of each life: the lower quartile of its samples.

        >>> noisy = Series([0, 1, 2, 3, 4, 5, 6, 7], [5, 9, 5, 5, 8, 5, 5, 5], [0] * 8)
        >>> noisy.floors(4).values
        [5.0, 5.0]
        """
        blocks: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
        for time_s, value, segment in zip(self.times_s, self.values, self.segments, strict=True):
            blocks[segment, int(time_s // block_s)].append(value)
        fullest = max(map(len, blocks.values()), default=0)
        found = Series()
        for (segment, number), values in blocks.items():
            if len(values) >= FULL_SHARE * fullest:
                floor = float(np.quantile(values, FLOOR_QUANTILE, method="lower"))
                found.add((number + 0.5) * block_s, floor, segment)
        return found

    def trend(self) -> Trend | None:
        """Return how it grows; None if it is too short to tell."""
        return trend(self.times_s, self.values, self.segments)
