"""Gate: the primary metric, F1 unless another is declared, must improve significantly; F1 may not be lost over another one."""

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
    """Return the improvement of the primary metric; value, threshold and interval are in percent of the champion's.

    `level` is the probability that a champion is ever replaced by a model that is not better; this verdict spends a share of
    it (`level_of_verdict`).
    """
    is_of_f1 = limits["primary_metric"] == "f1"
    wanted = limits["min_f1_improvement_pct"] if is_of_f1 else 0.0
    if case.evaluation.champion is None:
        return no_champion(case, wanted)
    if case.challenger is None or case.champion is None:
        return not_scored(case, wanted)
    return _judge_f1(case, limits) if is_of_f1 else _judge_other(case, limits)


def _judge_f1(case: GateCase, limits: GateLimits) -> Measurement:
    from selfheal.domain.clusters import worth
    from selfheal.domain.retraining.evidence import (
        counts_worth,
        f1_difference,
        f1_difference_bounds,
        level_of_verdict,
        more_rows_for_certainty,
        whole_verdicts,
    )

    wanted, evaluation, new, old = limits["min_f1_improvement_pct"], case.evaluation, case.challenger, case.champion
    assert new is not None and old is not None and evaluation.champion is not None, "both models score all rows"
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
        at_next_verdict = partial(level_at, case.verdict_number + whole_verdicts(n_independent))
        more = more_rows_for_certainty(n_independent, float(f1_difference(counts)), bounds.low, level, at_next_verdict)
        chance = f"the difference may be chance: it could be as low as {bounds.low:+.3f}"
        status, sentence = GateStatus.INCONCLUSIVE, f"{measured}, but {chance}{rows}{_advice(more, evaluation.share)}"
    else:
        status, sentence = GateStatus.PASS, f"{measured}, at least {bounds.low:+.3f}{rows}"
    interval = None if old.f1 == 0 else Interval(100 * bounds.low / old.f1, 100 * bounds.high / old.f1)
    return Measurement(status, improvement_pct, wanted, sentence, n_rows, interval)


def _judge_other(case: GateCase, limits: GateLimits) -> Measurement:
    """Return the improvement of a declared metric; a challenger that loses too much F1 over it fails."""
    from selfheal.domain.retraining.class_counts import MIN_ROWS_PER_CLASS
    from selfheal.domain.retraining.evidence import level_of_verdict, more_rows_for_certainty, whole_verdicts
    from selfheal.domain.retraining.paired_gain import NAMES, Costs, paired_gain

    metric, new, old = limits["primary_metric"], case.challenger, case.champion
    evaluation = case.evaluation.one_row_of_each_entity()
    assert new is not None and old is not None, "both models score all rows"
    n_rows = evaluation.n_rows
    level_at = partial(level_of_verdict, limits["level"], has_brier_risen=new.brier > old.brier)
    level = level_at(case.verdict_number, n_rows)
    costs = Costs(limits["cost_of_false_alarm"], limits["cost_of_miss"])
    found = paired_gain(metric, evaluation, level, costs, limits["seed"])
    is_f1_lost, of_f1 = _f1_kept(old.f1, new.f1, limits["max_f1_degradation_pct"])
    if found is None:
        unknown = f"fewer than {MIN_ROWS_PER_CLASS} rows of a class: the gain in {NAMES[metric]} has no known error"
        status = GateStatus.FAIL if is_f1_lost else GateStatus.INCONCLUSIVE
        return Measurement(status, None, 0.0, f"{unknown}; {of_f1}", n_rows)
    low, gained = found.bounds.low, _percent_of(found.champion, found.gain)
    measured = f"{NAMES[metric]} {found.champion:.4f} -> {found.challenger:.4f} ({gained:.1f} % better)"
    if found.gain <= 0:
        status, sentence = GateStatus.FAIL, f"{NAMES[metric]} {found.champion:.4f} -> {found.challenger:.4f}: no better"
    elif low <= 0:
        at_next_verdict = partial(level_at, case.verdict_number + whole_verdicts(n_rows))
        more = more_rows_for_certainty(n_rows, found.gain, low, level, at_next_verdict)
        chance = f"the difference may be chance: the gain could be as low as {low:+.4f}"
        status, sentence = GateStatus.INCONCLUSIVE, f"{measured}, but {chance}{_advice(more, evaluation.share)}"
    else:
        status, sentence = GateStatus.PASS, f"{measured}, a gain of at least {low:+.4f}"
    status = GateStatus.FAIL if is_f1_lost else status
    of_champion = found.champion
    interval = None if of_champion == 0 else Interval(*(100 * bound / of_champion for bound in _ends(found.bounds)))
    return Measurement(status, gained, 0.0, f"{sentence}; {of_f1}", n_rows, interval)


def _f1_kept(before: float, after: float, allowed_pct: float) -> tuple[bool, str]:
    """Return whether more of the champion's F1 is lost than allowed, and how much it is as text."""
    change_pct = _percent_of(before, after - before)
    sentence = f"F1 {before:.3f} -> {after:.3f} ({change_pct:+.1f} %, a loss of {allowed_pct:g} % allowed)"
    return -change_pct > allowed_pct, sentence


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _percent_of(before: float, change: float) -> float:
    """Return the change in percent; an increase from 0 counts as 100 %."""
    return 100.0 * change / before if before > 0 else 100.0 * (change > 0)


def _advice(more: int | None, share: float) -> str:
    if more is None:
        return ""
    return f"; about {more:,} more evaluation rows would tell, if it stays as it is: {labels_for(more, share)}"


SPEC = GateSpec(
    name="f1_improvement",
    rule=judge,
    limits=(
        Limit("min_f1_improvement_pct"),
        Limit("level", setting="gate_level"),
        Limit("primary_metric", before="f1"),
        Limit("max_f1_degradation_pct", before=100.0),
        Limit("cost_of_false_alarm", before=1.0),
        Limit("cost_of_miss", before=1.0),
    ),
    description=(
        "The `PRIMARY_METRIC` must improve by more than chance would show: F1, by `MIN_F1_IMPROVEMENT_PCT` percent. Over "
        "another metric (a cost is that of `COST_OF_FALSE_ALARM` and `COST_OF_MISS`), F1 may fall by "
        "`MAX_F1_DEGRADATION_PCT` percent at most."
    ),
    passes_if=(
        "F1 rises by so many percent, and the one-sided lower bound of the paired difference is above 0; where another primary "
        "metric is declared, its bound is, and F1 falls by no more than so many percent"
    ),
    order=10,
    unit="percent",
)
