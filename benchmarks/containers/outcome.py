"""What the scenarios came to: what was done, what was wrong, and the table.

Belongs here: counting, judging, printing. Does not belong here: measuring (`benchmarks.containers.scenarios`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

KEYS = ("lost", "labels_lost", "duplicated", "wrong_values")
"""Counts that must be 0, as `benchmarks.containers.verified` names them."""

LONGEST_GAP_SECONDS = 10.0
"""While the API's containers are replaced one by one: an answer from the other one, after one connection was refused."""

KILLS = 20


@dataclass
class Scenario:
    """One scenario: how long it took, what clients and operators saw, and what was wrong.

    `longest_gap_s` is the longest time without an acknowledged prediction, of all clients together.
    """

    name: str
    seconds: float = 0.0
    acknowledged: int = 0
    longest_gap_s: float = 0.0
    kills_by: dict[str, int] = field(default_factory=dict)
    seconds_until_well: list[float] = field(default_factory=list)
    seconds_until_tick: list[float] = field(default_factory=list)
    alerts: dict[str, int] = field(default_factory=dict)
    alerts_left_open: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    verified: dict[str, Any] = field(default_factory=dict)

    @property
    def problems(self) -> Iterator[str]:
        """Yield a sentence for everything that is not as it should be."""
        yield from self.found
        for kind in self.alerts_left_open:
            yield f"the alert {kind} is open, although its cause is gone"
        if not self.verified:
            yield "what was acknowledged was not compared"
        for key in KEYS:
            if n := self.verified.get(key, 0):
                yield f"{key}: {n:,}"
        for sentence in self.verified.get("verify", []):
            yield f"verify: {sentence}"
        if self.acknowledged == 0:
            yield "no prediction was acknowledged: there was no load"
        if self.name == "upgrade" and self.longest_gap_s > LONGEST_GAP_SECONDS:
            yield f"no prediction was acknowledged for {self.longest_gap_s:.1f} s"


@dataclass(frozen=True)
class Outcome:
    """All scenarios, and what was asked of the measurement itself."""

    scenarios: Sequence[Scenario]
    kills_wanted: int | None
    ready_s: float
    rss_mb_total: float
    minutes: float
    clients: Mapping[str, int]
    left_behind: Sequence[str]

    @property
    def problems(self) -> list[str]:
        """Return a sentence for everything that is not as it should be, or was not measured."""
        found = [f"{one.name}: {sentence}" for one in self.scenarios for sentence in one.problems]
        done = sum(n for one in self.scenarios for n in one.kills_by.values())
        if self.kills_wanted is not None and done < self.kills_wanted:
            found.append(f"{done} kills instead of {self.kills_wanted}")
        if n := self.clients.get("n_answered_differently", 0):
            found.append(f"{n} requests were answered differently when they were sent again")
        if n := self.clients.get("n_other_answers", 0):
            found.append(f"{n} answers were neither 200 nor 503")
        return found + [f"left behind: {name}" for name in self.left_behind]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary, with the problems."""
        return asdict(self) | {"problems": self.problems}


def show(outcome: Outcome, console: Console) -> None:
    """Print one row per scenario, and the problems."""
    table = Table(title="The platform in containers, under traffic", title_justify="left")
    for column in ("scenario", "s", "answers", "lost", "doubled", "wrong", "gap s", "well s", "tick s"):
        table.add_column(column, justify="left" if column == "scenario" else "right", no_wrap=True)
    for one in outcome.scenarios:
        counts = (one.verified.get("lost"), one.verified.get("duplicated"), one.verified.get("wrong_values"))
        table.add_row(
            one.name,
            f"{one.seconds:,.0f}",
            f"{one.acknowledged:,}",
            *("?" if n is None else f"{n:,}" for n in counts),
            f"{one.longest_gap_s:.1f}",
            _span(one.seconds_until_well),
            _span(one.seconds_until_tick),
        )
    console.print(table)
    for one in outcome.scenarios:
        if one.kills_by:
            console.print(f"{one.name}: {_counted(one.kills_by)}", highlight=False)
        if one.alerts:
            console.print(f"{one.name}: alerts {_counted(one.alerts)}", highlight=False)
    clients = ", ".join(f"{name.removeprefix('n_')} {n:,}" for name, n in outcome.clients.items())
    console.print(f"clients: {clients}", highlight=False)
    console.print(
        f"healthy after {outcome.ready_s:.0f} s, {outcome.rss_mb_total:,.0f} MB of memory, {outcome.minutes:.1f} minutes in all"
    )
    for problem in outcome.problems:
        console.print(f"Problem: {problem}", soft_wrap=True, highlight=False, markup=False)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _span(seconds: Sequence[float]) -> str:
    return f"{min(seconds):.0f} to {max(seconds):.0f}" if seconds else ""
