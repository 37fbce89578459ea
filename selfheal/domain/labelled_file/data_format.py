"""How the fields of a labelled file are read as numbers: delimiter, decimal sign, words for missing, true and false."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

MISSING_TEXTS = frozenset({"", "NA", "NaN", "nan", "null", "NULL"})
"""Texts that mean a missing value in every file."""

DELIMITERS = (",", ";", "\t", "|")
"""Delimiters that a file is tried with when a report names the one it has."""

DELIMITER_NAMES = {"\t": "tab"}
"""How a delimiter is written in a setting where it is not the character itself."""

FLAGS = {"true": 1.0, "false": 0.0}
"""What a flag may be in every file, beside 1 and 0."""

ReadField = Callable[[str], float | None]
"""Return the number in a field: NaN for a missing value, None for a text that is no number."""


@dataclass(frozen=True, slots=True)
class DataFormat:
    """The settings `DATA_...` on how a file is read.

    Words are compared without surrounding blanks and without regard to case. A word that is a number (`-999`) stands for
    all ways to write it. Words for true and false that are numbers apply to the label only: in an input, 2 means 2.
    """

    delimiter: str = ","
    decimal: Literal[".", ","] = "."
    missing_words: tuple[str, ...] = ()
    true_words: tuple[str, ...] = ()
    false_words: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = ()

    def field_reader(self, *, is_label: bool, is_flag: bool = False) -> ReadField:
        """Return the function that reads each field of a column; in one of flags `true` and `false` need no setting."""
        meanings = FLAGS | self._meanings(is_label) if is_flag else self._meanings(is_label)
        words = {word.casefold(): meaning for word, meaning in meanings.items()}
        numbers = {
            number: meaning for word, meaning in meanings.items() if (number := parse_number(word, ".")) is not None
        }
        decimal = self.decimal

        def read(text: str) -> float | None:
            value = text.strip()
            if value in MISSING_TEXTS:
                return math.nan
            if words and (meaning := words.get(value.casefold())) is not None:
                return meaning
            number = parse_number(value, decimal)
            return numbers.get(number, number) if numbers and number is not None else number

        return read

    def missing_reader(self) -> Callable[[str], bool]:
        """Return the function that says of each field of a column of levels whether its value is missing."""
        words = {word.casefold() for word in self.missing_words}
        return lambda text: (value := text.strip()) in MISSING_TEXTS or value.casefold() in words

    def _meanings(self, is_label: bool) -> dict[str, float]:
        """Return what each word stands for; a word with two meanings is missing before it is anything else."""
        truth = dict.fromkeys(self.false_words, 0.0) | dict.fromkeys(self.true_words, 1.0)
        applying = {word: value for word, value in truth.items() if is_label or parse_number(word, ".") is None}
        return applying | dict.fromkeys(self.missing_words, math.nan)


def parse_number(text: str, decimal: str) -> float | None:
    """Return the number that a text is, exactly; None if it is none.

    With a decimal comma a point is refused: whether it groups thousands or is a decimal sign cannot be known.

    >>> parse_number("12,5", ","), parse_number("1.234,5", ","), parse_number("1_000", ".")
    (12.5, None, None)
    """
    if decimal == ",":
        if "." in text:
            return None
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    # Python parses 1_000 as 1000 and "nan" as a number, which a CSV does not mean.
    return None if math.isnan(number) or "_" in text else number
