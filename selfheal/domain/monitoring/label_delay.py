"""Label delay: how long labels take, and from which age a prediction counts as matured.

Early labels may be of one class (a default is known at once, a repaid loan only at its end), so metrics on the rows labelled
so far are biased. Metrics on rows older than the age by which labels of *both* classes have arrived are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.records import LabelDelay, Window

if TYPE_CHECKING:
    import pandas as pd

AGE, DELAY, IS_REPLACED = "age_s", "delay_s", "is_replaced"

MATURED_SHARE = 0.95
"""Share of a class's eventual labels that must arrive within a row's age, for both classes, before the row is matured."""

QUANTILES = (0.1, 0.5, 0.9)

N_SLICES, ROWS_PER_SLICE = 50, 200
"""Of a sample: the period is divided into equal slices, and the first rows of each are taken."""

MIN_LABELS_PER_CLASS = 10
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


def label_delay(sample: pd.DataFrame) -> LabelDelay:
    """Estimate the delay of labels from a sample of predictions, and the age of maturity if it is identifiable.

    It is identifiable if the curve of each class is flat after the age of maturity: predictions were observed for at least
    twice that age, and almost no labels arrived in the second half.

    Args:
        sample: one row per prediction: `age_s`, its age in seconds at the last observation; `delay_s`, seconds from
            prediction to its first label; `true_label`. The last two are NaN without a label. `is_replaced`: the label has
            another value than the first one. Such rows are left out: when the value that counts was known is no delay of
            labels, but of corrections.
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
    matured_after_s = max(ages_s)
    is_flat = 2 * matured_after_s <= horizon_s
    within = curve.ages_s <= horizon_s
    total = curve.shares[within].sum(axis=1)
    text = f"{MATURED_SHARE:.0%} of the labels of both classes come within {_duration(matured_after_s)}"
    if not is_flat:
        text = f"not identifiable: labels are still coming in at {_duration(horizon_s)}, the age the predictions have reached"
    return LabelDelay(
        n_predictions=len(sample),
        n_labels=int(is_labelled.sum()),
        matured_after_s=matured_after_s if is_flat else None,
        reason=text,
        quantiles_s={f"{q:g}": float(curve.ages_s[within][np.argmax(total >= q * total[-1])]) for q in QUANTILES},
        expected_coverage_pct=100.0 * float(total[-1]) if is_flat else None,
        n_replaced=n_replaced,
    )


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
