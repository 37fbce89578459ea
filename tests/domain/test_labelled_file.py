"""How a labelled file is read and reported on, field by field and header by header."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from selfheal.adapters.csv_files import check_file
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.labelled_file.columns import likely_delimiter, match_columns
from selfheal.domain.labelled_file.data_format import DELIMITERS, DataFormat
from selfheal.domain.labelled_file.tally import ColumnTally, IndexTally, TimeTally
from tests.toy_use_case import contract

WORDS = DataFormat(missing_words=("?", "-999"), true_words=("Yes", "2"), false_words=("no", "1"))


def read(text: str, how: DataFormat, *, is_label: bool = False) -> float | None:
    return how.field_reader(is_label=is_label)(text)


@pytest.mark.parametrize("text", ["yes", "YES", " Yes "])
def test_a_word_is_read_without_regard_to_case_and_blanks(text: str) -> None:
    assert read(text, WORDS) == 1.0


@pytest.mark.parametrize("text", ["?", "-999", "-999.0", "", "NA"])
def test_a_word_for_a_missing_value_may_be_a_number_in_any_form(text: str) -> None:
    number = read(text, WORDS)
    assert number is not None
    assert math.isnan(number)


def test_numbers_for_true_and_false_count_in_the_label_only() -> None:
    assert [read(text, WORDS, is_label=True) for text in ("2", "1.0", "no")] == [1.0, 0.0, 0.0]
    assert [read(text, WORDS) for text in ("2", "1.0", "no")] == [2.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("1,5", ",", 1.5),
        ("1.5", ".", 1.5),
        ("1,5", ".", None),
        ("1.5", ",", None),
        ("7", ",", 7.0),
        ("1.234,5", ",", None),
    ],
)
def test_a_number_has_the_decimal_sign_of_the_settings_and_no_other(
    text: str, decimal: str, number: float | None
) -> None:
    assert read(text, DataFormat(decimal="," if decimal == "," else ".")) == number


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_delimiter_is_the_one_with_which_the_contract_knows_the_header(delimiter: str) -> None:
    header = delimiter.join(("temperature_c", '"Load, or not"', "restarts", '"failed"'))
    assert likely_delimiter(header, contract, ",", DELIMITERS) == delimiter


def test_a_header_that_says_nothing_about_the_delimiter_leaves_it() -> None:
    assert likely_delimiter("a;b;c", contract, "|", DELIMITERS) == "|"


def test_each_column_is_one_thing() -> None:
    headers = ("id", "Temp-C", "temperature_c", "Load Ratio", "vendor", "site", "failed")
    match = match_columns(headers, contract, ("site", "never_there"))
    assert match.inputs == {1: "temperature_c", 6: TRUE_LABEL}
    assert (match.index, match.ignored, match.unknown) == ((0,), (5,), (3, 4))
    assert match.doubles == {2: "temperature_c"}
    assert match.missing == ("load_ratio", "restarts")
    assert match.lookalikes == {3: "load_ratio"}


def test_a_column_of_the_contract_that_is_to_be_ignored_is_missing() -> None:
    match = match_columns(contract.input_names, contract, ("restarts",))
    assert (match.ignored, match.missing) == ((2,), ("restarts", TRUE_LABEL))


def test_texts_are_counted_with_their_first_lines_and_their_number_is_bounded() -> None:
    tally = ColumnTally(DataFormat().field_reader(is_label=False))
    tally.add([f"text {row % 2_000}" for row in range(4_000)], range(4_000))
    assert (tally.n_texts, len(tally.texts)) == (4_000, 1_000)
    assert (tally.texts["text 7"].n_rows, tally.texts["text 7"].lines) == (2, [7, 2_007])


@pytest.mark.parametrize(
    ("fields", "falls", "line"),
    [
        (["2020-01-01", "2020-01-02", "", "2020-01-02"], False, None),
        (["2020-01-02", "2020-01-03 00:30", "2020-01-01", "2020-01-01"], True, 4),
        (["3", "2", "1"], False, None),
        (["2020-01-02", "2020-01-01T00:00+00:00", "2019-01-01"], False, None),
    ],
)
def test_times_that_fall_are_seen_and_what_is_no_time_is_not_judged(
    fields: list[str], falls: bool, line: int | None
) -> None:
    tally = TimeTally()
    tally.add(fields, range(2, 2 + len(fields)))
    assert tally.falls == falls
    if falls:
        assert tally.first_fall == line


def test_blank_indexes_are_no_duplicates() -> None:
    tally = IndexTally()
    tally.add(["", "", "7", "7"], [2, 3, 4, 5])
    assert (tally.doubles.n_rows, tally.first_double) == (1, "7")


def test_a_file_whose_rows_recur_says_what_they_are_worth(tmp_path: Path) -> None:
    rows = contract.synthesize(300, 1)
    path = tmp_path / "machines.csv"
    pd.concat([rows] * 3, ignore_index=True).to_csv(path, index=False)
    notes = [one.sentence for one in check_file(path, contract, DataFormat()).report.findings if one.level == "note"]
    assert any("900 rows are of 300 cases" in note and "worth at least 300 independent rows" in note for note in notes)
    rows.to_csv(path, index=False)
    found = check_file(path, contract, DataFormat()).report.findings
    assert not any("are of" in one.sentence for one in found)
