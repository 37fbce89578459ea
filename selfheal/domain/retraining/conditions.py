"""Conditions for a retraining. Every condition is evaluated and listed, met or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from selfheal.domain.records import Condition, Decision, ModelVersion, Trigger

NEW_LABELS_GROWTH = 1.25
"""Growth of the number of labels before another attempt in the same episode: an attempt on nearly the same rows would only
test chance again."""


@dataclass(frozen=True, slots=True)
class MaturedLabels:
    """Traffic old enough for labels of both classes to have arrived: predictions up to `until` (None: all).

    `reason` explains in a sentence how that is known.
    """

    n_predictions: int
    n_labels: int
    until: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class RetrainingSignals:
    """What is known when a retraining is requested. Only traffic since the champion went live with a sound feed counts.

    `is_feed_broken` is None before a tick has seen enough of the champion's traffic. `matured` is None where the delay of
    labels is not identifiable, for which `maturity` has the reason. `attempts` of this episode are those that were judged and
    those that failed for what their model or rows are like. `is_contract_its_own`: the champion was trained under the contract that this process has.
    """

    trigger: Trigger
    champion: ModelVersion | None
    is_feed_broken: bool | None
    n_labels: int
    n_predictions: int
    matured: MaturedLabels | None = None
    maturity: str = "not identifiable: there is no traffic"
    attempts: Sequence[Decision] = ()
    is_contract_its_own: bool = True

    @property
    def n_usable_labels(self) -> int:
        """Return the number of labels for learning: the matured ones if known, else all."""
        return self.n_labels if self.matured is None else self.matured.n_labels


@dataclass(frozen=True, slots=True)
class RetrainingLimits:
    """Limits for a retraining: time since the last promotion, labels, coverage in percent, attempts per episode."""

    cooldown: timedelta
    min_labels: int
    min_coverage_pct: float
    max_attempts: int


def evaluate_conditions(signals: RetrainingSignals, limits: RetrainingLimits, now: datetime) -> tuple[Condition, ...]:
    """Evaluate all conditions for this trigger. A bootstrap needs only that there is no champion yet."""
    if signals.trigger is Trigger.BOOTSTRAP:
        return (_no_champion(signals.champion),)
    champion = _has_champion(signals.champion, signals.is_contract_its_own)
    if signals.trigger is Trigger.MANUAL:
        return (champion, _labels(signals, limits), _matured(signals, limits), _sound_feed(signals.is_feed_broken))
    return (
        champion,
        _cooldown(signals.champion, limits.cooldown, now),
        _labels(signals, limits),
        _matured(signals, limits),
        _coverage(signals, limits),
        _sound_feed(signals.is_feed_broken),
        _attempts_left(signals.attempts, limits.max_attempts),
        _new_labels(signals),
    )


def is_allowed(conditions: Sequence[Condition]) -> bool:
    """Return whether every condition is met."""
    return all(condition.is_met for condition in conditions)


def unmet(conditions: Sequence[Condition]) -> str:
    """Return the unmet conditions in one sentence."""
    return "; ".join(condition.reason for condition in conditions if not condition.is_met)


def names_of_unmet(conditions: Sequence[Condition]) -> tuple[str, ...]:
    """Return the names of the unmet conditions; unlike their sentences, they do not change with every label."""
    return tuple(condition.name for condition in conditions if not condition.is_met)


def _no_champion(champion: ModelVersion | None) -> Condition:
    if champion is None:
        return Condition("no_champion", True, "no version is in production yet")
    return Condition("no_champion", False, f"version {champion.version} is in production already")


def _has_champion(champion: ModelVersion | None, is_contract_its_own: bool) -> Condition:
    """Require a champion that a candidate can be compared with."""
    if champion is None:
        return Condition("champion", False, "no version is in production; run `selfheal bootstrap` first")
    if not is_contract_its_own:
        return Condition(
            "champion",
            False,
            f"version {champion.version} is in production, but was trained under another contract, so that nothing can be compared "
            "with it; deploy the code it was trained with, or bootstrap the new contract in a DATA_DIR of its own",
        )
    return Condition("champion", True, f"version {champion.version} is in production")


def _cooldown(champion: ModelVersion | None, cooldown: timedelta, now: datetime) -> Condition:
    """Require `cooldown` since the champion went live, by a promotion or a rollback.

    The bootstrap starts no cooldown, because it replaced nothing. The first version's return by a rollback does.
    """
    if champion is None or champion.promoted_at is None:
        return Condition("cooldown", True, "no promotion to cool down from")
    if champion.trigger_reason == Trigger.BOOTSTRAP and champion.previous_version is None:
        return Condition("cooldown", True, "no promotion to cool down from")
    ends_at = champion.promoted_at + cooldown
    if now >= ends_at:
        return Condition(
            "cooldown", True, f"version {champion.version} is live since {champion.promoted_at:%Y-%m-%d %H:%M} UTC"
        )
    return Condition(
        "cooldown",
        False,
        f"cooling down until {ends_at:%Y-%m-%d %H:%M} UTC, since version {champion.version} went live",
    )


def _labels(signals: RetrainingSignals, limits: RetrainingLimits) -> Condition:
    have, want = signals.n_labels, limits.min_labels
    sentence = f"{have:,} labelled predictions, {want:,} wanted"
    return Condition("labelled_samples", have >= want, sentence)


def _matured(signals: RetrainingSignals, limits: RetrainingLimits) -> Condition:
    """Require matured labels, because early ones may be of one class only; if maturity is unknown, require enough labels."""
    if signals.matured is None:
        return Condition("matured_samples", True, f"when labels have matured is {signals.maturity}")
    have, want = signals.matured.n_labels, limits.min_labels
    sentence = f"{have:,} labels of matured predictions, {want:,} wanted ({signals.matured.reason})"
    return Condition("matured_samples", have >= want, sentence)


def _coverage(signals: RetrainingSignals, limits: RetrainingLimits) -> Condition:
    """Require label coverage, of the matured predictions if known: the newest have not had time to be labelled."""
    of, which = (signals, "") if signals.matured is None else (signals.matured, "matured ")
    pct = 100.0 * of.n_labels / of.n_predictions if of.n_predictions else 0.0
    sentence = f"{pct:.0f} % of the {which}predictions are labelled, {limits.min_coverage_pct:g} % wanted"
    return Condition("label_coverage", pct >= limits.min_coverage_pct, sentence)


def _sound_feed(is_broken: bool | None) -> Condition:
    if is_broken is None:
        return Condition(
            "sound_feed", False, "too little of the champion's traffic has been looked at to trust the feed"
        )
    if is_broken:
        return Condition("sound_feed", False, "the feed is broken: repair it before training on it")
    return Condition("sound_feed", True, "the feed was sound when it was last looked at")


def _attempts_left(attempts: Sequence[Decision], cap: int) -> Condition:
    return Condition("attempts", len(attempts) < cap, f"{len(attempts)} of {cap} attempts of this episode are used")


def _new_labels(signals: RetrainingSignals) -> Condition:
    if not signals.attempts:
        return Condition("back_off", True, "first attempt of this episode")
    wanted = round(signals.attempts[-1].n_labels * NEW_LABELS_GROWTH)
    sentence = f"{signals.n_usable_labels:,} labels, the next attempt waits for {wanted:,}"
    return Condition("back_off", signals.n_usable_labels >= wanted, sentence)
