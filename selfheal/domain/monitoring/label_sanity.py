"""Label sanity: do the newest labels contradict the scores, or what was sent before? Then they are quarantined. Pure.

A sender of labels has faults like one of inputs: a week of inverted labels, one class only, a column of another meaning. A
model that learns from them is promoted with the best of evidence. So labels are judged before anything is learned from them,
by two statements that no change of the world that we know makes true from one day to the next:

- exchanged: the champion ranks the classes the wrong way round (AUC below 1/2, and not by chance), and inverted labels would
  be what the scores announce;
- jumped: the odds of the event are more than `ODDS_JUMP` times what the scores announce, and what the labels before said.

A drift is none of both: the relation is gone, the base rate rises fourfold, or the ranking turns, for which other rates follow
than for exchanged labels. A jump that stays is released by consistency (`RELEASE_AFTER`). Exchanged labels are not: the world
does not exchange its classes, a sender does, and only a person releases them.

Belongs here: the tests and the life of a quarantine. Does not belong here: reading labels, and what is withheld.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, norm

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.monitoring.intervals import IntArray
from selfheal.domain.monitoring.performance import roc_auc
from selfheal.domain.records import Alert, LabelCheck, LabelQuarantine, Severity
from selfheal.kit.serialization import digest_of

if TYPE_CHECKING:
    import pandas as pd

BoolArray = npt.NDArray[np.bool_]

RECEIVED_AT, SOURCE, PROBABILITY = "received_at", "label_source", "probability"
"""Columns of the newest labels, beside `true_label`."""

MAX_LABELS = 2_000
"""Newest labels that a tick judges; those before the suspect ones are what they are compared with."""

SUFFIXES = (30, 60, 120, 240, 480, 960)
"""Numbers of newest labels that are tested: a fault is seen soon whatever the number of labels a day."""

SURE = 1e-6
"""Level of each test. Calm labels are far from both null hypotheses; a relation that is gone (AUC of 1/2) is at one's edge."""

ODDS_JUMP = 10.0
"""Factor between the odds of the event in a block of labels and those announced, and those before, that no drift explains."""

MIN_HISTORY = 200
"""Labels before the suspect ones that a jump needs: early labels may be of one class alone, and are no fault."""

MIN_PER_CLASS = 10
"""Labels of each class from which the AUC has a distribution that is known."""

RIGHT_LABELS = (200, 300, 450, 700, 1_000)
"""Numbers of newest labels that show that a sender is right again, once there are enough of each class."""

RIGHT_LEVEL = 0.001
"""One-sided level at which the AUC of labels that are right again is above 1/2."""

RELEASE_AFTER = timedelta(days=28)
"""Time for which labels say the same before it is taken for the world's change: far longer than a fault that is noticed."""

MAX_SOURCES = 20
"""Sources of labels that are judged one by one, those with most labels."""

LABELS_SUSPECT = "labels_suspect"
"""Kind of the alert."""

BY_CONSISTENCY = "consistency"
"""Who released labels that remained the same for `RELEASE_AFTER`."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """Why the newest `n_labels` are suspect."""

    n_labels: int
    p_value: float
    reasons: tuple[str, ...]
    is_exchanged: bool


def check_labels(
    labels: pd.DataFrame, known: Sequence[LabelQuarantine], model_version: int, *, is_feed_broken: bool = False
) -> LabelCheck:
    """Judge the newest labels of a version: which quarantines begin with them, which end, which are open.

    Args:
        labels: the version's newest labels, by the time of their receipt, oldest first: `received_at`, `probability`,
            `true_label`, `label_source`; those that a quarantine withholds are among them.
        known: the version's quarantines.
        model_version: whose labels they are.
        is_feed_broken: the scores are of broken inputs, so that nothing begins or ends by them.
    """
    if is_feed_broken or labels.empty:
        return LabelCheck(len(labels), open=tuple(one for one in known if one.is_open))
    continued = (_continued(one, _withheld_by(one, labels)) for one in known if one.is_open)
    changed = [one for one in continued if one is not None]
    now = {one.quarantine_id: one for one in (*known, *changed)}
    if not any(one.released_at is not None and one.label_source is None for one in now.values()):
        changed += _begun(labels, list(now.values()), model_version)
    found = {one.quarantine_id: one for one in (*known, *changed)}
    return LabelCheck(len(labels), tuple(changed), tuple(one for one in found.values() if one.is_open))


def alert_of(check: LabelCheck) -> Alert | None:
    """Return the alert that labels are withheld, or None."""
    if not check.open:
        return None
    return Alert(LABELS_SUSPECT, Severity.CRITICAL, f"{sentence_of(check.open)}.", {"n_labels": check.n_labels})


def sentence_of(quarantines: Iterable[LabelQuarantine]) -> str:
    """Say which labels are withheld, why, and what releases them."""
    return "; ".join(
        f"Labels {'' if one.label_source is None else f'of {one.label_source!r} '}received since "
        f"{one.started_at:%Y-%m-%d %H:%M} UTC are withheld: {'; '.join(one.reasons)}. Check who sends them; "
        f"{_remedy(one)} (quarantine {one.quarantine_id})"
        for one in quarantines
    )


def withheld(quarantines: Iterable[LabelQuarantine]) -> str:
    """Name the labels that are withheld while a quarantine is open; empty if none is."""
    return "; ".join(
        f"labels received since {one.started_at:%Y-%m-%d %H:%M} UTC are withheld as suspect (quarantine {one.quarantine_id})"
        for one in quarantines
        if one.is_open
    )


def _remedy(one: LabelQuarantine) -> str:
    command = "`selfheal release-labels` takes them for right"
    if one.is_exchanged:
        return f"they seem inverted: labels that are right end it, or {command}"
    return f"labels that are right end it, {RELEASE_AFTER.days} days of the same labels or {command}"


# The life of a quarantine


def _begun(labels: pd.DataFrame, known: Sequence[LabelQuarantine], version: int) -> list[LabelQuarantine]:
    """Return the quarantines that begin: of all labels, or of the sources that alone are suspect."""
    free = labels[~_is_withheld(labels, known)]
    by_number: list[str] = free[SOURCE].value_counts().index.tolist()[:MAX_SOURCES]
    sources = by_number if len(by_number) > 1 else []
    vouched = {one.label_source for one in known if one.released_at is not None}
    guilty = [
        (str(source), rows, found)
        for source in sources
        if str(source) not in vouched
        for rows, others in ((free[free[SOURCE] == source], free[free[SOURCE] != source]),)
        if (found := _finding(rows, others=others[TRUE_LABEL].to_numpy(dtype=np.int64))) is not None
    ]
    if guilty and len(guilty) < len(sources):
        return [_quarantine(rows, found, version, source) for source, rows, found in guilty]
    found = _finding(free)
    return [] if found is None else [_quarantine(free, found, version, None)]


def _quarantine(rows: pd.DataFrame, found: _Finding, version: int, source: str | None) -> LabelQuarantine:
    started_at = rows[RECEIVED_AT].iloc[-found.n_labels].to_pydatetime()
    identity = digest_of("labels", version, source, started_at)[:16]
    return LabelQuarantine(
        identity, version, started_at, found.reasons, label_source=source, is_exchanged=found.is_exchanged
    )


def _continued(one: LabelQuarantine, rows: pd.DataFrame) -> LabelQuarantine | None:
    """Return how an open quarantine has changed: its labels are right again, or have been the same for long; None: neither."""
    n_right = _n_right(rows)
    if n_right:
        times = rows[RECEIVED_AT]
        last = times.iloc[-n_right - 1] if n_right < len(times) else times.iloc[0]
        return replace(one, ended_at=min(last.to_pydatetime(), times.iloc[-n_right].to_pydatetime()))
    if rows.empty:
        return None
    newest, found = rows[RECEIVED_AT].iloc[-1].to_pydatetime(), _finding(rows, has_history=False)
    if found is not None and found.is_exchanged and not one.is_exchanged:
        return replace(one, is_exchanged=True, reasons=found.reasons)
    if one.is_exchanged or newest - one.started_at < RELEASE_AFTER:
        return None
    return replace(one, ended_at=newest, released_at=newest, released_by=BY_CONSISTENCY)


def _n_right(rows: pd.DataFrame) -> int:
    """Return how many of the newest labels show that they are right again; 0 if none do."""
    labels, scores = _arrays(rows)
    for n in RIGHT_LABELS:
        y, s = labels[-n:], scores[-n:]
        if len(y) < n or min(_counts(y)) < MIN_PER_CLASS:
            continue
        if _auc_z(y, s) > norm.isf(RIGHT_LEVEL) and _jump_p(y, s, None) > SURE:
            return n
    return 0


def _is_withheld(labels: pd.DataFrame, known: Iterable[LabelQuarantine]) -> BoolArray:
    is_withheld = np.zeros(len(labels), dtype=np.bool_)
    for one in known:
        if one.released_at is None:
            is_withheld |= _is_of(one, labels)
    return is_withheld


def _withheld_by(one: LabelQuarantine, labels: pd.DataFrame) -> pd.DataFrame:
    return labels[_is_of(one, labels)]


def _is_of(one: LabelQuarantine, labels: pd.DataFrame) -> BoolArray:
    times = labels[RECEIVED_AT]
    is_within = times >= one.started_at
    if one.ended_at is not None:
        is_within &= times <= one.ended_at
    if one.label_source is not None:
        is_within &= labels[SOURCE] == one.label_source
    return np.asarray(is_within)


# The tests


def _finding(rows: pd.DataFrame, *, has_history: bool = True, others: IntArray | None = None) -> _Finding | None:
    """Return what is suspect about the newest labels, and how many of them are; None: nothing.

    The number that shows it most clearly finds it; where it begins is then where the likelihood is highest.

    Args:
        has_history: whether labels before the suspect ones are right, as far as is known.
        others: labels of other sources, which stand for a history where the source has none.
    """
    labels, scores = _arrays(rows)
    starts = _batches(rows)
    wanted = [n for n in (*SUFFIXES, min(len(labels), SUFFIXES[-1])) if SUFFIXES[0] <= n <= len(labels)]
    sizes = sorted({len(labels) - int(starts[starts <= len(labels) - n].max()) for n in wanted})
    found = [one for n in sizes for one in _tested(labels, scores, n, has_history, others)]
    clearest = min(found, key=lambda one: one.p_value, default=None)
    if clearest is None:
        return None
    n_labels = _n_suspect(labels, scores, starts, clearest)
    refined = next(_tested(labels, scores, n_labels, has_history, others), None)
    return refined or replace(clearest, n_labels=n_labels)


def _batches(rows: pd.DataFrame) -> IntArray:
    """Return where each batch begins: labels received at the same moment, which are right or wrong together."""
    received_at = rows[RECEIVED_AT]
    return np.flatnonzero(received_at.ne(received_at.shift()))


def _n_suspect(labels: IntArray, scores: FloatArray, starts: IntArray, found: _Finding) -> int:
    """Return how many of the newest labels are suspect: from the start of a batch with the highest likelihood."""
    announced = np.clip(scores, 1e-3, 1 - 1e-3)
    rate = float(np.clip(labels[-found.n_labels :].mean(), 1e-3, 1 - 1e-3))
    suspect = 1 - announced if found.is_exchanged else np.full(len(labels), rate)
    gains = np.where(labels == 1, np.log(suspect / announced), np.log((1 - suspect) / (1 - announced)))
    gain_from = np.cumsum(gains[::-1])[::-1][starts]
    return len(labels) - int(starts[np.argmax(gain_from)])


def _tested(
    labels: IntArray, scores: FloatArray, n: int, has_history: bool, others: IntArray | None
) -> Iterator[_Finding]:
    y, s, before = labels[-n:], scores[-n:], labels[:-n]
    history = before[-max(n, MIN_HISTORY) :] if has_history else None
    if history is not None and len(history) < MIN_HISTORY and others is not None and min(_counts(y)) >= MIN_PER_CLASS:
        history = others  # not for a source of one class alone, such as a debt collector: others are no measure of it
    reasons: list[str] = []
    p_reversed = p_jumped = 1.0
    n_positive, n_negative = _counts(y)
    is_ranked = min(n_positive, n_negative) >= MIN_PER_CLASS
    if is_ranked:
        p_reversed = float(norm.cdf(_auc_z(y, s)))
    if history is None or len(history) >= MIN_HISTORY:
        p_jumped = _jump_p(y, s, history)
    is_far = _jump_p(y, s, None) < SURE
    is_turned = p_reversed < (FAR_LEVEL if is_far else SURE) and 1.0 - roc_auc(y, s) >= MIRRORED_AUC
    is_exchanged = is_turned and (_jump_p(1 - y, s, None) > SURE if is_far else n >= MIN_EXCHANGED and _fits(1 - y, s))
    if is_exchanged:
        auc = f"AUC-ROC {roc_auc(y, s):.2f}"
        reasons.append(
            f"the scores rank {n:,} of them the wrong way round ({auc}), inverted they would be as announced"
        )
    if p_jumped < SURE:
        then = "" if history is None else f", {history.mean():.1%} of those before"
        reasons.append(f"{y.mean():.1%} of {n:,} are 1{then}, and the scores announce {s.mean():.1%}")
    if reasons:
        yield _Finding(n, min(p_reversed, p_jumped), tuple(reasons), is_exchanged)


FAR_LEVEL = 0.001
"""Level of the ranking where the odds are far from those announced: the two together need no history of a version."""

MIRRORED_AUC = 0.6
"""AUC of inverted labels from which on they are taken for the true ones."""

MIN_EXCHANGED = 480
"""Labels from which on their rate tells exchanged classes from a ranking that has turned, where it does not jump."""

FITS_Z = 3.0
"""Standard errors within which the rate of inverted labels is as announced."""


def _fits(labels: IntArray, scores: FloatArray) -> bool:
    """Return whether the rate of the labels is what the scores announce."""
    return abs(float((labels - scores).sum())) < FITS_Z * float(np.sqrt((scores * (1 - scores)).sum()))


def _auc_z(labels: IntArray, scores: FloatArray) -> float:
    """Return the AUC minus 1/2 in its standard errors without a relation (Mann and Whitney, 1947); ties make it cautious."""
    n_positive, n_negative = _counts(labels)
    error = np.sqrt((len(labels) + 1) / (12.0 * n_positive * n_negative))
    return float((roc_auc(labels, scores) - 0.5) / error)


def _jump_p(labels: IntArray, scores: FloatArray, history: IntArray | None) -> float:
    """Return the larger p-value of two: the odds are at most `ODDS_JUMP` times those announced, and those of the history.

    Events of unequal probabilities have no heavier tails than as many of their mean probability (Hoeffding, 1956, Annals of
    Mathematical Statistics 27), so the binomial tail is a bound. Either direction is tested.
    """
    n, k = len(labels), int(labels.sum())
    announced = [_with_odds(scores, factor).mean() for factor in (ODDS_JUMP, 1 / ODDS_JUMP)]
    sides = [binom.sf(k - 1, n, announced[0]), binom.cdf(k, n, announced[1])]
    if history is not None:
        usual = np.array([(history.sum() + 0.5) / (len(history) + 1.0)])
        before = [float(_with_odds(usual, factor)[0]) for factor in (ODDS_JUMP, 1 / ODDS_JUMP)]
        sides = [max(sides[0], binom.sf(k - 1, n, before[0])), max(sides[1], binom.cdf(k, n, before[1]))]
    return float(min(1.0, 2.0 * min(sides)))


def _with_odds(probabilities: FloatArray, factor: float) -> FloatArray:
    known = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.asarray(factor * known / (1 - known + factor * known))


def _counts(labels: IntArray) -> tuple[int, int]:
    n_positive = int(labels.sum())
    return n_positive, len(labels) - n_positive


def _arrays(rows: pd.DataFrame) -> tuple[IntArray, FloatArray]:
    return rows[TRUE_LABEL].to_numpy(dtype=np.int64), rows[PROBABILITY].to_numpy(dtype=np.float64)
