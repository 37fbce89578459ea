"""Label delay: how long labels take, and from which age a prediction counts as matured.

The early labels may be those of one class (a default is known at once, a loan that was paid back only at its end), so metrics on
whatever is labelled so far are biased. Rows past the age at which labels of *both* classes have come in are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.domain.records import LabelDelay, Window

if TYPE_CHECKING:
    import pandas as pd

AGE, DELAY = "age_s", "delay_s"

MATURED_SHARE = 0.95
"""A row counts as matured once this share of the labels that ever come, of either class, comes within its age."""

QUANTILES = (0.1, 0.5, 0.9)

MIN_LABELS_PER_CLASS = 10
MIN_OLDEST_ROWS = 50
"""The curve is followed to the age that so many rows have reached: beyond, single rows would draw it."""


@dataclass(frozen=True)
class DelayCurve:
    """By age in seconds: the share of predictions that have a label of each class (columns 0, 1). Ages ascend."""

    ages_s: FloatArray
    shares: FloatArray


def label_delay(sample: pd.DataFrame) -> LabelDelay:
    """Estimate the delay of labels from a sample of predictions, and the age of maturity where it is identifiable.

    It can if the curve of each class has gone flat: what comes after the age of maturity has been watched for at least as long
    again, and next to nothing came.

    Args:
        sample: a row a prediction: `age_s` when last looked at; `delay_s` from prediction to label and `true_label`, NaN
            where there is no label.
    """
    is_labelled = sample[DELAY].notna().to_numpy()
    n_per_class = [int((sample[TRUE_LABEL] == label).sum()) for label in (0, 1)]
    horizon_s = watched_for(sample[AGE].to_numpy(dtype=np.float64))
    if min(n_per_class) < MIN_LABELS_PER_CLASS or horizon_s is None:
        reason = (
            f"not identifiable: {n_per_class[0]} labels 0 and {n_per_class[1]} labels 1 among {len(sample):,} predictions; "
            f"at least {MIN_LABELS_PER_CLASS} of each and {MIN_OLDEST_ROWS} predictions are needed"
        )
        return LabelDelay(len(sample), int(is_labelled.sum()), None, reason)
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
    )


def delay_curve(sample: pd.DataFrame) -> DelayCurve:
    """Cumulative incidence of labels 0 and 1 by age (Aalen and Johansen, 1978, Scandinavian Journal of Statistics 5).

    Labels of the two classes are competing events; a row without one is censored at its age. With one class this is 1 minus
    Kaplan and Meier's curve.
    """
    delay_s = sample[DELAY].to_numpy(dtype=np.float64)
    labels = sample[TRUE_LABEL].to_numpy(dtype=np.float64)
    has_label = ~np.isnan(delay_s)
    # A clock that went backwards gives a label before its prediction: that is a label at once.
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
    """Return the period whose predictions count for realised metrics: as long as the window and matured; None if unknown.

    A window whose labels are all there need not wait, whatever the curve says.

    Args:
        serving_since: when the version went live; nothing from before counts.
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
    """When the window was last looked at, by its own rows: the same rows give the same moment, whatever the clock says."""
    return window.end if window.last_label_at is None else max(window.end, window.last_label_at)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
