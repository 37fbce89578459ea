"""Is this build as fast as another one? Statistics of alternating turns of two builds.

Belongs here: the order of the turns, the ratio of the two builds with its interval, and the verdict; all of it pure.
Does not belong here: running a build (`benchmarks.builds`), what a turn measures, options and printing
(`benchmarks.against`).

A pair consists of one turn of each build, one right after the other, so that other load on the machine affects both and cancels
in their ratio. The order alternates between pairs (old, new, new, old, ...), so that a steady drift of the machine cancels too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from scipy.stats import t as student_t

MIN_RATIO = 0.97
"""Smallest acceptable speed of the new build relative to the old one. Losses below 3 % are within the noise between runs."""

CONFIDENCE = 0.95
MIN_TURNS = 20
"""Smallest decisive number of turns of each build: an interval over few pairs is so wide that it nearly always reaches 1."""

METHOD = "geometric mean of the paired turns' ratios; Student's t on their logarithms"

Side = Literal["old", "new"]
SIDES: tuple[Side, Side] = ("old", "new")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Speed of the new build relative to the old one: above 1 the new one is faster.

    `low` and `high` bound it with 95 % confidence.
    """

    value: float
    low: float
    high: float
    n_pairs: int

    @property
    def is_ok(self) -> bool:
        """Return whether no loss of more than 3 % was shown: the ratio is at least 0.97, or its interval reaches 1."""
        return self.value >= MIN_RATIO or self.high >= 1.0

    @property
    def could_hide_a_loss(self) -> bool:
        """Return whether the interval also contains too large a loss, which only more turns could exclude."""
        return self.low < MIN_RATIO

    @property
    def verdict(self) -> str:
        """Return `ok`, `ok, but wide` or `missed`."""
        if not self.is_ok:
            return "missed"
        return "ok, but wide" if self.could_hide_a_loss else "ok"


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity measured for both builds, turn by turn; the k-th turns of both form a pair."""

    name: str
    unit: str
    is_rate: bool
    """True for a rate (more is better: the ratio is new/old), False for a time (less is better: the ratio is old/new)."""
    old: tuple[float, ...]
    new: tuple[float, ...]

    @property
    def ratio(self) -> Ratio:
        """Return how fast the new build is relative to the old one."""
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
        ValueError: if there are fewer than two pairs, unequal lengths, or a number that is not positive and finite.

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
    """Result of the turns of two builds."""

    title: str
    revisions: Mapping[Side, str]
    measures: tuple[Measure, ...]
    failures: Mapping[Side, int] = field(default_factory=dict)
    """Failed requests by build. A build that fails fast seems fast, so any failure counts as missed."""
    turns_are_short: bool = False
    """Whether turns were shortened, as by `--quick`: then the comparison is not decisive, whatever the number of turns."""
    remarks: tuple[str, ...] = ()

    @property
    def n_turns(self) -> int:
        """Return the number of turns of each build."""
        return min(len(measure.new) for measure in self.measures)

    @property
    def decides(self) -> bool:
        """Return whether the turns are numerous and long enough for a verdict."""
        return self.n_turns >= MIN_TURNS and not self.turns_are_short

    @property
    def is_ok(self) -> bool | None:
        """Return whether every measure is ok and no request failed; None if the comparison is not decisive."""
        if not self.decides:
            return None
        return all(measure.ratio.is_ok for measure in self.measures) and not any(self.failures.values())

    def verdict_on(self, measure: Measure) -> str:
        """Return the verdict on one measure; `undecided` if the comparison is not decisive."""
        return measure.ratio.verdict if self.decides else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """Return everything for a JSON file: the turns and the results."""
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
