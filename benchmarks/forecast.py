"""How long a run still takes: expected CPU seconds of what is left, corrected by what was done.

Belongs here: the estimate. Does not belong here: what takes so long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from selfheal.kit.durations import span

MOST_WALL_PER_CPU = 10.0
"""Before the first long part is done, little of the time that has passed is accounted for."""


@dataclass
class Forecast:
    """What is left of a run, by kind: each kind is as much longer or shorter than expected as its parts that are done.

    Args:
        n_processes: that work at once.
    """

    n_processes: int
    left: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    expected: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    taken: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, kind: str, cpu_s: float) -> None:
        """Add a part that is to be done and is expected to take so many CPU seconds."""
        self.left[kind] += cpu_s

    def learn(self, kind: str, expected_cpu_s: float, cpu_s: float) -> None:
        """Learn from a part that was done before, and took so many CPU seconds."""
        self.expected[kind] += expected_cpu_s
        self.taken[kind] += cpu_s

    def finish(self, kind: str, expected_cpu_s: float, cpu_s: float) -> None:
        """Take away a part that is done now."""
        self.learn(kind, expected_cpu_s, cpu_s)
        self.left[kind] -= expected_cpu_s

    def cpu_left(self, kind: str) -> float:
        """Return the CPU seconds that a kind still takes; like all others where nothing of it was done."""
        expected, taken = self.expected.get(kind, 0.0), self.taken.get(kind, 0.0)
        if not expected:
            expected, taken = sum(self.expected.values()), sum(self.taken.values())
        return max(0.0, self.left.get(kind, 0.0) * (taken / expected if expected else 1.0))

    def time_left(self, wall_s: float = 0.0, cpu_s: float = 0.0) -> timedelta:
        """Return the wall-clock time until all is done, on a machine that goes on as busy as it was.

        Args:
            wall_s, cpu_s: wall-clock and CPU seconds of this run so far; without them, the machine is idle otherwise.
        """
        per_cpu = wall_s * self.n_processes / cpu_s if cpu_s > 0 else 1.0
        total = sum(self.cpu_left(kind) for kind in self.left)
        return timedelta(seconds=total * min(MOST_WALL_PER_CPU, max(1.0, per_cpu)) / self.n_processes)

    def plan(self, what: str) -> str:
        """Return about how long the whole run takes, and the CPU time of each kind."""
        kinds: Mapping[str, float] = {kind: cpu_s for kind in self.left if (cpu_s := self.cpu_left(kind)) > 0}
        parts = ", ".join(f"{kind} {span(timedelta(seconds=cpu_s))}" for kind, cpu_s in kinds.items())
        cores = "1 idle core" if self.n_processes == 1 else f"{self.n_processes} idle cores"
        return f"{what}; about {span(self.time_left())} on {cores} (CPU time: {parts or 'none'})"
