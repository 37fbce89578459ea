"""What there is to say of one column that is read: what settings mend in it, and how it breaks the contract."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from selfheal.domain.contract import TRUE_LABEL, Feature, FloatArray
from selfheal.domain.labelled_file.data_format import DataFormat, parse_number
from selfheal.domain.labelled_file.mending import (
    COMMA_NUMBER,
    COMMON_TRUTH_WORDS,
    GROUPED_NUMBER,
    POINT_NUMBER,
    settings_of,
)
from selfheal.domain.labelled_file.tally import MAX_LISTED, ColumnTally, TextTally
from selfheal.domain.labelled_file.wording import lines_shown, rows, setting, texts_shown

FindingLevel = Literal["ok", "note", "problem"]

MAX_CODES = 20
"""Largest number of codes for missing values that are considered; each is compared with all columns."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DataFinding:
    """One sentence on columns of a file (none: on the file as a whole); a `problem` stops every use of the file."""

    level: FindingLevel
    columns: tuple[str, ...]
    text: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """Return columns, finding and remedy in one line."""
        names = ", ".join(map(repr, self.columns))
        place = f"column {names}: " if len(self.columns) == 1 else f"{len(self.columns)} columns ({names}): "
        return f"{place if names else ''}{self.text}{f'; {self.remedy}' if self.remedy else ''}"


def mended_by_settings(
    header: str, tally: ColumnTally, given: DataFormat, wanted: DataFormat, *, is_label: bool
) -> Iterator[DataFinding]:
    """Yield what the settings that `wanted` adds to `given` mend in a column."""
    settings = settings_of(wanted, given)
    missing = _of_words(tally.texts, wanted.missing_words)
    if missing:
        remedy = f"set {setting('DATA_MISSING_WORDS', settings['DATA_MISSING_WORDS'])}"
        yield DataFinding("problem", (header,), f"words for a missing value: {texts_shown(missing)}", remedy)
    truth = _of_words(tally.texts, (*wanted.true_words, *wanted.false_words)) or (
        _codes(tally, given, wanted) if is_label else {}
    )
    if truth:
        named = [setting(name, settings[name]) for name in ("DATA_TRUE_WORDS", "DATA_FALSE_WORDS") if name in settings]
        is_guess = is_label and not {word.casefold() for word in truth} <= COMMON_TRUTH_WORDS
        either_way = ", or the other way round: true is what the model predicts" if is_guess else ""
        text = f"words for 1 and 0: {texts_shown(truth)}"
        yield DataFinding("problem", (header,), text, f"set {' and '.join(named)}{either_way}")
    pattern = COMMA_NUMBER if wanted.decimal == "," else POINT_NUMBER
    decimals = {text: seen for text, seen in tally.texts.items() if pattern.fullmatch(text)}
    if "DATA_DECIMAL" in settings and decimals:
        sign = "comma" if wanted.decimal == "," else "point"
        text = f"numbers with a decimal {sign}: {texts_shown(decimals)}"
        yield DataFinding("problem", (header,), text, f"set {setting('DATA_DECIMAL', wanted.decimal)}")


def breaking_the_contract(
    header: str,
    tally: ColumnTally,
    lines: Sequence[int],
    feature: Feature | None,
    codes: Collection[float],
) -> Iterator[DataFinding]:
    """Yield how a column breaks the contract; `feature` is None for the label. `codes` are those of `missing_codes`."""
    values = tally.values
    if tally.n_texts:
        yield DataFinding("problem", (header,), *_of_texts(tally, "label" if feature is None else feature.kind))
    if tally.missing.n_rows and not (feature is not None and feature.is_nullable):
        n_rows = tally.missing.n_rows
        remedy = "remove these rows: a row without a label teaches nothing"
        if feature is not None:
            remedy = "fill or remove these rows, or declare the input with is_nullable=True"
        text = f"missing value in {rows(n_rows)} ({lines_shown(tally.missing.lines)})"
        yield DataFinding("problem", (header,), text, remedy)
    if feature is None:
        is_wrong = ~np.isnan(values) & (values != 0) & (values != 1)
        remedy = "correct these rows, or name what stands for 1 and 0 in DATA_TRUE_WORDS and DATA_FALSE_WORDS"
        yield from _wrong_numbers(header, values, lines, is_wrong, "neither 0 nor 1", remedy)
        return
    if feature.kind == "bool":
        is_wrong = ~np.isnan(values) & (values != 0) & (values != 1)
        remedy = "correct these rows, or declare the input as an 'int' or a 'float'"
        yield from _wrong_numbers(header, values, lines, is_wrong, "neither true (1) nor false (0)", remedy)
        return
    limits = f"{feature.lower:g} to {feature.upper:g}"
    remedy = f"correct these rows, or widen the limits to all that is possible{_code_remedy(values, feature, codes)}"
    is_beyond = (values < feature.lower) | (values > feature.upper)
    yield from _wrong_numbers(header, values, lines, is_beyond, f"beyond the limits {limits}", remedy)
    if feature.kind == "int":
        with np.errstate(invalid="ignore"):
            is_fraction = np.isfinite(values) & (values % 1 != 0)
        remedy = "correct these rows, or declare the input as a 'float'"
        yield from _wrong_numbers(header, values, lines, is_fraction, "not a whole number", remedy)


def missing_codes(columns: Mapping[str, Any], features: Sequence[Feature]) -> tuple[float, ...]:
    """Return numbers that may stand for a missing value: alone beyond the limits of a column, repeatedly, and within no limits.

    Args:
        columns: the values of inputs and label, by name.
        features: the contract's inputs.
    """
    numbers = [feature for feature in features if feature.kind != "category"]
    known = [(columns[feature.name], feature) for feature in numbers if feature.name in columns]
    alone = [beyond for values, feature in known if len(beyond := _beyond(values, feature)) > 1]
    codes = dict.fromkeys(float(beyond[0]) for beyond in alone if (beyond == beyond[0]).all())
    in_label = set(np.unique(columns.get(TRUE_LABEL, np.empty(0))).tolist())

    def means_something(code: float) -> bool:
        return code in in_label or any(
            feature.lower <= code <= feature.upper and (values == code).any() for values, feature in known
        )

    return tuple(code for code in islice(codes, MAX_CODES) if not means_something(code))


def of_sound_column(header: str, name: str, values: FloatArray) -> DataFinding:
    """Return what there is to say of a column that keeps the contract: its range, or that it is constant."""
    present = values[~np.isnan(values)]
    missing = f", missing in {rows(len(values) - len(present))}" if len(present) < len(values) else ""
    if not len(values):
        return DataFinding("ok", (header,), f"read as {name!r}")
    if not len(present):
        return DataFinding("note", (header,), f"is missing in all {rows(len(values))}: nothing can be learned from it")
    low, high = present.min(), present.max()
    if low == high and len(present) == len(values) > 1:
        return DataFinding("note", (header,), f"is {low:g} in all {rows(len(values))}: nothing can be learned from it")
    return DataFinding("ok", (header,), f"read as {name!r}, {low:g} to {high:g}{missing}")


def _of_words(texts: Mapping[str, TextTally], words: Iterable[str]) -> dict[str, TextTally]:
    folded = {word.casefold() for word in words}
    return {text: seen for text, seen in texts.items() if text.casefold() in folded}


def _codes(tally: ColumnTally, given: DataFormat, wanted: DataFormat) -> dict[str, TextTally]:
    """Return the numbers of a label that are to be words for 1 and 0, such as 2 and 1."""
    values = tally.values
    known = {*given.true_words, *given.false_words}
    new = [word for word in (*wanted.true_words, *wanted.false_words) if word not in known]
    codes = [word for word in new if parse_number(word, ".") is not None]
    counts = {code: int((values == float(code)).sum()) for code in codes}
    return {code: TextTally(n) for code, n in counts.items() if n}


def _of_texts(tally: ColumnTally, kind: str) -> tuple[str, str]:
    if kind == "bool":
        text = f"neither true nor false in {rows(tally.n_texts)}: {texts_shown(tally.texts)}"
        return (
            text,
            "correct these rows and leave a missing value blank, or name the words in DATA_TRUE_WORDS and DATA_FALSE_WORDS",
        )
    text = f"not a number in {rows(tally.n_texts)}: {texts_shown(tally.texts)}"
    if kind == "label":
        return text, "a label is 1 or 0; name the words for them in DATA_TRUE_WORDS and DATA_FALSE_WORDS"
    if any(GROUPED_NUMBER.fullmatch(one) for one in tally.texts):
        return text, "write numbers without separators of thousands; if it is a decimal comma, set DATA_DECIMAL=,"
    return text, "correct these rows and leave a missing value blank; a text is a 'category'"


def _code_remedy(values: FloatArray, feature: Feature, codes: Collection[float]) -> str:
    beyond = _beyond(values, feature)
    code = next((code for code in codes if (beyond == code).all()), None)
    return "" if code is None else f"; if {code:.15g} stands for a missing value, set DATA_MISSING_WORDS={code:.15g}"


def _beyond(values: FloatArray, feature: Feature) -> FloatArray:
    return values[(values < feature.lower) | (values > feature.upper)]


def _wrong_numbers(
    header: str, values: FloatArray, lines: Sequence[int], is_wrong: BoolArray, what: str, remedy: str
) -> Iterator[DataFinding]:
    positions = np.flatnonzero(is_wrong)
    if len(positions):
        shown = ", ".join(f"line {lines[i]}: {values[i]:.15g}" for i in positions[:MAX_LISTED])
        yield DataFinding("problem", (header,), f"{what} in {rows(len(positions))}: {shown}", remedy)
