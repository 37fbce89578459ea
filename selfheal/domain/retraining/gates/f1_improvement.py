"""Gate: F1 must improve by the required percentage, and significantly."""

from __future__ import annotations

from functools import partial

from selfheal.domain.records import GateStatus, Interval
from selfheal.domain.retraining.gate_spec import (
    GateCase,
    GateLimits,
    GateSpec,
    Limit,
    Measurement,
    labels_for,
    no_champion,
    not_scored,
)


def judge(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the improvement of F1; value, threshold and interval are in percent of the champion's F1.

    `level` is the probability that a champion is ever replaced by a model that is not better; this verdict spends a share of
    it (`level_of_verdict`).
    """
    from selfheal.domain.clusters import worth
    from selfheal.domain.retraining.evidence import (
        counts_worth,
        f1_difference,
        f1_difference_bounds,
        level_of_verdict,
        more_rows_for_certainty,
    )

    wanted, evaluation, new, old = limits["min_f1_improvement_pct"], case.evaluation, case.challenger, case.champion
    if evaluation.champion is None:
        return no_champion(case, wanted)
    if new is None or old is None:
        return not_scored(case, wanted)
    n_rows = evaluation.n_rows
    counts = counts_worth(evaluation.kinds, evaluation.clusters)
    n_independent = n_rows if evaluation.clusters is None else float(counts.sum())
    level_at = partial(level_of_verdict, limits["level"], has_brier_risen=new.brier > old.brier)
    level = level_at(case.verdict_number, n_independent)
    bounds = f1_difference_bounds(counts, level, limits["seed"])
    rows = worth(n_rows, evaluation.clusters, n_rows / n_independent)
    improvement_pct = _percent_of(old.f1, new.f1 - old.f1)
    measured = f"F1 {old.f1:.3f} -> {new.f1:.3f} ({improvement_pct:+.1f} %, {wanted:g} % wanted)"
    if improvement_pct < wanted:
        status, sentence = GateStatus.FAIL, measured
    elif bounds.low <= 0:
        at_next_verdict = partial(level_at, case.verdict_number + 1)
        more = more_rows_for_certainty(n_independent, float(f1_difference(counts)), bounds.low, level, at_next_verdict)
        chance = f"the difference may be chance: it could be as low as {bounds.low:+.3f}"
        status, sentence = GateStatus.INCONCLUSIVE, f"{measured}, but {chance}{rows}{_advice(more)}"
    else:
        status, sentence = GateStatus.PASS, f"{measured}, at least {bounds.low:+.3f}{rows}"
    interval = None if old.f1 == 0 else Interval(100 * bounds.low / old.f1, 100 * bounds.high / old.f1)
    return Measurement(status, improvement_pct, wanted, sentence, n_rows, interval)


def _percent_of(before: float, change: float) -> float:
    """Return the change in percent; an increase from 0 counts as 100 %."""
    return 100.0 * change / before if before > 0 else 100.0 * (change > 0)


def _advice(more: int | None) -> str:
    if more is None:
        return ""
    return f"; about {more:,} more evaluation rows would tell, if it stays as it is: {labels_for(more)}"


SPEC = GateSpec(
    name="f1_improvement",
    rule=judge,
    limits=(Limit("min_f1_improvement_pct"), Limit("level", setting="gate_level")),
    description="F1 must improve by `MIN_F1_IMPROVEMENT_PCT` percent, and by more than chance would show.",
    passes_if="F1 rises by so many percent, and the one-sided lower bound of the paired difference is above 0",
    order=10,
    unit="percent",
)
