"""Definition of a gate: a `GateSpec`, its limits and settings, and the input and output of its rule.

Belongs here: what all gates share. Does not belong here: any gate. Each is one module of `selfheal.domain.retraining.gates`.
Loading the settings imports this module and the gates, so numpy and scipy are imported inside functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from selfheal.domain.records import GateStatus, Interval, ScoreMetrics, SegmentDifference, ShadowScoring

if TYPE_CHECKING:
    from selfheal.domain.retraining.evaluation import Evaluation

LimitValue: TypeAlias = float | int | str
GateLimits: TypeAlias = Mapping[str, Any]
"""The gates' limits: numbers and choices by `Limit.name`, as `Decision.gate_config` stores and hashes them."""

ORDER_AFTER_THE_SIX = 70
"""Default position of a gate: after the six built-in gates, before those that are only reported."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A number or choice that a gate requires, and the setting it comes from.

    Args:
        name: the key under which verdicts store and hash it; it never changes.
        setting: the setting's name in lower case; if absent, the limit's own.
        default: of a setting that the gate declares; if absent, `Settings` declares the setting.
        at_least, at_most: bounds of a setting that the gate declares; None: unbounded.
        type: of a setting that the gate declares: float, int, str or a Literal.
        description: of a setting that the gate declares, for `selfheal config`.
        before: of a limit added to an existing gate, the value that applies to earlier verdicts.
    """

    name: str
    setting: str | None = None
    default: LimitValue | None = None
    at_least: float | None = None
    at_most: float | None = None
    type: Any = float
    description: str = ""
    before: LimitValue | None = None

    @property
    def setting_name(self) -> str:
        """Return the name of the field of `Settings`; in upper case, the environment variable."""
        return self.setting or self.name

    @property
    def brings_setting(self) -> bool:
        """Return whether the gate declares the setting; else `Settings` does."""
        return self.default is not None


RECURRING_ROWS = "recurring_rows"
"""Limit that says how rows of one entity count, in all gates: `one_unit`, or `independent` as in verdicts without it."""

COMMON_LIMITS = (Limit("seed", setting="random_seed"),)
"""Limits that every verdict stores: `seed` is that of the draws behind the bounds of F1."""


@dataclass(frozen=True, slots=True)
class GateCase:
    """What a gate judges.

    Args:
        evaluation: the rows and both models' scores.
        challenger: the challenger's metrics on these rows; None if it does not score all of them.
        champion: the champion's metrics; None at bootstrap too.
        segments: both models within each band; empty if they cannot be compared.
        verdict_number: 1 and what the earlier verdicts on the champion add up to, in whole ones (`level_of_verdict`).
        live: the challenger on the champion's newest predictions; None without a champion or traffic.
    """

    evaluation: Evaluation
    challenger: ScoreMetrics | None
    champion: ScoreMetrics | None
    segments: tuple[SegmentDifference, ...]
    verdict_number: float
    live: ShadowScoring | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a gate's rule returns: the status, the measured value, the required threshold, and a sentence for people.

    An unknown value is None and does not pass. `n_rows` is the number of rows behind the value; the interval is in its unit.

    Raises:
        ValueError: if a number is NaN or infinite.
    """

    status: GateStatus
    value: float | None
    threshold: float | None
    sentence: str
    n_rows: int
    interval: Interval | None = None

    def __post_init__(self) -> None:
        bounds = () if self.interval is None else (self.interval.low, self.interval.high)
        for number in (self.value, self.threshold, *bounds):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"a gate measured {number} ({self.sentence}): what is not known is None")


Rule: TypeAlias = Callable[[GateCase, GateLimits], Measurement]


@dataclass(frozen=True, slots=True)
class GateSpec:
    """A gate: name, rule, limits and presentation.

    Args:
        name: the name under which verdicts store it, and of its asset check; it never changes.
        rule: the decision. It is pure: the same case and limits always give the same measurement.
        limits: the rule's limits. A gate on the evaluation rows has at least one: the stored limits show which gates a verdict
            used.
        description: a sentence that names the settings, for the asset check.
        passes_if: the same, as worded in the table of `docs/evaluation_gates.md`.
        rests_on: "evaluation": it can be recomputed from the stored training set. "live_traffic": it rests on the traffic of
            the moment, so recomputing a verdict keeps its result.
        order: its position among the gates; equal ones are sorted by name.
        direction: the side of its threshold on which a value passes; None if that depends.
        unit: of value and threshold; None: a plain number.
        is_counted: whether it counts in "5 of 6 gates passed"; else it is only reported.
        other_settings: further settings that affect the gate.
    """

    name: str
    rule: Rule
    limits: tuple[Limit, ...]
    description: str
    passes_if: str
    rests_on: Literal["evaluation", "live_traffic"] = "evaluation"
    order: int = ORDER_AFTER_THE_SIX
    direction: Literal["at_least", "at_most"] | None = "at_least"
    unit: Literal["percent", "rows"] | None = None
    is_counted: bool = True
    other_settings: tuple[str, ...] = ()


def no_champion(case: GateCase, threshold: float) -> Measurement:
    """Return the measurement of a comparing gate at bootstrap: not applicable."""
    return Measurement(
        GateStatus.NOT_APPLICABLE, None, threshold, "no champion to compare with", case.evaluation.n_rows
    )


def not_scored(case: GateCase, threshold: float) -> Measurement:
    """Return the measurement of a gate if a model does not score every row, so that the value cannot be measured."""
    problem = case.evaluation.problem
    assert problem is not None, "metrics are unknown only where a model does not score"
    return Measurement(problem[0], None, threshold, problem[1], case.evaluation.n_rows)


def labels_for(n_evaluation_rows: int, share: float) -> str:
    """Return how many labels are needed for `n_evaluation_rows`, as text: that share of the labels is for evaluation."""
    return f"about {math.ceil(n_evaluation_rows / share):,} more labels"
