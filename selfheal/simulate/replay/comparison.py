"""Comparison of policies, world by world: the figures behind the tables of the benchmark, of `selfheal replay` and of its report.

Belongs here: which policy cost what, and where ours is behind. Does not belong here: how a table is drawn (`tables`, `report_page`).
Costs are compared by Brier score x rows: the sum of the squared errors over all rows from the change on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from selfheal.simulate.replay.policies import NEVER, ORACLE, OURS, policy_rank
from selfheal.simulate.replay.policy_spec import parse_policy
from selfheal.simulate.replay.runs import Cell
from selfheal.simulate.replay.summary import NO_FIGURE, Bounds, paired_difference, stream_summary, world_summary

Line: TypeAlias = Mapping[str, Any]
"""The figures of one replay, as its line of results has them."""

ByPolicy: TypeAlias = Mapping[str, Mapping[int, Line]]
"""The lines of one world by policy and seed."""

WorldFigures: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The summary of one world by policy: each figure as (lower bound, mean, upper bound)."""


class Standing(StrEnum):
    """How ours does in a world against the best other policy that does not know the truth."""

    LOSES = "loses"
    BEHIND = "behind"
    LEADS = "leads"
    NOT_REPLAYED = "not_replayed"


STANDING_WORDS = {
    Standing.LOSES: "ours loses",
    Standing.BEHIND: "ours is behind",
    Standing.LEADS: "no policy costs less than ours",
    Standing.NOT_REPLAYED: "ours was not replayed",
}


@dataclass(frozen=True)
class WorldResult:
    """What the policies did and cost in one world or natural stream.

    Args:
        description: what happened.
        is_natural: real rows in their order, of which nobody knows when what changed.
        lines: the figures of the single replays; policies in the order of the tables.
        figures: their summary.
        against: by how much more ours cost than each other policy, the oracle apart; empty if ours was not replayed.
    """

    name: str
    description: str
    is_natural: bool
    lines: ByPolicy
    figures: WorldFigures
    against: Mapping[str, Bounds]

    @property
    def standing(self) -> Standing:
        """Return how ours does here."""
        return standing(self.against)

    @property
    def ours(self) -> str | None:
        """Return the policy that is ours; None if none was replayed, or several variants."""
        return ours_among(self.lines)

    @property
    def n_seeds(self) -> int:
        """Return the number of seeds that any policy has."""
        return max((len(by_seed) for by_seed in self.lines.values()), default=0)

    @property
    def yardstick(self) -> str | None:
        """Return the policy that costs are relative to: the oracle, else never; None if neither was replayed."""
        return next((name for name in (ORACLE, NEVER) if name in self.lines), None)

    def cost(self, policy: str) -> Bounds:
        """Return by how much more a policy cost than the yardstick, in Brier x rows."""
        yardstick = self.yardstick
        return NO_FIGURE if yardstick is None else paired_difference(self.lines[policy], self.lines[yardstick])

    def cheapest(self, *, but: Sequence[str] = (ORACLE,)) -> str | None:
        """Return the policy with the lowest mean cost; None if there is none."""
        costs = {name: cost for name in self.lines if name not in but and (cost := self.cost(name)[1]) is not None}
        return min(costs, key=lambda name: costs[name], default=None)


def standing(against: Mapping[str, Bounds]) -> Standing:
    """Return how ours does: it loses if the lower 95 % bound of a difference of costs is above 0."""
    if not against:
        return Standing.NOT_REPLAYED
    if any(low is not None and low > 0 for low, _, _ in against.values()):
        return Standing.LOSES
    is_behind = any(mean is not None and mean > 0 for _, mean, _ in against.values())
    return Standing.BEHIND if is_behind else Standing.LEADS


def largest_gap(against: Mapping[str, Bounds]) -> float:
    """Return by how much more ours costs than the best other policy, on average; negative if it costs less."""
    return max((mean for _, mean, _ in against.values() if mean is not None), default=float("-inf"))


def worst_first(against: Mapping[str, Mapping[str, Bounds]]) -> list[str]:
    """Return the worlds, those in which ours loses first, then those in which it is behind, the largest gap first."""
    order = list(Standing)
    return sorted(against, key=lambda name: (order.index(standing(against[name])), -largest_gap(against[name])))


def results_of(
    done: Mapping[Cell, Line], descriptions: Mapping[str, str], natural: Iterable[str]
) -> tuple[WorldResult, ...]:
    """Return the result of each world that has a description, those in which ours loses first."""
    cells, streams = by_world(done), set(natural)
    against = {name: against_ours(cells[name]) for name in descriptions}
    return tuple(
        WorldResult(
            name,
            descriptions[name],
            name in streams,
            cells[name],
            _stream_figures(cells[name]) if name in streams else world_summary(cells[name]),
            against[name],
        )
        for name in worst_first(against)
    )


def summarised(done: Mapping[Cell, Line], worlds: Sequence[str], streams: Sequence[str]) -> dict[str, Any]:
    """Return the figures of worlds and streams, where ours is behind, and how fast deployments were replayed, as plain values."""
    cells = by_world(done)
    trained = {
        policy: _days_per_cpu_minute(line for cell, line in done.items() if cell.policy == policy and line["trainings"])
        for policy in sorted({cell.policy for cell in done})
    }
    return {
        "worlds": {name: world_summary(cells[name]) for name in worlds},
        "streams": {name: _stream_figures(cells[name]) for name in streams},
        "ours_against": {name: against_ours(cells[name]) for name in (*worlds, *streams)},
        "days_per_cpu_minute": _days_per_cpu_minute(line for line in done.values() if not line["trainings"]),
        "days_per_cpu_minute_trained": trained.get(OURS),
        "days_per_cpu_minute_trained_by_policy": trained,
    }


def by_world(done: Mapping[Cell, Line]) -> Mapping[str, ByPolicy]:
    """Return the lines by world, policy and seed; policies in the order of the tables, seeds ascending."""
    found: defaultdict[str, defaultdict[str, dict[int, Line]]] = defaultdict(lambda: defaultdict(dict))
    for cell, line in sorted(done.items(), key=lambda item: (policy_rank(item[0].policy), item[0].seed)):
        found[cell.world][cell.policy][cell.seed] = line
    return found


def ours_among(policies: Iterable[str]) -> str | None:
    """Return the policy that is ours: the one with default settings, else the only one with others; None if there are several."""
    variants = [name for name in policies if parse_policy(name).name == OURS]
    return OURS if OURS in variants else variants[0] if len(variants) == 1 else None


def against_ours(cells: ByPolicy) -> dict[str, Bounds]:
    """Return by how much more ours cost than each other policy but the oracle; nothing if none is ours."""
    ours = ours_among(cells)
    if ours is None:
        return {}
    return {name: paired_difference(cells[ours], cells[name]) for name in cells if name not in {ours, ORACLE}}


def _stream_figures(cells: ByPolicy) -> dict[str, dict[str, Bounds]]:
    oracle = cells.get(ORACLE, {})
    return {
        policy: stream_summary(by_seed) | {"regret": paired_difference(by_seed, oracle)}
        for policy, by_seed in cells.items()
    }


def _days_per_cpu_minute(lines: Iterable[Line]) -> float | None:
    figures = list(lines)
    seconds = sum(one["cpu_seconds"] for one in figures)
    return round(60 * sum(one["days"] for one in figures) / seconds, 1) if seconds else None
