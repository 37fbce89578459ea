"""Words that the findings on a file share: counts, examples with their lines, settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from selfheal.domain.labelled_file.tally import MAX_LISTED, TextTally

MAX_LINES = 3
"""Largest number of lines named for one text."""


def rows(number: int) -> str:
    """Return a number of rows.

    >>> rows(1), rows(1200)
    ('1 row', '1,200 rows')
    """
    return "1 row" if number == 1 else f"{number:,} rows"


def texts_shown(texts: Mapping[str, TextTally]) -> str:
    """Return the commonest texts with the number of their rows and the first of their lines."""
    commonest = sorted(texts.items(), key=lambda item: -item[1].n_rows)[:MAX_LISTED]
    n_more = sum(seen.n_rows for seen in texts.values()) - sum(seen.n_rows for _, seen in commonest)
    shown = [f"{text!r} ({', '.join(_counted(seen))})" for text, seen in commonest]
    return ", ".join([*shown, f"others ({rows(n_more)})"] if n_more else shown)


def _counted(seen: TextTally) -> list[str]:
    return [rows(seen.n_rows), *([lines_shown(seen.lines[:MAX_LINES])] if seen.lines else [])]


def lines_shown(lines: Sequence[int]) -> str:
    """Return line numbers.

    >>> lines_shown([3]), lines_shown([3, 9])
    ('line 3', 'lines 3, 9')
    """
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"


def setting(name: str, value: str) -> str:
    """Return a setting as a line of `.env`, which a shell reads too.

    >>> setting("DATA_DELIMITER", ";")
    "DATA_DELIMITER=';'"
    """
    if "'" not in value:
        return f"{name}={shlex.quote(value)}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'
