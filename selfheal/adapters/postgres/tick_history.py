"""Tick history: past ticks, down-sampled by Postgres to the few hundred steps that a page can show.

A step shows the values of its newest tick, which belong together. Verdicts and drift, which one tick may miss, are aggregated
over all ticks of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, text

from selfheal.domain.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfheal.adapters.postgres.store import Store

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Steps begin at multiples of their length from here, so at full hours and midnights (UTC)."""

STEPS = tuple(
    timedelta(seconds=n)
    for n in (10, 30, 60, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 345_600, 864_000)
)

RANKS = {
    Verdict.INSUFFICIENT: 0,
    Verdict.STABLE: 1,
    Verdict.BENIGN_SHIFT: 2,
    Verdict.HARMFUL_SHIFT: 3,
    Verdict.BROKEN_FEED: 4,
}
"""Rank of verdicts: a step has the highest-ranking verdict of its ticks, so `insufficient` only if all ticks are."""

OF_PERIOD = "FROM monitoring_metrics WHERE model_name = :name AND created_at >= :since AND created_at <= :until"
STEP_START = "date_bin(:step, created_at, :epoch)"

NEWEST = text(
    f"SELECT DISTINCT ON (1) {STEP_START} AS start, monitoring_metrics.* {OF_PERIOD} ORDER BY 1, created_at DESC"
)

COUNTS = text(f"""
    SELECT {STEP_START} AS start, count(*) AS n_ticks, count(feature_drift_ratio) AS n_compared,
           array_agg(DISTINCT verdict) AS verdicts, min(created_at) AS first_at, max(feature_drift_ratio) AS max_drift_ratio
    {OF_PERIOD} GROUP BY 1
""")

DRIFTED = text(f"""
    SELECT start, feature, count(*) AS n_ticks
    FROM (SELECT {STEP_START} AS start, drifted_features {OF_PERIOD} AND num_drifted_features > 0) tick,
         jsonb_array_elements_text(drifted_features) feature
    GROUP BY 1, 2
""")


@dataclass(frozen=True, slots=True)
class Step:
    """The ticks of one step.

    `n_compared` of its `n_ticks` had enough rows to compare columns; `n_drifted` is how many of those found a feature drifted,
    by feature name (absent: none). `first_at` is the time of its oldest tick, `newest` the row of its newest.
    """

    start: datetime
    first_at: datetime
    n_ticks: int
    n_compared: int
    verdict: Verdict
    max_drift_ratio: float | None
    n_drifted: Mapping[str, int]
    newest: Row[Any]


def step_for(period: timedelta, max_steps: int) -> timedelta:
    """Return the shortest of `STEPS` that divides the period into at most `max_steps`.

    >>> step_for(timedelta(days=30), 120), step_for(timedelta(days=1), 120)
    (datetime.timedelta(seconds=21600), datetime.timedelta(seconds=900))
    """
    return next((step for step in STEPS if period / step <= max_steps), STEPS[-1])


def steps_between(store: Store, since: datetime, until: datetime, step: timedelta) -> list[Step]:
    """Return the steps that have ticks, of all versions, oldest first."""
    bounds = {"name": store.contract.name, "since": since, "until": until, "step": step, "epoch": EPOCH}
    with store.engine.connect() as connection:
        newest = {row.start: row for row in connection.execute(NEWEST, bounds)}
        counts = {row.start: row for row in connection.execute(COUNTS, bounds)}
        drifted: dict[datetime, dict[str, int]] = {}
        for start, feature, n_ticks in connection.execute(DRIFTED, bounds):
            drifted.setdefault(start, {})[feature] = n_ticks
    return [
        Step(
            start=start,
            first_at=counts[start].first_at,
            n_ticks=counts[start].n_ticks,
            n_compared=counts[start].n_compared,
            verdict=max(map(Verdict, counts[start].verdicts), key=RANKS.__getitem__),
            max_drift_ratio=counts[start].max_drift_ratio,
            n_drifted=drifted.get(start, {}),
            newest=row,
        )
        for start, row in newest.items()
        if start in counts  # a tick may have been added or deleted between the queries
    ]
