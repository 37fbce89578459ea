"""Signals for a decision on retraining, read from Postgres: labels, matured ones, classes, attempts, the feed.

Belongs here: what `selfheal.domain.retraining.conditions` judges. Does not belong here: recording what it decides
(`selfheal.services.retraining`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from selfheal.domain.monitoring.label_delay import MATURED_SHARE, observed_until
from selfheal.domain.monitoring.label_sanity import withheld
from selfheal.domain.monitoring.onset import onset_of
from selfheal.domain.records import JUDGED, Action, Decision, ModelVersion, Onset, Trigger
from selfheal.domain.retraining.conditions import MaturedLabels, RetrainingLimits, RetrainingSignals
from selfheal.domain.retraining.dataset import EVALUATION_SHARE, part_counts, parts_of
from selfheal.domain.retraining.requests import RetrainingNeed, UnansweredChange, retraining_need, unanswered_change
from selfheal.services.label_maturity import delay_for_judging
from selfheal.services.tick import last_feed_check, latest_tick

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfheal.adapters.datasets import Dataset
    from selfheal.domain.contract import ModelContract
    from selfheal.domain.retraining.class_counts import PartCounts
    from selfheal.services.repositories import LoopPlatform
    from selfheal.settings import Settings


def retraining_signals(platform: LoopPlatform, trigger: Trigger, episode_id: str | None) -> RetrainingSignals:
    """Gather the signals for a decision on retraining."""
    champion = platform.versions.production()
    if champion is None:
        return RetrainingSignals(trigger, None, None, 0, 0)
    feed_check = last_feed_check(platform, champion.version)
    attempts = _attempts(platform, episode_id)
    matured, maturity = matured_labels(platform, champion, champion.promoted_at)
    onset = find_onset(platform, champion, None if matured is None else matured.until)
    since = first_moment(champion, onset)
    n_predictions, n_labels = platform.traffic.count_labels(since=since, sound_only=True)
    if onset is not None:
        matured, maturity = matured_labels(platform, champion, since)
    signals = RetrainingSignals(
        trigger=trigger,
        champion=champion,
        is_feed_broken=None if feed_check is None else feed_check.is_broken,
        n_labels=n_labels,
        n_predictions=n_predictions,
        matured=matured,
        maturity=maturity,
        suspect_labels=withheld(platform.traffic.label_quarantines(champion.version)),
        attempts=attempts,
        last_attempt=_last_attempt(platform, champion, attempts, onset),
        is_contract_its_own=champion.contract_hash == platform.contract.hash,
        onset=onset,
    )
    return replace(signals, n_known_labels=_known_labels(platform, signals), parts=_parts(platform, signals))


def current_need(platform: LoopPlatform) -> RetrainingNeed:
    """Return whether a retraining is required now: by the newest tick, or by a change that is still unanswered."""
    tick, champion = latest_tick(platform), platform.versions.production()
    change = None if champion is None else _unanswered_change(platform, champion)
    return retraining_need(tick, change)


def _unanswered_change(platform: LoopPlatform, champion: ModelVersion) -> UnansweredChange | None:
    since = champion.promoted_at or champion.registered_at
    verdict = platform.decisions.newest_verdict(champion.version, since)
    if verdict is None or verdict.onset is None:
        return None
    _, n_labels = platform.traffic.count_labels(since=verdict.onset.at, sound_only=True)
    return unanswered_change(verdict, n_labels, is_tried=_is_tried_since(platform, verdict))


def _is_tried_since(platform: LoopPlatform, verdict: Decision) -> bool:
    """Return whether a training of the verdict's episode has begun since then; of none it cannot be told, and counts as tried."""
    if verdict.episode_id is None:
        return True
    trainings = platform.decisions.attempts_of(verdict.episode_id, actions=(Action.TRAIN,))
    return any(one.created_at > verdict.created_at for one in trainings)


def first_moment(champion: ModelVersion, onset: Onset | None) -> datetime | None:
    """Return since when rows count: a change of the relation, else the champion's promotion."""
    return champion.promoted_at if onset is None else onset.at


def find_onset(platform: LoopPlatform, champion: ModelVersion, until: datetime | None) -> Onset | None:
    """Return the onset of today's world in what the champion has served (`onset_of`); None if no change is shown.

    Rows under another contract show nothing of this one. Nor do rows after `until`, whose labels have not matured: the first ones of
    a class would look like a change.
    """
    settings, contract = platform.settings, platform.contract
    if champion.contract_hash != contract.hash:
        return None
    rows = platform.traffic.labelled_rows(
        since=champion.promoted_at,
        until=until,
        model_version=champion.version,
        max_rows=settings.training_max_rows,
        sound_only=True,
    )
    min_rows = retraining_limits(settings).min_labels_after_change
    return onset_of(rows, contract.input_names, min_rows, settings.random_seed)


def bootstrap_parts(settings: Settings, contract: ModelContract, dataset: Dataset) -> tuple[PartCounts, ...]:
    """Return the class counts of the parts that a bootstrap would make of these labelled rows."""
    return parts_of(dataset.frame, contract, settings.min_samples_for_decision)


def matured_labels(
    platform: LoopPlatform, champion: ModelVersion, first: datetime | None
) -> tuple[MaturedLabels | None, str]:
    """Return the matured traffic since the first moment that counts; None if not identifiable, and the reason.

    How long labels take is known from all that the champion has served.
    """
    traffic, since = platform.traffic, champion.promoted_at or champion.registered_at
    n_predictions, n_labels = traffic.count_labels(since=first or since, sound_only=True)
    if n_labels >= MATURED_SHARE * n_predictions > 0:
        reason = f"at least {MATURED_SHARE:.0%} of the predictions are labelled"
        return MaturedLabels(n_predictions, n_labels, None, reason), reason
    window = traffic.window_of(champion.version, since)
    if window is None:
        return None, "not identifiable: there is no traffic"
    observed = observed_until(window)
    delay = delay_for_judging(platform, champion.version, since, observed)
    if delay.matured_after_s is None:
        return None, delay.reason
    until = observed - timedelta(seconds=delay.matured_after_s)
    newer, newer_labels = traffic.count_labels(since=max(until, first or until), sound_only=True)
    return MaturedLabels(n_predictions - newer, n_labels - newer_labels, until, delay.reason), delay.reason


def retraining_limits(settings: Settings) -> RetrainingLimits:
    """Return the limits of a retraining; with `min_labels`, the evaluation part alone reaches MIN_SAMPLES_FOR_DECISION."""
    return RetrainingLimits(
        cooldown=timedelta(days=settings.promotion_cooldown_days),
        min_labels=round(settings.min_samples_for_decision / EVALUATION_SHARE),
        min_coverage_pct=settings.min_coverage_pct,
        max_attempts=settings.max_attempts_per_episode,
        max_rows=settings.training_max_rows,
        min_labels_after_change=2 * settings.min_samples_for_decision,
    )


def _parts(platform: LoopPlatform, signals: RetrainingSignals) -> tuple[PartCounts, ...] | None:
    """Return the class counts of the training set that a retraining would have now; None while labels are too few."""
    settings, champion = platform.settings, signals.champion
    wanted = retraining_limits(settings).wanted_labels(signals.onset)
    if champion is None or signals.n_usable_labels < wanted:
        return None
    until = None if signals.matured is None else signals.matured.until
    since = first_moment(champion, signals.onset)
    rows = platform.traffic.labelled_keys(since=since, until=until, max_rows=settings.training_max_rows)
    return part_counts(rows, settings.min_samples_for_decision, is_cross_fitted=signals.onset is not None)


def _last_attempt(
    platform: LoopPlatform, champion: ModelVersion, attempts: tuple[Decision, ...], onset: Onset | None
) -> Decision | None:
    """Return the last attempt that more labels have to be waited for: of this episode, or since a change of any trigger.

    A verdict may come and go while the change stays: each time another episode begins, and its attempts would test chance again.
    """
    if onset is None:
        return attempts[-1] if attempts else None
    since_change = platform.decisions.newest_verdict(champion.version, onset.at)
    if since_change is not None and _is_gone_on_with(platform, since_change):
        since_change = None
    made = [one for one in (*attempts[-1:], since_change) if one is not None]
    return max(made, key=lambda one: one.created_at, default=None)


def _known_labels(platform: LoopPlatform, signals: RetrainingSignals) -> int:
    """Return how many of the usable labels the last attempt had, so that it is compared with the same labels now.

    The number that the attempt recorded may be of another base: of what another version has served since, or of labels
    that were not known to have matured. None of what was received after it was its own.
    """
    last = signals.last_attempt
    if last is None or signals.champion is None:
        return 0
    since = first_moment(signals.champion, signals.onset)
    until = None if signals.matured is None else signals.matured.until
    n_new = platform.traffic.count_labels_received_after(last.created_at, since=since, until=until)
    return min(last.n_labels, max(0, signals.n_usable_labels - n_new))


def _attempts(platform: LoopPlatform, episode_id: str | None) -> tuple[Decision, ...]:
    """Return what was tried in this episode: the verdicts, and the trainings that failed for what was trained.

    A training that is under way, or failed for anything else, is none: more labels would not help it. Nor is a verdict that a
    repeated run goes on with.
    """
    if episode_id is None:
        return ()
    actions = (Action.TRAIN, Action.SKIP, *JUDGED)
    recorded = platform.decisions.attempts_of(episode_id, actions=actions)
    made = [one for one in recorded if one.action is not Action.SKIP and not _is_gone_on_with(platform, one, recorded)]
    judged = {decision.attempt for decision in made if decision.action is not Action.TRAIN}
    failed = platform.decisions.failed_trainings([one.decision_id for one in made if one.action is Action.TRAIN])
    return tuple(
        decision
        for decision in made
        if decision.action is not Action.TRAIN or (decision.attempt not in judged and decision.decision_id in failed)
    )


def _is_gone_on_with(platform: LoopPlatform, verdict: Decision, recorded: Sequence[Decision] | None = None) -> bool:
    """Return whether a repeated run goes on with this verdict: to promote, and nobody has carried it out.

    A process has died between verdict and promotion if its champion is still in production, and the model was not refused.

    Args:
        recorded: the decisions of its episode; None: they are looked up.
    """
    if verdict.action is not Action.PROMOTE or platform.versions.has_taken_effect(verdict.decision_id):
        return False
    live = platform.versions.production()
    if live is None or live.version != verdict.champion_version:
        return False
    if recorded is None and verdict.episode_id is not None:
        recorded = platform.decisions.attempts_of(verdict.episode_id, actions=(Action.SKIP,))
    refused = {one.mlflow_run_id for one in recorded or () if one.action is Action.SKIP}
    return verdict.mlflow_run_id not in refused
