"""The plan of a soak: what is done when, what was done, and what that falls short of. Pure.

Belongs here: times, shares and the order of kills. Does not belong here: doing it (`benchmarks.soak.__main__`).

The first quarter is for kills: every process, one after the other. Then the bounded memories of the API are filled
(`benchmarks.soak.filling`), what was started last settles, and the rest is measured: there only run workers are killed,
whose life is short anyway, and now and then Postgres, so that a connection or a buffer that an outage leaves behind shows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.soak.filling import N_TO_FILL
from benchmarks.witness import Ledger

FIRST_KILLS = ("up", "api", "code", "webserver", "daemon", "mlflow", "run_worker", "postgres")
FIRST_SHARE = 1 / 4
"""Of the time, in which every process is killed; after that the API, MLflow and Dagster live to the end."""

MOST_FIRST_SHARE = 1 / 2
POSTGRES_ONCE_IN = 9
"""Later kills, of which one is of Postgres: between two it lives long enough to show a leak."""

HOURS_UNTIL_DELETED = 2.0
"""Predictions are deleted by whole hours, whatever the retention."""

MOST_SECONDS_A_TICK = 60.0
DONE_SHARE = 0.6
"""Of what is planned that has to be done: a kill takes the time of a start, and what is due meanwhile waits."""

SECONDS_PER_HOUR = 3_600.0


@dataclass(frozen=True)
class Plan:
    """Seconds: between samples, kills, maintenances and forced promotions; until what was started last has settled."""

    hours: float
    sample_s: float = 10.0
    first_kill_s: float = 200.0
    kill_s: float = 300.0
    maintain_s: float = 120.0
    promote_s: float = 480.0
    label_delay_s: float = 90.0
    retention_minutes: float = 10.0
    warm_up_s: float = 600.0
    n_filled: int = N_TO_FILL

    @property
    def seconds(self) -> float:
        """Return the planned duration in seconds."""
        return SECONDS_PER_HOUR * self.hours

    @property
    def first_s(self) -> float:
        """Return until when every process is killed, in seconds."""
        whole_round = (len(FIRST_KILLS) + 1) * self.first_kill_s
        return min(MOST_FIRST_SHARE * self.seconds, max(FIRST_SHARE * self.seconds, whole_round))

    @property
    def block_s(self) -> float:
        """Return the seconds of a block: from one maintenance to the next, as what is kept is least right after one."""
        return self.maintain_s

    @property
    def settled_s(self) -> float:
        """Return from when on slopes are measured, in seconds; everything that is deleted after minutes has been by then."""
        return min(self.first_s + self.warm_up_s, 0.75 * self.seconds)

    def next_after(self, what: str, seconds: float) -> float:
        """Return when `kill`, `maintain`, `promote` or `fill` is due again, if it was done at that time (all in seconds)."""
        kill_s = self.first_kill_s if seconds + self.first_kill_s < self.first_s else self.kill_s
        every = {"kill": kill_s, "maintain": self.maintain_s, "promote": self.promote_s}
        return seconds + every.get(what, math.inf)

    @property
    def n_kills(self) -> float:
        """Return the planned number of kills."""
        return self.first_s / self.first_kill_s + (self.seconds - self.first_s) / self.kill_s

    @property
    def unlabelled_s(self) -> float:
        """Return how old a prediction without a label may become in Postgres.

        Its whole hour has to be old, and its version no longer in production; a kill may put off either by one turn.
        """
        return SECONDS_PER_HOUR + max(60 * self.retention_minutes, 2 * self.promote_s) + 2 * self.maintain_s


QUICK = Plan(
    0.1,
    sample_s=3,
    first_kill_s=40,
    kill_s=80,
    maintain_s=60,
    promote_s=90,
    label_delay_s=20,
    retention_minutes=1.5,
    warm_up_s=20,
    n_filled=2_000,
)


@dataclass
class Done:
    """What was done to the platform meanwhile."""

    kills: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    deleted: Counter[str] = field(default_factory=Counter)
    maintenances: int = 0
    promotions: int = 0
    ticks: set[str] = field(default_factory=set)
    n_starts: int = 0
    n_filled: int = 0
    not_filled: str | None = None
    n_api_lives_measured: int = 1


def later_victim(number: int) -> str:
    """Return which process the kill with that number, from 1, is of, after the first ones."""
    return "postgres" if number % POSTGRES_ONCE_IN == 0 else "run_worker"


def short_of(done: Done, plan: Plan, ledger: Ledger) -> Iterator[str]:
    """Yield a sentence for everything that was done less often than planned."""
    wanted = {
        "ticks": (len(done.ticks), plan.seconds / MOST_SECONDS_A_TICK),
        "kills": (done.kills.total(), plan.n_kills * DONE_SHARE - 1),
        "maintenances": (done.maintenances, plan.seconds / plan.maintain_s * DONE_SHARE - 1),
        "promotions by force": (done.promotions, plan.seconds / plan.promote_s * DONE_SHARE - 1),
        "acknowledged predictions": (len(ledger.acknowledged), plan.seconds),
        "acknowledged labels": (len(ledger.labels), plan.seconds / 10),
        "predictions to fill the API's memory": (done.n_filled, plan.n_filled),
    }
    for name, (n, least) in wanted.items():
        if n < least:
            yield f"{n:,} {name}, at least {least:,.0f} were planned"
    if done.not_filled is not None:
        yield f"the API's memory was not filled, and may grow for that: {done.not_filled}"
    if done.n_api_lives_measured != 1:
        yield f"{done.n_api_lives_measured} lives of the API while slopes were measured, not one: its memory was not full"
    is_whole = plan.first_s >= (len(FIRST_KILLS) + 1) * plan.first_kill_s
    for role in FIRST_KILLS if is_whole else ():
        if not done.kills[role]:
            yield f"no kill of {role}"
    deleted = ("runs", "results", "ticks") + (("predictions",) if plan.hours >= HOURS_UNTIL_DELETED else ())
    for name in deleted:
        if not done.deleted[name]:
            yield f"no {name} were deleted: what is kept was not measured"
