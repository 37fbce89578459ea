"""Conditions for a retraining. Every condition is evaluated and listed, met or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from selfheal.domain.records import Condition, Decision, GateResult, GateStatus, ModelVersion, Onset, Trigger
from selfheal.domain.retraining.class_counts import PURPOSES, PartCounts, shortfall
from selfheal.domain.retraining.gates.f1_improvement import SPEC as GATE_WITH_LEVEL

NEW_LABELS_GROWTH, MOST_GROWTH_AFTER_CHANGE = 1.25, 2.0
"""Growth of the number of labels before another attempt: an attempt on nearly the same rows would only test chance again.

After a change it is that of the labels since then, which all judge, and of which there are few at first. With a quarter more each
time, the attempts of an episode and the level of their verdicts were used up before a gain of a few points could be seen. So the
next attempt has as many as its evidence wants (`growth_after_change`), twice as many at most.
"""


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
    """What is known when a retraining is requested.

    Only traffic with a sound feed counts: since the champion went live or, where the relation has changed since, since the onset.

    `is_feed_broken` is None before a tick has seen enough of the champion's traffic. `matured` is None where the delay of
    labels is not identifiable, for which `maturity` has the reason. `attempts` of this episode are those that were judged and
    those that failed for what their model or rows are like; `last_attempt` is the last one, after a change that of any episode, and
    `n_known_labels` of the usable labels were there then.
    `parts` of the training set that these labels would make; None while there are fewer labels than a retraining wants.
    `is_contract_its_own`: the champion was trained under the contract that this process has. `suspect_labels` says which
    labels are withheld, if labels that arrive now are; empty: none.
    """

    trigger: Trigger
    champion: ModelVersion | None
    is_feed_broken: bool | None
    n_labels: int
    n_predictions: int
    matured: MaturedLabels | None = None
    maturity: str = "not identifiable: there is no traffic"
    attempts: Sequence[Decision] = ()
    last_attempt: Decision | None = None
    n_known_labels: int = 0
    parts: Sequence[PartCounts] | None = None
    is_contract_its_own: bool = True
    onset: Onset | None = None
    suspect_labels: str = ""

    @property
    def n_usable_labels(self) -> int:
        """Return the number of labels for learning: the matured ones if known, else all."""
        return self.n_labels if self.matured is None else self.matured.n_labels


@dataclass(frozen=True, slots=True)
class RetrainingLimits:
    """Limits for a retraining: time since the last promotion, labels, coverage in percent, attempts per episode.

    `max_rows`: labelled predictions that a training set has at most, the newest. `min_labels_after_change` (0: as many) are wanted
    of those since a change: older rows are learned from as well, so that fewer suffice.
    """

    cooldown: timedelta
    min_labels: int
    min_coverage_pct: float
    max_attempts: int
    max_rows: int = 50_000
    min_labels_after_change: int = 0

    def wanted_labels(self, onset: Onset | None) -> int:
        """Return how many labels a training wants, of all or of those since a change."""
        return self.min_labels if onset is None else self.min_labels_after_change or self.min_labels


def evaluate_conditions(signals: RetrainingSignals, limits: RetrainingLimits, now: datetime) -> tuple[Condition, ...]:
    """Evaluate all conditions for this trigger. A bootstrap needs only that there is no champion yet, and enough rows."""
    if signals.trigger is Trigger.BOOTSTRAP:
        no_champion = _no_champion(signals.champion)
        return (no_champion,) if signals.parts is None else (no_champion, _class_counts(signals, limits))
    champion = _has_champion(signals.champion, signals.is_contract_its_own)
    if signals.trigger is Trigger.MANUAL:
        return (
            champion,
            _labels(signals, limits),
            _matured(signals, limits),
            _class_counts(signals, limits),
            _sound_feed(signals.is_feed_broken),
            _sound_labels(signals.suspect_labels),
        )
    return (
        champion,
        _cooldown(signals.champion, limits.cooldown, now),
        _labels(signals, limits),
        _matured(signals, limits),
        _class_counts(signals, limits),
        _coverage(signals, limits),
        _sound_feed(signals.is_feed_broken),
        _sound_labels(signals.suspect_labels),
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


def missing_labels(signals: RetrainingSignals, limits: RetrainingLimits) -> int | None:
    """Return how many more labels meet the conditions that labels can meet; None if there is none of a class yet.

    A class's further labels are shared out among the parts as the present ones are.
    """
    have = signals.n_usable_labels
    wanted = [limits.wanted_labels(signals.onset), wanted_by_back_off(signals)]
    n_rows = sum(part.n_rows for part in signals.parts or ())
    for part in signals.parts or ():
        for label, n_missing in part.missing.items():
            of_class = sum(one.n_positive if label else one.n_rows - one.n_positive for one in signals.parts or ())
            if of_class == 0 or part.n_rows == 0:
                return None
            wanted.append(have + math.ceil(n_missing * n_rows / of_class * n_rows / part.n_rows))
    return max(0, max(wanted) - have)


def wanted_by_back_off(signals: RetrainingSignals) -> int:
    """Return for how many labels the next attempt of the episode waits; 0 for the first."""
    return round(signals.n_known_labels * growth_wanted(signals)) if signals.last_attempt else 0


def growth_wanted(signals: RetrainingSignals) -> float:
    """Return by how much the labels have to grow before another attempt."""
    if signals.onset is None or signals.last_attempt is None:
        return NEW_LABELS_GROWTH
    return growth_after_change(signals.last_attempt.gates)


def growth_after_change(gates: Sequence[GateResult]) -> float:
    """Return by how much the labels since a change have to grow after a verdict with these gates.

    An inconclusive gain is shown by ((gain - bound) / gain)^2 times its rows, if it stays as it is: the distance of the bound
    shrinks with the root of their number. A challenger that was no better waits for twice as many.
    """
    gain = next((gate for gate in gates if gate.name == GATE_WITH_LEVEL.name), None)
    if gain is None or gain.status is not GateStatus.INCONCLUSIVE or not gain.value or gain.interval_low is None:
        return MOST_GROWTH_AFTER_CHANGE
    shown = ((gain.value - gain.interval_low) / gain.value) ** 2
    return min(max(shown, NEW_LABELS_GROWTH), MOST_GROWTH_AFTER_CHANGE)


def _no_champion(champion: ModelVersion | None) -> Condition:
    if champion is None:
        return Condition("no_champion", True, "no version is in production yet")
    return Condition("no_champion", False, f"version {champion.version} is in production already")


def since_change(onset: Onset | None) -> str:
    """Return since when rows count, for a sentence; empty if none is left out."""
    if onset is None:
        return ""
    what = {"outcome": "outcomes are others than announced", "score": "the score means something else"}.get(
        onset.shown_by, f"best seen by {onset.shown_by}"
    )
    return (
        f" since the relation between score and outcome changed at {onset.at:%Y-%m-%d %H:%M} UTC "
        f"(between {onset.low:%m-%d %H:%M} and {onset.high:%m-%d %H:%M}, p = {onset.p_value:.1g}; {what})"
    )


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
    have, want = signals.n_labels, limits.wanted_labels(signals.onset)
    sentence = f"{have:,} labelled predictions{since_change(signals.onset)}, {want:,} wanted"
    return Condition("labelled_samples", have >= want, sentence)


def _matured(signals: RetrainingSignals, limits: RetrainingLimits) -> Condition:
    """Require matured labels, because early ones may be of one class only; while maturity is unknown nothing is learned."""
    if signals.matured is None:
        return Condition("matured_samples", signals.n_labels == 0, f"when labels have matured is {signals.maturity}")
    have, want = signals.matured.n_labels, limits.wanted_labels(signals.onset)
    sentence = f"{have:,} labels of matured predictions, {want:,} wanted ({signals.matured.reason})"
    return Condition("matured_samples", have >= want, sentence)


def _class_counts(signals: RetrainingSignals, limits: RetrainingLimits) -> Condition:
    """Require enough labels of each class in each part: a model could be neither tuned nor judged without them."""
    if signals.parts is None:
        sentence = f"the labels of each class are counted once there are {limits.wanted_labels(signals.onset):,} labels"
        return Condition("class_counts", True, sentence)
    lacking = shortfall(signals.parts)
    if not lacking:
        counted = ", ".join(f"{part.n_positive:,} of {part.n_rows:,} {PURPOSES[part.part]}" for part in signals.parts)
        return Condition("class_counts", True, f"labels of class 1: {counted}")
    n_rows = sum(part.n_rows + part.n_copied for part in signals.parts)
    is_full = n_rows >= limits.max_rows
    remedy = f"; no more than the newest TRAINING_MAX_ROWS={limits.max_rows:,} are used: raise it" if is_full else ""
    return Condition("class_counts", False, f"of {n_rows:,} labelled rows, {lacking}{remedy}")


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
        return Condition(
            "sound_feed",
            False,
            "the feed is broken: repair it before training on it, or declare the column sound (`selfheal declare`)",
        )
    return Condition("sound_feed", True, "the feed was sound when it was last looked at")


def _sound_labels(suspect: str) -> Condition:
    """Require labels that do not contradict what was sent before: a model would learn their fault, and be judged by it."""
    if suspect:
        return Condition("sound_labels", False, suspect)
    return Condition("sound_labels", True, "no labels are withheld as suspect")


def _attempts_left(attempts: Sequence[Decision], cap: int) -> Condition:
    return Condition("attempts", len(attempts) < cap, f"{len(attempts)} of {cap} attempts of this episode are used")


def _new_labels(signals: RetrainingSignals) -> Condition:
    if signals.last_attempt is None:
        return Condition("back_off", True, "first attempt of this episode")
    if signals.n_known_labels == 0:
        return Condition(
            "back_off", True, f"none of the {signals.n_usable_labels:,} labels was there at the last attempt"
        )
    wanted = wanted_by_back_off(signals)
    more = "a quarter more than" if signals.onset is None else f"since a change {growth_wanted(signals):.2g} times"
    sentence = (
        f"{signals.n_usable_labels:,} labels, the next attempt waits for {wanted:,}: {more} the "
        f"{signals.n_known_labels:,} of them that the last one had"
    )
    return Condition("back_off", signals.n_usable_labels >= wanted, sentence)
