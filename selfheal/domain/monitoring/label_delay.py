"""Label delay: how long labels take, and from which age a prediction counts as matured.

Early labels may be of one class (a default is known at once, a repaid loan only at its end), so metrics on the rows labelled
so far are biased. Metrics on rows older than the age by which labels of *both* classes have arrived are not. That labels have
ceased to arrive does not show it: the others may come much later, or never (`label_selection`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import TRUE_LABEL, FloatArray, LabelPolicy
from selfheal.domain.monitoring.label_selection import coverage_by_class, selection
from selfheal.domain.records import ClassCoverage, LabelDelay, Window

if TYPE_CHECKING:
    import pandas as pd

AGE, DELAY, IS_REPLACED, SCORE = "age_s", "delay_s", "is_replaced", "probability"

MATURED_SHARE = 0.95
"""Share of a class's eventual labels that must arrive within a row's age, for both classes, before the row is matured."""

QUANTILES = (0.1, 0.5, 0.9)

N_SLICES, ROWS_PER_SLICE = 50, 200
"""Of a sample: the period is divided into equal slices, and the first rows of each are taken."""

WATCHED_BEYOND = 1.05
"""Multiple of the age at which almost all have a label that predictions must have reached: one batch of labels for all that is
there, each at the age it happens to have, shows no age."""

MIN_LABELS_PER_CLASS = 10
MIN_INTERIM_LABELS = 200
"""Labels within half of the age that predictions have reached, from which on they may stand for those still to come."""

MIN_OLDEST_ROWS = 50
"""The curve ends at the age that this many rows have reached: beyond it, single rows would determine it."""


@dataclass(frozen=True)
class DelayCurve:
    """The share of predictions with a label of each class (columns 0, 1), by ascending age in seconds."""

    ages_s: FloatArray
    shares: FloatArray


def sample_slices(since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """Return the slices (begin, end] of a sample's period.

    >>> from datetime import UTC
    >>> slices = sample_slices(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, 2, tzinfo=UTC))
    >>> len(slices), slices[0][1].isoformat()
    (50, '2026-01-01T01:00:00+00:00')
    """
    bounds = [since + (until - since) * number / N_SLICES for number in range(N_SLICES)] + [until]
    return list(pairwise(bounds))


def label_delay(
    sample: pd.DataFrame, declared: timedelta | None = None, policy: LabelPolicy | None = None
) -> LabelDelay:
    """Estimate the delay of labels from a sample of predictions, and the age of maturity if it is identifiable.

    It is identifiable if almost all predictions of some age have a label; or if the curve of each class is flat after the age
    of maturity (predictions were observed for at least twice that age, and almost no labels arrived in the second half) and the
    labelled predictions are like the others (`selection`). A declared age needs no curve, but the same likeness. While labels
    are still coming in, those that are like a random share of all count from half of the age that was observed.

    Args:
        sample: one row per prediction: `age_s`, its age in seconds at the last observation; `delay_s`, seconds from
            prediction to its first label; `true_label`. The last two are NaN without a label. `is_replaced`: the label has
            another value than the first one. Such rows are left out: when the value that counts was known is no delay of
            labels, but of corrections. `probability`: the score.
        declared: the age of maturity, if somebody knows it (LABEL_MATURITY_HOURS).
        policy: which outcomes ever become known, as the contract says; None: it does not say.
    """
    n_replaced = int(sample[IS_REPLACED].sum())
    sample = sample[~sample[IS_REPLACED]]
    is_labelled = sample[DELAY].notna().to_numpy()
    n_per_class = [int((sample[TRUE_LABEL] == label).sum()) for label in (0, 1)]
    horizon_s = watched_for(sample[AGE].to_numpy(dtype=np.float64))
    if min(n_per_class) < MIN_LABELS_PER_CLASS or horizon_s is None:
        reason = (
            f"not identifiable: {n_per_class[0]} labels 0 and {n_per_class[1]} labels 1 among {len(sample):,} predictions; "
            f"at least {MIN_LABELS_PER_CLASS} of each and {MIN_OLDEST_ROWS} predictions are needed"
        )
        return LabelDelay(len(sample), int(is_labelled.sum()), None, reason, n_replaced=n_replaced)
    curve = delay_curve(sample)
    ages_s = [age_of_share(curve, label, MATURED_SHARE, horizon_s) for label in (0, 1)]
    within = curve.ages_s <= horizon_s
    total = curve.shares[within].sum(axis=1)
    found = _matured_age(curve.ages_s[within], total, max(ages_s), horizon_s, declared)
    if found.why_not and declared is None:
        found = _interim_age(sample, horizon_s) or found
    chosen = "" if found.why_not else _selected(sample, found, float(total[-1]), policy)
    why_not = found.why_not or chosen
    is_known = not why_not
    return LabelDelay(
        n_predictions=len(sample),
        n_labels=int(is_labelled.sum()),
        matured_after_s=found.age_s if is_known else None,
        reason=why_not or found.reason,
        quantiles_s={f"{q:g}": float(curve.ages_s[within][np.argmax(total >= q * total[-1])]) for q in QUANTILES},
        expected_coverage_pct=100.0 * float(total[-1]) if is_known else None,
        n_replaced=n_replaced,
        matured_after_by_class_s={str(label): ages_s[label] for label in (0, 1)},
        coverage=_coverage(sample, found),
        is_selected=bool(chosen) and policy is None,
    )


@dataclass(frozen=True, slots=True)
class _MaturedAge:
    """An age of maturity and what it rests on; `why_not` says why it is none."""

    age_s: float
    reason: str
    why_not: str = ""
    is_declared: bool = False


def _matured_age(
    ages_s: FloatArray, total: FloatArray, plateau_s: float, horizon_s: float, declared: timedelta | None
) -> _MaturedAge:
    """Return the age of maturity that is declared, at which almost all are labelled, or from which the curve is flat."""
    if declared is not None:
        age_s = declared.total_seconds()
        text = f"labels count as complete after {_duration(age_s)}, as LABEL_MATURITY_HOURS says"
        late = f"not identifiable: no prediction has reached {_duration(age_s)}, the age that LABEL_MATURITY_HOURS says"
        return _MaturedAge(age_s, text, "" if age_s <= horizon_s else late, is_declared=True)
    text = f"{MATURED_SHARE:.0%} of the labels of both classes come within {_duration(plateau_s)}"
    if 2 * plateau_s <= horizon_s:
        return _MaturedAge(plateau_s, text)
    age_s = float(ages_s[np.argmax(total >= MATURED_SHARE)])
    if total[-1] >= MATURED_SHARE and WATCHED_BEYOND * age_s <= horizon_s:
        return _MaturedAge(age_s, f"{MATURED_SHARE:.0%} of the predictions have a label after {_duration(age_s)}")
    coming = (
        f"not identifiable: labels are still coming in at {_duration(horizon_s)}, the age the predictions have reached"
    )
    return _MaturedAge(plateau_s, text, coming)


def _interim_age(sample: pd.DataFrame, horizon_s: float) -> _MaturedAge | None:
    """Return half of the age that predictions have reached, if enough labels of each class come within it; else None.

    Labels are then still coming in, but those that take their time may be like the others: `_selected` judges it.
    """
    age_s = horizon_s / 2
    _, labels, _ = _of_age(sample, age_s, is_in_time=True)
    n_per_class = [int((labels == label).sum()) for label in (0, 1)]
    if sum(n_per_class) < MIN_INTERIM_LABELS or min(n_per_class) < MIN_LABELS_PER_CLASS:
        return None
    text = f"labels are still coming in, and those that come within {_duration(age_s)} are like a random share"
    return _MaturedAge(age_s, text)


def _selected(sample: pd.DataFrame, found: _MaturedAge, share: float, policy: LabelPolicy | None) -> str:
    """Return why the labels of predictions of this age are not those of all; empty if they are, as far as is known."""
    is_complete = share >= MATURED_SHARE
    if policy is not None and (declared := policy.why_not_identifiable(is_complete)):
        return declared
    if is_complete or (policy is not None and policy.labelled in {"random", "random_share"}):
        return ""
    return selection(*_of_age(sample, found.age_s, is_in_time=not found.is_declared))


def _coverage(sample: pd.DataFrame, found: _MaturedAge) -> ClassCoverage | None:
    scores, labels, _ = _of_age(sample, found.age_s, is_in_time=not found.is_declared)
    return coverage_by_class(scores, labels) if len(scores) else None


def _of_age(sample: pd.DataFrame, age_s: float, *, is_in_time: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return scores, labels and ages of predictions that have reached an age.

    Args:
        is_in_time: a label that came later counts as none, so that rows of all ages are comparable.
    """
    old = sample[sample[AGE] >= age_s]
    labels = old[TRUE_LABEL].to_numpy(dtype=np.float64)
    if is_in_time:
        labels = np.where(old[DELAY] <= age_s, labels, np.nan)
    return old[SCORE].to_numpy(dtype=np.float64), labels, old[AGE].to_numpy(dtype=np.float64)


def delay_curve(sample: pd.DataFrame) -> DelayCurve:
    """Estimate the cumulative incidence of labels 0 and 1 by age (Aalen and Johansen, 1978, Scand. J. Statistics 5).

    Labels of the two classes are competing events; a row without a label is censored at its age. With one class this is 1
    minus the Kaplan-Meier curve.
    """
    delay_s = sample[DELAY].to_numpy(dtype=np.float64)
    labels = sample[TRUE_LABEL].to_numpy(dtype=np.float64)
    has_label = ~np.isnan(delay_s)
    # If the clock went backwards, a label may precede its prediction: count it as immediate.
    followed_s = np.maximum(0.0, np.where(has_label, delay_s, sample[AGE].to_numpy(dtype=np.float64)))
    ages_s, at = np.unique(followed_s, return_inverse=True)
    events = np.column_stack([np.bincount(at[has_label & (labels == c)], minlength=len(ages_s)) for c in (0, 1)])
    n_at_risk = len(sample) - np.concatenate([[0], np.cumsum(np.bincount(at))[:-1]])
    unlabelled = np.cumprod(1 - events.sum(axis=1) / n_at_risk)
    unlabelled_before = np.concatenate([[1.0], unlabelled[:-1]])
    return DelayCurve(ages_s, np.cumsum(unlabelled_before[:, None] * events / n_at_risk[:, None], axis=0))


def watched_for(ages_s: FloatArray) -> float | None:
    """Return the age that `MIN_OLDEST_ROWS` predictions have reached; None if there are fewer."""
    if len(ages_s) < MIN_OLDEST_ROWS:
        return None
    return float(np.partition(ages_s, -MIN_OLDEST_ROWS)[-MIN_OLDEST_ROWS])


def age_of_share(curve: DelayCurve, label: int, share: float, horizon_s: float) -> float:
    """Return the age by which `share` of a class's labels within the horizon have arrived."""
    within = curve.ages_s <= horizon_s
    reached = curve.shares[within, label]
    if len(reached) == 0 or reached[-1] == 0:
        return horizon_s
    return float(curve.ages_s[within][np.argmax(reached >= share * reached[-1])])


def matured_period(
    window: Window, delay: LabelDelay, serving_since: datetime | None
) -> tuple[datetime, datetime] | None:
    """Return the matured period, as long as the window, that counts for realised metrics; None if unknown.

    A window whose rows are all labelled counts at once, whatever the curve says.

    Args:
        serving_since: when the version went live; earlier predictions do not count.
    """
    if window.n_labels >= MATURED_SHARE * window.n_predictions > 0:
        return window.start, window.end
    if delay.matured_after_s is None:
        return None
    age = timedelta(seconds=delay.matured_after_s)
    since = window.start - age
    until = min(window.end, observed_until(window) - age)
    return (since if serving_since is None else max(since, serving_since)), until


def observed_until(window: Window) -> datetime:
    """Return the time of the last observation, from the window's own rows, so that it does not depend on the clock."""
    return window.end if window.last_label_at is None else max(window.end, window.last_label_at)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
