"""From a request to a verdict, in order: `decide_retraining`, `gather_training_set`, `train_shadow`, `judge`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from selfheal.code_version import code_version
from selfheal.contract import TRUE_LABEL
from selfheal.decision_log import record_decision
from selfheal.errors import IntegrityError
from selfheal.records import (
    Action,
    Decision,
    GateVerdict,
    ShadowModel,
    Trigger,
    Verdict,
    digest_of,
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
from selfheal.retraining.gates import GateLimits, evaluate_gates, segment_differences
from selfheal.retraining.training import train
from selfheal.stages.scoring import score_rows
from selfheal.store import decisions, models, monitoring, predictions

if TYPE_CHECKING:
    from selfheal.datasets import Dataset
    from selfheal.platform import Platform
    from selfheal.settings import Settings


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
    challenger_scores = score_rows(platform, shadow, evaluation)
    champion_scores = None if champion is None else score_rows(platform, champion, evaluation)
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
