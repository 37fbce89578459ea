"""From samples to figures: levels, slopes and bounds. Pure.

Belongs here: which samples count. Does not belong here: taking them (`benchmarks.soak.samples`), limits
(`benchmarks.soak.bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmarks.soak.bounds import (
    EVIDENCE,
    FILLS,
    KEPT,
    MAX_BYTES_PER_POSTGRES_PROCESS,
    MAX_EVIDENCE_BYTES_PER_PREDICTION,
    MAX_FDS_PER_POSTGRES_PROCESS,
    MAX_MIB,
    MAX_POSTGRES_CONNECTIONS,
    MAX_REPORT_BYTES,
    MIB,
    POSTGRES_FILES,
    POSTGRES_MEMORY,
    PROCESSES,
    REPORTS,
    UNLABELLED,
    Bound,
    unlabelled_within,
)
from benchmarks.soak.plan import Plan
from benchmarks.soak.series import Series

MAX_PARTS = 12
JUDGED = {
    **dict.fromkeys(PROCESSES, ("rss", "fds", "connections")),
    **dict.fromkeys((KEPT, EVIDENCE), ("rows", "bytes")),
}

AllSeries = Mapping[str, Mapping[str, Series]]
Parts = Sequence[tuple[float, Mapping[str, tuple[float, float]]]]


def floors_of(series: AllSeries, plan: Plan) -> dict[str, dict[str, Series]]:
    """Return the level in each block of time after the warm-up."""
    return {
        name: {measure: _settled(series, name, measure, plan).floors(plan.block_s) for measure in measures}
        for name, measures in JUDGED.items()
    }


def _settled(series: AllSeries, name: str, measure: str, plan: Plan) -> Series:
    found = series.get(name, {}).get(measure, Series())
    starts_anew = name in PROCESSES
    return found.settled(after_start_s=plan.warm_up_s if starts_anew else 0.0, after_s=plan.settled_s)


def slopes_of(floors: AllSeries) -> dict[str, dict[str, list[float] | None]]:
    """Return `[low, mean, high]` in percent a day; None where there are too few blocks to tell."""
    return {
        name: {
            measure: None if (found := one.trend()) is None else found.as_list() for measure, one in measures.items()
        }
        for name, measures in floors.items()
    }


def bounds_of(
    series: AllSeries, plan: Plan, *, shared_limit_bytes: float | None, n_acknowledged: int, max_reports: int
) -> dict[str, Bound]:
    """Return the bounds of what has a limit whatever its slope."""
    shared = _values(series, "postgres", "shared")
    evidence = _values(series, EVIDENCE, "bytes")
    unlabelled, answered = series.get(UNLABELLED, {}).get("rows", Series()), _values(series, UNLABELLED, "acknowledged")
    grown = evidence[-1] - evidence[0] if evidence else math.nan
    return {
        **{
            FILLS[process, "rss"]: Bound(
                _peak(_values(series, process, "rss")), limit * MIB, "peak, with everything full"
            )
            for process, limit in MAX_MIB.items()
        },
        "Postgres' shared memory": Bound(
            _peak(shared),
            math.nan if shared_limit_bytes is None else shared_limit_bytes,
            "peak; in use from the first touch on, and never beyond shared_memory_size",
        ),
        POSTGRES_MEMORY: Bound(
            _peak_each(series, "rss"), MAX_BYTES_PER_POSTGRES_PROCESS, "peak of the mean; caches of catalogue and plans"
        ),
        POSTGRES_FILES: Bound(
            _peak_each(series, "fds"), MAX_FDS_PER_POSTGRES_PROCESS, "peak of the mean; as many as there are tables"
        ),
        "Postgres' processes": Bound(
            _peak(_values(series, "postgres", "processes")),
            MAX_POSTGRES_CONNECTIONS,
            "peak; one for each connection (max_connections), and its own",
        ),
        "unlabelled predictions": unlabelled_within(unlabelled.values, answered, unlabelled.times_s, plan.unlabelled_s),
        "drift reports": Bound(
            _peak(_values(series, REPORTS, "bytes")),
            max_reports * MAX_REPORT_BYTES,
            "peak; a few large files that come with drift and go with MAX_DRIFT_REPORTS",
        ),
        "bytes of evidence": Bound(
            grown / max(1, n_acknowledged),
            MAX_EVIDENCE_BYTES_PER_PREDICTION,
            "for each acknowledged prediction, with its label, decisions and models",
        ),
    }


def changed_most(parts: Parts, after_s: float) -> dict[str, tuple[float, float, float, float]]:
    """Return rows and bytes at first and at last of those that changed most."""
    settled = [found for time_s, found in parts if time_s >= after_s]
    if not settled:
        return {}
    nothing = (0.0, 0.0)
    first, last = settled[0], settled[-1]
    both = {name: (*first.get(name, nothing), *last.get(name, nothing)) for name in first.keys() | last.keys()}
    by_change = sorted(
        both, key=lambda name: (-abs(both[name][3] - both[name][1]), -abs(both[name][2] - both[name][0]))
    )
    by_rows = sorted(both, key=lambda name: -abs(both[name][2] - both[name][0]))
    return {name: both[name] for name in dict.fromkeys(by_rows[: MAX_PARTS // 2] + by_change[: MAX_PARTS // 2])}


def _values(series: AllSeries, name: str, measure: str) -> list[float]:
    return series.get(name, {}).get(measure, Series()).values


def _peak_each(series: AllSeries, measure: str) -> float:
    """Return the peak of the mean over Postgres' processes."""
    together, n = _values(series, "postgres", measure), _values(series, "postgres", "processes")
    return _peak([value / max(1.0, number) for value, number in zip(together, n, strict=True)])


def _peak(values: Sequence[float]) -> float:
    return max(values, default=math.nan)
