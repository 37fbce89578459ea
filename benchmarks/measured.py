"""What a benchmark asserts of itself: that it measured as many things as it says.

A figure is only as good as what it was taken from: rows that lay in the future, requests that were all refused and kills
that hit nobody give figures too, and good ones. So each benchmark counts what it did (rows in the window, requests answered,
promotions, repetitions) where it was done, and ends with an error, without a figure, if that is not what it set out to do.
"""

from __future__ import annotations


class MeasuredOtherwiseError(Exception):
    """What was measured is not what the benchmark is about: its figures would be of something else."""


def exactly(what: str, found: float, expected: float) -> None:
    """Check a count.

    Raises:
        MeasuredOtherwiseError: if it is another one.
    """
    if found != expected:
        raise MeasuredOtherwiseError(f"{what}: {found:,}, not {expected:,}; the figures would be of something else")


def at_least(what: str, found: float, least: float) -> None:
    """Check a count that may be larger.

    Raises:
        MeasuredOtherwiseError: if it is smaller, or no number.
    """
    if not found >= least:  # nothing is at least a NaN
        raise MeasuredOtherwiseError(
            f"{what}: {found:,}, not at least {least:,}; the figures would be of something else"
        )


def within(what: str, found: float, least: float, most: float) -> None:
    """Check a count that is up to chance within known bounds.

    Raises:
        MeasuredOtherwiseError: if it is beyond them, or no number.
    """
    if not least <= found <= most:
        raise MeasuredOtherwiseError(
            f"{what}: {found:,}, not within {least:,} and {most:,}; the figures would be of something else"
        )
