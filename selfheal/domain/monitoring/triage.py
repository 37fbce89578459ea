"""Triage: the verdict of a tick and the alerts that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from selfheal.domain.monitoring.label_sanity import alert_of, sentence_of
from selfheal.domain.monitoring.regret import PART_LEVEL, REGRET_LEVEL
from selfheal.domain.records import (
    Alert,
    ColumnDrift,
    ConceptDrift,
    DriftReport,
    PerformanceReport,
    ScoreParts,
    Severity,
    Triage,
    Verdict,
    Window,
)
from selfheal.kit.durations import span

INSPECT_DRIFT_RATIO = 0.2
MANY_FEATURES = 5

LABELS_SELECTED = "labels_selected"
"""Kind of the alert that labels are seen not to be random, so that realised metrics are withheld."""

MAX_EXPLAINED = 5
"""Number of shifts that are no drift in the reasons of a verdict; the tick's record has all of them."""

MAX_NAMED_LEVELS = 3
"""Levels of a category that a reason names, those that have moved most."""

SEE_REPORT = "See the drift report for the columns and the direction."


@dataclass(frozen=True, slots=True)
class HarmLimits:
    """From where on a loss is harm.

    Args:
        min_brier_excess: realised Brier score above the announced one.
        min_auc: an estimated AUC-ROC below it is harm.
        min_loss_pct: loss in percent of what the model is expected to be worth: of F1, of AUC-ROC above one half, and of the Brier
            score's skill.
    """

    min_brier_excess: float
    min_auc: float
    min_loss_pct: float = 10.0


def triage(
    drift: DriftReport, performance: PerformanceReport, limits: HarmLimits, previous_episode_id: str | None
) -> Triage:
    """Decide the verdict of the window, with every reason.

    A broken feed outranks everything else, because no measurement on it is valid; harm that labels prove is named beside it,
    since the feed may be sound after all. Harm shown by labels outranks the number of rows; harm estimated without labels does
    not. Too few rows are `insufficient`, never `stable`. Consecutive shifted ticks share one episode; `insufficient` neither
    opens nor closes one.
    """
    harm = harm_reasons(performance, limits, is_estimate_sufficient=drift.is_sufficient)
    shift = (*_shift_reasons(drift), *_relation_reasons(performance))
    if drift.feed_problems:
        verdict, reasons = Verdict.BROKEN_FEED, (*drift.feed_problems, *_harm_by_labels(performance, limits))
    elif harm:
        verdict, reasons = Verdict.HARMFUL_SHIFT, (*harm, *shift, *_length_of(drift.window))
    elif not drift.is_sufficient:
        verdict, reasons = (
            Verdict.INSUFFICIENT,
            (
                f"only {drift.n_current} predictions to compare",
                *_length_of(drift.window),
            ),
        )
    elif shift:
        verdict, reasons = (
            Verdict.BENIGN_SHIFT,
            (
                *shift,
                *drift.explained[:MAX_EXPLAINED],
                "no loss is shown by labels or estimated without them",
                *performance.withheld,
                *_length_of(drift.window),
            ),
        )
    else:
        verdict, reasons = (
            Verdict.STABLE,
            (
                f"no column has drifted in {drift.n_current:,} predictions",
                *drift.explained[:MAX_EXPLAINED],
                *_worth_of(drift),
                *_unknown(performance),
                *_length_of(drift.window),
            ),
        )
    check = performance.label_check
    suspect = (sentence_of(check.open),) if check is not None and check.open else ()
    reasons = (*reasons, *suspect)
    return Triage(
        window=drift.window,
        verdict=verdict,
        reasons=reasons,
        alerts=_alerts(verdict, reasons, drift, performance),
        episode_id=_episode_id(verdict, previous_episode_id, drift.window.tick_id),
    )


def harm_reasons(
    performance: PerformanceReport, limits: HarmLimits, *, is_estimate_sufficient: bool
) -> tuple[str, ...]:
    """Return why the model is worse than it should be; empty if nothing shows it. Unknown values show nothing.

    Realised and estimated loss count only if their whole interval is beyond the limit; the estimate, which rests on the inputs
    alone, also needs enough rows. A changed relation that is certain is a reason, too: only a repair fits it again, whichever
    metric it has reached yet.
    """
    reasons: list[str] = []
    excess, low = performance.brier_excess, performance.brier_excess_low
    if excess is not None and low is not None and low > 0 and excess >= limits.min_brier_excess:
        n = performance.realised.n_rows if performance.realised else 0
        reasons.append(f"realised Brier score is {excess:.3f} worse than announced (at least {low:.3f}, {n:,} labels)")
    reasons += _regret_reasons(performance, limits.min_loss_pct / 100)
    estimate = performance.estimate
    interval = None if estimate is None else estimate.intervals.get("auc_roc")
    auc = performance.estimated_auc_roc if is_estimate_sufficient else None
    reference_auc = performance.reference.auc_roc
    is_worse = auc is not None and (reference_auc is None or auc < reference_auc)
    if is_worse and interval is not None and interval.high < limits.min_auc:
        reasons.append(f"AUC-ROC is estimated at {auc:.3f} (at most {interval.high:.3f}), below {limits.min_auc:g}")
    return tuple(reasons)


def harmed_period(performance: PerformanceReport, limits: HarmLimits) -> tuple[datetime, datetime] | None:
    """Return the time over which labels prove harm; None if they prove none."""
    since, until = performance.matured_since, performance.matured_until
    is_proven = bool(harm_reasons(performance, limits, is_estimate_sufficient=False))
    return (since, until) if is_proven and since is not None and until is not None else None


def _regret_reasons(performance: PerformanceReport, min_share: float) -> list[str]:
    """List what the labels show of a loss, against what the reference lets expect of the same rows."""
    found = performance.regret
    if found is None:
        return []
    metrics = (("F1", found.f1, 0.0), ("AUC-ROC", found.auc_roc, 0.5))
    reasons = [
        f"realised {name} is {loss.realised:.3f} where the reference lets expect {loss.expected:.3f} of these inputs "
        f"(p = {loss.p_value:.1g}, {found.n_rows:,} labels)"
        for name, loss, worthless in metrics
        if loss is not None and loss.p_value < REGRET_LEVEL and loss.share_above(worthless) >= min_share
    ]
    if performance.concept_drift is ConceptDrift.SHOWN and found.relation_p_value < REGRET_LEVEL:
        lost = "" if found.parts is None else _lost_skill(found.parts, min_share)
        reasons.append(
            f"score and outcome are no longer related as in the reference{lost}: only a repair fits them again"
        )
    return reasons


def _lost_skill(found: ScoreParts, min_share: float) -> str:
    """Say which part of the score the loss lies in, if it is material."""
    parts = (
        ("miscalibration", found.miscalibration, found.miscalibration.value - found.miscalibration.by_chance),
        ("discrimination", found.discrimination, found.discrimination.by_chance - found.discrimination.value),
    )
    material = [
        f"{lost / found.skill:.0%} of the Brier score's skill is lost to {name}"
        for name, part, lost in parts
        if found.skill > 0 and lost >= min_share * found.skill and part.p_value < PART_LEVEL
    ]
    return f" ({' and '.join(material)})" if material else ""


def _harm_by_labels(performance: PerformanceReport, limits: HarmLimits) -> tuple[str, ...]:
    """Return the harm that labels prove, as it is named beside a broken feed."""
    found = harm_reasons(performance, limits, is_estimate_sufficient=False)
    return tuple(f"labels show harm nevertheless: {reason}" for reason in found)


def _shift_reasons(drift: DriftReport) -> tuple[str, ...]:
    """List what has shifted, strongest first."""
    reasons = [
        f"{c.column} drifted ({_move(c)})"
        if c.is_drifted
        else f"{c.column} missing in {c.current_missing_pct:.0f} % (reference {c.reference_missing_pct:.0f} %)"
        for c in sorted(drift.columns, key=lambda c: -c.effect)
        if c.is_drifted or c.is_missing_rate_drifted
    ]
    if drift.is_multivariate_drifted and drift.domain_auc is not None:
        reasons.append(f"the columns together differ from the reference (a classifier's AUC is {drift.domain_auc:.2f})")
    return tuple(reasons)


def _relation_reasons(performance: PerformanceReport) -> tuple[str, ...]:
    if performance.concept_drift is not ConceptDrift.SHOWN:
        return ()
    n = performance.concept_drift_rows
    return (
        f"the relation between inputs and outcome has changed (p = {performance.concept_drift_p_value:.1g}, {n:,} labels)",
    )


def _length_of(window: Window) -> tuple[str, ...]:
    """Say how long a window is that reaches back further than the look-back."""
    if window.lookback_start is None:
        return ()
    lookback = window.end - window.lookback_start
    return (
        f"the window reaches back {span(window.length)}: the look-back of {span(lookback)} has too few predictions",
    )


def _worth_of(drift: DriftReport) -> tuple[str, ...]:
    """Say what the window is worth if rows recur: customers who come again, or rows that are sent again."""
    if drift.copies == 1.0:
        return ()
    return (f"rows recur: the window is worth {drift.n_current / drift.copies:,.0f} independent predictions",)


def _unknown(performance: PerformanceReport) -> tuple[str, ...]:
    """List what a stable window leaves unknown."""
    if performance.concept_drift is not ConceptDrift.NOT_IDENTIFIABLE:
        return ()
    if performance.withheld:
        return performance.withheld
    return ("whether the relation between inputs and outcome has changed is unknown: too few labels have matured",)


def _move(column: ColumnDrift) -> str:
    if column.levels:
        named = ", ".join(level.sentence for level in column.levels[:MAX_NAMED_LEVELS])
        return f"{100 * column.effect:.0f} % of the rows have another level: {named}"
    if abs(column.rank_shift) < column.ks_distance:
        return f"KS distance {column.ks_distance:.2f}"
    return f"{'higher' if column.rank_shift > 0 else 'lower'}, rank shift {column.rank_shift:+.2f}"


def _episode_id(verdict: Verdict, previous: str | None, tick_id: str) -> str | None:
    if verdict.is_shift:
        return previous or tick_id
    return previous if verdict is Verdict.INSUFFICIENT else None


def _alerts(
    verdict: Verdict, reasons: tuple[str, ...], drift: DriftReport, performance: PerformanceReport
) -> tuple[Alert, ...]:
    n_drifted, ratio = len(drift.drifted_features), drift.feature_drift_ratio
    metrics: dict[str, float | int | str | None] = {"feature_drift_ratio": ratio, "num_drifted_features": n_drifted}
    alerts: list[Alert] = []
    if performance.label_check is not None and (suspect := alert_of(performance.label_check)) is not None:
        alerts.append(suspect)
    delay = performance.label_delay
    if delay is not None and delay.is_selected and performance.withheld:
        message = f"{performance.withheld[0].capitalize()}. Find out who gets a label; say it in label_policy of the contract."
        alerts.append(Alert(LABELS_SELECTED, Severity.WARNING, message))
    if verdict is Verdict.BROKEN_FEED:
        message = f"The feed is broken: {'; '.join(reasons)}. Nothing sent meanwhile is trained on; check the sender."
        alerts.append(Alert("broken_feed", Severity.CRITICAL, message, metrics))
    if verdict is Verdict.HARMFUL_SHIFT:
        metrics_of_harm = metrics | {"brier_excess": performance.brier_excess}
        message = f"The champion does harm: {reasons[0]}. A retraining starts once its conditions are met."
        alerts.append(Alert("harmful_shift", Severity.CRITICAL, message, metrics_of_harm))
    if ratio is not None and ratio > INSPECT_DRIFT_RATIO:
        message = f"{ratio:.0%} of the features have drifted: {', '.join(drift.drifted_features)}. {SEE_REPORT}"
        alerts.append(Alert("feature_drift", Severity.WARNING, message, metrics))
    if n_drifted > MANY_FEATURES:
        message = f"{n_drifted} features have drifted. {SEE_REPORT}"
        alerts.append(Alert("many_features_drifted", Severity.WARNING, message, metrics))
    if drift.dataset_drift_detected:
        message = f"The data set as a whole has drifted ({n_drifted} features). {SEE_REPORT}"
        alerts.append(Alert("dataset_drift", Severity.CRITICAL, message, metrics))
    return tuple(alerts)
