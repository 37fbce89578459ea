"""Evaluation of all gates into a verdict, and the gates and limits of past verdicts. Pure.

Both models score the same evaluation rows, each at its own threshold. Every gate is evaluated, whatever the others' results; a
gate that cannot be measured does not pass. The gates themselves are in `selfheal.domain.retraining.gates`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfheal.domain.monitoring.performance import score_metrics
from selfheal.domain.records import (
    Action,
    Decision,
    GateResult,
    GateStatus,
    ScoreMetrics,
    SegmentDifference,
    ShadowScoring,
)
from selfheal.domain.retraining.evaluation import Evaluation, Scores, segment_differences
from selfheal.domain.retraining.evidence import IntArray, whole_verdicts
from selfheal.domain.retraining.gate_spec import COMMON_LIMITS, RECURRING_ROWS, GateCase, GateLimits, GateSpec, Limit
from selfheal.domain.retraining.gates import GATES, limits_of
from selfheal.domain.retraining.gates.f1_improvement import SPEC as GATE_WITH_LEVEL
from selfheal.kit.errors import InvalidDataError, PermanentError


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """The results of all gates. The metrics of a model that does not score every row are unknown."""

    gates: tuple[GateResult, ...]
    champion: ScoreMetrics | None
    challenger: ScoreMetrics | None
    segments: tuple[SegmentDifference, ...] = ()

    @property
    def action(self) -> Action:
        """Return promote if every applicable gate passes, reject if one fails, else inconclusive: more labels may decide."""
        statuses = {gate.status for gate in self.gates}
        if GateStatus.FAIL in statuses:
            return Action.REJECT
        return Action.INCONCLUSIVE if GateStatus.INCONCLUSIVE in statuses else Action.PROMOTE

    @property
    def reason(self) -> str:
        """Return the sentences of the gates that did not pass, each once, or one saying that all passed."""
        failing = [g.sentence for g in self.gates if g.status in {GateStatus.FAIL, GateStatus.INCONCLUSIVE}]
        return "; ".join(dict.fromkeys(failing)) if failing else "all applicable gates passed"


def evaluate_gates(
    evaluation: Evaluation,
    limits: GateLimits,
    verdict_number: float,
    *,
    live: ShadowScoring | None = None,
    gates: Sequence[GateSpec] = GATES,
) -> GateOutcome:
    """Evaluate each gate.

    Args:
        evaluation: the rows and both models' scores.
        limits: by `Limit.name`, those of all these gates and the common ones.
        verdict_number: 1 and what the earlier verdicts on the champion add up to, in whole ones: the level of the F1 gate
            depends on it (`level_of_verdict`).
        live: the challenger on the champion's newest predictions; None without a champion or traffic.
        gates: the gates to evaluate, in this order.

    Raises:
        InvalidDataError: if there is no evaluation row.
    """
    if evaluation.n_rows == 0:
        raise InvalidDataError("no labelled row to judge the challenger on: wait for labels")
    if limits.get(RECURRING_ROWS) == "independent":
        evaluation = replace(evaluation, clusters=None)
    case = GateCase(
        evaluation,
        challenger=_metrics(evaluation.labels, evaluation.challenger),
        champion=_metrics(evaluation.labels, evaluation.champion),
        segments=segment_differences(evaluation, limits["seed"]),
        verdict_number=verdict_number,
        live=live,
    )
    results = tuple(_result(spec, case, limits) for spec in gates)
    return GateOutcome(results, case.champion, case.challenger, case.segments)


EARLIER_VERDICTS = "earlier_verdicts"
"""Key under which a verdict stores, beside its limits, what those before it add up to, in whole verdicts; see `limit_of_earlier`."""


def added_up(verdicts: Sequence[Decision]) -> float:
    """Return what verdicts on a champion add up to, in whole ones: one on few rows counts as what it spent at most."""
    rows = (next((gate.n_rows for gate in one.gates if gate.name == GATE_WITH_LEVEL.name), None) for one in verdicts)
    return sum((1.0 if n_rows is None else whole_verdicts(n_rows) for n_rows in rows), 0.0)


def limit_of_earlier(earlier: Sequence[Decision]) -> dict[str, float]:
    """Return what a verdict stores of the earlier ones beside its limits; nothing where each of them was a whole one."""
    whole = added_up(earlier)
    return {} if whole == len(earlier) else {EARLIER_VERDICTS: whole}


def recorded_place(verdict: Decision) -> float:
    """Return the place of a recorded verdict: that of its ordinal number, unless it stored another."""
    n_earlier = (verdict.verdict_number or 1) - 1
    return 1.0 + float((verdict.gate_config or {}).get(EARLIER_VERDICTS, n_earlier))


def gates_of_verdict(
    config: Mapping[str, Any], names: Collection[str], known: Sequence[GateSpec] = GATES
) -> tuple[tuple[GateSpec, ...], GateLimits]:
    """Return the gates of a past verdict that can be evaluated again, and the limits it used.

    A gate whose limits the verdict did not store was added later and is not part of the verdict. A limit added later to a gate
    of the verdict has the value `Limit.before`. Gates on the traffic of that moment cannot be evaluated again.

    Args:
        config: the limits that the verdict stored.
        names: of the gates that it stored.
        known: the existing gates.

    Raises:
        PermanentError: if a gate of the verdict does not exist here, or if a limit of it is unknown.
    """
    unknown = sorted(set(names) - {spec.name for spec in known})
    if unknown:
        raise PermanentError(
            f"there is no gate {', '.join(unknown)} here, so it cannot be computed again: put the gate's file back"
        )
    gates = tuple(spec for spec in known if spec.rests_on == "evaluation" and _was_part(spec, config, names))
    asked = (*COMMON_LIMITS, *limits_of(gates))
    missing = [limit.name for limit in asked if limit.name not in config and limit.before is None]
    if missing:
        raise PermanentError(
            f"its limits are those of another release, without {', '.join(missing)}, so it cannot be computed again"
        )
    return gates, {limit.name: _limit(limit, config) for limit in asked}


def _was_part(spec: GateSpec, config: Mapping[str, Any], names: Collection[str]) -> bool:
    return spec.name in names or all(limit.name in config for limit in spec.limits)


def _limit(limit: Limit, config: Mapping[str, Any]) -> Any:
    return config.get(limit.name, limit.before)


def _result(spec: GateSpec, case: GateCase, limits: GateLimits) -> GateResult:
    found = spec.rule(case, limits)
    low, high = (None, None) if found.interval is None else (found.interval.low, found.interval.high)
    return GateResult(spec.name, found.status, found.value, found.threshold, found.sentence, low, high, found.n_rows)


def _metrics(labels: IntArray, scores: Scores | None) -> ScoreMetrics | None:
    if scores is None or scores.problem is not None:
        return None
    return score_metrics(labels, scores.probabilities, scores.threshold, scores.decisions)
