"""Gate: no segment of the contract may regress significantly; reported or enforced."""

from __future__ import annotations

from selfheal.domain.records import GateStatus, Interval
from selfheal.domain.retraining.gate_spec import GateCase, GateLimits, GateSpec, Limit, Measurement, not_scored


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the largest loss of F1 in a segment; unless enforced, it is reported and blocks nothing."""
    n_rows, problem, is_enforced = case.evaluation.n_rows, case.evaluation.problem, limits["segments"] == "enforce"
    if problem is not None and is_enforced:
        return not_scored(case, 0.0)
    if not case.segments:
        why = "no champion to compare with" if case.evaluation.champion is None else "no segment to compare in"
        return Measurement(GateStatus.NOT_APPLICABLE, None, 0.0, why if problem is None else problem[1], n_rows)
    worst = min(case.segments, key=lambda s: s.challenger_f1 - s.champion_f1)
    worse = [s for s in case.segments if s.interval_high is not None and s.interval_high < 0]
    change = worst.challenger_f1 - worst.champion_f1
    regressions = f"significant regressions: {', '.join(s.segment for s in worse)}" if worse else "none is significant"
    sentence = f"smallest F1 change: {change:+.3f} ({worst.segment}, {worst.n_rows:,} rows); {regressions}"
    status = GateStatus.FAIL if worse else GateStatus.PASS
    if not is_enforced:
        status, sentence = GateStatus.NOT_APPLICABLE, f"{sentence} (reported, GATE_SEGMENTS=report)"
    assert worst.interval_low is not None, "segments are compared with intervals"
    assert worst.interval_high is not None, "segments are compared with intervals"
    return Measurement(status, change, 0.0, sentence, n_rows, Interval(worst.interval_low, worst.interval_high))


SPEC = GateSpec(
    name="segments",
    rule=judge,
    limits=(Limit("segments", setting="gate_segments"),),
    description="No segment regresses significantly: reported, or enforced with `GATE_SEGMENTS=enforce`.",
    passes_if="no band of the contract's segments regresses significantly; only reported unless enforced",
    order=80,
    is_counted=False,
)
