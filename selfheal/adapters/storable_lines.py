"""Journal lines whose derived whole numbers have more bits than their column.

Releases before the derived values were checked acknowledged such rows. Their predictions reach Postgres all the same,
with that value missing; the journal keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from selfheal.domain.derived_values import MAX_INT


@dataclass(frozen=True, slots=True)
class BlankedLine:
    """A line without the values that their columns cannot hold, and which those were."""

    line: bytes
    values: str


def blanked_lines(columns: Sequence[str], lines: Sequence[bytes], whole: Collection[str]) -> dict[int, BlankedLine]:
    """Return the lines that have a value of more than 32 bits in a column of `whole`, by their place, without it.

    >>> blanked_lines(("id", "fee"), (b"a,7", b"b,2700000000"), {"fee"})
    {1: BlankedLine(line=b'b,', values='fee = 2,700,000,000')}
    """
    places = [(place, name) for place, name in enumerate(columns) if name in whole]
    found: dict[int, BlankedLine] = {}
    for which, line in enumerate(lines):
        fields = line.split(b",")
        beyond = {name: fields[place] for place, name in places if _has_more_bits(fields[place])}
        if beyond:
            kept = (b"" if name in beyond else value for name, value in zip(columns, fields, strict=True))
            values = ", ".join(f"{name} = {int(value):,}" for name, value in beyond.items())
            found[which] = BlankedLine(b",".join(kept), values)
    return found


def _has_more_bits(text: bytes) -> bool:
    return text.lstrip(b"-").isdigit() and not -MAX_INT - 1 <= int(text) <= MAX_INT
