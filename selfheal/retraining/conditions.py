"""Whether a retraining may start now. Every condition is evaluated and listed, met or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from selfheal.records import Condition, Decision, ModelVersion, Trigger, Verdict

NEW_LABELS_GROWTH = 1.25
"""Another attempt at the same episode waits for a quarter more labels: on nearly the same rows it would only roll the
dice again."""


@dataclass(frozen=True, slots=True)
class RetrainingSignals:
    """What is known when a retraining is asked for.

    `latest_verdict` is None before the first tick of the champion; `attempts` are the judged attempts of this episode.
    """

    trigger: Trigger
    champion: ModelVersion | None
    latest_verdict: Verdict | None
    n_labels: int
    n_predictions: int
    attempts: Sequence[Decision] = ()


@dataclass(frozen=True, slots=True)
class RetrainingLimits:
    cooldown: timedelta
    min_labels: int
    min_coverage_pct: float
    max_attempts: int


def evaluate_conditions(signals: RetrainingSignals, limits: RetrainingLimits, now: datetime) -> tuple[Condition, ...]:
    """All conditions for this trigger. A bootstrap needs only that there is no champion yet."""
    if signals.trigger is Trigger.BOOTSTRAP:
        return (_no_champion(signals.champion),)
    champion = _has_champion(signals.champion)
    if signals.trigger is Trigger.MANUAL:
        return (champion, _labels(signals, limits), _sound_feed(signals.latest_verdict))
    return (
        champion,
        _cooldown(signals.champion, limits.cooldown, now),
        _labels(signals, limits),
        _coverage(signals, limits),
        _sound_feed(signals.latest_verdict),
        _attempts_left(signals.attempts, limits.max_attempts),
        _new_labels(signals),
    )


def is_allowed(conditions: Sequence[Condition]) -> bool:
    return all(condition.is_met for condition in conditions)


def unmet(conditions: Sequence[Condition]) -> str:
    """The unmet conditions in one sentence."""
    return "; ".join(condition.reason for condition in conditions if not condition.is_met)


def _no_champion(champion: ModelVersion | None) -> Condition:
    if champion is None:
        return Condition("no_champion", True, "no version is in production yet")
    return Condition("no_champion", False, f"version {champion.version} is in production already")


def _has_champion(champion: ModelVersion | None) -> Condition:
    if champion is None:
        return Condition("champion", False, "no version is in production; run `selfheal bootstrap` first")
    return Condition("champion", True, f"version {champion.version} is in production")


def _cooldown(champion: ModelVersion | None, cooldown: timedelta, now: datetime) -> Condition:
    """The bootstrap does not count: the first version has nothing to settle in from."""
    if champion is None or champion.promoted_at is None or champion.trigger_reason == Trigger.BOOTSTRAP:
        return Condition("cooldown", True, "no promotion to cool down from")
    ends_at = champion.promoted_at + cooldown
    if now >= ends_at:
        return Condition("cooldown", True, f"the last promotion was at {champion.promoted_at:%Y-%m-%d %H:%M} UTC")
    return Condition("cooldown", False, f"cooling down from the last promotion until {ends_at:%Y-%m-%d %H:%M} UTC")


def _labels(signals: RetrainingSignals, limits: RetrainingLimits) -> Condition:
    have, want = signals.n_labels, limits.min_labels
    sentence = f"{have:,} labelled predictions, {want:,} wanted"
    return Condition("labelled_samples", have >= want, sentence)


def _coverage(signals: RetrainingSignals, limits: RetrainingLimits) -> Condition:
    pct = 100.0 * signals.n_labels / signals.n_predictions if signals.n_predictions else 0.0
    sentence = f"{pct:.0f} % of the predictions are labelled, {limits.min_coverage_pct:g} % wanted"
    return Condition("label_coverage", pct >= limits.min_coverage_pct, sentence)


def _sound_feed(verdict: Verdict | None) -> Condition:
    if verdict is None:
        return Condition("sound_feed", False, "the champion's traffic has not been looked at yet")
    if verdict is Verdict.BROKEN_FEED:
        return Condition("sound_feed", False, "the feed is broken: repair it before training on it")
    return Condition("sound_feed", True, f"the latest verdict is {verdict.value}")


def _attempts_left(attempts: Sequence[Decision], cap: int) -> Condition:
    return Condition("attempts", len(attempts) < cap, f"{len(attempts)} of {cap} attempts of this episode are used")


def _new_labels(signals: RetrainingSignals) -> Condition:
    if not signals.attempts:
        return Condition("back_off", True, "first attempt of this episode")
    wanted = round(signals.attempts[-1].n_labels * NEW_LABELS_GROWTH)
    sentence = f"{signals.n_labels:,} labels, the next attempt waits for {wanted:,}"
    return Condition("back_off", signals.n_labels >= wanted, sentence)
