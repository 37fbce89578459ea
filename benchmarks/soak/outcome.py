"""What hours of running came to: slopes, what was done meanwhile, and whether the platform kept its word.

Belongs here: judging and printing. Does not belong here: measuring (`benchmarks.soak.samples`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.soak.samples import EVIDENCE, KEPT, PROCESSES

MAX_PCT_PER_DAY = 5.0
MAX_EVIDENCE_BYTES_PER_PREDICTION = 4_000
"""A journal line and a row with its indexes are 0.5 kB each; a label as much; the rest is models and decisions."""

MEASURES = {
    **dict.fromkeys(PROCESSES, ("rss", "fds", "connections")),
    KEPT: ("rows", "bytes"),
    EVIDENCE: ("rows", "bytes"),
}
EXPLAINED = {
    EVIDENCE: "kept for ever: journal, labelled predictions, decisions, models; bounded by evidence_bytes_per_prediction",
}

Interval = list[float]


@dataclass(frozen=True)
class Outcome:
    """All that is measured. Slopes are `[low, mean, high]` in percent a day; None: too few samples to tell."""

    hours: float
    slope_pct_per_day: Mapping[str, Mapping[str, Interval | None]]
    evidence_bytes_per_prediction: float
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
    short_of: tuple[str, ...] = ()
    is_quick: bool = False

    @property
    def problems(self) -> list[str]:
        """A sentence for everything that is not as it should be. Quick runs judge no slope: minutes show none."""
        found = list(self.short_of) + [f"stuck: {one}" for one in self.stuck]
        for key in ("lost", "duplicated", "wrong_values"):
            if n := getattr(self, key):
                found.append(f"{key}: {n:,}")
        found += [f"verify: {one}" for one in self.verify_findings]
        if not self.is_quick:
            found += growing(self.slope_pct_per_day)
            if not self.evidence_bytes_per_prediction <= MAX_EVIDENCE_BYTES_PER_PREDICTION:
                found.append(f"{self.evidence_bytes_per_prediction:,.0f} bytes are kept for each prediction")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary, with the problems and the slopes that are explained."""
        return asdict(self) | {"explained": EXPLAINED, "problems": self.problems}


def growing(slopes: Mapping[str, Mapping[str, Interval | None]]) -> Iterator[str]:
    """Yield a sentence for each slope that may be too steep, or is not known."""
    for process, measures in MEASURES.items():
        for measure in measures:
            interval = slopes.get(process, {}).get(measure)
            if process in EXPLAINED:
                continue
            if interval is None:
                yield f"{process} {measure}: too few samples to tell"
            elif not interval[2] <= MAX_PCT_PER_DAY:
                yield f"{process} {measure} may grow by {interval[2]:.1f} % a day ({interval[1]:.1f} measured)"


def show(outcome: Outcome, console: Console) -> None:
    """Print slopes, what was done, and the problems."""
    title = f"Growth in percent a day, 95 % interval, {outcome.hours:.2g} h"
    table = Table(title=title, title_justify="left")
    for column in ("", "measure", "low", "mean", "high", "target"):
        table.add_column(column, justify="left" if column in {"", "measure", "target"} else "right")
    for process, measures in MEASURES.items():
        for measure in measures:
            interval = outcome.slope_pct_per_day.get(process, {}).get(measure)
            figures = [f"{one:,.1f}" for one in interval] if interval else ["", "unknown", ""]
            target = "explained" if process in EXPLAINED else f"high <= {MAX_PCT_PER_DAY:g}"
            table.add_row(process, measure, *figures, target)
    console.print(table)
    shown = asdict(outcome)
    for name in ("slope_pct_per_day", "short_of", "verify_findings", "stuck", "is_quick"):
        del shown[name]
    for name, value in shown.items():
        console.print(f"{name}: {value}", highlight=False)
    for problem in outcome.problems:
        console.print(f"Problem: {problem}", soft_wrap=True, highlight=False, markup=False)
