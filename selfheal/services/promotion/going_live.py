"""Promotion and rollback: staging -> final validation -> production -> archive, and back.

Going live is one transaction in Postgres (`selfheal.adapters.postgres.model_versions.go_live`), by compare-and-set on the
predecessor; MLflow and the decision files follow (`selfheal.services.promotion.registry_sync`). Every step may be repeated:
after a crash anywhere, the next run completes it. A version that could not go live leaves only a decision to skip it, with
the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from selfheal.adapters.mlflow_registry import STAGING_ALIAS
from selfheal.adapters.postgres.alerts import PROMOTION
from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.adapters.postgres.model_versions import GO_LIVE_STEPS
from selfheal.domain.records import (
    Action,
    Alert,
    Decision,
    GateVerdict,
    ModelVersion,
    Severity,
    ShadowModel,
    Stage,
    Trigger,
)
from selfheal.domain.records.decisions import MAX_REASON_CHARACTERS
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import (
    IntegrityError,
    ModelRefusedError,
    PermanentError,
    PromotionConflictError,
    UnknownVersionError,
)
from selfheal.kit.serialization import digest_of
from selfheal.services.promotion.final_validation import check_answers_again, validate
from selfheal.services.promotion.registry_sync import PROJECTION_STEPS, project, restore_registered_model

if TYPE_CHECKING:
    from selfheal.services.repositories import LoopPlatform

logger = logging.getLogger(__name__)

PROMOTION_REFUSED = "promotion_refused"
"""Kind of the alert."""

PROMOTION_STEPS = (
    "record_decision",
    "register",
    "write_staging",
    "point_staging_alias",
    "validate",
    *GO_LIVE_STEPS,
    *PROJECTION_STEPS,
)
"""Steps of `promote`, in order. A promotion that is refused or already done ends earlier."""

SWITCH_STEPS = ("validate", *GO_LIVE_STEPS, *PROJECTION_STEPS)
"""Steps of `rollback` and `force_promote`, in order."""

OnStep = Callable[[str], None]


def promote(
    platform: LoopPlatform, verdict: GateVerdict, now: datetime, on_step: OnStep = lambda _: None
) -> ModelVersion:
    """Put a model that passed the gates into production.

    Args:
        on_step: is called with each of `PROMOTION_STEPS` before it is taken.

    Raises:
        PermanentError: if the verdict is not a promotion.
        ModelRefusedError, IntegrityError: if the final validation fails; production is unchanged.
        PromotionConflictError: if another version went live since the verdict.
    """
    on_step("record_decision")
    decision = _recorded_decision(platform, verdict)
    staged = stage(platform, verdict.shadow, decision, now, on_step)
    if staged.stage is Stage.ARCHIVED:
        raise PermanentError(
            f"version {staged.version} was in production before and was replaced; a new verdict is needed"
        )
    if staged.stage is Stage.STAGING:
        with _recording_failure(platform, decision, staged, now):
            on_step("validate")
            validate(platform, verdict.shadow, platform.versions.production())
            _go_live(platform, staged, decision, now, is_watched=decision.champion_version is not None, on_step=on_step)
    _project(platform, on_step)
    return _version(platform, staged.version)


def stage(
    platform: LoopPlatform, shadow: ShadowModel, decision: Decision, now: datetime, on_step: OnStep = lambda _: None
) -> ModelVersion:
    """Register the model and record it as staging.

    Raises:
        IntegrityError: if MLflow assigns it the version number of another model.
    """
    on_step("register")
    with platform.exclusive(Lock.REGISTRY):
        restore_registered_model(platform, shadow)  # or MLflow would count from 1 again
        number = platform.registry.register(shadow)
    on_step("write_staging")
    platform.versions.register_staging(_as_version(shadow, number, decision, now))
    staged = _version(platform, number)
    if (staged.mlflow_run_id, staged.artifact_sha256) != (shadow.mlflow_run_id, shadow.artifact_sha256):
        raise IntegrityError(
            f"version {number} is the model of run {staged.mlflow_run_id} with digest {staged.artifact_sha256[:12]}, not of run "
            f"{shadow.mlflow_run_id} with {shadow.artifact_sha256[:12]}; check that MLflow and Postgres belong together"
        )
    if staged.stage is Stage.STAGING:
        on_step("point_staging_alias")
        platform.registry.point_alias(STAGING_ALIAS, number)
    return staged


def rollback(
    platform: LoopPlatform,
    *,
    to_version: int | None,
    reason: str,
    actor: str,
    now: datetime,
    from_version: int | None = None,
    is_projected: bool = True,
    on_step: OnStep = lambda _: None,
) -> ModelVersion:
    """Put an earlier version back into production: the one that the current version replaced, or `to_version`.

    A version that was itself rolled back, or was never live, cannot come back this way: use `force_promote`.

    Args:
        from_version: the version that the caller expects in production; None accepts any.
        is_projected: False leaves updating MLflow to the sensor, for a caller that must not wait for it.
        on_step: is called with each of `SWITCH_STEPS` before it is taken.

    Raises:
        NoProductionModelError: if nothing is in production.
        UnknownVersionError, PermanentError: if there is no such version to return to, or no reason is given.
        ModelRefusedError, IntegrityError: if that version can no longer serve; production is unchanged.
        PromotionConflictError: if another version is in production than expected.
    """
    _check_reason(reason)
    current = _champion(platform, from_version)
    target = _rollback_target(platform, current, to_version)
    attempt = _switch_decision(Action.ROLLBACK, current, target, reason, actor, now)
    check = partial(check_answers_again, platform, target)
    return _switch(platform, target, attempt, now, check, is_watched=False, is_projected=is_projected, on_step=on_step)


def force_promote(
    platform: LoopPlatform,
    version: int,
    *,
    reason: str,
    actor: str,
    now: datetime,
    from_version: int | None = None,
    is_projected: bool = True,
    on_step: OnStep = lambda _: None,
) -> ModelVersion:
    """Put a registered version into production without a verdict, at a person's request. It goes on probation.

    The final validation applies, except for its latency check: a model that cannot answer is never served.

    Args and Raises: as `rollback`.
    """
    _check_reason(reason)
    current = _champion(platform, from_version)
    target = _other_version(platform, current, version)
    attempt = _switch_decision(Action.FORCE_PROMOTE, current, target, reason, actor, now)
    check = partial(validate, platform, target)
    return _switch(platform, target, attempt, now, check, is_watched=True, is_projected=is_projected, on_step=on_step)


def _switch(
    platform: LoopPlatform,
    target: ModelVersion,
    attempt: Decision,
    now: datetime,
    check: Callable[[], None],
    *,
    is_watched: bool,
    is_projected: bool,
    on_step: OnStep,
) -> ModelVersion:
    """Run the `SWITCH_STEPS`."""
    with _recording_failure(platform, attempt, target, now):
        on_step("validate")
        check()
        _go_live(platform, target, attempt, now, is_watched=is_watched, on_step=on_step)
    if is_projected:
        _project(platform, on_step)
    return _version(platform, target.version)


def _recorded_decision(platform: LoopPlatform, verdict: GateVerdict) -> Decision:
    """Record the verdict's decision and return it from Postgres; the file it was read from is not trusted."""
    if not verdict.is_promotion:
        raise PermanentError(f"decision {verdict.decision.decision_id} is {verdict.decision.action}, not a promotion")
    recorded = platform.decisions.record(verdict.decision)
    if recorded.action is not Action.PROMOTE:
        raise PermanentError(f"decision {recorded.decision_id} is {recorded.action}, not a promotion")
    judged, given = (
        (recorded.mlflow_run_id, recorded.model_sha256),
        (verdict.shadow.mlflow_run_id, verdict.shadow.artifact_sha256),
    )
    if judged != given:
        raise IntegrityError(
            f"decision {recorded.decision_id} is on the model of run {recorded.mlflow_run_id}, not of {verdict.shadow.mlflow_run_id}"
        )
    return recorded


def _as_version(shadow: ShadowModel, number: int, decision: Decision, now: datetime) -> ModelVersion:
    info = shadow.training_set
    return ModelVersion(
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
        n_samples=info.n_rows,
        previous_version=decision.champion_version,
        decision_id=decision.decision_id,
        training_window_start=info.window_start,
        training_window_end=info.window_end,
    )


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > MAX_REASON_CHARACTERS:
        raise PermanentError(
            f"a reason of at most {MAX_REASON_CHARACTERS:,} characters is required: it is recorded with the decision"
        )


def _champion(platform: LoopPlatform, from_version: int | None) -> ModelVersion:
    current = platform.versions.champion()
    if from_version is not None and current.version != from_version:
        raise PromotionConflictError(
            f"version {from_version} was expected in production, but version {current.version} is"
        )
    return current


def _other_version(platform: LoopPlatform, current: ModelVersion, number: int) -> ModelVersion:
    target = platform.versions.find(number)
    if target is None:
        known = ", ".join(str(version.version) for version in platform.versions.newest())
        raise UnknownVersionError(f"there is no version {number}; the registered versions are {known}")
    if target.version == current.version:
        raise PermanentError(f"version {number} is in production already")
    return target


def _rollback_target(platform: LoopPlatform, current: ModelVersion, to_version: int | None) -> ModelVersion:
    number = platform.versions.predecessor(current.version) if to_version is None else to_version
    if number is None:
        raise PermanentError(f"version {current.version} replaced nothing; name the version to go back to")
    target = _other_version(platform, current, number)
    if target.stage is not Stage.ARCHIVED:
        raise PermanentError(
            f"version {number} was never in production, so nothing can go back to it; promote it by force"
        )
    if platform.versions.rollback_of(number) is not None:
        raise PermanentError(f"version {number} was rolled back itself; name another one, or promote it by force")
    return target


def _switch_decision(
    action: Action, current: ModelVersion, target: ModelVersion, reason: str, actor: str, now: datetime
) -> Decision:
    return Decision(
        decision_id=digest_of(action, current.version, target.version, actor, reason, now)[:16],
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
        code_version=code_version(),
    )


def _go_live(
    platform: LoopPlatform,
    target: ModelVersion,
    decision: Decision,
    now: datetime,
    *,
    is_watched: bool,
    on_step: OnStep,
) -> None:
    probation = timedelta(hours=platform.settings.probation_hours)
    platform.versions.go_live(
        target.version,
        replaces=decision.champion_version,
        decision=decision,
        now=now,
        probation_until=now + probation if is_watched else None,
        on_step=on_step,
    )
    platform.alerts.resolve(PROMOTION, PROMOTION_REFUSED, now)


def _project(platform: LoopPlatform, on_step: OnStep) -> None:
    """Reconcile MLflow.

    If this fails, production has changed nevertheless: `registry_sensor` retries and raises an alert.
    """
    try:
        project(platform, on_step)
    except Exception:
        logger.exception(
            "production has changed, but MLflow or a decision's file does not follow yet; registry_sensor retries"
        )


@contextmanager
def _recording_failure(
    platform: LoopPlatform, attempt: Decision, target: ModelVersion, now: datetime
) -> Iterator[None]:
    """Record why an attempt failed, and raise an alert if the model is the cause."""
    try:
        yield
    except (ModelRefusedError, IntegrityError, PromotionConflictError) as error:
        platform.decisions.record(_failure(attempt, target, error, now))
        if not isinstance(error, PromotionConflictError):
            platform.alerts.open_or_update(PROMOTION, target.version, _refusal_alert(attempt, target, error), now)
        raise


def _failure(attempt: Decision, target: ModelVersion, error: Exception, now: datetime) -> Decision:
    """Return the decision that records the failure.

    Identical failures share one id per day, so that they are recorded at most once a day.
    """
    identity = (attempt.action, attempt.champion_version, attempt.mlflow_run_id, attempt.actor, type(error).__name__)
    return Decision(
        decision_id=digest_of("not done", *identity, f"{now:%Y-%m-%d}")[:16],
        created_at=now,
        model_name=attempt.model_name,
        trigger_reason=attempt.trigger_reason,
        action=Action.SKIP,
        reason=f"version {target.version} was not put into production ({attempt.action.value}): {error}",
        actor=attempt.actor,
        champion_version=attempt.champion_version,
        challenger_version=target.version,
        mlflow_run_id=attempt.mlflow_run_id,
        episode_id=attempt.episode_id,
        attempt=attempt.attempt,
        model_sha256=attempt.model_sha256,
        code_version=code_version(),
    )


def _refusal_alert(attempt: Decision, target: ModelVersion, error: Exception) -> Alert:
    """Return the alert on a refused version.

    It is critical for a rollback: without it, a bad version stays in production.
    """
    severity = Severity.CRITICAL if attempt.action is Action.ROLLBACK else Severity.WARNING
    current = attempt.champion_version
    effect = "No version is in production." if current is None else f"Version {current} remains in production."
    message = f"Version {target.version} was not put into production: {error}. {effect}"
    return Alert(PROMOTION_REFUSED, severity, message, {"model_version": target.version})


def _version(platform: LoopPlatform, number: int) -> ModelVersion:
    version = platform.versions.find(number)
    assert version is not None, f"version {number} was registered a moment ago"
    return version
