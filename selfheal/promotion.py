"""From a passed verdict to production, and back: staging -> validation -> production -> archive, rollback.

Postgres decides what is in production, by compare-and-set on the predecessor; MLflow's aliases and stage tags follow and
are set right whenever they stray. Every step may be repeated: a crash anywhere converges on the next run.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from selfheal.decision_log import record_decision
from selfheal.errors import ModelRefusedError, PermanentError
from selfheal.records import Action, Decision, GateVerdict, ModelVersion, ShadowModel, Stage, Trigger, digest_of
from selfheal.registry import PRODUCTION_ALIAS, STAGING_ALIAS
from selfheal.store import models

if TYPE_CHECKING:
    from selfheal.platform import Platform

SCORE_TOLERANCE = 1e-9
"""How far a reloaded model's probabilities may lie from those of training: rounding, not another model."""


def promote(platform: Platform, verdict: GateVerdict, now: datetime) -> ModelVersion:
    """Brings a judged model into production.

    Raises:
        PermanentError: if the verdict is no promotion.
        ModelRefusedError, IntegrityError: if the final validation fails; production stays as it is.
        PromotionConflictError: if another version went live since the verdict.
    """
    if not verdict.is_promotion:
        raise PermanentError(f"decision {verdict.decision.decision_id} is {verdict.decision.action}, not a promotion")
    decision = record_decision(platform.store, platform.settings.data_dir, verdict.decision)
    staged = stage(platform, verdict.shadow, decision, now)
    if staged.stage is Stage.ARCHIVED:
        raise PermanentError(
            f"version {staged.version} was in production before and was replaced; a new verdict is needed"
        )
    validate(platform, verdict.shadow)
    predecessor = decision.champion_version
    has_predecessor = predecessor is not None
    probation_until = now + timedelta(hours=platform.settings.probation_hours) if has_predecessor else None
    models.move_to_production(platform.store, staged.version, predecessor, now, probation_until)
    reconcile_registry(platform)
    return _version(platform, staged.version)


def stage(platform: Platform, shadow: ShadowModel, decision: Decision, now: datetime) -> ModelVersion:
    """Registers the model and writes it down as staging."""
    number = platform.registry.register(shadow)
    info = shadow.training_set
    models.register_staging(
        platform.store,
        ModelVersion(
            model_name=shadow.model_name,
            version=number,
            stage=Stage.STAGING,
            registered_at=now,
            promoted_at=None,
            trigger_reason=shadow.trigger_reason,
            mlflow_run_id=shadow.mlflow_run_id,
            artifact_uri=shadow.artifact_uri,
            artifact_sha256=shadow.artifact_sha256,
            reference_sha256=shadow.reference_sha256,
            contract_hash=shadow.contract_hash,
            threshold=shadow.threshold,
            metrics={name: getattr(shadow.metrics, name) for name in shadow.metrics.__slots__},
            n_samples=info.n_train + info.n_evaluation,
            previous_version=decision.champion_version,
            decision_id=decision.decision_id,
            training_window_start=info.window_start,
            training_window_end=info.window_end,
        ),
    )
    staged = _version(platform, number)
    if staged.stage is Stage.STAGING:
        platform.registry.point_alias(STAGING_ALIAS, number)
    return staged


def validate(platform: Platform, model: ShadowModel) -> None:
    """The last look before production: it loads, and scores its own evaluation rows as it did in training.

    Raises:
        ModelRefusedError, IntegrityError: saying which check failed.
    """
    pipeline = platform.registry.load(model)
    reference = platform.registry.reference(model)
    rows = reference.iloc[-min(model.training_set.n_evaluation, len(reference)) :]
    scores = pipeline.predict_proba(rows[list(platform.contract.feature_names)].to_numpy(dtype=np.float64))[:, 1]
    expected = rows["probability"].to_numpy(dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ModelRefusedError("the model gives probabilities that are not numbers")
    largest = float(np.abs(scores - expected).max())
    if largest > SCORE_TOLERANCE:
        raise ModelRefusedError(f"the reloaded model scores differently from training (by up to {largest:.3g})")


def rollback(platform: Platform, *, to_version: int | None, reason: str, actor: str, now: datetime) -> ModelVersion:
    """Puts an earlier version back into production: the predecessor, or the one named.

    Raises:
        NoProductionModelError: if nothing is in production.
        PermanentError: if there is no such earlier version.
        PromotionConflictError: if another version went live meanwhile.
    """
    current = models.champion(platform.store)
    target_number = current.previous_version if to_version is None else to_version
    if target_number is None:
        raise PermanentError(f"version {current.version} replaced nothing; name a version with --to")
    return _switch(platform, current, target_number, Action.ROLLBACK, reason=reason, actor=actor, now=now)


def force_promote(platform: Platform, version: int, *, reason: str, actor: str, now: datetime) -> ModelVersion:
    """Puts a registered version into production without a verdict, on a person's word. It goes on probation.

    Raises: as `rollback`.
    """
    return _switch(
        platform, models.champion(platform.store), version, Action.FORCE_PROMOTE, reason=reason, actor=actor, now=now
    )


def _switch(
    platform: Platform,
    current: ModelVersion,
    target_number: int,
    action: Action,
    *,
    reason: str,
    actor: str,
    now: datetime,
) -> ModelVersion:
    target = models.model_version(platform.store, target_number)
    if target is None or target.version == current.version:
        known = ", ".join(str(v.version) for v in models.list_versions(platform.store) if v.version != current.version)
        raise PermanentError(f"there is no other version {target_number} to go to; there are: {known or 'none'}")
    platform.registry.load(target)
    decision = Decision(
        decision_id=digest_of(action, current.version, target.version, current.promoted_at)[:16],
        created_at=now,
        model_name=current.model_name,
        trigger_reason=(Trigger.PROBATION if actor == Trigger.PROBATION else Trigger.MANUAL).value,
        action=action,
        reason=reason,
        actor=actor,
        champion_version=current.version,
        challenger_version=target.version,
        mlflow_run_id=target.mlflow_run_id,
        model_sha256=target.artifact_sha256,
    )
    record_decision(platform.store, platform.settings.data_dir, decision)
    is_forced = action is Action.FORCE_PROMOTE
    probation_until = now + timedelta(hours=platform.settings.probation_hours) if is_forced else None
    models.move_to_production(platform.store, target.version, current.version, now, probation_until)
    reconcile_registry(platform)
    return _version(platform, target.version)


def reconcile_registry(platform: Platform) -> list[str]:
    """Makes MLflow's aliases and stage tags follow Postgres; returns what had strayed, a sentence each."""
    strayed: list[str] = []
    production = models.production_version(platform.store)
    if production is None:
        return strayed
    alias = platform.registry.alias_version(PRODUCTION_ALIAS)
    if alias != production.version:
        strayed.append(f"alias {PRODUCTION_ALIAS} pointed at {alias}, version {production.version} is in production")
        platform.registry.point_alias(PRODUCTION_ALIAS, production.version)
    if platform.registry.alias_version(STAGING_ALIAS) == production.version:
        platform.registry.drop_alias(STAGING_ALIAS)
    platform.registry.tag_stage(production.version, Stage.PRODUCTION)
    if production.previous_version is not None:
        platform.registry.tag_stage(production.previous_version, Stage.ARCHIVED)
    return strayed


def _version(platform: Platform, number: int) -> ModelVersion:
    version = models.model_version(platform.store, number)
    assert version is not None, f"version {number} was registered a moment ago"
    return version
