"""What hours of running came to: slopes, what was done meanwhile, and whether the platform kept its word.

Belongs here: gathering the judgements and printing. Does not belong here: measuring (`benchmarks.soak.samples`) and limits
(`benchmarks.soak.bounds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.soak.bounds import EVIDENCE, MAX_PCT_PER_DAY, MEASURES, Bound, Judgement, judge

Interval = list[float]
EVIDENCE_MEASURES = ("rows", "bytes")
OF_EVIDENCE = "kept for ever: bytes of evidence, below"


@dataclass(frozen=True)
class Outcome:
    """All that is measured. Slopes are `[low, mean, high]` in percent a day; None: too few samples to tell."""

    hours: float
    slope_pct_per_day: Mapping[str, Mapping[str, Interval | None]]
    bounds: Mapping[str, Bound]
    """Of what has a limit whatever its slope."""

    acknowledged: int
    labels_acknowledged: int
    lost: int
    duplicated: int
    wrong_values: int
    verify_findings: tuple[str, ...]
    stuck: tuple[str, ...]
    kills_by: Mapping[str, int]
    ticks: int
    maintenances: int
    promotions: int
    n_starts: int
    deleted: Mapping[str, int]
    floors: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """The levels that the slopes are of, one for each block of time after the warm-up."""

    kept_parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Of the tables and folders that changed most after the warm-up: rows and bytes at its end, rows and bytes at the end."""

    short_of: tuple[str, ...] = ()
    is_quick: bool = False

    @cached_property
    def judgements(self) -> dict[tuple[str, str], Judgement]:
        """What is said of each slope."""
        return {
            (process, measure): judge(
                process,
                measure,
                self.slope_pct_per_day.get(process, {}).get(measure),
                self.floors.get(process, {}).get(measure, ()),
                self.bounds,
            )
            for process, measures in MEASURES.items()
            for measure in measures
        }

    @property
    def explained(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return figure, limit and reason of each slope that is not within the target and bounded all the same."""
        found: dict[str, dict[str, dict[str, Any]]] = {
            EVIDENCE: {measure: {"why": OF_EVIDENCE} for measure in EVIDENCE_MEASURES}
        }
        for (process, measure), judgement in self.judgements.items():
            if judgement.bound is not None and judgement.problem is None:
                found.setdefault(process, {})[measure] = asdict(judgement.bound)
        return found

    @property
    def problems(self) -> list[str]:
        """A sentence for everything that is not as it should be. Quick runs judge no slope: minutes show none."""
        found = list(self.short_of) + [f"stuck: {one}" for one in self.stuck]
        for key in ("lost", "duplicated", "wrong_values"):
            if n := getattr(self, key):
                found.append(f"{key}: {n:,}")
        found += [f"verify: {one}" for one in self.verify_findings]
        found += [f"{name}: not {bound}" for name, bound in self.bounds.items() if not bound.holds]
        if not self.is_quick:
            found += [one.problem for one in self.judgements.values() if one.problem is not None]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary, with the problems and the slopes that are explained."""
        return asdict(self) | {"explained": self.explained, "problems": self.problems}


def show(outcome: Outcome, console: Console) -> None:
    """Print slopes, bounds, what was done, and the problems."""
    title = f"Growth in percent a day, 95 % interval, {outcome.hours:.2g} h; target: high <= {MAX_PCT_PER_DAY:g}"
    table = Table(title=title, title_justify="left")
    for column in ("", "measure", "low", "mean", "high", "verdict"):
        table.add_column(column, justify="left" if column in {"", "measure", "verdict"} else "right")
    rows = {
        key: "too short" if outcome.is_quick else _verdict(judgement) for key, judgement in outcome.judgements.items()
    }
    rows |= {(EVIDENCE, measure): OF_EVIDENCE for measure in EVIDENCE_MEASURES}
    for (process, measure), verdict in rows.items():
        interval = outcome.slope_pct_per_day.get(process, {}).get(measure)
        figures = [f"{one:,.1f}" for one in interval] if interval else ["", "unknown", ""]
        table.add_row(process, measure, *figures, verdict)
    console.print(table)
    for name, bound in outcome.bounds.items():
        console.print(f"{name}: {'' if bound.holds else 'NOT '}{bound}", highlight=False, soft_wrap=True)
    shown = asdict(outcome)
    for name in ("slope_pct_per_day", "bounds", "floors", "short_of", "verify_findings", "stuck", "is_quick"):
        del shown[name]
    for name, value in shown.items():
        console.print(f"{name}: {value}", highlight=False)
    for problem in outcome.problems:
        console.print(f"Problem: {problem}", soft_wrap=True, highlight=False, markup=False)


def _verdict(judgement: Judgement) -> str:
    if judgement.is_met:
        return "met"
    return "PROBLEM" if judgement.problem is not None else f"bounded by {judgement.bound}"
