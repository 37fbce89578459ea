"""What was found in a file: one bounded tally per column, filled batch by batch while the file is read."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from selfheal.domain.contract import FloatArray
from selfheal.domain.labelled_file.columns import ColumnMatch
from selfheal.domain.labelled_file.data_format import ReadField
from selfheal.domain.levels import TextArray, as_texts, level_problem

MAX_LISTED = 5
"""Largest number of examples of one kind that are retained; a file may have a hundred thousand of them."""

MAX_CHARACTERS = 80
"""Largest number of characters of a field or row that are retained as an example."""

MAX_TEXTS = 1_000
"""Largest number of different texts counted in a column of numbers; more are counted together."""


@dataclass(slots=True)
class TextTally:
    """How often a text occurs in a column, and the first lines that have it."""

    n_rows: int = 0
    lines: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """Count one more occurrence."""
        self.n_rows += 1
        if len(self.lines) < MAX_LISTED:
            self.lines.append(line)


@dataclass(slots=True)
class ColumnTally:
    """A column of numbers: a value per row (NaN where there is none), and what stands where there is none."""

    read: ReadField
    numbers: array[float] = field(default_factory=lambda: array("d"))
    missing: TextTally = field(default_factory=TextTally)
    texts: dict[str, TextTally] = field(default_factory=dict)
    n_other_texts: int = 0

    def add(self, fields: Sequence[str], lines: Sequence[int]) -> None:
        """Read the next rows' fields."""
        for text, line in zip(fields, lines, strict=True):
            number = self.read(text)
            if number is None:
                number = np.nan
                self._count(text.strip()[:MAX_CHARACTERS], line)
            elif number != number:  # NaN  # noqa: PLR0124
                self.missing.add(line)
            self.numbers.append(number)

    @property
    def values(self) -> FloatArray:
        """Return the numbers, shape (n,): a view, so no row can be added while it is in use."""
        return np.frombuffer(self.numbers, dtype=np.float64) if self.numbers else np.empty(0)

    @property
    def n_texts(self) -> int:
        """Return how many rows have a text that is no number."""
        return sum(tally.n_rows for tally in self.texts.values()) + self.n_other_texts

    def _count(self, text: str, line: int) -> None:
        if text in self.texts or len(self.texts) < MAX_TEXTS:
            self.texts.setdefault(text, TextTally()).add(line)
        else:
            self.n_other_texts += 1


@dataclass(slots=True)
class TimeTally:
    """A column that is not read: whether it holds times, and whether they rise from row to row."""

    is_time: bool = True
    n_falls: int = 0
    first_fall: int | None = None
    _last: datetime | None = None

    def add(self, fields: Sequence[str], lines: Sequence[int]) -> None:
        """Compare the next rows' times; the first field that is no time ends it."""
        for text, line in zip(fields, lines, strict=True):
            if not self.is_time:
                return
            if not text.strip():
                continue
            try:
                time = datetime.fromisoformat(text.strip())
                falls = self._last is not None and time < self._last
            except (ValueError, TypeError):  # no time, or one with a time zone after one without
                self.is_time = False
                return
            self._last = time
            if falls:
                self.n_falls += 1
                self.first_fall = self.first_fall or line

    @property
    def falls(self) -> bool:
        """Return whether the rows are not in the order of these times."""
        return self.is_time and self._last is not None and self.n_falls > 0


@dataclass(slots=True)
class IndexTally:
    """A row index: which values occur twice. Its memory grows with the rows, as that of the numbers does."""

    doubles: TextTally = field(default_factory=TextTally)
    first_double: str | None = None
    _seen: set[str] = field(default_factory=set)

    def add(self, fields: Sequence[str], lines: Sequence[int]) -> None:
        """Compare the next rows' values with all before; blank ones are left out."""
        for text, line in zip(fields, lines, strict=True):
            if text and text in self._seen:
                self.doubles.add(line)
                self.first_double = self.first_double or text
            self._seen.add(text)


@dataclass(slots=True)
class KeyTally:
    """The key of whom each row is about: the number of its text, -1 where it is blank. Each text is in memory once."""

    texts: dict[str, int] = field(default_factory=dict)
    codes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, fields: Sequence[str], lines: Sequence[int]) -> None:  # noqa: ARG002  (one signature for all tallies)
        """Record the number of each of the next rows' keys."""
        for text in map(str.strip, fields):
            self.codes.append(self.texts.setdefault(text, len(self.texts)) if text else -1)


@dataclass(slots=True)
class LevelTally:
    """A column of levels: the number of each row's text, -1 where it is missing. Each text is in memory once.

    `unfit` has for each problem (`level_problem`) a text and how often there is such a one, `missing_words` the texts that are not
    blank and mean a missing value.
    """

    is_missing: Callable[[str], bool]
    levels: dict[str, int] = field(default_factory=dict)
    codes: array[int] = field(default_factory=lambda: array("q"))
    missing: TextTally = field(default_factory=TextTally)
    missing_words: dict[str, TextTally] = field(default_factory=dict)
    unfit: dict[str, tuple[str, TextTally]] = field(default_factory=dict)

    def add(self, fields: Sequence[str], lines: Sequence[int]) -> None:
        """Record the number of each of the next rows' levels, as they stand in the file."""
        for text, line in zip(fields, lines, strict=True):
            code = self.levels.get(text)
            if code is None:
                code = self._new(text, line)
            self.codes.append(code)

    def _new(self, text: str, line: int) -> int:
        if self.is_missing(text):
            self.missing.add(line)
            if text.strip():
                self.missing_words.setdefault(text.strip(), TextTally()).add(line)
            return -1
        problem = level_problem(text)
        if problem is not None:
            self.unfit.setdefault(problem, (text[:MAX_CHARACTERS], TextTally()))[1].add(line)
            return -1
        return self.levels.setdefault(text, len(self.levels))

    @property
    def values(self) -> TextArray:
        """Return the levels, None where one is missing, shape (n,)."""
        texts = [*self.levels, None]  # the last is that of -1
        return as_texts([texts[code] for code in self.codes])


Tally = ColumnTally | TimeTally | IndexTally | KeyTally | LevelTally


@dataclass(slots=True)
class FileTally:
    """A file as it was read: its columns by position, the line of each row, and rows that do not fit the header."""

    match: ColumnMatch
    columns: dict[int, Tally]
    lines: array[int] = field(default_factory=lambda: array("q"))
    misfits: TextTally = field(default_factory=TextTally)
    misfit_examples: list[tuple[int, str]] = field(default_factory=list)
    """Number of fields and beginning of the first rows that do not fit, at the lines of `misfits`."""

    def add(self, rows: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
        """Read the next rows, which have a field per column."""
        self.lines.extend(lines)
        for position, fields in enumerate(zip(*rows, strict=True)):
            if position in self.columns:
                self.columns[position].add(fields, lines)

    def add_misfit(self, row: Sequence[str], line: int) -> None:
        """Leave out a row that has more or fewer fields than the header."""
        self.misfits.add(line)
        if len(self.misfit_examples) < MAX_LISTED:
            self.misfit_examples.append((len(row), ",".join(row)[:MAX_CHARACTERS]))

    def numbers_of(self, name: str) -> ColumnTally | None:
        """Return the column that stands for an input or `true_label`; None if there is none."""
        for position, known in self.match.inputs.items():
            tally = self.columns[position]
            if known == name and isinstance(tally, ColumnTally):
                return tally
        return None

    @property
    def keys(self) -> KeyTally | None:
        """Return the column with the key of whom a row is about; None if there is none."""
        tally = None if self.match.entity is None else self.columns[self.match.entity]
        return tally if isinstance(tally, KeyTally) else None

    @property
    def values_by_name(self) -> dict[str, FloatArray | TextArray]:
        """Return the values of inputs and label, by canonical name: numbers, or levels as texts."""
        tallies = {name: self.columns[position] for position, name in self.match.inputs.items()}
        return {name: tally.values for name, tally in tallies.items() if isinstance(tally, ColumnTally | LevelTally)}
