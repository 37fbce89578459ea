"""Durations as text for people, in one format."""

from __future__ import annotations

from datetime import timedelta


def span(duration: timedelta) -> str:
    """Return a duration as text, in its two largest units.

    >>> [span(timedelta(seconds=s)) for s in (0.4, 59, 300, 3_700, 90_000, 8_640_000)]
    ['0 s', '59 s', '5 min', '1 h 1 min', '1 d 1 h', '100 d']
    """
    seconds = max(0, int(duration.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60 % 60, seconds // 3_600 % 24, seconds // 86_400
    named = [(days, "d"), (hours, "h"), (minutes, "min")]
    first = next(place for place, (count, _) in enumerate(named) if count)
    return " ".join(f"{count} {unit}" for count, unit in named[first : first + 2] if count)
