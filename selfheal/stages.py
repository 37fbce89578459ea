"""The stages of the loop on an open platform: load, call the pure rule, keep. Used by assets, sensors and commands.

Nothing is decided here; each function names the rule it calls. In order: `look`, `compare`, `measure`, `conclude`;
`decide_retraining`, `gather_training_set`, `train_shadow`, `judge`; `watch_probation`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal.code_version import code_version
from selfheal.contract import TRUE_LABEL
from selfheal.decision_log import record_decision
from selfheal.errors import IntegrityError, NoProductionModelError
from selfheal.monitoring.drift import PROBABILITY, RECENT_ROWS, DriftLimits, DriftResult, detect_drift
from selfheal.monitoring.feed import feed_problems, spoiled_period
from selfheal.monitoring.label_delay import label_delay, matured_period, observed_until
from selfheal.monitoring.performance import performance_report
from selfheal.monitoring.silence import TRAFFIC_SILENT, Pulse, traffic_alert, traffic_pulse
from selfheal.monitoring.triage import HarmLimits, triage
from selfheal.monitoring.window import window_start
from selfheal.probation import judge_probation
from selfheal.promotion import rollback
from selfheal.records import (
    Action,
    Alert,
    Decision,
    DriftReport,
    GateVerdict,
    ModelVersion,
    PerformanceReport,
    ProbationReport,
    ProxyMetrics,
    ScoreMetrics,
    ShadowModel,
    Triage,
    Trigger,
    Verdict,
    Window,
    digest_of,
    from_dict,
    to_dict,
)
from selfheal.retraining.conditions import (
    RetrainingLimits,
    RetrainingSignals,
    evaluate_conditions,
    is_allowed,
    unmet,
)
from selfheal.retraining.dataset import EVALUATION, EVALUATION_SHARE, TrainingSet, training_set
from selfheal.retraining.gates import GateLimits, Scores, evaluate_gates, segment_differences
from selfheal.retraining.requests import LatestTick
from selfheal.retraining.training import train
from selfheal.store import decisions, models, monitoring, predictions
from selfheal.store.label_delays import label_delay_sample
from selfheal.store.reference import read_baseline
from selfheal.store.spoiled import record_spoiled_period

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Row

    from selfheal.datasets import Dataset
    from selfheal.platform import Platform
    from selfheal.settings import Settings

# Monitoring


def look(platform: Platform) -> ProxyMetrics | None:
    """The window of the champion's newest traffic and its proxy metrics; None if it has served nothing yet."""
    window = _current_window(platform, models.champion(platform.store))
    return None if window is None else predictions.proxy_metrics(platform.store, window)


def compare(platform: Platform, window: Window) -> DriftResult:
    """The window's rows against the champion's reference and the first baseline (`detect_drift`)."""
    champion = _champion_of_window(platform, window)
    reference = platform.registry.reference(champion)
    current = predictions.window_rows(platform.store, window, platform.settings.monitoring_max_rows)
    recent = predictions.newest_rows(platform.store, window, RECENT_ROWS)
    baseline = read_baseline(platform.store, platform.settings.data_dir)
    return detect_drift(
        window,
        current,
        reference,
        features=platform.contract.feature_names,
        reference_version=champion.version,
        limits=drift_limits(platform.settings),
        recent=recent,
        baseline=None if baseline is None else platform.contract.feature_frame(baseline),
        feed_problems=feed_problems(recent, reference, platform.contract),
        feed_checked_since=recent["created_at"].iloc[0].to_pydatetime() if len(recent) else None,
        seed=platform.settings.random_seed,
    )


def measure(platform: Platform, window: Window) -> PerformanceReport:
    """Realised and estimated quality of the champion in the window (`performance_report`)."""
    champion = _champion_of_window(platform, window)
    max_rows = platform.settings.monitoring_max_rows
    until = observed_until(window)
    sample = label_delay_sample(platform.store, window.model_version, champion.promoted_at or window.start, until)
    delay = label_delay(sample)
    period = matured_period(window, delay, champion.promoted_at)
    since, until = period or (window.start, window.end)
    matured = None if period is None else predictions.window_of(platform.store, window.model_version, since, until)
    return performance_report(
        window,
        predictions.window_rows(platform.store, window, max_rows),
        predictions.labelled_rows(
            platform.store, since=since, until=until, model_version=window.model_version, max_rows=max_rows
        ),
        from_dict(ScoreMetrics, champion.metrics),
        champion.threshold,
        calibration_rows=platform.registry.reference(champion),
        inputs=platform.contract.input_names,
        label_delay=delay,
        matured=matured,
        seed=platform.settings.random_seed,
    )


def assess(platform: Platform, drift: DriftReport, performance: PerformanceReport) -> Triage:
    """Names the state (`triage`); keeps nothing."""
    return _assess(platform, drift, performance, monitoring.latest_tick(platform.store, drift.window.model_version))


def conclude(
    platform: Platform, proxy: ProxyMetrics, drift: DriftReport, performance: PerformanceReport, now: datetime
) -> tuple[Triage, list[Alert]]:
    """Names the state (`assess`), keeps the tick and its alerts. Returns the newly opened alerts too."""
    previous = monitoring.latest_tick(platform.store, drift.window.model_version)
    outcome = _assess(platform, drift, performance, previous)
    spoiled = spoiled_period(
        drift,
        outcome.verdict,
        None if previous is None else Verdict(previous.verdict),
        None if previous is None else previous.window_end,
    )
    if spoiled is not None:  # before the tick: a tick that is kept says that everything it means is kept
        record_spoiled_period(platform.store, outcome.window.tick_id, spoiled)
    monitoring.record_tick(platform.store, proxy, drift, performance, outcome, now)
    return outcome, monitoring.sync_alerts(platform.store, outcome, now)


def watch_traffic(platform: Platform, awake_since: datetime, now: datetime) -> Pulse:
    """Holds or ends the alert that no traffic comes (`traffic_pulse`).

    Args:
        awake_since: when the caller's process started.
    """
    newest, _ = predictions.latest_activity(platform.store)
    limit = timedelta(hours=platform.settings.traffic_silence_hours)
    state = traffic_pulse(newest, awake_since, limit, now)
    if state is Pulse.BEATING:
        monitoring.resolve_alert(platform.store, monitoring.TRAFFIC, TRAFFIC_SILENT, now)
    elif state is Pulse.SILENT and newest is not None:
        monitoring.hold_alert(platform.store, monitoring.TRAFFIC, None, traffic_alert(newest, limit, now), now)
    return state


def latest_tick(platform: Platform) -> LatestTick | None:
    """What the champion's newest tick concluded; None before its first."""
    champion = models.production_version(platform.store)
    row = None if champion is None else monitoring.latest_tick(platform.store, champion.version)
    if row is None:
        return None
    return LatestTick(row.tick_id, Verdict(row.verdict), row.episode_id, row.num_drifted_features)


# Retraining


def retraining_signals(platform: Platform, trigger: Trigger, episode_id: str | None) -> RetrainingSignals:
    """What is known for a decision on retraining."""
    champion = models.production_version(platform.store)
    if champion is None:
        return RetrainingSignals(trigger, None, None, 0, 0)
    tick = monitoring.latest_tick(platform.store, champion.version)
    n_predictions, n_labels = predictions.count_labels(platform.store, since=champion.promoted_at)
    return RetrainingSignals(
        trigger=trigger,
        champion=champion,
        latest_verdict=None if tick is None else Verdict(tick.verdict),
        n_labels=n_labels,
        n_predictions=n_predictions,
        attempts=() if episode_id is None else decisions.attempts_of(platform.store, episode_id),
    )


def decide_retraining(
    platform: Platform, trigger: Trigger, *, episode_id: str | None, actor: str, reason: str, now: datetime
) -> Decision:
    """Whether to train now (`evaluate_conditions`), kept as a decision either way."""
    signals = retraining_signals(platform, trigger, episode_id)
    conditions = evaluate_conditions(signals, retraining_limits(platform.settings), now)
    action = Action.TRAIN if is_allowed(conditions) else Action.SKIP
    champion = None if signals.champion is None else signals.champion.version
    attempt = len(signals.attempts) + 1
    decision = Decision(
        decision_id=digest_of("retrain", trigger, episode_id, attempt, champion, signals.n_labels, action, conditions)[
            :16
        ],
        created_at=now,
        model_name=platform.contract.name,
        trigger_reason=trigger.value,
        action=action,
        reason=reason if action is Action.TRAIN else unmet(conditions),
        actor=actor,
        champion_version=champion,
        episode_id=episode_id,
        attempt=attempt,
        n_labels=signals.n_labels,
        conditions=conditions,
        code_version=code_version(),
    )
    return record_decision(platform.store, platform.settings.data_dir, decision)


def gather_training_set(platform: Platform, decision: Decision, bootstrap_data: Dataset | None) -> TrainingSet:
    """The labelled rows to learn from: the champion's traffic, or the bootstrap data where there is no champion yet.

    Raises:
        InvalidDataError: if there are too few rows of a class.
    """
    from selfheal.datasets import frame_digest

    settings, contract = platform.settings, platform.contract
    coverage: float | None
    if decision.trigger_reason == Trigger.BOOTSTRAP:
        assert bootstrap_data is not None, "a bootstrap trains on the data set it is given"
        rows = contract.feature_frame(bootstrap_data.frame)
        rows[TRUE_LABEL] = bootstrap_data.frame[TRUE_LABEL]
        source, coverage = bootstrap_data.description, None
    else:
        since = models.champion(platform.store).promoted_at
        rows = predictions.labelled_rows(
            platform.store, since=since, max_rows=settings.training_max_rows, sound_only=True
        )
        n_predictions, n_labels = predictions.count_labels(platform.store, since=since)
        source, coverage = f"{len(rows):,} labelled predictions", 100.0 * n_labels / max(1, n_predictions)
    return training_set(
        rows,
        contract,
        source=source,
        min_evaluation_rows=settings.min_samples_for_decision,
        label_coverage_pct=coverage,
        digest=frame_digest(rows),
        decision_id=decision.decision_id,
    )


def train_shadow(platform: Platform, rows: TrainingSet, now: datetime) -> ShadowModel:
    """Trains (`train`) and logs a candidate. The same rows, settings, code and decision train once."""
    contract, seed = platform.contract, platform.settings.random_seed
    decision = None if rows.info.decision_id is None else decisions.find(platform.store, rows.info.decision_id)
    if decision is None:
        raise IntegrityError(f"the training set names decision {rows.info.decision_id}, which is not recorded")
    key = digest_of(
        rows.info.sha256, contract.hash, seed, dict(contract.param_grid), code_version(), decision.decision_id
    )
    known = platform.registry.find_shadow(key)
    if known is not None:
        return known
    return platform.registry.log_shadow(
        train(rows, contract, seed),
        rows,
        shadow_key=key,
        decision_id=decision.decision_id,
        trigger_reason=decision.trigger_reason,
        now=now,
    )


def judge(platform: Platform, shadow: ShadowModel, rows: TrainingSet, now: datetime) -> GateVerdict:
    """Lets the gates compare challenger and champion on the evaluation rows (`evaluate_gates`); keeps the decision."""
    training_decision = decisions.find(platform.store, shadow.decision_id)
    assert training_decision is not None, "a shadow model is trained by a recorded decision"
    champion = models.production_version(platform.store)
    if champion is not None and champion.mlflow_run_id == shadow.mlflow_run_id and champion.decision_id:
        # Judged and promoted before: the comparison was with its predecessor.
        champion = (
            None
            if champion.previous_version is None
            else models.model_version(platform.store, champion.previous_version)
        )
    evaluation = rows.part(EVALUATION)
    labels = evaluation[TRUE_LABEL].to_numpy(dtype=np.int64)
    challenger_scores = _score(platform, shadow, evaluation)
    champion_scores = None if champion is None else _score(platform, champion, evaluation)
    limits = gate_limits(platform.settings)
    outcome = evaluate_gates(
        labels, challenger_scores, champion_scores, rows.info.label_coverage_pct, limits, platform.settings.random_seed
    )
    decision = Decision(
        decision_id=digest_of("gates", shadow.mlflow_run_id, champion and champion.version, to_dict(limits))[:16],
        created_at=now,
        model_name=shadow.model_name,
        trigger_reason=shadow.trigger_reason,
        action=outcome.action,
        reason=outcome.reason,
        actor=training_decision.actor,
        champion_version=None if champion is None else champion.version,
        mlflow_run_id=shadow.mlflow_run_id,
        episode_id=training_decision.episode_id,
        attempt=training_decision.attempt,
        n_labels=training_decision.n_labels,
        gates=outcome.gates,
        data_sha256=rows.info.sha256,
        model_sha256=shadow.artifact_sha256,
        gate_config_sha256=digest_of(to_dict(limits)),
        code_version=code_version(),
    )
    kept = record_decision(platform.store, platform.settings.data_dir, decision)
    segments = (
        ()
        if champion_scores is None
        else segment_differences(evaluation, labels, challenger_scores, champion_scores, platform.contract.segments)
    )
    return GateVerdict(kept, shadow, outcome.champion, outcome.challenger, segments)


# Probation


def watch_probation(platform: Platform, now: datetime) -> ProbationReport:
    """Compares the champion with its predecessor on what it served since (`judge_probation`); rolls back if worse."""
    champion = models.champion(platform.store)
    rows = predictions.labelled_rows(
        platform.store,
        since=champion.promoted_at,
        model_version=champion.version,
        max_rows=platform.settings.monitoring_max_rows,
    )
    previous = (
        None if champion.previous_version is None else models.model_version(platform.store, champion.previous_version)
    )
    report = judge_probation(
        champion,
        rows[TRUE_LABEL].to_numpy(dtype=np.int64),
        rows[PROBABILITY].to_numpy(dtype=np.float64),
        None if previous is None or rows.empty else _score(platform, previous, rows).probabilities,
        platform.settings.min_probation_labels,
        now,
    )
    if report.is_harmful:
        rollback(platform, to_version=None, reason=report.reason, actor="probation", now=now)
    return report


# Limits, as the rules want them


def drift_limits(settings: Settings) -> DriftLimits:
    return DriftLimits(settings.ticks_per_budget(), settings.min_drift_effect, settings.min_drift_rows)


def harm_limits(settings: Settings) -> HarmLimits:
    return HarmLimits(min_brier_excess=settings.max_brier_degradation, min_auc=settings.min_auc)


def retraining_limits(settings: Settings) -> RetrainingLimits:
    """`min_labels` is such that the evaluation part alone reaches MIN_SAMPLES_FOR_DECISION."""
    return RetrainingLimits(
        cooldown=timedelta(days=settings.promotion_cooldown_days),
        min_labels=round(settings.min_samples_for_decision / EVALUATION_SHARE),
        min_coverage_pct=settings.min_coverage_pct,
        max_attempts=settings.max_attempts_per_episode,
    )


def gate_limits(settings: Settings) -> GateLimits:
    return GateLimits(
        min_f1_improvement_pct=settings.min_f1_improvement_pct,
        max_brier_degradation=settings.max_brier_degradation,
        min_samples=settings.min_samples_for_decision,
        min_coverage_pct=settings.min_coverage_pct,
        min_recall=settings.min_recall,
        min_auc=settings.min_auc,
        level=settings.gate_level,
        max_attempts=settings.max_attempts_per_episode,
    )


def _assess(
    platform: Platform, drift: DriftReport, performance: PerformanceReport, previous: Row[Any] | None
) -> Triage:
    previous_episode = None if previous is None else previous.episode_id
    return triage(drift, performance, harm_limits(platform.settings), previous_episode)


def _current_window(platform: Platform, champion: ModelVersion) -> Window | None:
    newest, _ = predictions.latest_activity(platform.store)
    if newest is None:
        return None
    start = window_start(champion, newest, platform.settings.monitoring_lookback)
    return predictions.window_of(platform.store, champion.version, start)


def _champion_of_window(platform: Platform, window: Window) -> ModelVersion:
    version = models.model_version(platform.store, window.model_version)
    if version is None:
        raise NoProductionModelError(f"the window is of version {window.model_version}, which is not registered")
    return version


def _score(platform: Platform, model: ModelVersion | ShadowModel, rows: pd.DataFrame) -> Scores:
    features = rows[list(platform.contract.feature_names)].to_numpy(dtype=np.float64)
    return Scores(platform.registry.load(model).predict_proba(features)[:, 1], model.threshold)
