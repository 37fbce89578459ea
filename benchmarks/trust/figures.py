"""A measured figure: value, 95 % bounds, and whether the bound on the target's side meets the target.

Belongs here: bounds of rates, means and medians. Does not belong here: what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binom

from selfheal.domain.clusters import design_effect
from selfheal.domain.monitoring.intervals import Z

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to be: at least `least` and at most `most`, where they are given."""

    least: float = -math.inf
    most: float = math.inf

    def __str__(self) -> str:
        """Return it as people write it."""
        parts = [f">= {self.least:g}"] if self.least > -math.inf else []
        return " and ".join(parts + ([f"<= {self.most:g}"] if self.most < math.inf else [])) or "none"


NO_TARGET = Target()

NEVER = Target(most=0.1)
"""Target of what is never to happen in any of 40 deployments: none of 40 has an upper bound of 0.088."""


def at_most(value: float) -> Target:
    """Return a target from above."""
    return Target(most=value)


def at_least(value: float) -> Target:
    """Return a target from below."""
    return Target(least=value)


def between(least: float, most: float) -> Target:
    """Return a target from both sides."""
    return Target(least, most)


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with two-sided 95 % bounds; NaN where nothing could be measured, which meets no target."""

    value: float
    low: float
    high: float
    target: Target = NO_TARGET

    @property
    def is_met(self) -> bool:
        """Whether the bounds are within the target; a target of both sides is met if the value is and no bound excludes it.

        A rate of coverage that is right lies within its target with bounds that reach beyond, however often it is tried.
        """
        if math.isnan(self.value):
            return self.target == NO_TARGET
        if self.target.least > -math.inf and self.target.most < math.inf:
            is_within = self.target.least <= self.value <= self.target.most
            return is_within or (self.low <= self.target.most and self.high >= self.target.least)
        return self.low >= self.target.least and self.high <= self.target.most

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {
            **{name: None if math.isnan(value) else value for name, value in values.items()},
            "target": str(self.target),
            "met": self.is_met,
        }


def exact(value: float, target: Target = NO_TARGET) -> Figure:
    """Return a figure of the one thing there is: a stream that happened once."""
    return Figure(value, value, value, target)


def rate(n_hits: float, n_tries: float, target: Target = NO_TARGET) -> Figure:
    """Return a share of tries with the bounds of Clopper and Pearson (1934)."""
    if n_tries == 0:
        return Figure(math.nan, math.nan, math.nan, target)
    low = float(beta.ppf(LEVEL / 2, n_hits, n_tries - n_hits + 1)) if n_hits else 0.0
    high = float(beta.ppf(1 - LEVEL / 2, n_hits + 1, n_tries - n_hits)) if n_hits < n_tries else 1.0
    return Figure(n_hits / n_tries, low, high, target)


def rate_by_cluster(n_hits: Sequence[int], n_tries: Sequence[int], target: Target = NO_TARGET) -> Figure:
    """Return a share of tries that come in clusters: the looks of a deployment are no independent evidence.

    The bounds are those of Clopper and Pearson for as many independent tries as these are worth (effective sample size; Rao and
    Scott, 1992). While few clusters have a hit, a cluster is worth one try.

    Args:
        n_hits: of each cluster; n_tries: likewise.
    """
    n_all = sum(n_tries)
    if n_all == 0:
        return rate(0, 0, target)
    clusters = np.repeat(np.arange(len(n_tries)), n_tries)
    is_hit = np.concatenate([np.arange(n) < hits for hits, n in zip(n_hits, n_tries, strict=True)]).astype(np.float64)
    n_worth = n_all / design_effect(is_hit, clusters)
    share = float(is_hit.mean())
    found = rate(share * n_worth, n_worth, target)
    return Figure(share, found.low, found.high, target)


def mean(values: Sequence[float], target: Target = NO_TARGET) -> Figure:
    """Return a mean with its normal bounds."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) == 0:
        return Figure(math.nan, math.nan, math.nan, target)
    half = Z * float(found.std(ddof=1)) / math.sqrt(len(found)) if len(found) > 1 else math.inf
    return Figure(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half, target)


def median(values: Sequence[float], target: Target = NO_TARGET) -> Figure:
    """Return a median with bounds by order statistics; values may be infinite (a time that did not come)."""
    found = np.sort(np.asarray(values, dtype=np.float64))
    if len(found) == 0:
        return Figure(math.nan, math.nan, math.nan, target)
    below = int(binom.ppf(LEVEL / 2, len(found), 0.5))
    low = float(found[below - 1]) if below else -math.inf
    high = float(found[len(found) - below]) if below else math.inf
    middle = found[(len(found) - 1) // 2], found[len(found) // 2]
    return Figure(float(middle[0] if math.isinf(middle[1]) else sum(middle) / 2), low, high, target)
