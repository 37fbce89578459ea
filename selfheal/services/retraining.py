"""From a request to a verdict, in order: `decide_retraining`, `gather_training_set`, `train_shadow`, `judge`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from selfheal.adapters.postgres.lock_keys import Lock
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.monitoring.window import TICK
from selfheal.domain.records import Action, Decision, GateVerdict, ModelVersion, Onset, Repair, ShadowModel, Trigger
from selfheal.domain.retraining.class_counts import EVALUATION
from selfheal.domain.retraining.conditions import (
    evaluate_conditions,
    is_allowed,
    names_of_unmet,
    since_change,
    unmet,
)
from selfheal.domain.retraining.dataset import (
    ORIGIN,
    ORIGINAL,
    WEIGHT,
    OriginalRows,
    TrainingSet,
    bootstrap_training_set,
    source_without,
    training_set,
    with_rows_before,
)
from selfheal.domain.retraining.evaluation import Evaluation, Scores, evaluation_on
from selfheal.domain.retraining.fitting import Parallelism
from selfheal.domain.retraining.gate_spec import COMMON_LIMITS
from selfheal.domain.retraining.gates import GATES, limits_of
from selfheal.domain.retraining.judging import added_up, evaluate_gates, limit_of_earlier
from selfheal.domain.retraining.reference import MAX_REFERENCE_ROWS, reference_part
from selfheal.domain.retraining.training import Progress, train
from selfheal.kit.code_version import code_version
from selfheal.kit.errors import IntegrityError, InvalidDataError, MissingArtifactError, TrainingFailedError
from selfheal.kit.serialization import digest_of
from selfheal.services.live_traffic import score_live_traffic
from selfheal.services.repairs import ladder_for, lineage
from selfheal.services.retraining_signals import (
    bootstrap_parts,
    first_moment,
    matured_labels,
    retraining_limits,
    retraining_signals,
)
from selfheal.services.scoring import try_scores

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.adapters.datasets import Dataset
    from selfheal.domain.retraining.judging import GateOutcome
    from selfheal.services.repositories import LoopPlatform
    from selfheal.settings import Settings


SPENDS_ATTEMPT = (TrainingFailedError, InvalidDataError)
"""What fails for what is trained, and would fail again without other rows."""


def consider_retraining(
    platform: LoopPlatform,
    trigger: Trigger,
    *,
    episode_id: str | None,
    actor: str,
    reason: str,
    now: datetime,
    request_id: str | None = None,
    bootstrap_data: Dataset | None = None,
) -> Decision:
    """Decide whether to train now (`evaluate_conditions`); record nothing.

    Args:
        bootstrap_data: what a bootstrap would learn from, so that its classes are counted, too.
    """
    signals = retraining_signals(platform, trigger, episode_id)
    if bootstrap_data is not None:
        signals = replace(signals, parts=bootstrap_parts(platform.settings, platform.contract, bootstrap_data))
    conditions = evaluate_conditions(signals, retraining_limits(platform.settings), now)
    action = Action.TRAIN if is_allowed(conditions) else Action.SKIP
    champion = None if signals.champion is None else signals.champion.version
    attempt = len(signals.attempts) + 1
    # The state that makes a decision a new one. To train: any change of a sentence. To skip: another set of unmet conditions;
    # one more label is no change. Each request by a person or by the schedule gets a decision of its own, and so does
    # each file that is too short for a bootstrap.
    state: Any = (signals.n_usable_labels, conditions) if action is Action.TRAIN else names_of_unmet(conditions)
    if action is Action.SKIP and bootstrap_data is not None:
        state = conditions
    asked = {Trigger.MANUAL: (actor, reason, request_id), Trigger.SCHEDULE: f"{now:%G-W%V}"}.get(trigger)
    return Decision(
        decision_id=digest_of("retrain", trigger, asked, episode_id, attempt, champion, action, state)[:16],
        created_at=now,
        model_name=platform.contract.name,
        trigger_reason=trigger.value,
        action=action,
        reason=reason if action is Action.TRAIN else unmet(conditions),
        actor=actor,
        champion_version=champion,
        episode_id=episode_id,
        attempt=attempt,
        n_labels=signals.n_usable_labels,
        conditions=conditions,
        code_version=code_version(),
        onset=signals.onset,
    )


def decide_retraining(
    platform: LoopPlatform,
    trigger: Trigger,
    *,
    episode_id: str | None,
    actor: str,
    reason: str,
    now: datetime,
    request_id: str | None = None,
    bootstrap_data: Dataset | None = None,
) -> Decision:
    """Decide whether to train now (`consider_retraining`), and record the decision either way, once per state."""
    considered = consider_retraining(
        platform,
        trigger,
        episode_id=episode_id,
        actor=actor,
        reason=reason,
        now=now,
        request_id=request_id,
        bootstrap_data=bootstrap_data,
    )
    return record_considered(platform, considered)


def record_considered(platform: LoopPlatform, decision: Decision) -> Decision:
    """Record a decision whether to retrain. The same state has the same `decision_id` and is recorded once."""
    return platform.decisions.record(decision)


def gather_training_set(
    platform: LoopPlatform, decision: Decision, bootstrap_data: Dataset | None, now: datetime | None = None
) -> TrainingSet:
    """Gather the labelled rows to learn from: the champion's traffic, or the bootstrap data before the first champion.

    Only matured traffic with a sound feed counts; the champion's own training rows are added.

    Args:
        now: the time of a failure, which is recorded; None: that of the decision.

    Raises:
        InvalidDataError: if there are too few rows of a class, or if a feature leaks the label.
        IntegrityError: if the champion's training rows do not match their recorded digest.
    """
    with _recording_failure(platform, decision.decision_id, now or decision.created_at):
        return _gather(platform, decision, bootstrap_data)


def _gather(platform: LoopPlatform, decision: Decision, bootstrap_data: Dataset | None) -> TrainingSet:
    settings, contract = platform.settings, platform.contract
    if decision.trigger_reason == Trigger.BOOTSTRAP:
        assert bootstrap_data is not None, "a bootstrap trains on the data set it is given"
        return bootstrap_training_set(
            bootstrap_data.frame,
            contract,
            source=bootstrap_data.description,
            min_evaluation_rows=settings.min_samples_for_decision,
            decision_id=decision.decision_id,
        )
    champion = platform.versions.champion()
    since = first_moment(champion, decision.onset)
    matured, _ = matured_labels(platform, champion, since)
    labelled = platform.traffic.labelled_rows(
        since=since,
        until=None if matured is None else matured.until,
        max_rows=settings.training_max_rows,
        sound_only=True,
        usable_only=False,
    )
    rows, left_out = contract.without_unusable(labelled)
    counts = platform.traffic.count_labels(since=since, sound_only=True)
    original = original_rows(platform, champion)
    n_predictions, n_labels = counts if matured is None else (matured.n_predictions, matured.n_labels)
    return training_set(
        rows,
        contract,
        source=source_without(f"{len(rows):,} labelled predictions{since_change(decision.onset)}", left_out),
        min_evaluation_rows=settings.min_samples_for_decision,
        label_coverage_pct=100.0 * n_labels / max(1, n_predictions),
        decision_id=decision.decision_id,
        original=original
        if decision.onset is None
        else _with_rows_before(platform, champion, decision.onset, original),
        seed=settings.random_seed,
        onset=decision.onset,
    )


def _with_rows_before(
    platform: LoopPlatform, champion: ModelVersion, onset: Onset, original: OriginalRows | None
) -> OriginalRows | None:
    """Return the champion's own training rows and, after them, what it served before the change: both are of an older world."""
    max_rows = platform.settings.training_max_rows
    before = platform.traffic.labelled_rows(
        since=champion.promoted_at, until=onset.at, max_rows=max_rows, sound_only=True
    )
    return with_rows_before(original, before, max_rows)


def original_rows(platform: LoopPlatform, champion: ModelVersion) -> OriginalRows | None:
    """Return the newest rows that the champion learned from or was judged on, with their weights; else the first baseline.

    A repaired champion keeps the fit of an earlier version (`lineage`): that version's rows come first, then the labels of each
    repair since. None if the contract has changed since, because the rows have other features.

    Raises:
        IntegrityError: if the rows do not match their recorded digest.
    """
    if champion.contract_hash != platform.contract.hash:
        return None
    max_rows = platform.settings.training_max_rows
    *repaired, fitted = lineage(platform, champion)
    rows = _rows_of_fit(platform, fitted)
    if rows is not None and repaired:
        labels = [_labels_of_repair(platform, version) for version in reversed(repaired)]
        rows = rows.followed_by(labels, f"version {champion.version} and what it repairs were fitted to")
    return None if rows is None else rows.newest(max_rows)


def _rows_of_fit(platform: LoopPlatform, version: ModelVersion) -> OriginalRows | None:
    try:
        kept = platform.registry.training_set(version)
    except MissingArtifactError:  # registered before training sets were stored, or by other means
        baseline = platform.traffic.baseline()
        if baseline is None:
            return None
        frame, _ = platform.contract.without_unusable(platform.contract.feature_frame(baseline))
        frame = frame.assign(**{TRUE_LABEL: baseline[TRUE_LABEL]}).assign(**{WEIGHT: 1.0})
        return OriginalRows(frame, "the first baseline")
    return OriginalRows(kept.frame, f"the training set of version {version.version} ({kept.info.source})")


def _labels_of_repair(platform: LoopPlatform, version: ModelVersion) -> pd.DataFrame | None:
    """Return the recent rows that a repair was fitted to; its original rows are those of the fit. None if they were not stored."""
    try:
        frame = platform.registry.training_set(version).frame
    except MissingArtifactError:
        return None
    return frame[frame[ORIGIN] != ORIGINAL]


OpenRun = Callable[[str | None], str | None]
"""Open an MLflow run and return its id. Called with None: the run that belongs to the caller's own run; with an id: the run of
an earlier training. Returning None leaves it to the registry to open a run while it logs."""


def train_shadow(
    platform: LoopPlatform,
    rows: TrainingSet,
    now: datetime,
    on_fits: Progress | None = None,
    open_run: OpenRun = lambda _: None,
) -> ShadowModel:
    """Train (`train`) and log a candidate; return it. The same rows, settings, code and decision are trained once.

    Args:
        open_run: called before the training, so that a failed training has a run too.

    Raises:
        TrainingFailedError: if the training yields no model.
        IntegrityError: if the decision to train is not recorded.
    """
    contract, seed = platform.contract, platform.settings.random_seed
    decision = None if rows.info.decision_id is None else platform.decisions.find(rows.info.decision_id)
    if decision is None:
        raise IntegrityError(f"the training set names decision {rows.info.decision_id}, which is not recorded")
    key = digest_of(
        rows.info.sha256, contract.hash, seed, dict(contract.param_grid), code_version(), decision.decision_id
    )
    known = platform.registry.find_shadow(key)
    if known is not None:
        open_run(known.mlflow_run_id)
        return known
    run_id = open_run(None)
    with _recording_failure(platform, decision.decision_id, now):
        trained = train(
            rows,
            contract,
            seed,
            parallelism(platform.settings),
            on_fits,
            _unlabelled(platform, rows),
            ladder_for(platform, decision),
        )
    return platform.registry.log_shadow(
        trained,
        rows,
        shadow_key=key,
        decision_id=decision.decision_id,
        trigger_reason=decision.trigger_reason,
        now=now,
        run_id=run_id,
    )


def _unlabelled(platform: LoopPlatform, rows: TrainingSet) -> pd.DataFrame | None:
    """Return the champion's predictions of the reference's time that are not in the training set; None for rows of a file."""
    newest = reference_part(rows)
    if newest.empty or newest["prediction_id"].isna().any():
        return None
    first, last = (newest["created_at"].iloc[place].to_pydatetime() for place in (0, -1))
    version = int(newest["model_version"].iloc[-1])
    found = platform.traffic.sound_rows(version, first - TICK, last, MAX_REFERENCE_ROWS)
    return found[~found["prediction_id"].isin(newest["prediction_id"])]


def judge(platform: LoopPlatform, shadow: ShadowModel, rows: TrainingSet, now: datetime) -> GateVerdict:
    """Evaluate the gates for challenger and champion on the evaluation rows and on live traffic; record the decision.

    The same challenger is judged once against the same champion with the same limits: later calls return the recorded
    decision, which does not count as another verdict. Verdicts are reached one at a time, so that each has its own number.

    Raises:
        ModelRefusedError, IntegrityError: if a model does not load. A challenger that loads but does not score is rejected.
        ServiceUnavailableError: if another process has been judging for too long.
    """
    with platform.exclusive(Lock.JUDGING):
        return _judge(platform, shadow, rows, now)


def _judge(platform: LoopPlatform, shadow: ShadowModel, rows: TrainingSet, now: datetime) -> GateVerdict:
    training_decision = platform.decisions.find(shadow.decision_id)
    assert training_decision is not None, "a shadow model is trained by a recorded decision"
    champion, limits = champion_to_beat(platform, shadow), gate_limits(platform.settings)
    decision_id = digest_of("gates", shadow.mlflow_run_id, champion and champion.version, limits)[:16]
    earlier = _earlier_verdicts(platform, champion, decision_id, training_decision.onset)
    limits |= limit_of_earlier(earlier)
    evaluation = evaluation_of(platform, shadow, champion, rows, training_decision.n_labels)
    live = None if champion is None else score_live_traffic(platform, shadow, champion)
    scoring = None if live is None else live.scoring
    outcome = evaluate_gates(evaluation, limits, 1 + added_up(earlier), live=scoring)
    decision = Decision(
        decision_id=decision_id,
        created_at=now,
        model_name=shadow.model_name,
        trigger_reason=shadow.trigger_reason,
        action=outcome.action,
        reason=_reason(outcome, shadow),
        actor=training_decision.actor,
        champion_version=None if champion is None else champion.version,
        mlflow_run_id=shadow.mlflow_run_id,
        episode_id=training_decision.episode_id,
        attempt=training_decision.attempt,
        n_labels=training_decision.n_labels,
        gates=outcome.gates,
        data_sha256=rows.info.sha256,
        model_sha256=shadow.artifact_sha256,
        cross_fitted_sha256=shadow.cross_fitted_sha256,
        gate_config_sha256=digest_of(limits),
        code_version=code_version(),
        verdict_number=None if champion is None else len(earlier) + 1,
        gate_config=limits,
        onset=training_decision.onset,
    )
    kept = platform.decisions.record(decision)
    return GateVerdict(
        decision=kept,
        shadow=shadow,
        champion_metrics=outcome.champion,
        challenger_metrics=outcome.challenger,
        segments=outcome.segments,
        shadow_scoring=scoring,
        worth_labelling=live.disputed if live is not None and kept.action is Action.INCONCLUSIVE else (),
    )


def _reason(outcome: GateOutcome, shadow: ShadowModel) -> str:
    """Return why, and what the challenger is if it is no retraining."""
    choice = None if shadow.record is None else shadow.record.repair
    if choice is None or choice.repair is Repair.RETRAINING:
        return outcome.reason
    return f"{outcome.reason} (the challenger is {choice.reason})"


def evaluation_of(
    platform: LoopPlatform,
    challenger: ShadowModel | ModelVersion,
    champion: ModelVersion | None,
    rows: TrainingSet,
    n_labels: int,
) -> Evaluation:
    """Return both models' scores of a training set's evaluation rows, which `evaluate_gates` judges, now or years later.

    Where the challenger has learned from these rows, its scores are those of models of its making that have not.

    Raises:
        ModelRefusedError, IntegrityError: if a model does not load.
    """
    evaluation = rows.part(EVALUATION)
    by_others = platform.registry.cross_fitted(challenger) if rows.is_cross_fitted else None
    if rows.is_cross_fitted and by_others is None:
        raise IntegrityError(
            f"run {challenger.mlflow_run_id} does not say what it was judged by, and it has learned from its evaluation rows; "
            "restore MLflow's artifacts from a backup"
        )
    return evaluation_on(
        rows,
        platform.contract,
        challenger=try_scores(platform, challenger, evaluation)
        if by_others is None
        else Scores(by_others.probabilities, challenger.threshold, decisions=by_others.decisions),
        champion=None if champion is None else try_scores(platform, champion, evaluation),
        n_labels=n_labels,
    )


def champion_to_beat(platform: LoopPlatform, shadow: ShadowModel) -> ModelVersion | None:
    """Return the version in production; for a shadow model that was already promoted, the version it replaced."""
    champion = platform.versions.production()
    if champion is None or champion.mlflow_run_id != shadow.mlflow_run_id or champion.decision_id is None:
        return champion
    if champion.previous_version is None:
        return None
    return platform.versions.find(champion.previous_version)


def _earlier_verdicts(
    platform: LoopPlatform, champion: ModelVersion | None, decision_id: str, onset: Onset | None
) -> list[Decision]:
    """Return the verdicts on the champion in today's world before the one with this id, oldest first; none at bootstrap.

    Verdicts from before a change of the relation were on other rows, and on a champion that was right then.
    """
    if champion is None:
        return []
    since = first_moment(champion, onset) or champion.registered_at
    verdicts = platform.decisions.verdicts_on(champion.version, since)
    return list(takewhile(lambda verdict: verdict.decision_id != decision_id, verdicts))


def parallelism(settings: Settings) -> Parallelism:
    """Return how the fits of a training are run, from the settings."""
    return Parallelism(settings.training_jobs, settings.training_backend, settings.dask_scheduler)


def gate_limits(settings: Settings) -> dict[str, Any]:
    """Return the current limits of all gates (`GateLimits`), as a verdict stores them.

    `settings` must come from `load_settings`, which includes the settings that gates declare.
    """
    return {limit.name: getattr(settings, limit.setting_name) for limit in (*COMMON_LIMITS, *limits_of(GATES))}


def record_out_of_time(platform: LoopPlatform, episode_id: str, attempt: int, reason: str, now: datetime) -> None:
    """Record that the training of an attempt ran out of time: it spends the attempt, since it would run out again."""
    made = platform.decisions.attempts_of(episode_id, actions=(Action.TRAIN,))
    started = [decision.decision_id for decision in made if decision.attempt == attempt]
    if started:
        platform.decisions.record_training_failure(started[-1], reason, now)


@contextmanager
def _recording_failure(platform: LoopPlatform, decision_id: str, now: datetime) -> Iterator[None]:
    """Record a failure that is the model's or its rows': it spends an attempt."""
    try:
        yield
    except SPENDS_ATTEMPT as error:
        platform.decisions.record_training_failure(decision_id, str(error), now)
        raise
