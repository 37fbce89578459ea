"""Figures with their bounds as text, the same in terminal, Markdown and page. What is not known is `-`, never 0."""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN_FIGURE = "-"
HOURS_PER_DAY = 24.0

BoundsLike = Sequence[float | None]
"""Lower bound, mean, upper bound."""


def with_bounds(bounds: BoundsLike, form: str) -> str:
    """Return a mean and, where there are some, its bounds.

    >>> with_bounds((1.26, 2.0, 3.0), "{:.1f}"), with_bounds((None, 2.0, None), "{:.1f}"), with_bounds((None, None, None), "")
    ('2.0 (1.3 to 3.0)', '2.0', '-')
    """
    low, mean, high = (None if value is None else _number(value, form) for value in bounds)
    if mean is None:
        return UNKNOWN_FIGURE
    if low is None or high is None or low == mean == high:
        return mean
    return f"{mean} ({low} to {high})"


def cost_text(bounds: BoundsLike) -> str:
    """Return a cost in Brier x rows.

    >>> cost_text((12.31, 18.04, 23.9)), cost_text((None, 1234.5, None)), cost_text((-0.01, 0.0, 0.01))
    ('18.0 (12.3 to 23.9)', '1,234', '0.0')
    """
    return with_bounds(bounds, "{:,.0f}" if abs(bounds[1] or 0.0) >= 100 else "{:.1f}")


def share_text(bounds: BoundsLike) -> str:
    """Return a share in percent.

    >>> share_text((0.5, 0.617, 0.7)), share_text((None, 1.0, None))
    ('62 % (50 to 70)', '100 %')
    """
    text = with_bounds([None if share is None else 100 * share for share in bounds], "{:.0f}")
    mean, *others = text.split(" ", 1)
    return text if text == UNKNOWN_FIGURE else " ".join([mean, "%", *others])


def days_text(hours: BoundsLike, share: float | None) -> str:
    """Return hours as days, and the share of deployments in which what is waited for came, unless it came in all.

    >>> days_text((None, 36.0, None), 1.0), days_text((None, 1440.0, None), 0.0), days_text((12.0, 36.0, 60.0), 0.8)
    ('1.5 d', 'never', '1.5 d (0.5 to 2.5), in 80 %')
    """
    if hours[1] is None or share is None:
        return UNKNOWN_FIGURE
    if share == 0:
        return "never"
    mean, *others = with_bounds([None if hour is None else hour / HOURS_PER_DAY for hour in hours], "{:.1f}").split(
        " ", 1
    )
    text = " ".join([mean, "d", *others])
    return text if share == 1 else f"{text}, in {100 * share:.0f} %"


def count_text(bounds: BoundsLike) -> str:
    """Return a mean count.

    >>> count_text((None, 3.0, None)), count_text((0.1, 0.25, 0.4))
    ('3', '0.2')
    """
    mean = bounds[1]
    if mean is None:
        return UNKNOWN_FIGURE
    return f"{mean:.0f}" if mean == round(mean) else f"{mean:.1f}"


def score_text(bounds: BoundsLike) -> str:
    """Return a score between 0 and 1 to four digits."""
    return with_bounds(bounds, "{:.4f}")


def _number(value: float, form: str) -> str:
    """Return a number as text, without the sign of a zero that was rounded."""
    text = form.format(value)
    return text.lstrip("-") if not any(digit in text for digit in "123456789") else text
