"""Is this build as fast as another one? The statistics of turns that two builds take one after the other.

Belongs here: the order of the turns, the ratio of the two builds with its interval, and the verdict; all of it pure.
Does not belong here: running a build (`benchmarks.builds`), what a turn measures, options and printing
(`benchmarks.against`).

A turn of each build, one right after the other, is a pair: what else the machine does falls on both, and cancels in their
ratio. The order within a pair changes from pair to pair (old, new, new, old, ...), so that a steady drift of the machine
cancels as well.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from scipy.stats import t as student_t

MIN_RATIO = 0.97
"""How fast the new build must be, the old one being 1. Smaller losses than 3 % drown in what two runs differ by."""

CONFIDENCE = 0.95
MIN_TURNS = 20
"""Of each build. Fewer decide nothing: an interval over a few pairs is so wide that it nearly always reaches 1."""

METHOD = "geometric mean of the paired turns' ratios; Student's t on their logarithms"

Side = Literal["old", "new"]
SIDES: tuple[Side, Side] = ("old", "new")


@dataclass(frozen=True, slots=True)
class Ratio:
    """How fast the new build is, the old one being 1: above 1 the new one is faster. `low` and `high` bound it with 95 %
    confidence."""

    value: float
    low: float
    high: float
    n_pairs: int

    @property
    def is_ok(self) -> bool:
        """Whether no loss of more than 3 % was shown: the ratio is at least 0.97, or its interval reaches 1."""
        return self.value >= MIN_RATIO or self.high >= 1.0

    @property
    def could_hide_a_loss(self) -> bool:
        """Whether the interval also holds a loss that is too large: then more turns are needed to exclude one."""
        return self.low < MIN_RATIO

    @property
    def verdict(self) -> str:
        if not self.is_ok:
            return "missed"
        return "ok, but wide" if self.could_hide_a_loss else "ok"


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity that both builds were measured by, turn by turn; the k-th turns of both belong together."""

    name: str
    unit: str
    is_rate: bool
    """A rate (more is better: the ratio is new/old) or a time (less is better: the ratio is old/new)."""
    old: tuple[float, ...]
    new: tuple[float, ...]

    @property
    def ratio(self) -> Ratio:
        return paired_ratio(self.new, self.old) if self.is_rate else paired_ratio(self.old, self.new)


def turn_order(n_pairs: int) -> Iterator[tuple[Side, Side]]:
    """Return which build goes first and which second, for each pair: old, new, new, old, and so on.

    >>> list(turn_order(2))
    [('old', 'new'), ('new', 'old')]
    """
    for pair in range(n_pairs):
        yield ("old", "new") if pair % 2 == 0 else ("new", "old")


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Return the geometric mean of `numerators[k] / denominators[k]` and its 95 % interval.

    The interval is Student's t for the mean of the logarithms of the n ratios, with n - 1 degrees of freedom. Swapping the
    arguments inverts the ratio and both bounds.

    Args:
        numerators: one positive number for each pair.
        denominators: as many, in the same order.

    Raises:
        ValueError: for fewer than two pairs, for unequal lengths, or for a number that is not positive and finite.

    >>> paired_ratio([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])
    Ratio(value=2.0, low=2.0, high=2.0, n_pairs=3)
    """
    n_pairs = len(numerators)
    if n_pairs != len(denominators):
        raise ValueError(f"{n_pairs} turns against {len(denominators)}: every turn needs its partner")
    if n_pairs < 2:
        raise ValueError(f"{n_pairs} pairs of turns; an interval needs at least 2")
    for figure in (*numerators, *denominators):
        if not (math.isfinite(figure) and figure > 0):
            raise ValueError(f"a turn measured {figure}; every figure must be positive and finite")
    logs = [math.log(top) - math.log(bottom) for top, bottom in zip(numerators, denominators, strict=True)]
    mean = statistics.fmean(logs)
    quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, n_pairs - 1))
    half_width = quantile * statistics.stdev(logs) / math.sqrt(n_pairs)
    return Ratio(math.exp(mean), math.exp(mean - half_width), math.exp(mean + half_width), n_pairs)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of the turns of two builds."""

    title: str
    revisions: Mapping[Side, str]
    measures: tuple[Measure, ...]
    failures: Mapping[Side, int] = field(default_factory=dict)
    """Requests that failed, by build. A build that fails fast seems fast, so any failure misses."""
    turns_are_short: bool = False
    """Shortened, as by `--quick`: the comparison decides nothing, however many turns there were."""
    remarks: tuple[str, ...] = ()

    @property
    def n_turns(self) -> int:
        """Of each build."""
        return min(len(measure.new) for measure in self.measures)

    @property
    def decides(self) -> bool:
        """Whether there were turns enough, and long enough, for the verdict to mean anything."""
        return self.n_turns >= MIN_TURNS and not self.turns_are_short

    @property
    def is_ok(self) -> bool | None:
        """Whether every measure is ok and no request failed; None if the comparison decides nothing."""
        if not self.decides:
            return None
        return all(measure.ratio.is_ok for measure in self.measures) and not any(self.failures.values())

    def verdict_on(self, measure: Measure) -> str:
        """Return the verdict on one measure; `undecided` if the comparison decides nothing."""
        return measure.ratio.verdict if self.decides else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """Return everything for a JSON file: the turns, and what follows from them."""
        return {
            "title": self.title,
            "revisions": dict(self.revisions),
            "method": METHOD,
            "min_ratio": MIN_RATIO,
            "confidence": CONFIDENCE,
            "decides": self.decides,
            "is_ok": self.is_ok,
            "failures": dict(self.failures),
            "remarks": list(self.remarks),
            "measures": [
                asdict(measure) | {"verdict": self.verdict_on(measure), "ratio": asdict(measure.ratio)}
                for measure in self.measures
            ],
        }
