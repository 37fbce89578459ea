"""What the three ordeals came to together: the counts, what was asked of the measurement itself, and the tables.

Belongs here: adding up, judging, printing. Does not belong here: measuring.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.crash.checks import KEYS
from benchmarks.crash.operations import OPERATIONS
from benchmarks.crash.ordeal import TARGETS, ApiOutcome, is_met
from benchmarks.crash.points import POINTS_IN_ALL, POINTS_OF_EACH_STEP, Results
from benchmarks.crash.processes import ROLES, Survived

API_KILLS, OTHER_KILLS = 200, 10
MAX_CAUSES_SHOWN = 40


@dataclass(frozen=True)
class Outcome:
    """All that is measured; `lost` to `left_behind` count what must not be. `short_of` says what was not measured enough."""

    crash_points: int
    crash_points_by: Mapping[str, Mapping[str, int]]
    kills_by: Mapping[str, int]
    lost: int
    duplicated: int
    wrong_values: int
    stuck: int
    left_behind: int
    short_of: tuple[str, ...]
    causes: tuple[Mapping[str, Any], ...]
    findings: tuple[Mapping[str, Any], ...]
    unreached: Mapping[str, int]
    seconds_per_point: Mapping[str, float]
    seconds_until_answering_max: Mapping[str, float]
    api: Mapping[str, Any] | None
    api_missed: tuple[str, ...] = ()
    minutes: float = 0.0

    @property
    def is_ok(self) -> bool:
        """Whether nothing was found, and everything was measured."""
        return not any(getattr(self, key) for key in KEYS) and not self.short_of and not self.api_missed

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Demands:
    """What has to be measured. None: that part was not asked for."""

    points: int | None
    points_of_each_step: int
    kills: int | None
    api_kills: int | None
    operations: tuple[str, ...] = field(default_factory=lambda: tuple(OPERATIONS))


FULL = Demands(POINTS_IN_ALL, POINTS_OF_EACH_STEP, OTHER_KILLS, API_KILLS)
QUICK = Demands(0, 1, 1, 10)


def outcome_of(
    points: Results | None, survived: Survived | None, api: ApiOutcome | None, demands: Demands, minutes: float
) -> Outcome:
    """Add up what was found, and compare what was measured with what was asked."""
    points, survived = points or Results(), survived or Survived()
    kills = Counter(survived.kills)
    counts = points.counts + survived.counts
    if api is not None:
        kills += Counter({"api": api.kills, "postgres": api.postgres_kills})
        counts += Counter(
            lost=api.lost + api.labels_lost + api.replay_lost,
            duplicated=api.duplicated,
            wrong_values=api.wrong_values + api.retries_answered_differently + api.replay_differences,
        )
    return Outcome(
        crash_points=points.n_points,
        crash_points_by={name: dict(sorted(steps.items())) for name, steps in points.by.items()},
        kills_by=dict(kills),
        lost=counts["lost"],
        duplicated=counts["duplicated"],
        wrong_values=counts["wrong_values"],
        stuck=counts["stuck"],
        left_behind=counts["left_behind"],
        short_of=tuple(shortfalls(points, kills, demands)),
        causes=tuple(
            {"operation": operation, "step": step, "key": key, "what": what, "times": times}
            for (operation, step, key, what), times in points.causes.most_common()
        ),
        findings=(*points.findings, *survived.findings),
        unreached=dict(points.unreached),
        seconds_per_point={name: statistics.fmean(taken) for name, taken in points.seconds.items() if taken},
        seconds_until_answering_max={role: max(taken) for role, taken in survived.seconds_until_answering.items()},
        api=None if api is None else asdict(api),
        api_missed=() if api is None else tuple(name for name, value in asdict(api).items() if not is_met(name, value)),
        minutes=minutes,
    )


def shortfalls(points: Results, kills: Counter[str], demands: Demands) -> Iterator[str]:
    """Yield a sentence for everything that was measured less often than asked."""
    yield from points.errors
    if demands.points is not None:
        if points.n_points < demands.points:
            yield f"{points.n_points:,} crash points instead of {demands.points:,}"
        for operation in demands.operations:
            if not points.by[operation]:
                yield f"no crash point of {operation}: this build does not have it, or its steps were not found"
        for operation, steps in points.by.items():
            for step in sorted(points.known[operation] | set(steps)):
                if steps[step] < demands.points_of_each_step:
                    yield f"{steps[step]} of {demands.points_of_each_step} crash points of {operation}, {step}"
    if demands.kills is not None:
        for role in ROLES:
            if kills[role] < demands.kills:
                yield f"{kills[role]} of {demands.kills} kills of {role}"
    if demands.api_kills is not None and kills["api"] < demands.api_kills:
        yield f"{kills['api']} of {demands.api_kills} kills of the API"


def show(outcome: Outcome, console: Console) -> None:
    """Print the counts, the causes, and whatever was not measured enough."""
    table = Table(title="Crashes", title_justify="left")
    for column in ("measure", "value", "target", ""):
        table.add_column(column, justify="right" if column == "value" else "left")
    table.add_row("crash_points", f"{outcome.crash_points:,}")
    for operation, steps in outcome.crash_points_by.items():
        table.add_row(f"  {operation}", f"{sum(steps.values()):,}", f"{len(steps)} steps")
    for role, n in sorted(outcome.kills_by.items()):
        table.add_row(f"kills_by {role}", f"{n:,}")
    for key in KEYS:
        n = getattr(outcome, key)
        table.add_row(key, f"{n:,}", "0", "" if n == 0 else "missed")
    for name, value in (outcome.api or {}).items():
        comparison, target = TARGETS.get(name, ("", 0))
        shown = value if isinstance(value, str) else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
        mark = "missed" if name in outcome.api_missed else ""
        table.add_row(f"api {name}", shown, f"{comparison} {target}" if comparison else "", mark)
    console.print(table)
    _show_causes(outcome, console)
    for sentence in outcome.short_of:
        console.print(f"Not measured: {sentence}", soft_wrap=True, highlight=False, markup=False)


def _show_causes(outcome: Outcome, console: Console) -> None:
    rows: Counter[tuple[str, str, str]] = Counter()
    for cause in outcome.causes:
        rows[cause["key"], cause["operation"], cause["what"]] += cause["times"]
    for finding in outcome.findings:
        if "process" in finding:
            rows[finding["key"], f"kill of {finding['process'] or 'any'}", finding["what"]] += 1
    if not rows:
        return
    table = Table(title="What was found", title_justify="left")
    for column in ("times", "counts as", "when", "what"):
        table.add_column(column, justify="right" if column == "times" else "left", overflow="fold")
    for (key, where, what), times in rows.most_common(MAX_CAUSES_SHOWN):
        table.add_row(str(times), key, where, what)
    console.print(table)
