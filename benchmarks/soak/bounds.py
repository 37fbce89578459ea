"""Bounds: what holds where a slope is steeper than the target, or too noisy to tell. Pure; each is a figure and its limit.

Belongs here: which slopes are good, which are explained, and the limits. Does not belong here: measuring
(`benchmarks.soak.samples`) and printing (`benchmarks.soak.outcome`).

A slope is judged in three steps. `high` within the target: it is met. Else, if growth beyond the target is *shown* (`low`
beyond it, too), it is a problem, but for what fills up to a limit that is named and checked. Else the run was too short to
tell growth from noise: then the level may not have risen by more than the noise explains, and the figure and its limit are
printed.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_PCT_PER_DAY = 5.0
MIB = 2.0**20

PROCESSES = ("up", "api", "code", "webserver", "daemon", "mlflow", "postgres")
KEPT, EVIDENCE, UNLABELLED, REPORTS = "kept", "evidence", "unlabelled", "reports"

MEASURES = {**dict.fromkeys(PROCESSES, ("rss", "fds", "connections")), KEPT: ("rows", "bytes")}
"""What is judged by its slope."""

NOISE = {
    "rss": (0.02, 2 * MIB),
    "fds": (0.0, 4.0),
    "connections": (0.0, 4.0),
    "rows": (0.25, 100.0),
    "bytes": (0.25, 2 * MIB),
}
"""By how much a level may rise within a run whose slope cannot be told: a share of the level, at least so much.

Memory: what an allocator needs to place the same objects in another order. Descriptors and connections: one run or request
that several samples in a row met. Rows and bytes that are kept: those of the runs of ten minutes, about twenty, whose number
varies as its root (a quarter)."""

NOISE_OF_POSTGRES = 0.25
"""A share: it has one process for each connection of the others, and theirs come and go with each run."""

MAX_BYTES_PER_POSTGRES_PROCESS = 16 * MIB
"""Of its own: caches of catalogue and plans, for as many tables as there are, and the memory of a query; 2 MiB after minutes."""

MAX_FDS_PER_POSTGRES_PROCESS = 150
"""A backend leaves the files open that it has read: tables and indexes, of which its database has fewer; 37 after minutes."""

MAX_POSTGRES_CONNECTIONS = 100
"""`max_connections`, each a process."""

POSTGRES_MEMORY, POSTGRES_FILES = "memory of each Postgres process", "files of each Postgres process"

MAX_MIB = {"up": 112, "api": 464, "code": 400, "webserver": 192, "daemon": 208, "mlflow": 416}
"""Of a process that lives on, in MiB: what was measured after 18 minutes (97, 426, 335, 170, 157, 374) and room for the heap
that Python reaches only later, when its oldest garbage is first collected. So small that the growth of the first minutes
(API 50 MiB, daemon 45 MiB an hour) is beyond it within two hours, should it go on; a leak does, and a heap does not."""

MAX_REPORT_BYTES = 8 * MIB
"""Of one drift report: two pages, of which Evidently's brings its scripts with it (5 MiB)."""

MAX_EVIDENCE_BYTES_PER_PREDICTION = 4_000
"""A journal line and a row with its indexes are 0.5 kB each; a label as much; the rest is models and decisions."""

FILLS = {
    ("postgres", "rss"): POSTGRES_MEMORY,
    ("postgres", "fds"): POSTGRES_FILES,
    **{(process, "rss"): f"memory of {process}" for process in MAX_MIB},
}
"""What may grow although growth is shown, because it fills something with a limit: the name of that bound."""

Interval = Sequence[float]


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure that was measured, the limit that it has, and why that is the limit."""

    figure: float
    limit: float
    why: str

    @property
    def holds(self) -> bool:
        """Return whether the figure is within the limit; one that is unknown is not."""
        return self.figure <= self.limit

    def __str__(self) -> str:
        """Return figure, limit and reason in one line."""
        return f"{_short(self.figure)} <= {_short(self.limit)}: {self.why}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is said of one slope: `met`, `bounded` by what holds, or a `problem` in a sentence."""

    bound: Bound | None = None
    problem: str | None = None

    @property
    def is_met(self) -> bool:
        """Return whether the slope itself is within the target."""
        return self.bound is None and self.problem is None


def judge(
    process: str, measure: str, interval: Interval | None, floors: Sequence[float], bounds: Mapping[str, Bound]
) -> Judgement:
    """Return what a slope says.

    Args:
        process: or `KEPT`.
        measure: one of `MEASURES`.
        interval: `[low, mean, high]` in percent a day; None: too few samples.
        floors: the level in each block of time, in the order of time.
        bounds: by name, of what has a limit whatever its slope (`FILLS`).
    """
    if interval is None or not floors:
        return Judgement(problem=f"{process} {measure}: too few samples to tell")
    low, mean, high = interval
    if high <= MAX_PCT_PER_DAY:
        return Judgement()
    is_shown = not low <= MAX_PCT_PER_DAY
    bound = rise(process, measure, floors)
    if is_shown or not bound.holds:
        fill = bounds.get(FILLS.get((process, measure), ""))
        if is_shown and fill is None:
            return Judgement(
                problem=f"{process} {measure} grows by {mean:.1f} % a day, at least {low:.1f} (95 % confidence)"
            )
        bound = fill or bound
    if not bound.holds:
        return Judgement(
            bound, f"{process} {measure} may grow by {high:.1f} % a day ({mean:.1f} measured), and not {bound}"
        )
    return Judgement(bound)


def rise(process: str, measure: str, floors: Sequence[float]) -> Bound:
    """Return by how much the level of the last third is above that of the first, and by how much it may be."""
    third = math.ceil(len(floors) / 3)
    first, last = statistics.median(floors[:third]), statistics.median(floors[-third:])
    share, least = NOISE[measure]
    limit = max(least, first * (NOISE_OF_POSTGRES if process == "postgres" else share))
    return Bound(last - first, limit, f"rise from {_short(first)}; 5 % a day is less than the noise in this time")


def unlabelled_within(
    unlabelled: Sequence[float], acknowledged: Sequence[float], times_s: Sequence[float], seconds: float
) -> Bound:
    """Return the bound of the predictions that retention deletes by whole hours: never more than came in that time.

    Their number is a sawtooth with teeth of an hour, and a slope through two teeth says nothing.

    Args:
        unlabelled: predictions without a label in Postgres, at each time.
        acknowledged: predictions answered since the start, at the same times.
        times_s: seconds, ascending.
        seconds: an hour, and how long a deletion may come after it.
    """
    worst = Bound(math.nan, 0.0, "no samples")
    for time_s, n_kept, n_answered in zip(times_s, unlabelled, acknowledged, strict=True):
        before = bisect_right(times_s, time_s - seconds)
        limit = SLACK * (n_answered - (acknowledged[before - 1] if before else 0.0)) + MAX_UNKNOWN
        if not n_kept - limit <= worst.figure - worst.limit:
            why = f"at {time_s:,.0f} s; deleted by whole hours, so at most those of the last {seconds:,.0f} s"
            worst = Bound(n_kept, limit, why)
    return worst


SLACK = 1.02
"""The two counts are of one sample, but not of one moment: clients go on while Postgres counts."""

MAX_UNKNOWN = 500
"""Predictions logged whose answer a kill cut off, and the rows of the training data: the clients count answers."""


def _short(value: float) -> str:
    """Return a number for people: those of millions of bytes in MiB.

    >>> _short(12.5), _short(3 * MIB), _short(1234.0)
    ('12.5', '3.00 MiB', '1,234')
    """
    if abs(value) >= MIB / 4:
        return f"{value / MIB:,.2f} MiB"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.3g}"
