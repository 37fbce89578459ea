"""What a gate is: a `GateSpec`, the limits and settings it brings, what its rule is given and what it returns.

Belongs here: what every gate has. Does not belong here: any gate. Each is one module of `selfheal.domain.retraining.gates`.
Loading the settings imports this module and the gates, so what they compute with (numpy, scipy) is imported in the functions.
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
"""What the gates ask for: numbers and choices by `Limit.name`, as `Decision.gate_config` stores and hashes them."""

ORDER_AFTER_THE_SIX = 70
"""Where a gate stands that does not say so itself: after the six that are always there, before what is reported beside them."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A number or choice that a gate asks for, and the setting it comes from.

    Args:
        name: the key under which verdicts store and hash it, so it never changes.
        setting: the setting's name in lower case; absent: the limit's own.
        default: of a setting that the gate brings; absent: `Settings` declares the setting.
        at_least, at_most: bounds of a setting that the gate brings; None: unbounded.
        type: of a setting that the gate brings: float, int, str or a Literal.
        description: of a setting that the gate brings, for `selfheal config`.
        before: of a limit that is added to an existing gate, the value that earlier verdicts were reached by.
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
        """The field of `Settings`; in upper case, the environment variable."""
        return self.setting or self.name

    @property
    def brings_setting(self) -> bool:
        """Whether the gate declares the setting; else `Settings` does."""
        return self.default is not None


COMMON_LIMITS = (Limit("seed", setting="random_seed"),)
"""What every verdict stores whatever its gates: `seed` is that of the draws from which the bounds of F1 come."""


@dataclass(frozen=True, slots=True)
class GateCase:
    """What a gate judges.

    Args:
        evaluation: the rows and what both models say of them.
        challenger: the challenger's metrics on these rows; None where it does not score each of them.
        champion: the champion's; None at bootstrap too.
        segments: both models within each band; empty where they cannot be compared.
        verdict_number: the ordinal number of this verdict on the champion, from 1.
        live: the challenger on the champion's newest predictions; None without a champion or traffic.
    """

    evaluation: Evaluation
    challenger: ScoreMetrics | None
    champion: ScoreMetrics | None
    segments: tuple[SegmentDifference, ...]
    verdict_number: int
    live: ShadowScoring | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a gate's rule returns: the status, what was measured, what was asked, and a sentence for people.

    What is not known is None; it does not pass. `n_rows` are those that the value rests on; the interval is in the value's unit.

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
    """A gate.

    Args:
        name: under which verdicts store it, and the name of its asset check; it never changes.
        rule: the decision. It is pure: the same case and limits give the same measurement, years later too.
        limits: what the rule asks for. A gate on the evaluation rows has at least one: the stored limits say which gates a
            verdict was reached by.
        description: a sentence that names the settings, for the asset check.
        passes_if: the same as a row of `docs/evaluation_gates.md` says it.
        rests_on: "evaluation": it can be evaluated again from the stored training set. "live_traffic": it rests on the traffic
            of the moment, so a recomputed verdict leaves it as it was decided.
        order: where it stands among the gates; of equal ones the name decides.
        direction: on which side of its threshold a value passes; None where that depends.
        unit: of value and threshold; None: a plain number.
        is_counted: whether "5 of 6 gates passed" counts it; else it is reported beside them.
        other_settings: settings beside those of its limits that people should know of.
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
    """Return that a gate which compares is not applicable at bootstrap."""
    return Measurement(
        GateStatus.NOT_APPLICABLE, None, threshold, "no champion to compare with", case.evaluation.n_rows
    )


def not_scored(case: GateCase, threshold: float) -> Measurement:
    """Return what follows where a model does not score every row, so that what is asked cannot be measured."""
    problem = case.evaluation.problem
    assert problem is not None, "metrics are unknown only where a model does not score"
    return Measurement(problem[0], None, threshold, problem[1], case.evaluation.n_rows)


def labels_for(n_evaluation_rows: int) -> str:
    """Return how many labels it takes for so many evaluation rows: most labels go to training."""
    from selfheal.domain.retraining.dataset import EVALUATION_SHARE

    return f"about {math.ceil(n_evaluation_rows / EVALUATION_SHARE):,} more labels"
