"""Which settings would mend a file: found from what stands in it, and tried out before a report names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from selfheal.domain.contract import TRUE_LABEL, ModelContract
from selfheal.domain.labelled_file.data_format import DELIMITER_NAMES, DataFormat
from selfheal.domain.labelled_file.tally import ColumnTally, FileTally, TextTally
from selfheal.kit.word_lists import words_text

KNOWN_MISSING = frozenset(
    {"?", "-", "--", ".", "n/a", "#n/a", "n.a.", "na", "<na>", "none", "null", "(null)", "nil", "unknown", "unk"}
    | {"missing", "undefined", "not available"}
)
"""Words (folded) that commonly stand for a missing value."""

TRUTH_PAIRS = (("yes", "no"), ("true", "false"), ("on", "off"), ("y", "n"), ("t", "f"))
"""Words (folded) that commonly stand for 1 and 0. Of a pair of single letters both must occur: f is also female."""

COMMON_TRUTH_WORDS = frozenset(word for pair in TRUTH_PAIRS for word in pair)

COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)
POINT_NUMBER = re.compile(r"[+-]?\d+\.\d+(e[+-]?\d+)?", re.IGNORECASE)
GROUPED_NUMBER = re.compile(r"[+-]?\d{1,3}(,\d{3})+")


def mended_format(found: FileTally, contract: ModelContract, given: DataFormat) -> DataFormat:
    """Return the format with which the file can be read as far as settings can do it; `given` if none is needed."""
    texts = {name: tally.texts for name in _names(contract) if (tally := found.numbers_of(name)) is not None}
    missing = _missing_words(texts[name] for name in texts if name != TRUE_LABEL)
    of_inputs = _truth_words(texts[name] for name in texts if name != TRUE_LABEL)
    label = found.numbers_of(TRUE_LABEL)
    true, false = of_inputs if label is None else _joined(of_inputs, _label_words(label))
    unknown = tuple(
        found.match.headers[position] for position in found.match.unknown if position not in found.match.lookalikes
    )
    return replace(
        given,
        decimal=_decimal((text for one in texts.values() for text in one), given),
        missing_words=_added(given.missing_words, missing),
        true_words=_added(given.true_words, true),
        false_words=_added(given.false_words, false),
        ignored_columns=(*given.ignored_columns, *dict.fromkeys(unknown)),
    )


def settings_of(wanted: DataFormat, given: DataFormat) -> dict[str, str]:
    """Return the settings by which `wanted` differs from `given`: names and values, as in the environment."""
    values = {
        "DATA_DELIMITER": (wanted.delimiter, given.delimiter),
        "DATA_DECIMAL": (wanted.decimal, given.decimal),
        "DATA_MISSING_WORDS": (wanted.missing_words, given.missing_words),
        "DATA_TRUE_WORDS": (wanted.true_words, given.true_words),
        "DATA_FALSE_WORDS": (wanted.false_words, given.false_words),
        "DATA_IGNORED_COLUMNS": (wanted.ignored_columns, given.ignored_columns),
    }
    return {
        name: DELIMITER_NAMES.get(new, new) if isinstance(new, str) else words_text(new)
        for name, (new, old) in values.items()
        if new != old
    }


# Words


def _missing_words(columns: Iterable[Mapping[str, TextTally]]) -> Iterator[str]:
    for texts in columns:
        yield from (text for text in texts if text.casefold() in KNOWN_MISSING)


def _truth_words(columns: Iterable[Mapping[str, TextTally]]) -> tuple[list[str], list[str]]:
    """Return the words for 1 and for 0 of columns that have no other text but missing values."""
    true: list[str] = []
    false: list[str] = []
    for texts in columns:
        words = {text.casefold(): text for text in texts if text.casefold() not in KNOWN_MISSING}
        pairs = [
            pair for pair in TRUTH_PAIRS if set(pair) <= words.keys() or (len(pair[0]) > 1 and set(pair) & words.keys())
        ]
        if words and words.keys() <= {word for pair in pairs for word in pair}:
            true += [words[yes] for yes, _ in pairs if yes in words]
            false += [words[no] for _, no in pairs if no in words]
    return true, false


def _label_words(label: ColumnTally) -> tuple[list[str], list[str]]:
    """Return the words for 1 and for 0 of a label: a common pair, or two words or numbers, of which the rarer is 1."""
    common = _truth_words([label.texts])
    if any(common):
        return common
    values, counts = np.unique(label.values[~np.isnan(label.values)], return_counts=True)
    rows = {text: tally.n_rows for text, tally in label.texts.items() if text.casefold() not in KNOWN_MISSING}
    if not rows and not set(values.tolist()) <= {0.0, 1.0}:
        rows = {f"{value:g}": int(n) for value, n in zip(values, counts, strict=True)}
    elif len(values):
        return [], []
    if len(rows) != 2 or label.n_other_texts:
        return [], []
    rarer, other = sorted(rows, key=rows.__getitem__)
    return [rarer], [other]


def _joined(one: tuple[list[str], list[str]], other: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    return one[0] + other[0], one[1] + other[1]


def _added(given: tuple[str, ...], found: Iterable[str]) -> tuple[str, ...]:
    """Return `given` and what is not in it yet, without regard to case."""
    words = {word.casefold(): word for word in given}
    for word in found:
        words.setdefault(word.casefold(), word)
    return tuple(words.values())


# Numbers


def _decimal(texts: Iterable[str], given: DataFormat) -> Literal[".", ","]:
    """Return the decimal sign of the texts that are no numbers; groups of three digits say nothing about it."""
    other: Literal[".", ","] = "," if given.decimal == "." else "."
    pattern = COMMA_NUMBER if other == "," else POINT_NUMBER
    numbers = [text for text in texts if pattern.fullmatch(text)]
    is_grouped = all(GROUPED_NUMBER.fullmatch(text) for text in numbers)
    return other if numbers and not (other == "," and is_grouped) else given.decimal


def _names(contract: ModelContract) -> tuple[str, ...]:
    return (*contract.input_names, TRUE_LABEL)
